"""Initiations and replies, as they were known before any moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphrec.data.ties import FirstActs
from graphrec.temporal.adjacency import TimedAdjacency
from graphrec.temporal.timeline import Timeline

Role = Literal["initiator", "recipient"]


@dataclass(frozen=True)
class ReplyHistory:
    """Initiations by users, or to them, and the replies to these, before a moment; each of one shape.

    Attributes:
        num_initiations: int64.
        num_replies: int64, replies to these initiations.
        sum_log_delay: float64, the sum over these replies of log1p(delay in seconds).
    """

    num_initiations: Tensor
    num_replies: Tensor
    sum_log_delay: Tensor


class ReplyIndex:
    """The index of initiations, the first acts between two users, and of the replies to them.

    An *initiation* is the first act of a pair, its *reply* the first act the other way, strictly later. A
    pair whose first acts in both directions have the same time has no initiator, and is left out.

    Args:
        timeline: the index of the graph.
        wanted: [A] bool, actions that are initiations and replies; all by default.

    Attributes:
        initiation_tick: [A] int64, ascending.
        reply_tick: [A] int64; the number of ticks if there is no reply.
        initiator, recipient: [A] int64 user indices.
    """

    def __init__(self, timeline: Timeline, *, wanted: Tensor | None = None) -> None:
        self._timeline = timeline
        num_users, never = timeline.num_users, timeline.instants.numel()
        first_acts = timeline.acted_on.chronological if wanted is None else _first_acts(timeline, wanted)
        tick, src, dst = first_acts
        key, order = (src * num_users + dst).sort()
        back = dst * num_users + src
        place = torch.searchsorted(key, back).clamp(max=len(key) - 1)
        reply = torch.where(key[place] == back, tick[order[place]], never)
        is_initiation = tick < reply
        self.initiation_tick, self.reply_tick = tick[is_initiation], reply[is_initiation]
        self.initiator, self.recipient = src[is_initiation], dst[is_initiation]
        replied = self.reply_tick < never
        log_delay = self._delay(replied).double().log1p()
        self._by_role = {
            role: (
                self._by_owner(owner, self.initiation_tick, None),
                self._by_owner(owner[replied], self.reply_tick[replied], log_delay),
            )
            for role, owner in (("initiator", self.initiator), ("recipient", self.recipient))
        }

    def history(self, user: Tensor, tick: Tensor, role: Role) -> ReplyHistory:
        """Return the initiations that users took part in in one role, and their replies, before ticks.

        Args:
            user: [M] int64.
            tick: [M] int64.
            role: 'initiator' for initiations by the users, 'recipient' for those to them.

        Returns:
            [M] each.
        """
        (initiations, _), (replies, total) = self._by_role[role]
        start, end = replies.start[user], replies.end(user, tick)
        return ReplyHistory(initiations.count(user, tick), end - start, total[end] - total[start])

    def recent_reply_rate(self, time: Tensor, *, reply_window: int, count: int) -> Tensor:
        """Return the reply rate of the network's latest initiations whose reply window was over.

        Args:
            time: [B] int64 seconds.
            reply_window: seconds within which a reply counts; younger initiations are left out.
            count: the number of initiations looked at; each that is missing, and at least one, counts as half
                a reply.

        Returns:
            [B] float64.
        """
        replied = self.reply_tick < self._timeline.instants.numel()
        in_time = torch.zeros(len(replied) + 1, dtype=torch.float64)
        in_time[1:][replied] = (self._delay(replied) <= reply_window).double()
        total = in_time.cumsum(0)
        end = torch.searchsorted(self.initiation_tick, self._timeline.tick(time - reply_window))
        start = (end - count).clamp(min=0)
        missing = (count - (end - start)).clamp(min=1)
        rate: Tensor = (total[end] - total[start] + 0.5 * missing) / (end - start + missing)
        return rate

    def _delay(self, replied: Tensor) -> Tensor:
        """Seconds from initiation to reply, of the initiations in a mask [A] bool."""
        instants: Tensor = self._timeline.instants
        delay: Tensor = instants[self.reply_tick[replied]] - instants[self.initiation_tick[replied]]
        return delay

    def _by_owner(self, owner: Tensor, tick: Tensor, amount: Tensor | None) -> tuple[TimedAdjacency, Tensor]:
        """Ticks by owner, in order of time, and running totals of their amounts."""
        num_users, num_ticks = self._timeline.num_users, self._timeline.instants.numel()
        order = (owner * (num_ticks + 1) + tick).argsort(stable=True)
        sides = owner[order], tick[order], owner[order]
        grouped = TimedAdjacency.of_sorted(*sides, num_users=num_users)
        zero = torch.zeros(1, dtype=torch.float64)
        return grouped, zero if amount is None else torch.cat([zero, amount[order].cumsum(0)])


def _first_acts(timeline: Timeline, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First acts of each user on another by wanted actions [A] bool: (tick ascending, src, dst) [P] int64."""
    events = timeline.events
    event = ((events.src >= 0) & wanted[events.action]).nonzero().squeeze(1)
    acts = FirstActs.of(events.src[event].numpy(), events.dst[event].numpy(), timeline.num_users)
    event = event[torch.from_numpy(acts.event).sort().values]
    return timeline.tick_of(event), events.src[event], events.dst[event]
