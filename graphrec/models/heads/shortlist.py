"""Shortlists: the users whom a head scores for every query, instead of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data.draws import hashed
from graphrec.inference import lasting_tensors
from graphrec.models.mixture.view import GraphView
from graphrec.retrieval.topk import tie_capacity, tie_order, tie_rank
from graphrec.temporal import snapshot_ticks

LISTED, SAMPLED = 2048, 2048
"""Users of a shortlist: those with the highest scores, and a sample of the others."""

RENEWALS = 16
"""A shortlist is renewed after each N / `RENEWALS` events."""

MIN_EVENTS = 1024
"""Events between two shortlists, at least."""


@dataclass(frozen=True)
class Shortlist:
    """Users scored for all queries from one moment to the next.

    Attributes:
        user: [C] int64, in `tie_order`.
        log_weight: [C] float32, log of the number of users that each stands for in a sum over all users.
        rank: [C] int64, ascending, their `tie_rank`.
    """

    user: Tensor
    log_weight: Tensor
    rank: Tensor

    def columns(self, user: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
        """Find users [M] int64 of N: whether each is listed [M] bool, and their columns [M] int64."""
        at = torch.searchsorted(self.rank, tie_rank(num_users)[user]).clamp_(max=len(self.user) - 1)
        return self.user[at] == user, at


class Shortlists:
    """The shortlists of a graph, each computed when it is first needed, from strictly older events.

    Networks of at most `LISTED + SAMPLED` users have one shortlist, of all users.

    Args:
        view: the graph.
        score: from a tick to scores of all users [N], by which they are listed.
    """

    def __init__(self, view: GraphView, score: Callable[[int], Tensor]) -> None:
        self._num_users, self._seed, self._score = view.graph.num_users, view.seed, score
        self._timeline = view.timeline
        self.covers_all = self._num_users <= LISTED + SAMPLED
        self._last: tuple[int, Shortlist] | None = None
        self._number_by(max(MIN_EVENTS, self._num_users // RENEWALS))

    def _number_by(self, every: int) -> None:
        """Renew shortlists after each `every` events."""
        self._every, self._tick = every, torch.zeros(1, dtype=torch.int64)
        if not self.covers_all:
            self._tick = snapshot_ticks(self._timeline, every)
        self._num_ticks = len(self._timeline.instants)

    def take_over(self, old: Shortlists) -> None:
        """Keep the shortlist of a smaller graph until the moment of the next; newcomers wait for that."""
        if self.covers_all or old.covers_all:
            return
        self._number_by(old._every)
        if tie_capacity(self._num_users) == tie_capacity(old._num_users) and old._last is not None:
            # The last tie may have grown.
            self._last = old._last if int(self._tick[old._last[0]]) < old._num_ticks else None

    def number(self, tick: Tensor) -> Tensor:
        """The number of the shortlist of queries at ticks (int64, same shape)."""
        return torch.searchsorted(self._tick, tick.contiguous(), right=True) - 1

    def __getitem__(self, number: int) -> Shortlist:
        last = self._last
        if last is None or last[0] != number:
            last = self._last = number, self._compute(number)
        return last[1]

    @lasting_tensors()
    def _compute(self, number: int) -> Shortlist:
        order = tie_order(self._num_users)
        if self.covers_all:
            return Shortlist(order, torch.zeros(len(order)), tie_rank(self._num_users)[order])
        listed = self._score(int(self._tick[number]))[order].topk(LISTED).indices  # columns of `order`
        other = torch.ones_like(order, dtype=torch.bool)
        other[listed] = False
        rest = other.nonzero().squeeze(1)
        drawn = rest[hashed(self._seed, number, rest).argsort()[:SAMPLED]]
        column = torch.cat([listed, drawn])
        weight = torch.zeros(len(column))
        weight[LISTED:] = torch.tensor(len(rest) / len(drawn)).log()
        column, place = column.sort()
        return Shortlist(order[column], weight[place], tie_rank(self._num_users)[order[column]])
