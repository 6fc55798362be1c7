"""Replies that are still to come: how many of them have arrived by an age, and the reply rate in the end.

A young initiation without a reply may still get one. Counting it as a refusal makes the reply rate of the
last days too low; counting only the decided initiations makes it too high, because a reply decides early and
silence late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from graphrec.evaluate.initiations import Initiations


@dataclass(frozen=True)
class ReplyDelayCurve:
    """The distribution of delays of replies within a reply window.

    Attributes:
        reply_window: seconds.
        delay: [K] int64 seconds, ascending, the distinct delays of replies within the window.
        reply_probability: [K] float64, the probability of a reply within each delay.
    """

    reply_window: int
    delay: np.ndarray
    reply_probability: np.ndarray

    @classmethod
    def of(cls, initiations: Initiations, *, until: int, reply_window: int) -> Self:
        """Estimate the curve from the events before `until` (seconds).

        The product-limit estimator (Kaplan & Meier 1958, https://doi.org/10.2307/2281868): the hazard of a
        delay is the number of its replies over the number of initiations that had no reply until then and are
        old enough to show one. An initiation at `until` - a shows delays up to a - 1.
        """
        delay, age = _delays_and_ages(initiations, until)
        replied = np.sort(delay[(delay >= 0) & (delay <= reply_window)])
        at, count = np.unique(replied, return_counts=True)
        # At risk of a reply at a delay: neither replied to earlier, nor too young to show it.
        last = np.sort(np.where(delay >= 0, delay, age - 1))
        at_risk = len(last) - np.searchsorted(last, at)
        return cls(reply_window, at, 1 - np.cumprod(1 - count / np.maximum(at_risk, 1)))

    @property
    def rate(self) -> float:
        """The probability that an initiation is replied to within the window."""
        return float(self.reply_probability[-1]) if len(self.reply_probability) else 0.0

    def arrived_fraction(self, age: np.ndarray) -> np.ndarray:
        """Return the fraction of the replies within the window that arrive by given ages.

        Args:
            age: [n] seconds since the initiation.

        Returns:
            [n] float64; 1 beyond the window, and everywhere if there is no reply at all.
        """
        if not self.rate:
            return np.ones(len(age))
        known = np.concatenate([[0.0], self.reply_probability / self.rate])
        # At age a the delays below a have been seen.
        return np.where(age > self.reply_window, 1.0, known[np.searchsorted(self.delay, age)])

    def reply_rate(self, initiations: Initiations, chosen: np.ndarray, *, until: int) -> float:
        """Estimate the probability of a reply within the window for some initiations, however young.

        It is the number of replies so far over the sum of `arrived_fraction` of the initiations' ages.
        Unbiased where these users reply as fast as all do.

        Args:
            initiations: all initiations of a graph.
            chosen: [P] bool, or [n] positions.
            until: seconds; only events strictly before it are known.

        Raises:
            ValueError: none of them is old enough for a reply.
        """
        delay, age = (part[chosen] for part in _delays_and_ages(initiations, until, keep_all=True))
        arrived = self.arrived_fraction(age[age > 0]).sum()
        if not arrived > 0:
            raise ValueError(f"none of the {len(age)} initiations is old enough to have been replied to")
        return float(((delay >= 0) & (delay <= self.reply_window)).sum() / arrived)


def _delays_and_ages(
    initiations: Initiations, until: int, *, keep_all: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Delays of replies before `until` (or -1), and ages, of initiations before it or all: [n] int64 each."""
    known = (initiations.reply_time >= 0) & (initiations.reply_time < until)
    delay = np.where(known, initiations.reply_time - initiations.initiation_time, -1)
    age = until - initiations.initiation_time
    kept = np.ones(len(age), dtype=bool) if keep_all else age > 0
    return delay[kept], age[kept]
