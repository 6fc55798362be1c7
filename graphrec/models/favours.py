"""Whom to prefer among likely people: who waits for an answer, newcomers, contacts before strangers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.temporal import Reach, Timeline

WAITING, NEWCOMERS = 2.7, 0.1
"""What a contact's probability is multiplied by who waits for an answer, and the power of 1 + the acts a
contact received that it is divided by."""

TINY = 1e-30


class Favours(NamedTuple):
    """By how much contacts are preferred when people are put in order by their probability.

    Whoever approached the user and waits for an answer already wants the tie; and of two who are as likely,
    the one whom fewer people have turned to gains more. And all of them are preferred to strangers, who are
    asked for apart (`new`).

    Attributes:
        power: of what waiting and being new are worth.
        known: the factor of all contacts.
    """

    power: float
    known: float

    def factors(
        self, timeline: Timeline, reach: Reach, user: Tensor, tick: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the contacts of users [B] before ticks [B]: (row [M], contact [M], factor [M])."""
        contacts = timeline.distinct_contacts(user, tick, k=reach.contacts, window=reach.contact_window)
        received = timeline.num_received(contacts.user, tick[contacts.row]).float()
        factor = torch.where(contacts.num_out == 0, WAITING, 1.0) * (1.0 + received) ** -NEWCOMERS
        return contacts.row, contacts.user, self.known * factor**self.power

    def on_everyone(self, p: Tensor, timeline: Timeline, reach: Reach, query: Query) -> Tensor:
        """The logarithm of probabilities p [B, N] with these factors, in their place."""
        row, user, factor = self.factors(timeline, reach, query.user, timeline.tick(query.time))
        p[row, user] *= factor
        return p.clamp_(min=TINY).log_()

    def on_pairs(
        self, log_p: Tensor, row: Tensor, user: Tensor, timeline: Timeline, reach: Reach, query: Query
    ) -> Tensor:
        """Log-probabilities [M] of people `user` [M] for queries `row` [M] with them, [M] float64."""
        log_p, num_users = log_p.double(), timeline.num_users
        asking, contact, factor = self.factors(timeline, reach, query.user, timeline.tick(query.time))
        contact, order = (asking * num_users + contact).sort()
        if not len(contact):
            return log_p
        key = row * num_users + user
        at = torch.searchsorted(contact, key).clamp(max=len(contact) - 1)
        return log_p + torch.where(contact[at] == key, factor[order[at]].double().log(), 0.0)


CHOICES = tuple(Favours(power, known) for power, known in product((0.0, 0.5, 1.0), (1.0, 2.0, 4.0)))
"""What validation chooses from."""


class Kept:
    """Probabilities of everyone [B, N], worked out once for each lot of queries, however often asked for."""

    def __init__(self, probabilities: Callable[[Query], Tensor]) -> None:
        self._probabilities = probabilities
        self._kept: dict[bytes, Tensor] = {}

    def __call__(self, query: Query) -> Tensor:
        """A copy of those of B queries."""
        key = b"".join(part.numpy().tobytes() for part in (query.user, query.time, query.action))
        if key not in self._kept:
            self._kept[key] = self._probabilities(query)
        return self._kept[key].clone()


@dataclass
class Favouring:
    """Probabilities of everyone under some favours, as `rank_events` asks for them."""

    name: str
    favours: Favours
    probabilities: Callable[[Query], Tensor]
    timeline: Timeline
    reach: Reach

    def score(self, query: Query) -> Tensor:
        """Logarithms [B, N]."""
        return self.favours.on_everyone(self.probabilities(query), self.timeline, self.reach, query)
