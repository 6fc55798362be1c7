"""The state of every user at many moments: one sweep over the log instead of B x N look-ups.

Each function takes ascending ticks [B] and returns a dense [B, N] tensor whose row b knows exactly the events
older than ticks[b]: what all rows share comes from the index, what happens between the first and the last
tick is scattered to the row that sees it first and carried down the rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from graphrec.sampler.timeline import Timeline

MAX_HALF_LIVES = 256


def num_received(timeline: Timeline, ticks: Tensor) -> Tensor:
    """How often everyone was acted upon, [B, N] float64."""
    everyone = torch.arange(timeline.num_users)
    between, row = _between(timeline, ticks)
    out = torch.zeros(len(ticks), timeline.num_users, dtype=torch.float64)
    out[0] = timeline.num_received(everyone, ticks[0]).double()
    _add(out, row, timeline.events.dst[between], 1.0)
    return out.cumsum_(0)


def degree(timeline: Timeline, ticks: Tensor) -> Tensor:
    """How many distinct people everyone had met, [B, N] float64."""
    everyone = torch.arange(timeline.num_users)
    tick, owner, _ = timeline.contacts.chronological
    low, high = torch.searchsorted(tick, ticks[[0, -1]]).tolist()
    row = torch.searchsorted(ticks, tick[low:high], right=True)
    out = torch.zeros(len(ticks), timeline.num_users, dtype=torch.float64)
    out[0] = timeline.degree(everyone, ticks[0]).double()
    _add(out, row, owner[low:high], 1.0)
    return out.cumsum_(0)


def last_time(timeline: Timeline, ticks: Tensor, *, role: Literal["src", "dst"]) -> Tensor:
    """When everyone last acted ('src') or was acted upon ('dst'), [B, N] int64 seconds or `NEVER`."""
    everyone = torch.arange(timeline.num_users)
    between, row = _between(timeline, ticks)
    acted = role == "src"
    out = (timeline.last_act if acted else timeline.last_received)(everyone, ticks[0]).repeat(len(ticks), 1)
    user = (timeline.events.src if acted else timeline.events.dst)[between]
    cell = row * timeline.num_users + user
    out.view(-1).scatter_reduce_(0, cell, timeline.events.time[between], "amax")
    np.maximum.accumulate(out.numpy(), axis=0, out=out.numpy())
    return out


def recent_popularity(timeline: Timeline, times: Tensor, half_life: float) -> Tensor:
    """Acts received, each halved every `half_life` seconds, at ascending times [B]: [B, N] float64."""
    if int(times[-1] - times[0]) > MAX_HALF_LIVES * half_life:  # keeps the powers of two below in range
        middle = len(times) // 2
        halves = (recent_popularity(timeline, part, half_life) for part in (times[:middle], times[middle:]))
        return torch.cat(list(halves))
    ticks = timeline.tick(times)
    between, row = _between(timeline, ticks)
    events, size = timeline.events, between.start
    age = (times[0] - events.time).double() / half_life
    out = torch.zeros(len(times), timeline.num_users, dtype=torch.float64)
    out[0].index_add_(0, events.dst[:size], torch.exp2(-age[:size]))
    _add(out, row, events.dst[between], torch.exp2(-age[between]))
    out = out.cumsum_(0)
    return out.mul_(torch.exp2((times[0] - times).double() / half_life)[:, None])


class ContactGraph:
    """Everyone's contacts at each of B moments, as one linear map of [N, B] columns.

    The contacts of the first moment are one sparse matrix; the P that come until the last are extra columns
    of it, fed only with the rows that see them.

    Args:
        timeline: the index.
        ticks: [B] int64, ascending.
    """

    def __init__(self, timeline: Timeline, ticks: Tensor) -> None:
        num_users = timeline.num_users
        tick, owner, other = timeline.contacts.chronological
        low, high = torch.searchsorted(tick, ticks[[0, -1]]).tolist()
        self._fresh = owner[low:high].numpy()
        self._sees = (ticks > tick[low:high, None]).numpy()  # [P, B]
        column = np.concatenate([owner[:low].numpy(), num_users + np.arange(high - low)])
        self._matrix = csr_array(
            (np.ones(high), (other[:high].numpy(), column)), shape=(num_users, num_users + high - low)
        )
        self._input = np.empty((num_users + high - low, len(ticks)))

    @staticmethod
    def num_fresh(timeline: Timeline, ticks: Tensor) -> int:
        """P, the number of contacts from the first tick to before the last, which the map holds B times."""
        low, high = torch.searchsorted(timeline.contacts.chronological[0], ticks[[0, -1]]).tolist()
        return int(high - low)

    def spread(self, amounts: Tensor) -> Tensor:
        """For each column the sum of the amounts at a user's contacts: [N, B] -> [N, B] float64."""
        size = amounts.size(0)
        self._input[:size] = amounts
        self._input[size:] = self._input[self._fresh] * self._sees
        return torch.from_numpy(self._matrix @ self._input)


def _between(timeline: Timeline, ticks: Tensor) -> tuple[slice, Tensor]:
    """Events from the first tick to before the last, and for each the first row that sees it."""
    low, high = torch.searchsorted(timeline.event_tick, ticks[[0, -1]]).tolist()
    return slice(low, high), torch.searchsorted(ticks, timeline.event_tick[low:high], right=True)


def _add(out: Tensor, row: Tensor, user: Tensor, amount: Tensor | float) -> None:
    amounts = torch.as_tensor(amount, dtype=out.dtype).expand(row.numel())
    out.view(-1).index_add_(0, row * out.size(1) + user, amounts)
