"""Everyone's codes at one moment after another, and what the circles that share them had done by any time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.decode import Forest, PrefixTree
from graphrec.models.recommender import shuffled
from graphrec.temporal import (
    DecayedPopularity,
    GroupActivity,
    SpectralEmbeddings,
    SpectralQuery,
    Timeline,
    dense,
)


@dataclass(frozen=True)
class Sweep:
    """What everyone had done before each of B queries, and how near they stood: where most are asked about.

    Attributes:
        activity: last_act, last_received, num_acts, num_received, popularity, [B, N] each.
        near: [B, N] float32.
    """

    activity: tuple[Tensor, ...]
    near: Tensor

    def of(self, row: Tensor, user: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same for queries [T] and users [T]: activity, [T] each, and nearness [T]."""
        at = row * self.near.size(1) + user
        return tuple(part.view(-1).index_select(0, at) for part in self.activity), self.near.view(-1)[at]


class Codes:
    """Everyone's STUs as they were at one moment after another, and what circles had done by any time.

    Args:
        timeline: the index of the users.
        tick: [S] int64, ascending, the moments.
        codes: S times [N, L] int64, -1 for who had none.
        fits: which moments are those of a fit, ascending, the first 0; until the next one, circles are those
            of its prefixes that people known at the fit have.
        codebook_size: K.
        half_life: seconds, after which an act received counts half.
        structure: where people stand in the network, if that is to count.

    Attributes:
        tick: [S] int64.
        codes: [S, N, L] int64.
        forest: the trees of the moments.
        num_members: [S] int64, how many users had an STU.
    """

    def __init__(
        self,
        timeline: Timeline,
        tick: Tensor,
        codes: list[Tensor],
        fits: list[int],
        codebook_size: int,
        half_life: float,
        structure: SpectralEmbeddings | None = None,
    ) -> None:
        self.tick, self.codes = tick, torch.stack(codes)
        self.num_members = (self.codes[:, :, 0] >= 0).sum(1)
        order = shuffled(timeline.num_users)
        has = torch.cat([self.codes[:, :, 0] >= 0, torch.zeros(1, len(order), dtype=torch.bool)])
        self._without = [order[~one[order]] for one in has]
        self.forest = Forest([PrefixTree(one, codebook_size) for one in codes])
        self._timeline, self._popularity = timeline, DecayedPopularity(timeline, half_life)
        self._circle = torch.full((self.forest.num_nodes,), -1)
        circles, users, since, until = [], [], [], []
        number, ends = 0, [*fits[1:], len(codes)]
        for fit, end in zip(fits, ends, strict=True):
            tree = self.forest.trees[fit]
            limit = tick[end] if end < len(codes) else torch.tensor(timeline.instants.numel())
            for level in range(1, self.forest.num_codebooks):
                node = torch.arange(*tree.level_ptr[level : level + 2])
                row, user = tree.users_of(node)
                circles.append(number + row)
                users.append(user)
                since.append(tick[fit].expand(len(node)))
                until.append(limit.expand(len(node)))
                prefix = tree.prefix(node, level)
                for later in range(fit, end):
                    there = self.forest.trees[later].find(prefix)
                    has = (there >= 0).nonzero().squeeze(1)
                    self._circle[self.forest.root[later] + there[has]] = number + has
                number += len(node)
        none = [torch.empty(0, dtype=torch.int64)]
        circle, user, first, last = (torch.cat(parts or none) for parts in (circles, users, since, until))
        self._circles = GroupActivity(timeline, circle, user, first, last, self._popularity)
        self._structure = structure
        if structure is None:
            return
        self._snapshot = torch.searchsorted(structure.tick, tick, right=True) - 1
        inner = self.forest.level < self.forest.num_codebooks  # at a leaf stands a person
        self._inner = torch.where(inner, inner.cumsum(0) - 1, 0)
        self._centroid = torch.zeros(int(inner.sum()), structure.embedding.size(2))
        for moment, snapshot in enumerate(self._snapshot.tolist()):
            for level in range(1, self.forest.num_codebooks):
                node, mean = self.forest.means(moment, structure.embedding[snapshot], level)
                self._centroid[self._inner[node]] = F.normalize(mean, dim=1)

    def number(self, tick: Tensor) -> Tensor:
        """The latest moment not after ticks, int64, same shape; -1 before the first."""
        return torch.searchsorted(self.tick, tick.contiguous(), right=True) - 1

    def without_stu(self, number: int) -> Tensor:
        """Who had none at a moment, -1 being before the first, in the order of equal ones: [n] int64."""
        return self._without[number]

    def of(self, user: Tensor, number: Tensor) -> Tensor:
        """The STUs of users [n] at moments [n]: [n, L] int64; -1 for who has none."""
        return torch.where((number >= 0)[:, None], self.codes[number.clamp(min=0), user], -1)

    def activity(self, node: Tensor, tick: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """What circles [T] had done before times [T] (s) and their ticks; of a leaf, the first of its people.

        Returns:
            See `GroupActivity.activity`.
        """
        circle = self._circle[node]
        many, one = ((circle >= 0) == is_circle for is_circle in (True, False))
        user = self.forest.first_user[node[one]]
        person = self._timeline.activity(user, tick[one])
        popularity = self._popularity.of(user, person.num_received, time[one])
        alone = person.last_act, person.last_received, person.num_acts, person.num_received, popularity
        together = self._circles.activity(circle[many], tick[many], time[many])
        out = []
        for a, b in zip(alone, together, strict=True):
            value = torch.empty(len(node), dtype=a.dtype)
            value[one], value[many] = a, b
            out.append(value)
        return tuple(out)

    def sweep(self, place: Tensor | None, number: Tensor, tick: Tensor, time: Tensor) -> Sweep:
        """Everyone before times [B], ascending, and their ticks, from places [B, dim] at moments [B]."""
        acted, heard = (dense.last_time(self._timeline, tick, role=role) for role in ("src", "dst"))
        counts = dense.num_acts(self._timeline, tick), dense.num_received(self._timeline, tick)
        users = torch.arange(acted.size(1))
        popularity = self._popularity.of(users, counts[1].long(), time[:, None])
        near = torch.zeros(acted.shape)
        if place is not None and self._structure is not None:
            near = SpectralQuery(self._structure.embedding, self._snapshot[number], place).cosines()
        return Sweep((acted, heard, *counts, popularity), near)

    def near(self, place: Tensor | None, number: Tensor, node: Tensor, *, leaves: bool) -> Tensor:
        """The cosine of places [T, dim] and circles [T], or the people at leaves, of moments [T]: [T]."""
        if place is None or self._structure is None:
            return torch.zeros(len(node))
        if leaves:
            stands = self._structure.embedding[self._snapshot[number], self.forest.first_user[node]]
        else:
            stands = self._centroid[self._inner[node]]
        return (place * stands).sum(1)
