"""Statistics of a friend graph: size, degree and reciprocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graphrec.data import FriendGraph
from graphrec.evaluate import Initiations
from graphrec.temporal import Timeline

WEEK_SECONDS = 7 * 86_400


@dataclass(frozen=True)
class NetworkStatistics:
    """Counts and shares of a friend graph over all of its events.

    Attributes:
        users: number of users.
        with_events: number of users with at least one event.
        events: number of events.
        pairs: number of directed pairs with at least one event.
        days: from the first to the last event.
        median_degree: median number of contacts, among users with events.
        reciprocated: share of directed pairs that are mutual.
        reply_rate: share of initiations with a reply within 7 days, among those at least 7 days before the
            end.
        first_share: share of events that are the first of a directed pair.
        degrees: [with_events] int64, number of contacts of each user with events.
        reply_days: days from each initiation with a reply to its reply.
    """

    users: int
    with_events: int
    events: int
    pairs: int
    days: float
    median_degree: float
    reciprocated: float
    reply_rate: float
    first_share: float
    degrees: np.ndarray
    reply_days: np.ndarray

    @classmethod
    def of(cls, graph: FriendGraph) -> NetworkStatistics:
        """Compute the statistics of a graph."""
        timeline, pairs = Timeline.of(graph), Initiations.of(graph)
        start, end = int(timeline.instants[0]), int(timeline.instants[-1])
        everyone = torch.arange(graph.num_users)
        degrees = timeline.degree(everyone, torch.full_like(everyone, len(timeline.instants))).numpy()
        mutual = pairs.reply_time >= 0
        directed = len(mutual) + int(mutual.sum())
        wait = pairs.reply_time - pairs.initiation_time
        mature = pairs.initiation_time <= end - WEEK_SECONDS
        quick = mutual & (wait <= WEEK_SECONDS)
        return cls(
            users=graph.num_users,
            with_events=int((degrees > 0).sum()),
            events=graph.num_events,
            pairs=directed,
            days=(end - start) / 86_400,
            median_degree=float(np.median(degrees[degrees > 0])),
            reciprocated=2 * float(mutual.sum()) / directed,
            reply_rate=float(quick[mature].mean()) if mature.any() else float("nan"),
            first_share=directed / graph.num_events,
            degrees=degrees[degrees > 0],
            reply_days=wait[mutual] / 86_400,
        )

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) of each statistic as text."""
        rate = self.reply_rate
        replies = "unknown: under 7 days of data" if np.isnan(rate) else f"{rate:.1%}"
        return [
            ("users", f"{self.users:,} ({self.with_events:,} with events)"),
            ("events", f"{self.events:,} in {self.days:.1f} days"),
            ("directed pairs", f"{self.pairs:,}"),
            ("median number of contacts", f"{self.median_degree:g}"),
            ("pairs reciprocated", f"{self.reciprocated:.1%}"),
            ("initiations replied to in 7 days", replies),
            ("events that are the first of a pair", f"{self.first_share:.1%}"),
        ]
