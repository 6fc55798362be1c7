"""Codes whose first level is given, such as the clusters of a `ClusterHead`."""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data import FriendGraph, UserIds
from graphrec.data.checks import check_graph, check_index
from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer.fit import CodebookFit, default_codebook_size
from graphrec.tokenizer.id_positions import id_positions
from graphrec.tokenizer.residual_kmeans import ResidualKMeans
from graphrec.tokenizer.tokenizer import MAX_CODES

CLUSTER_DIM = 64
"""Width of the random direction that represents a cluster in a vector."""

CLUSTER_NORM = 0.98
"""Norm of that part of a vector of norm 1: nearly all, so that it decides the first code."""


class ClusterCodes(ResidualKMeans):
    """First codes from given clusters, further ones by residual k-means over spectral embeddings.

    `assign` sets the clusters before the fit. Users without a cluster, and newcomers, get the code of the
    cluster that most of their contacts are in, or near.

    Args:
        dim, **settings: as in `ResidualKMeans`; with at least as many codes as clusters.
    """

    _assigned: tuple[UserIds, Tensor] | None = None

    def assign(self, graph: FriendGraph, cluster: Tensor) -> Self:
        """Set the clusters for the next fit.

        Args:
            graph: whose users are in the clusters.
            cluster: [N] int64; -1 for users without a cluster.

        Returns:
            this tokenizer.

        Raises:
            TypeError: clusters are not integers.
            ValueError: `cluster` is not [N], or there are more clusters than codes.
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
        """Compute spectral embeddings, and join them with the directions of clusters."""
        if self._assigned is None:
            raise ValueError("set the clusters first: assign(graph, cluster)")
        ids, cluster = self._assigned
        self._assigned = None  # ids are not kept beyond the fit
        super().learn(graph, until)
        position = id_positions(UserIds(graph.user_ids.raw), ids)
        cluster = torch.where(position >= 0, cluster[position], -1)
        direction = self._directions()[cluster] * (cluster >= 0)[:, None]
        rest = (1.0 - CLUSTER_NORM**2) ** 0.5 * self._vectors
        self._vectors = F.normalize(torch.cat([CLUSTER_NORM * direction, rest], dim=1), dim=1)

    def quantize(self, vectors: Tensor, fit: CodebookFit) -> ResidualQuantizer:
        """Make the first codebook of the clusters' mean vectors, the others by residual k-means."""
        codebook_size, generator = fit.codebook_size, fit.generator
        out = ResidualQuantizer(
            vectors.size(1), num_codebooks=self.num_codebooks, codebook_size=codebook_size
        )
        similarity = vectors[:, :CLUSTER_DIM] @ self._directions().T
        code = similarity.argmax(1)
        total = torch.zeros(codebook_size, vectors.size(1)).index_add_(0, code, vectors)
        size = torch.bincount(code, minlength=codebook_size)[:, None]
        empty = F.pad(CLUSTER_NORM * self._directions(), (0, vectors.size(1) - CLUSTER_DIM))
        out.codebooks[0] = torch.where(size > 0, total / size.clamp(min=1), empty)
        if self.num_codebooks > 1:
            rest = ResidualQuantizer(
                vectors.size(1), num_codebooks=self.num_codebooks - 1, codebook_size=codebook_size
            )
            rest.initialize(vectors - out.codebooks[0][code], generator, balanced=self.balanced)
            out.codebooks[1:] = rest.codebooks
        return out

    def _directions(self) -> Tensor:
        """Random unit vectors that represent clusters: [K, CLUSTER_DIM]."""
        assert self.codebook_size is not None
        generator = torch.Generator().manual_seed(self.seed)
        return F.normalize(torch.randn(self.codebook_size, CLUSTER_DIM, generator=generator), dim=1)
