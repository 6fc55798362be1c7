"""Recent popularity by one look-up: acts received, each halved every so many seconds."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.temporal.timeline import Timeline, run_starts

DAY = 86_400


def popularity_half_life(first: int, until: int) -> float:
    """After how many seconds an act received counts half, where training is from `first` to `until` (s)."""
    return max(3.0 * DAY, (until - first) / 48)


class RunningTotals:
    """Sums of what fades, after each of M acts; acts of one owner are together, in order of time.

    A sum is kept as the base-2 logarithm of the sum of 2^(time / half-life), which later acts add to and
    time does not change (forward decay; Cormode et al. 2009, https://doi.org/10.1109/ICDE.2009.65): 8 bytes
    an act.

    Args:
        owner: [M] int64, ascending.
        time: [M] int64 seconds, ascending for each owner.
        half_life: seconds.
    """

    def __init__(self, owner: Tensor, time: Tensor, half_life: float) -> None:
        self._origin = time.min() if len(time) else torch.tensor(0)
        self._half_life = half_life
        start = run_starts(owner)
        depth = torch.arange(len(owner)) - start
        log, reach = self._halvings(time), 1
        while len(depth) and reach <= int(depth.max()):  # log[i] is of the last `reach` acts up to i
            far = (depth >= reach).nonzero().squeeze(1)
            log[far] = torch.logaddexp2(log[far], log[far - reach])
            reach *= 2
        self._log = log

    def at(self, last: Tensor, time: Tensor, any_act: Tensor) -> Tensor:
        """After acts `last` (int64), at times (int64 seconds) not before them, float64; 0 without any act."""
        if not len(self._log):
            return torch.zeros(last.shape, dtype=torch.float64)
        total = torch.exp2(self._log[last.clamp(min=0)] - self._halvings(time))
        return torch.where(any_act, total, 0.0)

    def _halvings(self, time: Tensor) -> Tensor:
        return (time - self._origin).double() / self._half_life


class Popularity:
    """Acts that anybody had received before a moment, each halved every `half_life` seconds.

    Args:
        timeline: the index.
        half_life: seconds.
    """

    def __init__(self, timeline: Timeline, half_life: float) -> None:
        self.half_life = half_life
        half = (~timeline.outgoing).nonzero().squeeze(1)
        self._ptr = torch.searchsorted(half, timeline.halves.ptr)
        owner = torch.repeat_interleave(self._ptr.diff())
        self._totals = RunningTotals(owner, timeline.events.time[timeline.event[half].long()], half_life)

    def of(self, user: Tensor, num_received: Tensor, time: Tensor) -> Tensor:
        """Of users at times (s) before which they had received so many acts (int64, broadcast): float64."""
        return self._totals.at(self._ptr[user] + num_received - 1, time, num_received > 0)
