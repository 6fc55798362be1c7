"""All users' STUs at a series of moments, and the activity of the users who share a code prefix."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data.growing_column import widened
from graphrec.decode import Forest, PrefixTree
from graphrec.inference import lasting_tensors
from graphrec.models.heads.codes.child_kernels import ActivityColumns, NodeColumns
from graphrec.retrieval.topk import tie_order, tie_rank
from graphrec.temporal import (
    DecayedPopularity,
    GroupActivity,
    SpectralEmbeddings,
    Timeline,
    dense,
    snapshot_ticks,
)
from graphrec.temporal.patched import GroupMembers, PatchedGroups, PatchedPopularity
from graphrec.temporal.popularity import Popularity


@dataclass(frozen=True)
class DenseActivity:
    """Activity of all users before each of B queries, and their spectral cosines with the queries' users.

    Attributes:
        activity: (last_act, last_received, num_acts, num_received, popularity), [B, N] each; see
            `GroupActivity.activity`.
        cosine: [B, N] float32.
    """

    activity: tuple[Tensor, ...]
    cosine: Tensor

    def of(self, row: Tensor, user: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Activity, [T] each, and cosines [T] of T (query, user) pairs: `row`, `user` [T] int64."""
        at = row * self.cosine.size(1) + user
        return tuple(part.view(-1).index_select(0, at) for part in self.activity), self.cosine.view(-1)[at]


class CodeHistory:
    """All users' STUs at a series of moments, and the activity of prefix groups before any time.

    The group of a prefix is the users who had it at the latest fit of the tokenizer before a moment. Nodes
    are numbered over the prefix trees of all moments (`Forest`).

    Args:
        timeline: the index of the users.
        tick: [S] int64, ascending, the moments.
        codes: S tensors [N, L] int64, rows of -1 for users without an STU.
        fits: positions 0..S-1, ascending, of the moments at which the tokenizer was refitted; the first is 0.
        codebook_size: K.
        half_life: seconds after which an event counts half in recent popularity.
        spectral: spectral embeddings of the contact graph; None if they are not used.

    Attributes:
        tick: [S] int64.
        codes: [S, N, L] int64.
        forest: the prefix trees of the moments.
        num_members: [S] int64, users with an STU.
    """

    def __init__(
        self,
        timeline: Timeline,
        tick: Tensor,
        codes: list[Tensor],
        fits: list[int],
        codebook_size: int,
        half_life: float,
        spectral: SpectralEmbeddings | None = None,
    ) -> None:
        self.tick, self.codes = tick, torch.stack(codes)
        self._wide_codes, self._num_events = self.codes, len(timeline.events)
        self.num_members = (self.codes[:, :, 0] >= 0).sum(1)
        order = tie_order(timeline.num_users)
        has = torch.cat([self.codes[:, :, 0] >= 0, torch.zeros(1, len(order), dtype=torch.bool)])
        self._without = [(len(order), order[~one[order]]) for one in has]
        self.forest = Forest([PrefixTree(one, codebook_size) for one in codes])
        self._timeline, self._spectral = timeline, spectral
        self._popularity: Popularity = DecayedPopularity(timeline, half_life)
        self._groups: GroupActivity | PatchedGroups
        self._group, self._members, self._groups = self._find_groups(fits)
        log_size = self.forest.size.float().log()
        nodes = self._group, self.forest.first_user, log_size
        self._nodes = NodeColumns(*(x.contiguous().numpy() for x in nodes))
        self._snapshot = torch.zeros_like(tick)
        self._inner, self._centroid = torch.empty(0, dtype=torch.int64), torch.empty(0)
        if spectral is not None:
            self._snapshot = torch.searchsorted(spectral.tick, tick, right=True) - 1
            self._inner, self._centroid = self._centroids(spectral)

    def _find_groups(self, fits: list[int]) -> tuple[Tensor, GroupMembers, GroupActivity]:
        """The group of each node, [num_nodes] int64 or -1; the members of the groups, and their activity."""
        timeline, num_moments = self._timeline, len(self.tick)
        group_of = torch.full((self.forest.num_nodes,), -1)
        groups, users, since, until = [], [], [], []
        number, ends = 0, [*fits[1:], num_moments]
        for fit, end in zip(fits, ends, strict=True):
            tree = self.forest.trees[fit]
            limit = self.tick[end] if end < num_moments else torch.tensor(timeline.instants.numel())
            for level in range(1, self.forest.num_codebooks):
                node = torch.arange(*tree.level_ptr[level : level + 2])
                row, user = tree.users_of(node)
                groups.append(number + row)
                users.append(user)
                since.append(self.tick[fit].expand(len(node)))
                until.append(limit.expand(len(node)))
                prefix = tree.prefix(node, level)
                for later in range(fit, end):
                    there = self.forest.trees[later].find(prefix)
                    has = (there >= 0).nonzero().squeeze(1)
                    group_of[self.forest.root[later] + there[has]] = number + has
                number += len(node)
        none = [torch.empty(0, dtype=torch.int64)]
        group, user, first, last = (torch.cat(parts or none) for parts in (groups, users, since, until))
        activity = GroupActivity(timeline, group, user, first, last, self._popularity)
        return group_of, GroupMembers(group, user), activity

    def _centroids(self, spectral: SpectralEmbeddings) -> tuple[Tensor, Tensor]:
        """Mean spectral embeddings of the users below inner nodes.

        Returns:
            (row of each node [num_nodes] int64, embeddings [num_inner, dim]).
        """
        inner = self.forest.level < self.forest.num_codebooks  # a leaf has its user's own embedding
        place = torch.where(inner, inner.cumsum(0) - 1, 0)
        centroid = torch.zeros(int(inner.sum()), spectral.embedding.size(2))
        for moment, snapshot in enumerate(self._snapshot.tolist()):
            for level in range(1, self.forest.num_codebooks):
                node, mean = self.forest.means(moment, spectral.embedding[snapshot], level)
                centroid[place[node]] = F.normalize(mean, dim=1)
        return place, centroid

    def is_current(self, timeline: Timeline, until: int, every: int) -> bool:
        """Tell whether these are still all moments, with all that they know, after events were appended.

        Args:
            timeline: the index with them.
            until: seconds, the end of the tokenizer's fit, which is the first moment.
            every: events between two moments.
        """
        size = self._num_events
        if size == len(timeline.events):
            return True
        if not size or int(timeline.tick(torch.tensor(until))) != int(self.tick[0]):
            return False
        if self.last_tie_grew(timeline):
            return False
        return not bool((snapshot_ticks(timeline, every, first=size) > self.tick[-1]).any())

    def last_tie_grew(self, timeline: Timeline) -> bool:
        """Tell whether events of the last time that the last moment knows were appended since."""
        ticks = timeline.event_tick[max(0, self._num_events - 1) : self._num_events + 1].unique()
        return 0 < self._num_events < len(timeline.events) and len(ticks) == 1 and bool(self.tick[-1] > ticks)

    def follow(self, timeline: Timeline, spectral: SpectralEmbeddings | None) -> Self:
        """Return the same codes on an index that events were appended to, without a new moment.

        Newcomers have no STU. See `is_current`.
        """
        out, num_users = copy(self), timeline.num_users
        out._timeline, out._spectral, out._num_events = timeline, spectral, len(timeline.events)
        out._wide_codes = widened(self._wide_codes, num_users)
        out.codes, out.forest = out._wide_codes[:, :num_users], self.forest.follow(num_users)
        out._without = list(self._without)
        assert isinstance(self._popularity, DecayedPopularity)
        assert isinstance(self._groups, GroupActivity)
        out._popularity, out._groups = self._popularity.follow(timeline), self._groups.follow(timeline)
        return out

    def reading(self, timeline: Timeline, changed: Tensor) -> CodeHistory:
        """Return the same codes beside an index that has lost events of users [U] int64, ascending."""
        out = copy(self)
        popularity = PatchedPopularity(self._popularity, timeline, changed)
        out._timeline, out._popularity = timeline, popularity
        assert isinstance(self._groups, GroupActivity)
        groups = self._members.groups_of(changed)
        out._groups = PatchedGroups(self._groups, self._members, timeline, groups, popularity)
        return out

    def number(self, tick: Tensor) -> Tensor:
        """Number 0..S-1 of the latest moment not after each tick, -1 before the first: int64, same shape."""
        return torch.searchsorted(self.tick, tick.contiguous(), right=True) - 1

    @lasting_tensors()
    def without_stu(self, number: int) -> Tensor:
        """Users without an STU at a moment (-1: before the first), in `tie_order`: [n] int64."""
        known, users = self._without[number]
        num_users = self._timeline.num_users
        if known < num_users:  # newcomers have none
            users = torch.cat([users, torch.arange(known, num_users)])
            users = users[tie_rank(num_users)[users].argsort()]
            self._without[number] = num_users, users
        return users

    def of(self, user: Tensor, number: Tensor) -> Tensor:
        """The STUs of users [n] at moments [n] (int64 both): [n, L] int64; -1 for users without one."""
        return torch.where((number >= 0)[:, None], self.codes[number.clamp(min=0), user], -1)

    @property
    def columns(self) -> ActivityColumns | None:
        """The activity of users and groups for kernels; None beside an index that has lost events."""
        groups, users, timeline = self._groups, self._popularity, self._timeline
        if not isinstance(groups, GroupActivity) or not isinstance(users, DecayedPopularity):
            return None
        half, instants = timeline.columns.half_edges, timeline.instants.numpy()
        return ActivityColumns(half, instants, groups.columns, groups.received, users.columns, self._nodes)

    def activity(self, node: Tensor, tick: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Activity of the groups of nodes [T] before times [T] (s) and their ticks.

        A leaf has the activity of the first user in its bucket.

        Returns:
            As `GroupActivity.activity`, [T] each.
        """
        group = self._group[node]
        many, one = ((group >= 0) == is_group for is_group in (True, False))
        if bool(many.all()):  # as at all levels but the last
            return self._groups.activity(group, tick, time)
        if bool(one.all()):
            return self._first_user_activity(node, tick, time)
        single = self._first_user_activity(node[one], tick[one], time[one])
        together = self._groups.activity(group[many], tick[many], time[many])
        out = []
        for a, b in zip(single, together, strict=True):
            value = torch.empty(len(node), dtype=a.dtype)
            value[one], value[many] = a, b
            out.append(value)
        return tuple(out)

    def _first_user_activity(self, node: Tensor, tick: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """Activity of the first users below nodes [T]; see `activity`."""
        user = self.forest.first_user[node]
        person = self._timeline.activity(user, tick)
        popularity = self._popularity.of(user, person.num_received, time)
        return person.last_act, person.last_received, person.num_acts, person.num_received, popularity

    def dense_activity(
        self, place: Tensor | None, number: Tensor, tick: Tensor, time: Tensor
    ) -> DenseActivity:
        """Activity of all users before B queries.

        Args:
            place: [B, dim], spectral embeddings of the queries' users; None if they are not used.
            number: [B] int64, the moments of the codes that the queries read.
            tick: [B] int64, ascending.
            time: [B] int64, of the same moments in seconds.
        """
        acted, heard = (dense.last_time(self._timeline, tick, role=role) for role in ("src", "dst"))
        counts = dense.num_acts(self._timeline, tick), dense.num_received(self._timeline, tick)
        users = torch.arange(acted.size(1))
        popularity = self._popularity.of(users, counts[1].long(), time[:, None])
        cosine = torch.zeros(acted.shape)
        if place is not None and self._spectral is not None:
            cosine = self._spectral.query_of(self._snapshot[number], place).cosines()
        return DenseActivity((acted, heard, *counts, popularity), cosine)

    def cosine(self, place: Tensor | None, number: Tensor, node: Tensor, *, leaves: bool) -> Tensor:
        """Cosines of the spectral embeddings of queries' users with those of groups, or users at leaves.

        Args:
            place: [T, dim], embeddings of the queries' users; None if they are not used.
            number: [T] int64, the moments.
            node: [T] int64.
            leaves: whether all nodes are leaves.

        Returns:
            [T] float32; 0 if `place` is None.
        """
        if place is None or self._spectral is None:
            return torch.zeros(len(node))
        return (place * self.embeddings(number, node, leaves=leaves)).sum(1)

    def embeddings(self, number: Tensor, node: Tensor, *, leaves: bool) -> Tensor:
        """Spectral embeddings of groups, or of the first users of leaves; see `cosine`: [T, dim] float32."""
        table, snapshot, place = self.embedding_table(number, leaves=leaves)
        return table[snapshot, place[node]]

    def embedding_table(self, number: Tensor, *, leaves: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Where the spectral embeddings of nodes are.

        Args:
            number: [n] int64, moments.
            leaves: whether the nodes are leaves, which have the embedding of their first user.

        Returns:
            all embeddings [S, X, dim] float32; their first index for each moment [n] int64, and the second
            for each node [num_nodes] int64.
        """
        if self._spectral is None:
            return torch.zeros(1, 1, 0), torch.zeros_like(number), torch.zeros_like(self._inner)
        if leaves:
            return self._spectral.buffer, self._snapshot[number], self.forest.first_user
        return self._centroid[None], torch.zeros_like(number), self._inner
