"""The bundle in memory: it answers, takes in writes as they are made durable, and hides whom it must."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import DataError
from graphrec.explain import Explanation
from graphrec.models import query_for
from graphrec.models.suggest import suggested
from graphrec.service import Bundle
from graphrec.service.explaining import explain_within_rules
from graphrec.serving.enforcement import Enforcement
from graphrec.serving.questions import Answer, Asked, NotSuggestedError
from graphrec.serving.replay import append_events, joined
from graphrec.serving.side_state import RestingPairs
from graphrec.serving.writes import EventsWrite, FeedbackWrite, ForgetWrite, Write

NO_PAIRS = torch.empty(2, 0, dtype=torch.int64)

ABSOLUTE_SECONDS = 946_684_800
"""The year 2000: a log that ends later tells the time by the clock; others have a start of their own."""


@dataclass(frozen=True)
class Facts:
    """What a bundle has a place for.

    Attributes:
        actions: of events, those of impressions included.
        is_weighted: whether events have weights.
        has_integer_ids: whether all ids are integers.
    """

    actions: tuple[str, ...]
    is_weighted: bool
    has_integer_ids: bool

    @classmethod
    def of(cls, bundle: Bundle) -> Facts:
        """The facts of a bundle."""
        graph = bundle.graph
        return cls(
            (*graph.actions, *graph.impressions), graph.weights() is not None, graph.user_ids.raw.dim() == 1
        )


class LiveBundle:
    """A bundle that one thread asks and changes.

    Args:
        bundle: with all writes before `position`.
        position: of the next write.
        resting: dismissed suggestions.

    Attributes:
        bundle: as given; events are appended to it in place.
        position: of the next write to take in.
        num_events_applied: since the start.
        num_events_late: of these, events that count from a later time than their own.
        num_events_left: events that the bundle has no place for.
        facts: of the bundle.
    """

    def __init__(self, bundle: Bundle, position: int, resting: RestingPairs) -> None:
        self.bundle, self.position, self._resting = bundle, position, resting
        self.num_events_applied = self.num_events_late = self.num_events_left = 0
        self._rules = Enforcement(bundle.origin)
        self.facts = Facts.of(bundle)

    @property
    def last_time(self) -> int:
        """Seconds, of the last event."""
        return int(self.bundle.graph.events().time[-1])

    @property
    def now(self) -> int:
        """Seconds, of an event that comes without a time."""
        last = self.last_time
        return max(last, int(clock.time())) if self.has_clock else last

    @property
    def has_clock(self) -> bool:
        """Whether the times of events are those of the clock, and not counted from a start of their own."""
        return self.last_time >= ABSOLUTE_SECONDS

    @property
    def gone(self) -> frozenset[str]:
        """Forgotten users whom the bundle still has, as text."""
        return self._rules.gone

    @property
    def num_resting(self) -> int:
        """Dismissed suggestions that rest."""
        return len(self._resting)

    def take_in(self, records: Sequence[tuple[int, Sequence[Write]]]) -> None:
        """Apply records of writes, each with its position.

        A forgotten user is hidden until the bundle is replaced by one without them; so are their later
        events.
        """
        writes = [write for position, record in records for write in record if position >= self.position]
        if records:
            self.position = max(self.position, records[-1][0] + 1)
        for one in writes:
            if isinstance(one, FeedbackWrite):
                self._resting.add(one)
            elif isinstance(one, ForgetWrite):
                self._resting.forget(one.user)
                self._hide(one.user)
        events, _ = joined([one for one in writes if isinstance(one, EventsWrite)])
        if self.gone:
            named = zip(events.src, events.dst, strict=True)
            events = events.kept([self.gone.isdisjoint(pair) for pair in named])
        if len(events):
            num_events, num_late, left = append_events(self.bundle, events)
            self.num_events_applied += num_events
            self.num_events_late += num_late
            self.num_events_left += len(left)

    def expire(self, time: int) -> None:
        """Delete dismissals whose rest is over at a time, in seconds."""
        self._resting.expire(time)

    def replace(self, bundle: Bundle, position: int) -> None:
        """Take another bundle, with all writes before a position, in the place of this one."""
        self.bundle, self.position, self._rules = bundle, position, Enforcement(bundle.origin)
        self.facts = Facts.of(bundle)

    def knows(self, user: str) -> bool:
        """Whether the bundle has a user, who is not forgotten."""
        return user not in self.gone and int(self.bundle.graph.user_ids.find([user])) >= 0

    def answer(self, users: Sequence[str], asked: Asked) -> list[Answer | None]:
        """Suggest people to each of some users, given as text; None for an unknown user.

        Raises:
            KeyError: the action is unknown.
            ValueError: as `graphrec.models.query_for`.
        """
        ids, bundle = self.bundle.graph.user_ids, self.bundle
        found = ids.find(list(users))
        for row, user in enumerate(users if self.gone else ()):
            if user in self.gone:
                found[row] = -1
        rows = (found >= 0).nonzero().flatten()
        out: list[Answer | None] = [None] * len(users)
        if not len(rows):
            return out
        query = query_for(bundle.recommender, found[rows], **asked.question)
        known = [users[row] for row in rows.tolist()]
        moment = int(query.time[0])
        blocked, hidden = self._rules.indices(self._rules.rules(known), known, ids)
        resting = self._resting_rows(known, moment, before=asked.time is not None)
        exclude = (torch.cat([blocked[0], resting[0]]), torch.cat([blocked[1], resting[1]]))
        people, scores = suggested(
            bundle.recommender, query, asked.k, blocked=NO_PAIRS, opted_out=hidden, exclude=exclude
        )
        flat = [str(one) for one in ids.lookup(people[people >= 0])]
        sizes, values = (people >= 0).sum(1).tolist(), scores.tolist()
        begin = 0
        for row, user, size, value in zip(rows.tolist(), known, sizes, values, strict=True):
            out[row] = Answer(user, tuple(flat[begin : begin + size]), tuple(value[:size]), moment)
            begin += size
        return out

    def explain(self, user: str, candidate: str, asked: Asked) -> Explanation:
        """Explain a suggestion.

        Raises:
            KeyError: the user, or the action, is unknown.
            NotSuggestedError: the person is never suggested to the user, or unknown.
            ValueError: as `graphrec.models.query_for`.
        """
        if not self.knows(user):
            raise KeyError(f"unknown user id {user!r}")
        query_for(self.bundle.recommender, torch.zeros(1, dtype=torch.int64), **asked.question)
        if not self.knows(candidate):
            raise NotSuggestedError
        try:
            rules = self._rules.rules([user, candidate])
            ids = self.bundle.graph.user_ids
            return explain_within_rules(
                self.bundle, user, candidate, rules, lambda them: them.indices(ids), **asked.question
            )
        except DataError:  # the rules cannot be read
            raise
        except ValueError:
            raise NotSuggestedError from None

    def _resting_rows(self, users: Sequence[str], time: int, *, before: bool) -> tuple[Tensor, Tensor]:
        """Rows of users and the people who rest for them, both [M] int64."""
        pairs = [
            (row, person)
            for row, user in enumerate(users)
            for person in self._resting.of(user, time, before=before)
        ]
        people = self.bundle.graph.user_ids.find([person for _, person in pairs])
        rows = torch.tensor([row for row, _ in pairs], dtype=torch.int64)
        return rows[people >= 0], people[people >= 0]

    def _hide(self, user: str) -> None:
        if int(self.bundle.graph.user_ids.find([user])) >= 0:
            self._rules.gone |= {user}
