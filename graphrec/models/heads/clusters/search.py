"""Search for candidates in the most probable clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.retrieval.topk import tie_order

if TYPE_CHECKING:
    from graphrec.models.heads.clusters.head import BoundClusterHead

Found = tuple[Tensor, Tensor, Tensor]
"""(row [V], user [V]) int64, and probabilities [V]."""

MIN_PROBED = 100
"""Smallest number of users to search."""

QUERIES_PER_SEARCH = 256
MIN_PROBABILITY = 1e-30


@dataclass(frozen=True)
class ClusterSearch:
    """Finds candidates: all members of the most probable clusters, neighbors, and unassigned users.

    Attributes:
        head: gives the clusters.
    """

    head: BoundClusterHead

    @staticmethod
    def query_groups(tick: Tensor) -> list[Tensor]:
        """See `Searches`."""
        return list(torch.arange(len(tick)).split(QUERIES_PER_SEARCH)) if len(tick) else []

    def probed(self, log_cluster: Tensor, tick: Tensor) -> Tensor:
        """Mask of the clusters to search: the most probable ones, until they have enough members.

        Args:
            log_cluster: [B, C], log-probabilities of the target's cluster.
            tick: [B] int64, of the queries.

        Returns:
            [B, C] bool.
        """
        index, fraction = self.head.index, self.head.probe_fraction
        # A fraction of 1 searches all clusters: users in two of them count twice.
        most = max(MIN_PROBED, fraction * len(index.since)) if fraction < 1.0 else math.inf
        size = index.sizes(tick)
        order = log_cluster.cpu().argsort(dim=1, descending=True, stable=True)
        before = size.gather(1, order).cumsum(1) - size.gather(1, order)
        return torch.zeros_like(size, dtype=torch.bool).scatter(1, order, before < most) & (size > 0)

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> Found:
        """See `Searches.search`."""
        num_users, neighbors = self.head.view.graph.num_users, encoded.neighbors
        log_cluster, log_unassigned = self.head.next_cluster(encoded)
        probed = self.probed(log_cluster, encoded.tick)
        found = [self._unassigned(encoded, log_unassigned, k, exclude, exclude_users)]
        for cluster in probed.any(0).nonzero().squeeze(1).tolist():
            rows = probed[:, cluster].nonzero().squeeze(1)
            found.append(self._members(encoded, rows, cluster, log_cluster[rows, cluster]))
        row, user, p = (torch.cat(parts) for parts in zip(*found, strict=True))
        if neighbors is not None:
            inside, beyond = neighbors.shares()
            row = torch.cat([row, neighbors.row.cpu()])
            user = torch.cat([user, neighbors.user.cpu()])
            p = torch.cat([p * beyond.cpu()[row[: len(p)]], inside.cpu()])
        key, at = (row * num_users + user).unique(return_inverse=True)
        p = torch.zeros(len(key)).index_add_(0, at, p).clamp_(min=MIN_PROBABILITY)
        return key // num_users, key % num_users, p.log()

    def _members(self, encoded: EncodedQuery, rows: Tensor, cluster: int, log_cluster: Tensor) -> Found:
        """Members of a cluster for queries `rows` [b] int64, with the cluster's log-probabilities [b]."""
        head = self.head
        user, share = head.index.members(cluster)
        vectors, biases = head.vectors[user], head.biases[user]
        scores = head.logits(encoded.select(rows), user, vectors=vectors, biases=biases)
        assigned = head.index.since[user] < encoded.tick[rows, None]
        scores = scores.cpu() + share.log()
        scores = scores.masked_fill(~assigned, -torch.inf).log_softmax(1)
        p = (scores + log_cluster.cpu()[:, None]).exp()
        at, column = assigned.nonzero(as_tuple=True)
        return rows[at], user[column], p[at, column]

    def _unassigned(
        self,
        encoded: EncodedQuery,
        log_unassigned: Tensor,
        k: int,
        exclude: tuple[Tensor, Tensor],
        exclude_users: Tensor,
    ) -> Found:
        """Unassigned users who may be among the k best.

        Users without any event or profile are all equally likely, so only as many as needed are returned.
        """
        view, head = self.head.view, self.head
        since, first, tick = head.index.since, view.timeline.first_tick, encoded.tick
        user, more = (since >= tick.min()).nonzero().squeeze(1), 0
        if view.profiles is None:
            order = tie_order(len(since))
            never = order[first[order] >= tick.max()]
            wanted = k + int(torch.bincount(exclude[0], minlength=1).max())
            alike = never[~torch.isin(never, exclude_users)][:wanted]
            alike = alike if len(alike) else never[:1]  # one stands for all of them
            more = len(never) - len(alike)
            user = torch.cat([user[first[user] < tick.max()], alike])
        if not len(user):
            return user, user, torch.zeros(0)
        vectors, biases = head.vectors[user], head.biases[user]
        scores = head.logits(encoded, user, vectors=vectors, biases=biases).cpu()
        scores = scores.masked_fill(since[user] < tick[:, None], -torch.inf)
        weight = torch.zeros(len(user))
        weight[-1] = math.log1p(more)
        total = (scores + weight).logsumexp(1, keepdim=True)
        p = (scores - total + log_unassigned.cpu()[:, None]).exp()
        row, column = (scores > -torch.inf).nonzero(as_tuple=True)
        return row, user[column], p[row, column]
