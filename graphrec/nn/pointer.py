"""The neighbour pointer: a copy head over the people of a temporal neighbourhood."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Shifts and scales features by the mean and deviation of the first batches seen in training.

    Args:
        num_features: F.
        num_batches: how many batches set the statistics.

    Shapes:
        forward: [..., F] -> [..., F], clamped to +-8.
    """

    seen: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, num_features: int, *, num_batches: int = 20) -> None:
        super().__init__()
        self.num_batches = num_batches
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("square", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise, taking note of a batch while still learning how."""
        if self.training and x.numel() and int(self.seen) < self.num_batches:
            flat = x.detach().reshape(-1, x.size(-1))
            self.seen += 1
            self.mean += (flat.mean(0) - self.mean) / self.seen
            self.square += (flat.square().mean(0) - self.square) / self.seen
        deviation = (self.square - self.mean.square()).clamp(min=1e-4).sqrt()
        return ((x - self.mean) / deviation).clamp(-8.0, 8.0)


class NeighborPointer(nn.Module):
    """Scores each person of a neighbourhood from the state of the pair and the query.

    Pointer networks (Vinyals et al. 2015, https://arxiv.org/abs/1506.03134) attend by content; here the
    content is mostly the state of the pair (gaps and counts both ways, recency rank), which heuristics show
    to be what decides.

    Args:
        num_pair_features: features of the pair.
        num_query_features: features of the query.
        hidden_channels: width of the MLP.

    Shapes:
        forward: pair [M, P], query [M, Q] -> logits [M].
    """

    def __init__(self, num_pair_features: int, num_query_features: int, *, hidden_channels: int = 32) -> None:
        super().__init__()
        self.score = mlp(num_pair_features + num_query_features, hidden_channels, 1)

    def forward(self, pair: Tensor, query: Tensor) -> Tensor:
        """Logits of the people, before they are normalised over each query's own."""
        out: Tensor = self.score(torch.cat([pair, query], dim=1)).squeeze(1)
        return out


def mlp(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    """Two hidden GELU layers; the last layer starts at zero, so that training starts from a flat score."""
    last = nn.Linear(hidden_channels, out_channels)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.GELU(),
        nn.Linear(hidden_channels, hidden_channels),
        nn.GELU(),
        last,
    )


def segment_log_softmax(logits: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Log-softmax of ragged rows: logits [M], row [M] int64 -> [M]."""
    peak = logits.new_full((num_rows,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    total = logits.new_zeros(num_rows).index_add(0, row, (logits - peak[row]).exp())
    return logits - peak[row] - total[row].log()
