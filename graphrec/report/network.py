"""What a network is like: the figures that tell friends from films."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graphrec.data import FriendGraph
from graphrec.evaluate import Initiations
from graphrec.temporal import Timeline

WEEK = 7 * 86_400


@dataclass(frozen=True)
class Network:
    """Counts and shares of one friend graph over its whole time.

    Attributes:
        users: all, and with_events: those with at least one.
        events, pairs: events, and directed pairs that ever had one.
        days: length of the log.
        median_degree: distinct people met, among users with events.
        reciprocated: share of directed pairs that are mutual.
        answered: share of first approaches answered within 7 days, of those at least 7 days old at the end.
        opening: share of events that open a directed pair.
        degrees: [with_events] int64.
        answer_days: waiting times of all answers, days.
    """

    users: int
    with_events: int
    events: int
    pairs: int
    days: float
    median_degree: float
    reciprocated: float
    answered: float
    opening: float
    degrees: np.ndarray
    answer_days: np.ndarray

    @classmethod
    def of(cls, graph: FriendGraph) -> Network:
        """Measure a graph."""
        timeline, pairs = Timeline.of(graph), Initiations.of(graph)
        start, end = int(timeline.instants[0]), int(timeline.instants[-1])
        everyone = torch.arange(graph.num_users)
        degrees = timeline.degree(everyone, torch.full_like(everyone, len(timeline.instants))).numpy()
        mutual = pairs.reply_time >= 0
        directed = len(mutual) + int(mutual.sum())
        wait = pairs.reply_time - pairs.initiation_time
        mature = pairs.initiation_time <= end - WEEK
        quick = mutual & (wait <= WEEK)
        return cls(
            users=graph.num_users,
            with_events=int((degrees > 0).sum()),
            events=graph.num_events,
            pairs=directed,
            days=(end - start) / 86_400,
            median_degree=float(np.median(degrees[degrees > 0])),
            reciprocated=2 * float(mutual.sum()) / directed,
            answered=float(quick[mature].mean()) if mature.any() else float("nan"),
            opening=directed / graph.num_events,
            degrees=degrees[degrees > 0],
            answer_days=wait[mutual] / 86_400,
        )

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each figure, for people."""
        answered = "unknown: under 7 days of data" if np.isnan(self.answered) else f"{self.answered:.1%}"
        return [
            ("users", f"{self.users:,} ({self.with_events:,} with events)"),
            ("events", f"{self.events:,} in {self.days:.1f} days"),
            ("directed pairs", f"{self.pairs:,}"),
            ("median number of contacts", f"{self.median_degree:g}"),
            ("pairs reciprocated", f"{self.reciprocated:.1%}"),
            ("first approaches answered in 7 days", answered),
            ("events that open a pair", f"{self.opening:.1%}"),
        ]
