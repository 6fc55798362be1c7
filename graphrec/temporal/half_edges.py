"""Half-edges sorted by owner and time; at equal times by the past of pair and other user, never row order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphrec.data import Events
from graphrec.temporal.ragged import run_starts


@dataclass(frozen=True)
class HalfEdges:
    """Both half-edges of E events, sorted by (owner, tick), each with the state of its pair after it.

    Attributes:
        owner, other: [2E] int64, the user of the timeline, and the other user of the event.
        tick: [2E] int64, rank of the event's time among the distinct times.
        event: [2E] int32, position of the event in the log.
        outgoing: [2E] bool, whether the owner acted.
        num_out, num_in: [2E] int32, acts of the owner on the other so far, and of the other on the owner.
        last_out, last_in: [2E] int32, ticks of the last of these, or -1.
        first_tick: [2E] int32, tick of the pair's first contact.
        next_tick: [2E] int32, tick of the pair's next half-edge; the number of ticks where it is the last.
        opens: [2E] bool, whether it is the pair's first for this owner.
    """

    owner: Tensor
    other: Tensor
    tick: Tensor
    event: Tensor
    outgoing: Tensor
    num_out: Tensor
    num_in: Tensor
    last_out: Tensor
    last_in: Tensor
    first_tick: Tensor
    next_tick: Tensor
    opens: Tensor

    @classmethod
    def of(
        cls, events: Events, event_tick: Tensor, *, num_users: int, num_actions: int, num_ticks: int
    ) -> Self:
        """Sort the half-edges of events whose ticks are `event_tick` [E] int64."""
        num_events = len(events)
        # By (owner, other, tick); inside one pair and tick by direction and action.
        owner = torch.cat([events.src, events.dst])
        other = torch.cat([events.dst, events.src])
        tick = event_tick.repeat(2)
        outgoing = torch.arange(2 * num_events) < num_events
        kind = outgoing * num_actions + events.action.repeat(2)
        order = (tick * (2 * num_actions) + kind).argsort(stable=True)
        order = order[(owner * num_users + other)[order].argsort(stable=True)]
        owner, other, tick, outgoing = owner[order], other[order], tick[order], outgoing[order]
        kind = kind[order]
        event = (order % num_events).int()

        # The state of each pair after each of its half-edges.
        start = run_starts(owner, other)
        opens = start == torch.arange(2 * num_events)
        num_out, last_out = _running_counts(outgoing, start, tick)
        num_in, last_in = _running_counts(~outgoing, start, tick)
        first_tick = tick[start]
        next_tick = torch.full_like(tick, num_ticks)
        next_tick[:-1] = torch.where(opens[1:], num_ticks, tick[1:])

        order = _order_by_owner_and_tick(
            owner, tick, other, kind, num_out, num_in, next_tick, num_users, num_ticks
        )
        return cls(
            owner=owner[order],
            other=other[order],
            tick=tick[order],
            event=event[order],
            outgoing=outgoing[order],
            num_out=num_out[order],
            num_in=num_in[order],
            last_out=last_out[order],
            last_in=last_in[order],
            first_tick=first_tick[order].int(),
            next_tick=next_tick[order].int(),
            opens=opens[order],
        )


def _running_counts(counted: Tensor, start: Tensor, tick: Tensor) -> tuple[Tensor, Tensor]:
    """Count inside runs that begin at `start`: (number so far, tick of the last counted or -1), [M] int32."""
    total = counted.cumsum(0)
    number = total - (total - counted.long())[start]
    latest = torch.where(counted, torch.arange(len(counted)), -1).cummax(0).values
    last = torch.where(latest >= start, tick[latest.clamp(min=0)], -1)
    return number.int(), last.int()


def _order_by_owner_and_tick(
    owner: Tensor,
    tick: Tensor,
    other: Tensor,
    kind: Tensor,
    num_out: Tensor,
    num_in: Tensor,
    next_tick: Tensor,
    num_users: int,
    num_ticks: int,
) -> Tensor:
    """Sort by (owner, tick), and at equal ticks by the acts and the past of the pair, not by row.

    The input is sorted by (owner, other, tick), so half-edges of one pair stay side by side.

    Returns:
        [2E] int64, positions in the input.
    """
    order = (owner * (num_ticks + 1) + tick).argsort(stable=True)
    key = (owner * (num_ticks + 1) + tick)[order]
    same = key[1:] == key[:-1]
    tied = torch.zeros_like(key, dtype=torch.bool)
    tied[1:] |= same
    tied[:-1] |= same
    places = tied.nonzero().squeeze(1)
    if not places.numel():
        return order
    rows = order[places]
    # Common to a pair's tied half-edges: their kinds, and the pair's state after the last of them.
    closes = torch.where(next_tick > tick, torch.arange(len(tick)), len(tick))
    last = closes.flip(0).cummin(0).values.flip(0)[rows]
    done = torch.zeros_like(tick).index_add_(0, last, _multiply_hash(2 * kind[rows] + 1))[last]
    known = torch.searchsorted(key, other[rows] * (num_ticks + 1) + tick[rows])
    seen = known - torch.searchsorted(key, other[rows] * (num_ticks + 1))
    recent = torch.where(seen > 0, key[(known - 1).clamp(min=0)] % (num_ticks + 1), -1)
    content = torch.zeros_like(seen)
    for part in (done, num_out[last].long(), num_in[last].long(), seen, recent):
        content = _multiply_hash(content ^ part)
    sub = content.argsort(stable=True)
    sub = sub[key[places][sub].argsort(stable=True)]
    order[places] = rows[sub]
    return order


def _multiply_hash(x: Tensor) -> Tensor:
    """Hash int64: an odd multiplier spreads every bit upwards, the shift brings the high ones down.

    The order of tied half-edges, and so every saved score, depends on these values: `draws.mix`, which is
    stronger and slower, would give another.
    """
    x = x * 0x9E3779B97F4A7C1
    return x ^ (x >> 29)
