"""The state of every user at many moments: one sweep over the log instead of B x N look-ups.

Each function takes ascending ticks [B] and returns a dense [B, N] tensor; its row b counts exactly the events
before ticks[b]. The state before the first tick comes from the index; events between the first and the last
tick are added down the rows, in the columns of their users.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from graphrec.temporal.contacts import NEVER
from graphrec.temporal.ragged import ragged
from graphrec.temporal.removed import position_of
from graphrec.temporal.timeline import Timeline

MAX_HALF_LIVES = 256
"""Half-lives between the first and the last time of one sweep of popularity; longer ones are split."""

MIN_EVENTS_BETWEEN_TOTALS = 1024
"""Events between two totals that a sweep of popularity starts from, at least."""


def num_received(timeline: Timeline, ticks: Tensor) -> Tensor:
    """Count the acts that every user had received: [B, N] float64."""
    first = timeline.num_received(torch.arange(timeline.num_users), ticks[0])
    between, row = _between(timeline, ticks)
    return _accumulated(first.double(), len(ticks), row, timeline.events.dst[between])


def num_acts(timeline: Timeline, ticks: Tensor) -> Tensor:
    """Count the acts of every user: [B, N] float64."""
    first = timeline.num_acts(torch.arange(timeline.num_users), ticks[0])
    between, row = _between(timeline, ticks)
    return _accumulated(first.double(), len(ticks), row, timeline.events.src[between])


def degree(timeline: Timeline, ticks: Tensor) -> Tensor:
    """Count the distinct contacts of every user: [B, N] float64."""
    first = timeline.degree(torch.arange(timeline.num_users), ticks[0])
    tick, owner, _ = _fresh_contacts(timeline, ticks)
    return _accumulated(first.double(), len(ticks), torch.searchsorted(ticks, tick, right=True), owner)


def last_time(timeline: Timeline, ticks: Tensor, *, role: Literal["src", "dst", "either"]) -> Tensor:
    """Return the time of every user's last act.

    Args:
        timeline: the index.
        ticks: [B] int64, ascending.
        role: 'src' for acts by the user, 'dst' for acts on the user, 'either' for the later of both.

    Returns:
        [B, N] int64 seconds, or `NEVER`.
    """
    users, roles = torch.arange(timeline.num_users), ("src", "dst") if role == "either" else (role,)
    look_up = {"src": timeline.last_act, "dst": timeline.last_received}
    first = torch.stack([look_up[name](users, ticks[0]) for name in roles]).amax(0)
    between, row = _between(timeline, ticks)
    user = torch.cat([getattr(timeline.events, name)[between] for name in roles])
    user, column = user.unique(return_inverse=True)
    carried = first[user].repeat(len(ticks), 1)
    cell = row.repeat(len(roles)) * len(user) + column
    time = timeline.events.time[between].repeat(len(roles))
    carried.view(-1).scatter_reduce_(0, cell, time, "amax")
    np.maximum.accumulate(carried.numpy(), axis=0, out=carried.numpy())
    return first.repeat(len(ticks), 1).index_copy_(1, user, carried)


class PopularitySweep:
    """Acts that every user had received, each halved every `half_life` seconds.

    Totals are stored after about every N events, and a query starts from the latest before it: memory grows
    with the number of events. For single users, `popularity.DecayedPopularity` is faster.

    Args:
        timeline: the index.
        half_life: seconds.
    """

    def __init__(self, timeline: Timeline, half_life: float) -> None:
        self._timeline, self._half_life = timeline, half_life
        self._kept, self._moment = [0], [NEVER]
        self._total = [torch.zeros(timeline.num_users, dtype=torch.float64)]
        stored = torch.arange(0, len(timeline.events) - len(timeline.removed), self._every)
        self._store(timeline.event_tick[position_of(timeline.removed, stored)])

    def follow(self, timeline: Timeline) -> None:
        """Read an index that events were appended to; a total is stored for each N of them."""
        self._timeline = timeline
        following = timeline.event_tick[self._kept[-1] + self._every - 1 :: self._every]
        # A tie may still grow until a later one begins.
        self._store(following[following < len(timeline.instants) - 1].contiguous())

    @property
    def _every(self) -> int:
        return max(self._timeline.num_users, MIN_EVENTS_BETWEEN_TOTALS)

    def _store(self, after: Tensor) -> None:
        """Store totals after the events of some ticks, ascending."""
        # After whole ties: their order may change no sum, and no later event whether a total is stored.
        for end in torch.searchsorted(self._timeline.event_tick, after, right=True).unique().tolist():
            moment = int(self._timeline.events.time[end - 1])
            total = self._continued(len(self._kept) - 1, end, torch.tensor(moment))
            self._kept.append(end)
            self._moment.append(moment)
            self._total.append(total)

    def at(self, times: Tensor) -> Tensor:
        """Return every user's popularity just before ascending times [B] int64 seconds: [B, N] float64."""
        if int(times[-1] - times[0]) > MAX_HALF_LIVES * self._half_life:  # keeps powers of two in range
            middle = len(times) // 2
            return torch.cat([self.at(times[:middle]), self.at(times[middle:])])
        ticks = self._timeline.tick(times)
        between, row = _between(self._timeline, ticks)
        start = int(self._timeline.end_of_log(ticks[0]))
        number = bisect_right(self._kept, start) - 1
        first = self._continued(number, start, times[0])
        received = self._timeline.events.dst[between], self._halved(between, times[0])
        out = _accumulated(first, len(times), row, *received)
        return out.mul_(torch.exp2((times[0] - times).double() / self._half_life)[:, None])

    def _continued(self, number: int, end: int, moment: Tensor) -> Tensor:
        """Popularity at `moment` (s) by events before position `end`, from stored total `number`: [N]."""
        since, total = _left(self._timeline, self._kept[number], end), self._total[number]
        passed = (torch.tensor(self._moment[number]) - moment).double() / self._half_life
        out = torch.zeros(self._timeline.num_users, dtype=torch.float64)
        torch.mul(total, torch.exp2(passed), out=out[: len(total)])
        return out.index_add_(0, self._timeline.events.dst[since], self._halved(since, moment))

    def _halved(self, events: slice | Tensor, moment: Tensor) -> Tensor:
        return torch.exp2((self._timeline.events.time[events] - moment).double() / self._half_life)


class ContactGraph:
    """The contact graph at each of B moments, as one linear map of [N, B] columns.

    The contacts before the first moment are one sparse matrix; the P first contacts from then until the last
    moment are added in the columns that know them.

    Args:
        timeline: the index.
        ticks: [B] int64, ascending.
    """

    def __init__(self, timeline: Timeline, ticks: Tensor) -> None:
        num_users, contacts = timeline.num_users, timeline.contacts
        start, end = contacts.start, contacts.end(torch.arange(num_users), ticks[0])
        _, known = ragged(start, end)
        ptr = np.zeros(num_users + 1, dtype=np.int32)
        np.cumsum((end - start).numpy(), out=ptr[1:])
        ones = np.ones(len(known), dtype=np.int8)
        self._matrix = csr_array((ones, contacts.other[known].numpy(), ptr), shape=(num_users, num_users))
        tick, self._owner, self._other = _fresh_contacts(timeline, ticks)
        self._known = ticks > tick[:, None]  # [P, B]

    @staticmethod
    def num_fresh(timeline: Timeline, ticks: Tensor) -> int:
        """Return P, the number of first contacts from the first tick to before the last."""
        return len(_fresh_contacts(timeline, ticks)[0])

    def spread(self, amounts: Tensor) -> Tensor:
        """Sum in each column the amounts of a user's contacts: [N, B] -> [N, B] of the same dtype."""
        out = torch.from_numpy(self._matrix @ amounts.numpy())
        return out.index_add_(0, self._owner, amounts[self._other] * self._known)


def _left(timeline: Timeline, low: int, high: int) -> slice | Tensor:
    """Events of a part of the log, without removed ones: a slice, or positions [n] int64."""
    if not len(timeline.removed):
        return slice(low, high)
    return low + (timeline.events.src[low:high] >= 0).nonzero().squeeze(1)


def _between(timeline: Timeline, ticks: Tensor) -> tuple[slice | Tensor, Tensor]:
    """Events from the first tick to before the last, and for each the first row that knows it."""
    events = _left(timeline, *timeline.end_of_log(ticks[[0, -1]]).tolist())
    return events, torch.searchsorted(ticks, timeline.event_tick[events].long(), right=True)


def _fresh_contacts(timeline: Timeline, ticks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First contacts from the first tick to before the last: (tick [P] ascending, owner [P], other [P])."""
    if ticks[0] == ticks[-1]:
        none = torch.empty(0, dtype=torch.int64)
        return none, none, none
    between, _ = _between(timeline, ticks)
    users = torch.cat([timeline.events.src[between], timeline.events.dst[between]]).unique()
    start, end = (timeline.contacts.end(users, tick) for tick in ticks[[0, -1]])
    row, place = ragged(start, end)
    tick = torch.from_numpy(timeline.columns.contacts.tick)[place]
    order = torch.from_numpy(np.argsort(tick.numpy(), kind="stable"))
    return tick[order].long(), users[row[order]], timeline.contacts.other[place[order]].long()


def _accumulated(
    first: Tensor, num_rows: int, row: Tensor, user: Tensor, amount: Tensor | float = 1.0
) -> Tensor:
    """Return [B, N] float64: `first` [N] plus the amounts of each user up to and including each row."""
    user, column = user.unique(return_inverse=True)
    carried = torch.zeros(num_rows, len(user), dtype=torch.float64)
    carried[0] = first[user]
    amounts = torch.as_tensor(amount, dtype=torch.float64).expand(len(row))
    carried.view(-1).index_add_(0, row * len(user) + column, amounts)
    return first.repeat(num_rows, 1).index_copy_(1, user, carried.cumsum_(0))
