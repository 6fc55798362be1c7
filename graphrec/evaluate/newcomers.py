"""The newcomers' protocol: suggestions to users, and of users, with few contacts or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
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
from graphrec.metrics import bootstrap_interval, count_above, reciprocal_rank
from graphrec.temporal import Timeline

Direction = Literal["to_newcomers", "of_newcomers"]
"""Whom to suggest to newcomers; and which newcomers to suggest to present users."""

DIRECTIONS: tuple[Direction, ...] = ("to_newcomers", "of_newcomers")


@dataclass(frozen=True)
class NewcomerRanks:
    """Ranks of the contacts that newcomers came to have.

    Attributes:
        name: of the recommender.
        k: length of a list.
        rank: by (contacts known, direction), [M] float64: of the present user among all present users, in the
            newcomer's list; or of the newcomer among all newcomers, in the present user's list.
        newcomer: by (contacts known, direction), [M] int64.
    """

    name: str
    k: int
    rank: dict[tuple[int, Direction], np.ndarray]
    newcomer: dict[tuple[int, Direction], np.ndarray]

    def terms(self, metric: str, num_known: int, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
        """The values [M] whose mean is a metric, 'mrr' or 'recall', and their newcomers [M].

        Raises:
            KeyError: there is no such metric or question.
        """
        rank = self.rank[num_known, direction]
        values = {"mrr": reciprocal_rank(rank), "recall": (rank <= self.k).astype(np.float64)}
        return values[metric], self.newcomer[num_known, direction]

    def rows(self) -> list[Row]:
        """Return a row of metrics with 95% intervals, paired by newcomer, for each question with answers."""
        out: list[Row] = []
        for (num_known, direction), rank in self.rank.items():
            if not len(rank):
                continue
            row: Row = {"model": self.name, "known_contacts": num_known}
            row |= {"direction": direction, "n": len(rank)}
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
    rank: dict[tuple[int, Direction], np.ndarray] = {}
    newcomer: dict[tuple[int, Direction], np.ndarray] = {}
    for num_known, stage in questions.stages.items():
        for direction in DIRECTIONS:
            asked = _asked(questions, stage, direction)
            title = f"{scorer.name}, {num_known} contacts"
            rank[num_known, direction] = _ranks(scorer, graph, asked, since[direction], title, progress)
            newcomer[num_known, direction] = stage.user[stage.row].numpy()
    return NewcomerRanks(scorer.name, k, rank, newcomer)


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
) -> np.ndarray:
    """Ranks of targets [M] among the users with `since` [N] up to the query's tick, without its contacts."""
    timeline, out = Timeline.of(graph), np.empty(len(asked.row))
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
            out[order[part].numpy()] = (1 + above + tied / 2).numpy()

    for _ in evaluate_batches(
        scorer, asked.query, graph.num_users, rank_batch, title=title, progress=progress
    ):
        pass
    return out
