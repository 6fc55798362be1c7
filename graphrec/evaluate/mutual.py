"""Mutual evaluation: a suggestion counts when both sides act."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.data.checks import check_choice, check_count, check_graph
from graphrec.evaluate.pairs import Pairs
from graphrec.evaluate.protocol import Row, Scorer, and_self, check_unseen, judged_batches, sampled
from graphrec.evaluate.snapshot import evaluate_snapshot
from graphrec.metrics import HITS_AT, bootstrap_interval, count_above, mean_rank
from graphrec.temporal import Timeline


def evaluate_mutual(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
    progress: bool = True,
    in_sample: bool = False,
) -> list[Row]:
    """Rows of mutual metrics of one recommender.

    Slice `mutual`: pairs whose first contact falls in the window and who become mutual in it. Both ranks, of
    each for the other, are taken just before that contact, by its action, people of any earlier contact
    excluded. Mutual MRR is the mean of 1 / max(both ranks).

    Slice `answered`: pairs first in contact before the window who become mutual in it; both ranks are taken
    just before the answer, by its action.

    Slice `snapshot`: k new people suggested to everyone seen before the window, at its start, by the
    commonest action. Reciprocated precision@k is, over k, how many of them the user then approaches and who
    act on the user within the horizon of each other's first act. An approach younger than the horizon at
    the window's end and not answered yet is undecided, and leaves the denominator. Ties at the border of a
    list share its last places. Where every list is undecided there is no precision. Exposure: the Gini
    coefficient of how often each person seen before the window is suggested, and the share never suggested.

    With `in_sample`, a recommender may have been fitted on events of the window.

    Raises:
        EvaluationError: a score is not finite; or the recommender was fitted on events of the window.
        ValueError: there is no such part, or k is smaller than 1.
    """
    check_graph(graph)
    k = check_count("k", k)
    split = split or TemporalSplit.of(graph)
    rows: list[Row] = []
    for name in ("mutual", "answered"):
        worse, group = mutual_ranks(
            scorer, graph, name, part=part, split=split, progress=progress, in_sample=in_sample
        )
        if len(worse):
            low, high = bootstrap_interval(1 / worse, group)
            rows.append(
                {"model": scorer.name, "part": part, "slice": name, "n": len(worse)}
                | {"mutual_mrr": float((1 / worse).mean()), "mutual_mrr_low": low, "mutual_mrr_high": high}
                | {f"mutual_hits@{at}": float((worse <= at).mean()) for at in HITS_AT}
            )
    snapshot = evaluate_snapshot(
        scorer, graph, part=part, split=split, k=k, progress=progress, in_sample=in_sample
    )
    return [*rows, snapshot.row("all") | {"slice": "snapshot"}]


def mutual_ranks(
    scorer: Scorer,
    graph: FriendGraph,
    slice_name: Literal["mutual", "answered"] = "mutual",
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    progress: bool = True,
    in_sample: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The worse of both ranks of each pair of a slice of `evaluate_mutual`, and whose pair it is: [n] each.

    The pairs and their order do not depend on the recommender, so two of them can be compared pair by pair.

    Raises:
        EvaluationError, ValueError: as in `evaluate_mutual`, or there is no such slice.
    """
    check_graph(graph)
    check_choice("slice", slice_name, ("mutual", "answered"))
    split = split or TemporalSplit.of(graph)
    pairs = Pairs.of(graph)
    start, end = split.window(part)
    check_unseen(scorer, torch.tensor([start]), in_sample=in_sample)
    became = (pairs.answer >= start) & (pairs.answer < end)
    inside, moment, action = became & (pairs.first >= start), pairs.first, pairs.action
    if slice_name == "answered":
        inside, moment, action = became & (pairs.first < start), pairs.answer, pairs.answer_action
    chosen = np.flatnonzero(inside)
    chosen = np.sort(sampled(chosen[np.lexsort((action[chosen], moment[chosen]))], graph.num_users))
    if not len(chosen):
        return np.empty(0), np.empty(0, dtype=np.int64)
    chosen = chosen[np.argsort(moment[chosen], kind="stable")]
    u, v, time, act = (torch.from_numpy(x[chosen]) for x in (pairs.u, pairs.v, moment, action))
    title = f"{scorer.name} {part} {slice_name}"
    ranks = [
        _ranks_without_contacts(scorer, graph, Query(a, time, act), b, title=title, progress=progress)
        for a, b in ((u, v), (v, u))
    ]
    # Where both acted at once nobody asked the other: such a pair is a group of its own.
    tied = pairs.first[chosen] == pairs.answer[chosen]
    group = np.where(tied, graph.num_users + np.arange(len(chosen)), pairs.u[chosen])
    return np.maximum(*ranks), group


def _ranks_without_contacts(
    scorer: Scorer, graph: FriendGraph, query: Query, target: Tensor, *, title: str, progress: bool
) -> np.ndarray:
    timeline = Timeline.of(graph)

    def judge(rows: slice, asked: Query, scores: Tensor) -> np.ndarray:
        goal = target[rows]
        excluded = and_self(asked, timeline.contacts.before(asked.user, timeline.tick(asked.time)))
        return mean_rank(scores, goal, count_above(scores, goal), excluded).numpy()

    ranks = judged_batches(scorer, query, graph.num_users, judge, title=title, progress=progress)
    return np.concatenate(list(ranks))
