"""The newcomers' protocol: suggestions to users, and of users, with few contacts or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_count
from graphrec.evaluate.newcomer_questions import NewcomerQuestions, NewcomerStage
from graphrec.evaluate.protocol import (
    SCORES_PER_BATCH,
    Row,
    Scorer,
    check_not_fitted_on,
    evaluate_batches,
)
from graphrec.metrics import bootstrap_interval, count_above
from graphrec.temporal import Timeline

Direction = Literal["to_newcomers", "of_newcomers"]
"""Whom to suggest to newcomers; and which newcomers to suggest to present users."""

DIRECTIONS: tuple[Direction, ...] = ("to_newcomers", "of_newcomers")


@dataclass(frozen=True)
class NewcomerRanks:
    """Ranks of the contacts that newcomers came to have.

    Where features are few, many users have one score. Metrics are their expected values when equal scores are
    ordered at random.

    Attributes:
        name: of the recommender.
        k: length of a list.
        first: by (contacts known, direction), [M] int64: the best rank of the present user among all present
            users, in the newcomer's list; or of the newcomer among all newcomers, in the present user's list.
        last: likewise, the worst rank among users with the same score.
        newcomer: by (contacts known, direction), [M] int64.
    """

    name: str
    k: int
    first: dict[tuple[int, Direction], np.ndarray]
    last: dict[tuple[int, Direction], np.ndarray]
    newcomer: dict[tuple[int, Direction], np.ndarray]

    def terms(self, metric: str, num_known: int, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
        """The values [M] whose mean is a metric, 'mrr' or 'recall', and their newcomers [M].

        Raises:
            KeyError: there is no such metric or question.
        """
        first, last = self.first[num_known, direction], self.last[num_known, direction]
        number = last - first + 1
        values = {
            "mrr": (digamma(last + 1.0) - digamma(first)) / number,  # the mean of 1/first, ..., 1/last
            "recall": (self.k + 1.0 - first).clip(0, number) / number,
        }
        return values[metric], self.newcomer[num_known, direction]

    def rows(self) -> list[Row]:
        """Return a row of metrics with 95% intervals, paired by newcomer, for each question with answers."""
        out: list[Row] = []
        for (num_known, direction), first in self.first.items():
            if not len(first):
                continue
            row: Row = {"model": self.name, "known_contacts": num_known}
            row |= {"direction": direction, "n": len(first)}
            for metric, title in (("mrr", "mrr"), ("recall", f"recall@{self.k}")):
                values, group = self.terms(metric, num_known, direction)
                low, high = bootstrap_interval(values, group)
                row |= {title: float(values.mean()), f"{title}_low": low, f"{title}_high": high}
            out.append(row)
        return out


def evaluate_newcomers(
    scorer: Scorer, questions: NewcomerQuestions, *, k: int = 50, progress: bool = True
) -> NewcomerRanks:
    """Rank the contacts that newcomers came to have, in lists to them and in lists of them.

    `to_newcomers`: a newcomer asks, just before the contact after those known; every contact with a present
    user from then on is ranked among all present users but those known. `of_newcomers`: the present user of
    such a contact asks at the same time; the newcomer is ranked among all newcomers that have joined by then
    but the user's contacts. Other contacts still to come count as wrong.

    Args:
        scorer: fitted on `questions.graph` before `questions.until`.
        questions: the newcomers.
        k: length of a list, for recall.
        progress: show a progress bar, where there is a terminal.

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on what is asked.
    """
    k = check_count("k", k)
    graph, timeline = questions.graph, Timeline.of(questions.graph)
    check_not_fitted_on(scorer, torch.tensor([questions.until]), in_sample=False)
    # The tick from which a user can be suggested, to newcomers and among newcomers; or never.
    never = len(timeline.instants)
    since = {direction: torch.full((graph.num_users,), never) for direction in DIRECTIONS}
    since["to_newcomers"][questions.present] = -1
    since["of_newcomers"][questions.newcomers] = timeline.first_tick[questions.newcomers].long()
    first: dict[tuple[int, Direction], np.ndarray] = {}
    last: dict[tuple[int, Direction], np.ndarray] = {}
    newcomer: dict[tuple[int, Direction], np.ndarray] = {}
    for num_known, stage in questions.stages.items():
        for direction in DIRECTIONS:
            asked = _asked(questions, stage, direction)
            title = f"{scorer.name}, {num_known} contacts"
            key = num_known, direction
            first[key], last[key] = _ranks(scorer, graph, asked, since[direction], title, progress)
            newcomer[key] = stage.user[stage.row].numpy()
    return NewcomerRanks(scorer.name, k, first, last, newcomer)


class _Asked(NamedTuple):
    """B queries, in order of time, and M users to rank: of query `row` [M] the user `target` [M], int64."""

    query: Query
    row: Tensor
    target: Tensor


def _asked(questions: NewcomerQuestions, stage: NewcomerStage, direction: Direction) -> _Asked:
    """The queries of a stage, one for each user and time, and whom to rank in the order of its contacts."""
    user, time, target = stage.user[stage.row], stage.time[stage.row], stage.other
    if direction == "of_newcomers":
        user, target = target, user
    distinct, row = torch.stack([time, user]).unique(dim=1, return_inverse=True)
    query = Query.of(questions.graph, distinct[1], distinct[0], questions.action)
    return _Asked(query, row, target)


def _ranks(
    scorer: Scorer, graph: FriendGraph, asked: _Asked, since: Tensor, title: str, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The best and worst ranks of targets, [M] int64 each.

    They are ranked among the users with `since` [N] up to the query's tick, without the query's contacts.
    """
    timeline = Timeline.of(graph)
    best, worst = np.empty((2, len(asked.row)), np.int64)
    order = asked.row.argsort(stable=True)
    row, target = asked.row[order], asked.target[order]

    def rank_batch(rows: slice, batch: Query, scores: Tensor) -> None:
        tick = timeline.tick(batch.time)
        allowed = since <= tick[:, None]
        allowed[timeline.contacts.before(batch.user, tick)] = False
        allowed[torch.arange(len(batch)), batch.user] = False
        scores = scores.double().masked_fill(~allowed, -torch.inf)
        first, last = torch.searchsorted(row, torch.tensor([rows.start, rows.stop])).tolist()
        for part in torch.arange(first, last).split(max(1, SCORES_PER_BATCH // graph.num_users)):
            at = row[part] - rows.start
            above, tied = count_above(scores[at], target[part])
            place = order[part].numpy()
            best[place] = (1 + above).numpy()
            worst[place] = (1 + above + tied).numpy()

    for _ in evaluate_batches(
        scorer, asked.query, graph.num_users, rank_batch, title=title, progress=progress
    ):
        pass
    return best, worst
