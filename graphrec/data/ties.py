"""First acts between users, and the mutual ties derived from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from graphrec.data.roles import Roles

if TYPE_CHECKING:
    from graphrec.data.graph import Events


@dataclass(frozen=True)
class FirstActs:
    """The first event of each of P ordered pairs of users, in order of (src, dst).

    Attributes:
        src, dst: [P] int64, the acting user and the target.
        event: [P] int64, position of the pair's first event.
        back: [P] int64, position of the pair (dst, src) among the P; -1 if dst has not acted on src.
    """

    src: np.ndarray
    dst: np.ndarray
    event: np.ndarray
    back: np.ndarray

    @classmethod
    def of(cls, src: np.ndarray, dst: np.ndarray, num_users: int) -> FirstActs:
        """Find the first act of each pair.

        Args:
            src: [E] int64, acting users, the first event first.
            dst: [E] int64, targets.
            num_users: N.
        """
        pair, event = np.unique(src * num_users + dst, return_index=True)
        src, dst = src[event], dst[event]
        reverse = dst * num_users + src
        place = np.minimum(np.searchsorted(pair, reverse), len(pair) - 1)
        return cls(src, dst, event, np.where(pair[place] == reverse, place, -1))


def mutual_ties(src: Tensor, dst: Tensor, time: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
    """Find the pairs in which both users have acted on each other, in both directions.

    Args:
        src: [E] int64, acting users, in order of time.
        dst: [E] int64, targets.
        time: [E] int64 seconds, ascending.
        num_users: N.

    Returns:
        (edge_index [2, M] int64, time [M] int64 seconds of the later of the two first acts, ascending).
    """
    acts = FirstActs.of(src.numpy(), dst.numpy(), num_users)
    moment = time.numpy()[acts.event]
    mutual = acts.back >= 0
    became = np.maximum(moment[mutual], moment[acts.back[mutual]])
    order = np.argsort(became, kind="stable")
    edges = np.stack([acts.src[mutual], acts.dst[mutual]])
    return torch.from_numpy(edges[:, order]), torch.from_numpy(became[order])


def standing_acts(events: Events, roles: Roles, num_users: int) -> Tensor:
    """Tell which events are ordinary acts that no end or block of their pair has annulled.

    An end annuls all acts of the two, either way, that are not later than itself.

    Args:
        events: E events.
        roles: of the actions.
        num_users: N.

    Returns:
        [E] bool.
    """
    wanted = roles.wanted[events.action]
    ends = roles.having("end", "block")[events.action]
    if not bool(ends.any()):
        return wanted
    pair = torch.minimum(events.src, events.dst) * num_users + torch.maximum(events.src, events.dst)
    ended, place = pair[ends].unique(return_inverse=True)
    last = torch.empty(len(ended), dtype=torch.int64)
    last.scatter_reduce_(0, place, events.time[ends], "amax", include_self=False)
    spot = torch.searchsorted(ended, pair).clamp(max=len(ended) - 1)
    annulled: Tensor = (ended[spot] == pair) & (events.time <= last[spot])
    return wanted & ~annulled


def standing_ties(events: Events, roles: Roles, num_users: int) -> tuple[Tensor, Tensor]:
    """Find the mutual ties by standing acts; returns what `mutual_ties` does."""
    src, dst, time = events.src, events.dst, events.time
    if not roles.all_ordinary:
        kept = standing_acts(events, roles, num_users)
        src, dst, time = src[kept], dst[kept], time[kept]
    return mutual_ties(src, dst, time, num_users)
