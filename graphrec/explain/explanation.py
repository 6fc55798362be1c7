"""An explanation: one suggestion and the evidence for it."""

from __future__ import annotations

from dataclasses import dataclass

from graphrec.data import Id
from graphrec.explain.evidence import Evidence
from graphrec.explain.sentence import write_sentence


@dataclass(frozen=True)
class Explanation:
    """Why a candidate is suggested to a user.

    Attributes:
        user, candidate: raw ids.
        time: seconds; all evidence is strictly older.
        action: name of the action the candidate is suggested for.
        score: of the candidate.
        evidence: pieces that move the score, largest effect first; may be empty.
    """

    user: Id
    candidate: Id
    time: int
    action: str
    score: float
    evidence: tuple[Evidence, ...]

    @property
    def sentence(self) -> str:
        """The evidence in one sentence that addresses the user."""
        return write_sentence(self.candidate, self.time, self.evidence)

    def __str__(self) -> str:
        return self.sentence
