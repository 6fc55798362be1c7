"""Trials: how a recommender scores one person without some events of the past."""

from __future__ import annotations

import math
from functools import cached_property
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from graphrec.data import Events, FriendGraph, Query
from graphrec.models import Recommender
from graphrec.temporal import Timeline

_SPARE: WeakKeyDictionary[Timeline, list[tuple[Events, Timeline]]] = WeakKeyDictionary()
"""Private copies of indexes that no trial uses at the moment, each with the log that it is a copy of."""


class Trials:
    """The scores that a recommender gives to one candidate of a query, with and without events of the past.

    Where the recommender can read an index that has lost events (`Recommender.reading`), they are removed
    from a private copy of the index and put back, in work that grows with the timelines of their users. Other
    recommenders are put on a graph without them.

    Args:
        recommender: fitted.
        query: one query.
        candidate: [] int64, a user.

    Attributes:
        recommender: as given.
        score: with all events.
    """

    def __init__(self, recommender: Recommender, query: Query, candidate: Tensor) -> None:
        self.recommender, self._query, self._candidate = recommender, query, candidate
        self.score = self._score_by(recommender)

    def score_without(self, event_ids: Tensor) -> float:
        """Score without events [n] int64, positions in the log that are strictly before the query.

        Raises:
            ValueError: the score is not finite.
        """
        timeline = Timeline.of(self.recommender.graph, follows=True)
        index = _take_copy(timeline)
        removal = index.remove(event_ids)
        try:
            reading = self.recommender.reading(index, torch.from_numpy(removal.owner))
            if reading is not None:
                return self._score_by(reading)
        finally:
            index.restore(removal)
            _SPARE.setdefault(timeline, []).append((timeline.events, index))
        kept = torch.ones(len(self.past.events()), dtype=torch.bool).index_fill_(0, event_ids, False)
        return self._score_by(self.recommender.on(self.past.select_events(kept)))

    def among(self, kept: Tensor) -> Trials:
        """Return the trials on some events of the past only: [E] bool, of those of `past`."""
        known = self.recommender.on(self.past.select_events(kept))
        return Trials(known, self._query, self._candidate)

    @cached_property
    def past(self) -> FriendGraph:
        """The graph of the events strictly before the query."""
        return self.recommender.graph.snapshot(int(self._query.time))

    def _score_by(self, recommender: Recommender) -> float:
        row = torch.zeros(1, dtype=torch.int64)
        score = float(recommender.score_pairs(self._query, row, self._candidate.view(1)))
        if not math.isfinite(score):
            raise ValueError(f"{recommender.name} gave a score that is not finite: {score}")
        return score


def _take_copy(timeline: Timeline) -> Timeline:
    """A copy of an index that nobody else uses: one of an earlier trial, or a new one."""
    spare = _SPARE.get(timeline, [])
    while spare:
        events, index = spare.pop()
        if events is timeline.events:  # nothing was appended since
            return index
    return timeline.copy()
