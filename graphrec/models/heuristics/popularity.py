"""Heuristics that order all users alike, whoever asks: by events received, or by the last event."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from graphrec.data import Query
from graphrec.models.heuristic_lists import DirectRule, Measured
from graphrec.models.heuristics.base import Heuristic
from graphrec.temporal import dense

FIRST_ACTS = DirectRule(squash=False, first_only=True)


class Popularity(Heuristic):
    """Number of events that the candidate has received."""

    name = "popularity"
    direct = DirectRule(measure=Measured.RECEIVED, popularity=False)

    def _score_in_order(self, query: Query) -> Tensor:
        return dense.num_received(self._timeline, self._timeline.tick(query.time))


class RecentPopularity(Heuristic):
    """Events that the candidate has received, decayed with half-life max(3 days, training span / 48)."""

    name = "recent_popularity"
    direct = DirectRule(squash=False)

    def _score_in_order(self, query: Query) -> Tensor:
        return self._popularity.at(query.time)


class NewPopularity(Heuristic):
    """First acts that the candidate has received, one of each user, decayed as in recent popularity."""

    name = "new_popularity"
    direct = FIRST_ACTS

    def _score_in_order(self, query: Query) -> Tensor:
        return self._lists_of(FIRST_ACTS).popularity(query)


class LastActive(Heuristic):
    """Time of the candidate's last act."""

    name = "last_active"
    direct = DirectRule(measure=Measured.LAST_ACT, popularity=False)
    _role: Literal["src", "either"] = "src"

    def _score_in_order(self, query: Query) -> Tensor:
        last = dense.last_time(self._timeline, self._timeline.tick(query.time), role=self._role)
        return last.sub_(self._origin - 1).clamp_(min=0).double()


class LastSeen(LastActive):
    """Time of the candidate's last event, as actor or as target."""

    name = "last_seen"
    direct = DirectRule(measure=Measured.LAST_EVENT, popularity=False)
    _role = "either"
