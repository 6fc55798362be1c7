"""The network of the default tokenizer, and linear maps from features of users to its inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.nn import ResidualQuantizer
from graphrec.nn.graph_encoder import GraphEncoder
from graphrec.tokenizer.gnn.inputs import AGE_CHANNELS, NODE_CHANNELS
from graphrec.tokenizer.gnn.objective import TieObjective

MAX_PROFILE_CHANNELS = 64
"""Width above which features of users are replaced by principal components."""

RIDGE_PENALTY = 10.0
"""Penalty of the regression of spectral embeddings on features, in number of users."""

CODEBOOK_STARTS, VECTORS_PER_CODE = 4, 256
"""Runs of k-means for the codebook that training starts from, and sampled vectors for each code."""


class TieNetwork(nn.Module):
    """The encoder that is trained, with its objective.

    Args:
        dim: D, of embeddings.
        num_actions: actions of the graph.
        profile_channels: Fp, features of users.
        num_layers: rounds of messages.
    """

    def __init__(self, dim: int, num_actions: int, profile_channels: int, num_layers: int) -> None:
        super().__init__()
        self.encoder = GraphEncoder(
            dim,
            edge_channels=AGE_CHANNELS + 2 * num_actions,
            node_channels=NODE_CHANNELS,
            profile_channels=profile_channels,
            num_layers=num_layers,
        )
        self.objective = TieObjective(dim)


def fit_profile_components(x: Tensor) -> Tensor:
    """Fit standardization and principal components of features.

    Args:
        x: [N, F], features of users.

    Returns:
        [F, 1 + Fp]: the mean of each feature, then Fp = min(F, 64) components.
    """
    mean, scale = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-3)
    basis = torch.eye(x.size(1))
    if x.size(1) > MAX_PROFILE_CHANNELS:
        basis = torch.svd_lowrank((x - mean) / scale, q=MAX_PROFILE_CHANNELS)[2]
    spread = (((x - mean) / scale) @ basis).std(0, unbiased=False).clamp(min=1e-3)
    return torch.cat([mean[:, None], (basis / scale[:, None]) / spread], dim=1)


def apply_profile_components(x: Tensor, components: Tensor) -> Tensor:
    """Features of users [N, F] in terms of components [F, 1 + Fp], within 8 deviations: [N, Fp]."""
    mean, basis = components[:, 0], components[:, 1:]
    out: Tensor = ((x - mean) @ basis).clamp(-8.0, 8.0)
    return out


def regress_on_profile(spectral: Tensor, profile: Tensor) -> Tensor:
    """Weights [Fp, D] that predict spectral embeddings [N, D] from features [N, Fp] (ridge regression)."""
    x, width = profile.double(), profile.size(1)
    gram = x.T @ x + RIDGE_PENALTY * torch.eye(width, dtype=torch.float64)
    out: Tensor = torch.linalg.solve(gram, x.T @ spectral.double())
    return out.float()


def initial_codebook(sample: Tensor, codebook_size: int, *, balanced: bool, seed: int) -> Tensor:
    """The codebook [K, D] with the least error of several runs of k-means on a sample of vectors [M, D]."""
    found = []
    for start in range(CODEBOOK_STARTS):
        generator = torch.Generator().manual_seed(seed + start)
        one = ResidualQuantizer(sample.size(1), num_codebooks=1, codebook_size=codebook_size)
        code = one.initialize(sample, generator, balanced=balanced)
        found.append((float((sample - one.decode(code)).square().sum()), start, one.codebooks[0]))
    return min(found)[2]
