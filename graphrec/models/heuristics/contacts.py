"""Heuristics of repeated contact: who was in contact with the user last."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.models.direct_candidates import LAST_ACT, LAST_EVENT
from graphrec.models.heuristic_lists import DirectRule
from graphrec.models.heuristics.base import Heuristic
from graphrec.temporal import NEVER


class RepeatRecency(Heuristic):
    """Time of the user's last act on the candidate; candidates without one follow, by recent popularity."""

    name = "repeat_recency"
    direct = DirectRule(candidates=LAST_ACT, add_popularity=False)
    _either_way = False

    def _score_in_order(self, query: Query) -> Tensor:
        met = self._timeline.distinct_contacts(query.user, self._timeline.tick(query.time))
        last = torch.maximum(met.last_out, met.last_in) if self._either_way else met.last_out
        happened = last > NEVER
        row, user, last = met.row[happened], met.user[happened], last[happened]
        scores = self._fallback(query)
        scores[row, user] = (last - self._origin + 1).double()
        return scores


class ReplyRecency(RepeatRecency):
    """Time of the last event between user and candidate, either way; those without follow, by popularity."""

    name = "reply_recency"
    direct = DirectRule(candidates=LAST_EVENT, add_popularity=False)
    _either_way = True
