"""The mutual protocol: a suggestion counts only if both sides act."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.data.checks import check_choice, check_count, check_graph
from graphrec.evaluate.initiations import Initiations
from graphrec.evaluate.protocol import (
    Row,
    Scorer,
    check_not_fitted_on,
    evaluate_batches,
    exclude_self,
    sample_rows,
)
from graphrec.evaluate.snapshot import evaluate_snapshot
from graphrec.metrics import HIT_CUTOFFS, bootstrap_interval, count_above, mean_rank
from graphrec.temporal import Timeline


def evaluate_mutual(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
    snapshot: bool = True,
    progress: bool = True,
    in_sample: bool = False,
) -> list[Row]:
    """Evaluate one recommender on both directions of ties.

    Slice `mutual`: pairs whose first contact falls in the window and that become mutual in it. The rank of
    each user for the other is taken just before that contact, for its action, with earlier contacts excluded.
    Mutual MRR is the mean of 1 / max(both ranks).

    Slice `answered`: pairs with their first contact before the window that become mutual in it; both ranks
    are taken just before the reply, for its action.

    Slice `snapshot`: the row 'all' of `evaluate_snapshot`, k suggestions to every user with an event before
    the window.

    Args:
        scorer: fitted on events before the part.
        graph: the whole graph.
        part: 'val' or 'test'.
        split: by default the graph's `TemporalSplit`.
        k: the length of the lists of `snapshot`.
        snapshot: also evaluate that slice; `evaluate_lists` asks at several moments instead.
        progress: show a progress bar, where there is a terminal.
        in_sample: allow events that the recommender was fitted on (before its `fitted_until`).

    Returns:
        One row of metrics for each slice that has pairs, and one for `snapshot` if it is evaluated.

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
                | {f"mutual_hits@{at}": float((worse <= at).mean()) for at in HIT_CUTOFFS}
            )
    if snapshot:
        lists = evaluate_snapshot(
            scorer, graph, part=part, split=split, k=k, progress=progress, in_sample=in_sample
        )
        rows.append(lists.row("all") | {"slice": "snapshot"})
    return rows


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
    """Rank both users of each pair of a slice of `evaluate_mutual` for each other.

    The pairs and their order do not depend on the recommender, so two recommenders can be compared pair by
    pair. Arguments are those of `evaluate_mutual`.

    Returns:
        (the larger of both ranks [n] float64; the group of each pair for resampling [n] int64: its
        initiator, or a group of its own where both acted at one time).

    Raises:
        EvaluationError, ValueError: as in `evaluate_mutual`, or there is no such slice.
    """
    check_graph(graph)
    check_choice("slice", slice_name, ("mutual", "answered"))
    split = split or TemporalSplit.of(graph)
    pairs = Initiations.of(graph)
    start, end = split.window(part)
    check_not_fitted_on(scorer, torch.tensor([start]), in_sample=in_sample)
    became = (pairs.reply_time >= start) & (pairs.reply_time < end)
    inside = became & (pairs.initiation_time >= start)
    moment, action = pairs.initiation_time, pairs.initiation_action
    if slice_name == "answered":
        inside = became & (pairs.initiation_time < start)
        moment, action = pairs.reply_time, pairs.reply_action
    chosen = np.flatnonzero(inside)
    chosen = np.sort(sample_rows(chosen[np.lexsort((action[chosen], moment[chosen]))], graph.num_users))
    if not len(chosen):
        return np.empty(0), np.empty(0, dtype=np.int64)
    chosen = chosen[np.argsort(moment[chosen], kind="stable")]
    u, v, time, act = (
        torch.from_numpy(x[chosen]) for x in (pairs.initiator, pairs.recipient, moment, action)
    )
    title = f"{scorer.name} {part} {slice_name}"
    ranks = [
        ranks_without_contacts(scorer, graph, Query(a, time, act), b, title=title, progress=progress)
        for a, b in ((u, v), (v, u))
    ]
    # Where both acted at one time neither is the initiator: such a pair is a group of its own.
    tied = pairs.initiation_time[chosen] == pairs.reply_time[chosen]
    group = np.where(tied, graph.num_users + np.arange(len(chosen)), pairs.initiator[chosen])
    return np.maximum(*ranks), group


def ranks_without_contacts(
    scorer: Scorer, graph: FriendGraph, query: Query, target: Tensor, *, title: str, progress: bool
) -> np.ndarray:
    """Ranks of targets [n] among all users but earlier contacts: [n] float64."""
    timeline = Timeline.of(graph)

    def rank_batch(rows: slice, batch: Query, scores: Tensor) -> np.ndarray:
        excluded = exclude_self(batch, timeline.contacts.before(batch.user, timeline.tick(batch.time)))
        return mean_rank(scores, target[rows], count_above(scores, target[rows]), excluded).numpy()

    ranks = evaluate_batches(scorer, query, graph.num_users, rank_batch, title=title, progress=progress)
    return np.concatenate(list(ranks))
