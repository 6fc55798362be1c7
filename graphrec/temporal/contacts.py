"""Results of the index: contacts of queries, and activity of single users."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = -(2**62)
"""The time, in seconds, of something that has not happened (int64; gaps to it stay far from overflow)."""

DECAY_SHARE = 0.05
"""Half-life of decayed contacts, as a share of the events so far."""

DECAY_FLOOR = 0.02
"""What is left of a decayed contact in the long run."""

FIXED_POINT = 2.0**32
"""Real weights become multiples of 2^-32, whose sums are exact and do not depend on the order of users."""


@dataclass(frozen=True)
class Contacts:
    """The distinct contacts of B users, each with the state of the pair; rows together, latest first.

    Attributes:
        row: [M] int64, the query, 0..B-1.
        user: [M] int64, the contact.
        last_out, last_in: [M] int64 seconds of the last act of the query's user on the contact, and of the
            contact on the user; `NEVER` where there was none.
        num_out, num_in: [M] int64, numbers of these acts.
        rank: [M] int64, number of contacts of the row that are strictly more recent.
        half_edge: [M] int64, position of the latest contact among the index's half-edges.
    """

    row: Tensor
    user: Tensor
    last_out: Tensor
    last_in: Tensor
    num_out: Tensor
    num_in: Tensor
    rank: Tensor
    half_edge: Tensor

    def __len__(self) -> int:
        return self.row.size(0)

    def to(self, device: torch.device) -> Contacts:
        """Return the same contacts on a device."""
        return Contacts(**{name: value.to(device) for name, value in vars(self).items()})

    def select(self, kept: Tensor) -> Contacts:
        """Return some of the contacts, given as a mask [M] bool or positions [n] int64."""
        return Contacts(**{name: value[kept] for name, value in vars(self).items()})


@dataclass(frozen=True)
class UserActivity:
    """Counts and latest times of users' acts, each before its tick (see `Timeline`); all of one shape.

    Attributes:
        num_acts, num_received: int64, numbers of acts of the user, and on the user.
        degree: int64, number of distinct contacts.
        last_act, last_received: int64 seconds, or `NEVER`.
    """

    num_acts: Tensor
    num_received: Tensor
    degree: Tensor
    last_act: Tensor
    last_received: Tensor
