"""Codes whose first level was learned elsewhere: the clusters of a model that predicts who comes next."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data import FriendGraph, UserIds
from graphrec.data.checks import check_graph, check_index
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.names import positions
from graphrec.tokenizer.residual_kmeans import ResidualKMeans
from graphrec.tokenizer.tokenizer import MAX_CODES, Before, default_codebook_size

CLUSTER_DIM, CLUSTER_NORM = 64, 0.98
"""Width of what stands for a cluster, and its part in a vector of norm 1: nearly all, so that it decides."""


class ClusterCodes(ResidualKMeans):
    """First codes that are given, further ones by residual k-means over spectral embeddings inside of them.

    `assign` says who is in which cluster, before the fit. Whoever is in none, and newcomers, have the code of
    the cluster that their contacts are mostly in, or near.

    Args:
        dim, num_codebooks, codebook_size, unique, seed: as in `ResidualKMeans`; there are at least as many
            codes as clusters.
    """

    def __init__(
        self,
        *,
        dim: int = 32,
        num_codebooks: int = 3,
        codebook_size: int | None = None,
        unique: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            dim=dim, num_codebooks=num_codebooks, codebook_size=codebook_size, unique=unique, seed=seed
        )
        self._assigned: tuple[UserIds, Tensor] | None = None

    def assign(self, graph: FriendGraph, cluster: Tensor) -> Self:
        """Say who is in which cluster: [N] int64, -1 for whoever is in none. The next fit uses it.

        Raises:
            ValueError: it is not one number a user, or there are more clusters than codes.
        """
        check_graph(graph)
        if not isinstance(cluster, Tensor) or cluster.is_floating_point() or cluster.dtype == torch.bool:
            kind = cluster.dtype if isinstance(cluster, Tensor) else type(cluster).__name__
            raise TypeError(f"cluster must be a tensor of integers, got {kind}")
        if cluster.shape != (graph.num_users,):
            raise ValueError(f"cluster must be [{graph.num_users}], got {list(cluster.shape)}")
        cluster = check_index("1 + cluster", cluster.long() + 1, MAX_CODES + 1) - 1
        size = 1 + int(cluster.max())
        default = default_codebook_size(graph.num_users, self.num_codebooks)
        self.codebook_size = self.codebook_size or max(size, default)
        if size > self.codebook_size:
            raise ValueError(f"there are {size} clusters and {self.codebook_size} codes to a level")
        self._assigned = graph.user_ids, cluster
        return self

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Embed the graph, and put the clusters beside it."""
        if self._assigned is None:
            raise ValueError("say who is in which cluster first: assign(graph, cluster)")
        ids, cluster = self._assigned
        self._assigned = None  # nothing of people is kept but their places
        super().learn(graph, until)
        position = positions(UserIds(graph.user_ids.raw), ids)
        cluster = torch.where(position >= 0, cluster[position], -1)
        stands = self._directions()[cluster] * (cluster >= 0)[:, None]
        rest = (1.0 - CLUSTER_NORM**2) ** 0.5 * self._places
        self._places = F.normalize(torch.cat([CLUSTER_NORM * stands, rest], dim=1), dim=1)

    def quantise(
        self,
        vectors: Tensor,
        codebook_size: int,
        generator: torch.Generator,
        before: Before | None = None,
    ) -> ResidualQuantizer:
        """The clusters, and residual k-means of what is left."""
        out = ResidualQuantizer(
            vectors.size(1), num_codebooks=self.num_codebooks, codebook_size=codebook_size
        )
        stands = vectors[:, :CLUSTER_DIM] @ self._directions().T
        code = stands.argmax(1)
        total = torch.zeros(codebook_size, vectors.size(1)).index_add_(0, code, vectors)
        size = torch.bincount(code, minlength=codebook_size)[:, None]
        empty = F.pad(CLUSTER_NORM * self._directions(), (0, vectors.size(1) - CLUSTER_DIM))
        out.codebooks[0] = torch.where(size > 0, total / size.clamp(min=1), empty)
        if self.num_codebooks > 1:
            rest = ResidualQuantizer(
                vectors.size(1), num_codebooks=self.num_codebooks - 1, codebook_size=codebook_size
            )
            rest.initialise(vectors - out.codebooks[0][code], generator, balanced=self.balanced)
            out.codebooks[1:] = rest.codebooks
        return out

    def _directions(self) -> Tensor:
        """What stands for the clusters, [K, CLUSTER_DIM], of norm 1."""
        assert self.codebook_size is not None
        generator = torch.Generator().manual_seed(self.seed)
        return F.normalize(torch.randn(self.codebook_size, CLUSTER_DIM, generator=generator), dim=1)
