"""Answers that come late: how mature a young approach is, and how often people answer in the end.

An approach of age a has been answered or may still be. Counting every silence as a no makes the answer rate
of the last days too low; counting only the approaches that are decided makes it too high, for a yes is
decided early and a no late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from graphrec.evaluate.pairs import Pairs


@dataclass(frozen=True)
class Maturity:
    """How large a part of the answers that come within a horizon has come by an age.

    Attributes:
        wait: the horizon, seconds.
        delay: [K] int64 seconds, ascending, the distinct delays of answers up to the horizon.
        answered: [K] float64, the probability of an answer within each delay.
    """

    wait: int
    delay: np.ndarray
    answered: np.ndarray

    @classmethod
    def of(cls, pairs: Pairs, *, until: int, wait: int) -> Self:
        """Estimate from what was known just before `until` (seconds) of all approaches.

        The product-limit estimator (Kaplan & Meier 1958, https://doi.org/10.2307/2281868): the hazard of a
        delay is its answers over the approaches that were unanswered till then and old enough to show one.
        An approach at `until` - a shows the delays up to a - 1.
        """
        delay, age = _known(pairs, until)
        come = np.sort(delay[(delay >= 0) & (delay <= wait)])
        at, count = np.unique(come, return_counts=True)
        # Whoever is unanswered and was still seen at a delay: left neither by an answer nor by the end.
        last = np.sort(np.where(delay >= 0, delay, age - 1))
        at_risk = len(last) - np.searchsorted(last, at)
        return cls(wait, at, 1 - np.cumprod(1 - count / np.maximum(at_risk, 1)))

    @property
    def rate(self) -> float:
        """The probability of an answer within the horizon, of all approaches."""
        return float(self.answered[-1]) if len(self.answered) else 0.0

    def share(self, age: np.ndarray) -> np.ndarray:
        """Of the answers within the horizon the part that has come at ages [n] (seconds): [n] float64.

        1 from the horizon on, and everywhere if nobody ever answered.
        """
        if not self.rate:
            return np.ones(len(age))
        known = np.concatenate([[0.0], self.answered / self.rate])
        # At age a the delays below a have been seen.
        return np.where(age > self.wait, 1.0, known[np.searchsorted(self.delay, age)])

    def answer_rate(self, pairs: Pairs, chosen: np.ndarray, *, until: int) -> float:
        """The probability of an answer within the horizon, of some approaches, however young.

        Answers so far over the sum of the approaches' maturities: each counts as the part of an approach that
        has been seen of it. Unbiased where these people answer as fast as all do.

        Args:
            pairs: all pairs.
            chosen: [P] bool, or [n] positions.
            until: the moment, seconds; only what is strictly older counts.

        Raises:
            ValueError: none of them is old enough to have been answered.
        """
        delay, age = (part[chosen] for part in _known(pairs, until, all_pairs=True))
        seen = self.share(age[age > 0]).sum()
        if not seen > 0:
            raise ValueError(f"none of the {len(age)} approaches is old enough to have been answered")
        return float(((delay >= 0) & (delay <= self.wait)).sum() / seen)


def _known(pairs: Pairs, until: int, *, all_pairs: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Delays of answers before `until`, or -1, and ages, of the pairs that had met by then: int64 each."""
    come = (pairs.answer >= 0) & (pairs.answer < until)
    delay, age = np.where(come, pairs.answer - pairs.first, -1), until - pairs.first
    met = np.ones(len(age), dtype=bool) if all_pairs else age > 0
    return delay[met], age[met]
