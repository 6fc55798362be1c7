"""What is asked of a served bundle, and the answers."""

from __future__ import annotations

from dataclasses import dataclass

from graphrec.data import Outcome
from graphrec.models import Question


@dataclass(frozen=True)
class Asked:
    """What a list is for; requests that ask the same are answered together.

    Attributes:
        k: people for each user, at most.
        time, action, horizon, outcome, now: as in `graphrec.models.query_for`.
    """

    k: int = 10
    time: int | None = None
    action: str | None = None
    horizon: int | None = None
    outcome: Outcome | None = None
    now: bool = False

    @property
    def question(self) -> Question:
        """The question without k."""
        return {
            "time": self.time,
            "action": self.action,
            "horizon": self.horizon,
            "outcome": self.outcome,
            "now": self.now,
        }


@dataclass(frozen=True)
class Answer:
    """People suggested to one user, best first.

    Attributes:
        user: raw id as text.
        people: raw ids as text.
        scores: of these people.
        time: seconds; only older events were used.
    """

    user: str
    people: tuple[str, ...]
    scores: tuple[float, ...]
    time: int


class UnavailableError(Exception):
    """The server cannot answer now; the request may be sent again."""


class NotSuggestedError(Exception):
    """A person is never suggested to a user. The reason is not told."""
