"""A prior that ranks contacts higher or lower than their probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.temporal import Contacts, NeighborhoodConfig, Timeline

PENDING_REPLY_BOOST = 2.7
"""Factor of the probability of a contact whom the user has not acted on yet, and who so waits for a reply."""

POPULARITY_EXPONENT = 0.1
"""A contact's probability is divided by this power of 1 + the events the contact received."""

MIN_PROBABILITY = 1e-30


class ContactPrior(NamedTuple):
    """Factors that multiply the probabilities of contacts before users are ranked.

    The factor of a contact grows if they still wait for a reply, since they already want the tie, and falls
    with the events they have received. A further factor ranks all contacts above users without contact; it
    does not change the slice `new`, whose candidates have no contact.

    Attributes:
        strength: exponent of the factor of a single contact; 0 turns it off.
        known: factor of all contacts.
    """

    strength: float
    known: float

    def factors(
        self, timeline: Timeline, neighborhood: NeighborhoodConfig, user: Tensor, tick: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The contacts of users [B] int64 before ticks [B] int64 (see `Timeline`), and their factors.

        Returns:
            (row [M], contact [M]) int64, and factors [M] float32.
        """
        size, window = neighborhood.max_contacts, neighborhood.contact_window
        contacts = timeline.distinct_contacts(user, tick, k=size, window=window)
        received = timeline.num_received(contacts.user, tick[contacts.row])
        return contacts.row, contacts.user, self.factors_of(contacts, received)

    def factors_of(self, contacts: Contacts, received: Tensor) -> Tensor:
        """The factors of M contacts who received so many events [M] int64: [M] float32."""
        factor = torch.where(contacts.num_out == 0, PENDING_REPLY_BOOST, 1.0)
        factor = factor * (1.0 + received.float()) ** -POPULARITY_EXPONENT
        return self.known * factor**self.strength

    def log_scores(
        self, p: Tensor, timeline: Timeline, neighborhood: NeighborhoodConfig, query: Query
    ) -> Tensor:
        """Log of probabilities `p` [B, N] times the factors: [B, N]; `p` is changed in place."""
        row, user, factor = self.factors(timeline, neighborhood, query.user, timeline.tick(query.time))
        p[row, user] *= factor
        return p.clamp_(min=MIN_PROBABILITY).log_()

    def log_scores_of_pairs(
        self, log_p: Tensor, row: Tensor, user: Tensor, contacts: Contacts, received: Tensor, num_users: int
    ) -> Tensor:
        """Log-probabilities of M (query, user) pairs plus the logs of the factors: [M] float64.

        Args:
            log_p: [M].
            row: [M] int64, the query of each pair.
            user: [M] int64.
            contacts: of the queries.
            received: [C] int64, acts on each contact before the query.
            num_users: N.
        """
        log_p = log_p.double()
        if not len(contacts):
            return log_p
        contact, log_factor = self.log_factors(contacts, received, num_users)
        key = row * num_users + user
        at = torch.searchsorted(contact, key).clamp(max=len(contact) - 1)
        return log_p + torch.where(contact[at] == key, log_factor[at], 0.0)

    def log_factors(self, contacts: Contacts, received: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
        """C contacts of B queries, each as b * N + contact, and their factors; see `log_scores_of_pairs`.

        Returns:
            [C] int64, ascending, and logs of the factors [C] float64.
        """
        key, order = (contacts.row * num_users + contacts.user).sort()
        return key, self.factors_of(contacts, received)[order].double().log_()


PRIOR_GRID = tuple(
    ContactPrior(strength, known) for strength, known in product((0.0, 0.5, 1.0), (1.0, 2.0, 4.0))
)
"""The priors that validation chooses from."""


class ScoreCache:
    """Computes the probabilities of all users [B, N] once for each set of queries, and returns copies.

    Args:
        probabilities: from B queries to [B, N].
    """

    def __init__(self, probabilities: Callable[[Query], Tensor]) -> None:
        self._probabilities = probabilities
        self._cached: dict[bytes, Tensor] = {}

    def __call__(self, query: Query) -> Tensor:
        """A copy of the probabilities [B, N] for B queries."""
        key = b"".join(part.numpy().tobytes() for part in (query.user, query.time, query.action))
        if key not in self._cached:
            self._cached[key] = self._probabilities(query)
        return self._cached[key].clone()


@dataclass
class PriorScorer:
    """A `Scorer` of all users under a prior, for `rank_events`.

    Attributes:
        name: of the model, for messages.
        prior: the factors.
        probabilities: from B queries to the probabilities of all users [B, N], which are changed in place.
        timeline: the index.
        neighborhood: limits the contacts.
    """

    name: str
    prior: ContactPrior
    probabilities: Callable[[Query], Tensor]
    timeline: Timeline
    neighborhood: NeighborhoodConfig

    def score(self, query: Query) -> Tensor:
        """Log-scores [B, N]."""
        return self.prior.log_scores(self.probabilities(query), self.timeline, self.neighborhood, query)
