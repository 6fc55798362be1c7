"""Embedding tables of users and of clusters, and the memberships of users in clusters."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.features import NUM_QUERY_FEATURES
from graphrec.nn.layers import Standardize, mlp
from graphrec.nn.presence import PresenceScore
from graphrec.nn.quantizer import capacitated_nearest
from graphrec.nn.user_table import keep_rows

CLUSTERS_PER_USER = 2
"""Clusters that a user may be in at once."""

TEMPERATURE_START, TEMPERATURE_END = 1.0, 0.2
"""Temperature of the memberships in the first epoch, and in the last."""

NUM_CLUSTER_FEATURES = 7


class ClusterTable(nn.Module):
    """User embeddings, and C cluster embeddings that both towers share.

    A user's memberships are a softmax over the dot products of user and cluster embeddings, divided by a
    temperature. It takes the largest two; if clusters start at random, all of them in the first half of
    training, so that each cluster gets gradients from all users. In both towers the membership-weighted sum
    of cluster embeddings is added to the user embedding. Row 0 of the user table stands for every unknown
    user, who is in no cluster.

    Args:
        num_known: users with an event in training; they have the rows from 1 on.
        num_clusters: C.
        embedding_dim: D, width of both tables.
        presence: also score targets by recent activity (`PresenceScore`).
        first: [num_known] int64, each user's initial cluster; None starts at random.

    Attributes:
        user, bias: [num_known + 1, D] embeddings and [num_known + 1, 1] biases of users.
        cluster, cluster_bias: [C, D] embeddings and [C] biases of clusters.
        temperature: [], of the memberships.
        is_soft: whether memberships spread over all clusters, not only two.
    """

    temperature: Tensor

    def __init__(
        self,
        num_known: int,
        *,
        num_clusters: int,
        embedding_dim: int,
        presence: bool,
        first: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.user = nn.Embedding(num_known + 1, embedding_dim, sparse=True)  # row-sparse, as in `UserTable`
        self.bias = nn.Embedding(num_known + 1, 1, sparse=True)
        self.cluster = nn.Parameter(torch.empty(num_clusters, embedding_dim))
        self.cluster_bias = nn.Parameter(torch.zeros(num_clusters))
        self.standardize_cluster = Standardize(NUM_CLUSTER_FEATURES)
        self.feature_score = mlp(NUM_CLUSTER_FEATURES, 16, 1)
        self.assigned = mlp(NUM_QUERY_FEATURES + 1, 16, 1)
        self.presence = PresenceScore() if presence else None
        self.register_buffer("temperature", torch.tensor(TEMPERATURE_START))
        self.starts_at_random, self.is_soft = first is None, first is None
        self.initialize(first)

    def initialize(self, first: Tensor | None) -> None:
        """Initialize the weights that do not keep torch's defaults."""
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
        """Set `temperature` and `is_soft` for an epoch."""
        ratio = TEMPERATURE_END / TEMPERATURE_START
        self.temperature.fill_(TEMPERATURE_START * ratio ** (epoch / max(1, max_epochs - 1)))
        self.is_soft = self.starts_at_random and 2 * epoch < max_epochs

    def affinity(self, vectors: Tensor) -> Tensor:
        """Logits of the clusters of user embeddings [n, D]: [n, C]."""
        return vectors @ self.cluster.T / self.temperature

    def memberships(self, affinity: Tensor) -> Tensor:
        """Membership shares from logits [n, C]: [n, C], rows sum to 1."""
        if self.is_soft:
            return affinity.softmax(1)
        best, share = largest_memberships(affinity)
        return torch.zeros_like(affinity).scatter_add(1, best, share)

    def next_cluster(self, vector: Tensor, features: Tensor) -> Tensor:
        """Logits of the target's cluster.

        Args:
            vector: [B, D], of queries.
            features: [B, C, NUM_CLUSTER_FEATURES], of `ClusterIndex.features`.

        Returns:
            [B, C].
        """
        score = self.feature_score(self.standardize_cluster(features)).squeeze(2)
        out: Tensor = vector @ self.cluster.T + self.cluster_bias + score
        return out

    def is_assigned(self, features: Tensor, num_unassigned: Tensor) -> Tensor:
        """Logit of the probability that the target is in any cluster.

        Args:
            features: [B, NUM_QUERY_FEATURES], standardized.
            num_unassigned: [B], users who are in no cluster at the time.

        Returns:
            [B].
        """
        size = num_unassigned.clamp(min=1).float().log() / 10.0
        out: Tensor = self.assigned(torch.cat([features, size[:, None]], dim=1)).squeeze(1)
        return out

    def with_rows(self, rows: Tensor) -> ClusterTable:
        """Copy with only row 0 (unknown users) and rows [n] int64, from 1 on, renumbered 1..n."""
        out = copy.deepcopy(self)
        keep_rows([out.user, out.bias], rows)
        return out


def largest_memberships(affinity: Tensor) -> tuple[Tensor, Tensor]:
    """The clusters with the largest memberships of each user, and their shares, which sum to 1.

    Args:
        affinity: [n, C] logits.

    Returns:
        (cluster [n, CLUSTERS_PER_USER] int64, share [n, CLUSTERS_PER_USER]); with C = 1 the second share is
        0.
    """
    best = affinity.topk(min(CLUSTERS_PER_USER, affinity.size(1)), dim=1)
    cluster, share = best.indices, best.values.softmax(1)
    missing = CLUSTERS_PER_USER - share.size(1)
    return F.pad(cluster, (0, missing)), F.pad(share, (0, missing))


def balanced_assignment(
    vectors: Tensor, clusters: Tensor, temperature: float, min_second_share: float, balance_factor: float
) -> tuple[Tensor, Tensor]:
    """Assign users to clusters such that none is the first cluster of more users than its capacity.

    Args:
        vectors: [n, D], of users.
        clusters: [C, D].
        temperature: of the shares.
        min_second_share: users whose second share would be smaller are in their first cluster alone.
        balance_factor: capacity of a cluster, as a multiple of the mean number of users; at least 1.

    Returns:
        (cluster [n, CLUSTERS_PER_USER] int64, share [n, CLUSTERS_PER_USER]).
    """
    n, size = len(vectors), len(clusters)
    capacity = max(1, -(-n // size), int(balance_factor * n / size))
    parts = [largest_memberships(part @ clusters.T / temperature) for part in vectors.split(2**16)]
    cluster, share = torch.cat([one for one, _ in parts]), torch.cat([two for _, two in parts])
    if int(torch.bincount(cluster[:, 0], minlength=size).max()) > capacity:
        # The nearest by dot product: norms are made equal by one more column.
        norm = clusters.square().sum(1)
        even = torch.cat([clusters, (norm.max() - norm).sqrt()[:, None]], dim=1)
        first = capacitated_nearest(F.pad(vectors, (0, 1)), even, torch.full((1, size), capacity))
        moved = first != cluster[:, 0]
        cluster, share = cluster.clone(), share.clone()
        cluster[moved, 0] = first[moved]
        share[moved] = torch.tensor([1.0] + [0.0] * (CLUSTERS_PER_USER - 1))
    single = share[:, 1] < min_second_share
    share = torch.where(single[:, None], torch.eye(CLUSTERS_PER_USER)[0], share)
    return torch.where(share > 0, cluster, cluster[:, :1]), share
