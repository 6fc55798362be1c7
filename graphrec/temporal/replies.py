"""Who approached whom, and who answered, as it was known at any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphrec.temporal.timeline import TimedAdjacency, Timeline

Side = Literal["asking", "asked"]


@dataclass(frozen=True)
class Record:
    """How approaches of people, or to them, had gone before a moment, each of one shape.

    Attributes:
        number: int64, how many approaches there had been.
        answered: int64, how many of them had been answered.
        delay: float64, the sum of log1p(seconds) that these answers took.
    """

    number: Tensor
    answered: Tensor
    delay: Tensor


class Answers:
    """The index of first acts between two people, and of the first acts back.

    An *approach* is the first act of a pair, its *answer* the first act the other way, strictly later. Where
    both first act at one time nobody asked, and neither counts.

    Args:
        timeline: the index of the graph.

    Attributes:
        first, answer: [A] int64 ticks of the approaches, ascending, and of their answers; the number of ticks
            where none ever came.
        asking, asked: [A] int64, who approached, and whom.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        num_users, never = timeline.num_users, timeline.instants.numel()
        tick, src, dst = timeline.approached.chronological
        key, order = (src * num_users + dst).sort()
        back = dst * num_users + src
        place = torch.searchsorted(key, back).clamp(max=len(key) - 1)
        reply = torch.where(key[place] == back, tick[order[place]], never)
        opens = tick < reply
        self.first, self.answer = tick[opens], reply[opens]
        self.asking, self.asked = src[opens], dst[opens]
        come = self.answer < never
        delay = self._wait(come).double().log1p()
        self._sides = {
            side: (
                self._by_owner(owner, self.first, None),
                self._by_owner(owner[come], self.answer[come], delay),
            )
            for side, owner in (("asking", self.asking), ("asked", self.asked))
        }

    def record(self, user: Tensor, tick: Tensor, side: Side) -> Record:
        """How the approaches of users ('asking'), or to them ('asked'), had gone before ticks, [M] each."""
        (approaches, _), (answers, total) = self._sides[side]
        start, end = answers.ptr[user], answers.end(user, tick)
        return Record(approaches.count(user, tick), end - start, total[end] - total[start])

    def recent_share(self, time: Tensor, *, wait: int, size: int) -> Tensor:
        """Of the network's last approaches that were as old as `wait` (seconds), the share answered by then.

        Args:
            time: [B] int64 seconds.
            wait: how long an answer is waited for; only approaches older than that are looked at.
            size: so many of them; with fewer, the rest counts as half an answer each, one at least.

        Returns:
            [B] float64.
        """
        come = self.answer < self._timeline.instants.numel()
        in_time = torch.zeros(len(come) + 1, dtype=torch.float64)
        in_time[1:][come] = (self._wait(come) <= wait).double()
        total = in_time.cumsum(0)
        end = torch.searchsorted(self.first, self._timeline.tick(time - wait))
        start = (end - size).clamp(min=0)
        missing = (size - (end - start)).clamp(min=1)
        share: Tensor = (total[end] - total[start] + 0.5 * missing) / (end - start + missing)
        return share

    def _wait(self, come: Tensor) -> Tensor:
        when: Tensor = self._timeline.instants
        delay: Tensor = when[self.answer[come]] - when[self.first[come]]
        return delay

    def _by_owner(self, owner: Tensor, tick: Tensor, amount: Tensor | None) -> tuple[TimedAdjacency, Tensor]:
        """Ticks by owner, in order of time, and running totals of their amounts."""
        num_users, num_ticks = self._timeline.num_users, self._timeline.instants.numel()
        order = (owner * (num_ticks + 1) + tick).argsort(stable=True)
        grouped = TimedAdjacency(
            owner[order], tick[order], owner[order].int(), num_users=num_users, num_ticks=num_ticks
        )
        zero = torch.zeros(1, dtype=torch.float64)
        return grouped, zero if amount is None else torch.cat([zero, amount[order].cumsum(0)])
