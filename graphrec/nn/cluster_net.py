"""Clusters of people that are learned with the next target: who belongs to which, and which comes next."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.nn.features import NUM_QUERY_FEATURES
from graphrec.nn.layers import Standardize, mlp
from graphrec.nn.quantizer import bounded_nearest
from graphrec.nn.towers import PRESENCE, Presence, UserTower

SLOTS = 2
"""Clusters somebody may be in: who bridges two circles is in both."""

WARM, COLD = 1.0, 0.2
"""Temperature of the memberships in the first epoch, and in the last."""

NUM_CLUSTER_FEATURES = 7


class ClusterNet(UserTower):
    """The user tower, a table of users, and C cluster embeddings that both towers share.

    A user embedding's dot products with the clusters, over a temperature, make their memberships: a softmax
    over the largest two; where clusters are drawn, over all of them in the first half of training, so that
    each hears from everyone. In both towers the sum of cluster embeddings, so weighed, is added to the
    user's. Row 0 of the table is the stranger, who is in no cluster.

    Args:
        num_known: users with an event in training.
        num_actions: A.
        num_clusters: C.
        embedding_dim: D, width of both tables.
        sources: as in `TwoTowerNet`.
        first: [num_known] int64, the clusters to start from; by default drawn.
        **sizes: of `UserTower`.
    """

    temperature: Tensor

    def __init__(
        self,
        num_known: int,
        num_actions: int,
        *,
        num_clusters: int,
        embedding_dim: int,
        sources: Collection[str],
        first: Tensor | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(num_actions, embedding_dim=embedding_dim, sources=sources, **sizes)
        self.user = nn.Embedding(num_known + 1, embedding_dim, sparse=True)  # row-sparse, as in `TwoTowerNet`
        self.bias = nn.Embedding(num_known + 1, 1, sparse=True)
        self.cluster = nn.Parameter(torch.empty(num_clusters, embedding_dim))
        self.cluster_bias = nn.Parameter(torch.zeros(num_clusters))
        self.standardize_cluster = Standardize(NUM_CLUSTER_FEATURES)
        self.near = mlp(NUM_CLUSTER_FEATURES, 16, 1)
        self.placed = mlp(NUM_QUERY_FEATURES + 1, 16, 1)
        self.presence = Presence() if PRESENCE in sources else None
        self.register_buffer("temperature", torch.tensor(WARM))
        self.is_drawn, self.is_soft = first is None, first is None
        self.initialize(first)

    def initialize(self, first: Tensor | None) -> None:
        """All initial values that differ from torch's own."""
        nn.init.normal_(self.cluster, std=0.5)
        nn.init.normal_(self.user.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)
        if first is not None:
            norm = self.cluster.detach().square().sum(1, keepdim=True).sqrt()
            with torch.no_grad():
                self.user.weight[1:] += 1.5 * (self.cluster / norm)[first]

    @property
    def num_clusters(self) -> int:
        """C."""
        return self.cluster.size(0)

    def anneal(self, epoch: int, max_epochs: int) -> None:
        """Set the temperature of an epoch, and whether all clusters count, from soft to hard."""
        self.temperature.fill_(WARM * (COLD / WARM) ** (epoch / max(1, max_epochs - 1)))
        self.is_soft = self.is_drawn and 2 * epoch < max_epochs

    def affinity(self, vectors: Tensor) -> Tensor:
        """Log-odds of the clusters for user embeddings [n, D]: [n, C]."""
        return vectors @ self.cluster.T / self.temperature

    def memberships(self, affinity: Tensor) -> Tensor:
        """Shares of clusters [n, C], which sum to 1, by their log-odds [n, C]."""
        if self.is_soft:
            return affinity.softmax(1)
        best, share = largest(affinity)
        return torch.zeros_like(affinity).scatter_add(1, best, share)

    def next_cluster(self, vector: Tensor, features: Tensor) -> Tensor:
        """Log-odds of the next target's cluster: [B, C].

        Args:
            vector: [B, D], of queries.
            features: [B, C, NUM_CLUSTER_FEATURES], of `Clusters.features`.
        """
        near = self.near(self.standardize_cluster(features)).squeeze(2)
        out: Tensor = vector @ self.cluster.T + self.cluster_bias + near
        return out

    def is_placed(self, features: Tensor, num_without: Tensor) -> Tensor:
        """Log-odds [B] that the next target is in a cluster; `num_without` [B] people are in none."""
        said = num_without.clamp(min=1).float().log() / 10.0
        out: Tensor = self.placed(torch.cat([features, said[:, None]], dim=1)).squeeze(1)
        return out


def largest(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest clusters and their shares, which sum to 1: (cluster [n, SLOTS] int64, share [n, SLOTS]).

    Of a single cluster, the second slot has share 0.
    """
    best = affinity.topk(min(SLOTS, affinity.size(1)), dim=1)
    cluster, share = best.indices, best.values.softmax(1)
    missing = SLOTS - share.size(1)
    return F.pad(cluster, (0, missing)), F.pad(share, (0, missing))


def settled(
    vectors: Tensor, clusters: Tensor, temperature: float, bridge: float, most: float
) -> tuple[Tensor, Tensor]:
    """Memberships in which no cluster is the first of more than `most` times the mean; those too many move.

    Args:
        vectors: [n, D], of users.
        clusters: [C, D].
        temperature: of the shares.
        bridge: who has less than this share of the second cluster is in one alone.
        most: at least 1.
    """
    n, size = len(vectors), len(clusters)
    room = max(1, -(-n // size), int(most * n / size))
    parts = [largest(part @ clusters.T / temperature) for part in vectors.split(2**16)]
    cluster, share = torch.cat([one for one, _ in parts]), torch.cat([two for _, two in parts])
    if int(torch.bincount(cluster[:, 0], minlength=size).max()) > room:
        # The nearest by dot product: norms are made equal by one more column.
        norm = clusters.square().sum(1)
        even = torch.cat([clusters, (norm.max() - norm).sqrt()[:, None]], dim=1)
        first = bounded_nearest(F.pad(vectors, (0, 1)), even, torch.full((1, size), room))
        moved = first != cluster[:, 0]
        cluster, share = cluster.clone(), share.clone()
        cluster[moved, 0] = first[moved]
        share[moved] = torch.tensor([1.0] + [0.0] * (SLOTS - 1))
    alone = share[:, 1] < bridge
    share = torch.where(alone[:, None], torch.eye(SLOTS)[0], share)
    return torch.where(share > 0, cluster, cluster[:, :1]), share
