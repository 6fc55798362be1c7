"""Mutual evaluation: a suggestion counts when both sides act."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.evaluate.protocol import Row, Scorer, and_self, judged_batches, sampled
from graphrec.metrics import HITS_AT, bootstrap_interval, count_above, gini, mean_rank, top_k_share
from graphrec.sampler import Timeline

WEEK = 7 * 86_400


@dataclass(frozen=True)
class Pairs:
    """Unordered pairs of people, one row each, by what each side first did to the other.

    Attributes:
        u, v: [P] int64; u acted first; at the same time, by the lower action; else the lower index.
        first: [P] int64 seconds of the first act.
        answer: [P] int64 seconds of the first act the other way, or -1.
        action: [P] int64, by which the first act was done.
        answer_action: [P] int64, by which the answer was given, or -1.
    """

    u: np.ndarray
    v: np.ndarray
    first: np.ndarray
    answer: np.ndarray
    action: np.ndarray
    answer_action: np.ndarray

    @classmethod
    def of(cls, graph: FriendGraph) -> Pairs:
        """All pairs of a graph that ever had contact."""
        events, n = graph.events(), graph.num_users
        src, dst, time, action = (x.numpy() for x in (events.src, events.dst, events.time, events.action))
        order = np.lexsort(
            (action, time, src * n + dst)
        )  # tied acts of one pair: the lowest action, not the row
        directed, first = np.unique((src * n + dst)[order], return_index=True)
        first = order[first]
        back = dst[first] * n + src[first]
        where = np.minimum(np.searchsorted(directed, back), len(directed) - 1)
        answered = directed[where] == back
        reply = np.where(answered, first[where], -1)
        mine, theirs = (np.stack([time[i], action[i]]) for i in (first, reply))
        earlier = (mine[0] < theirs[0]) | ((mine[0] == theirs[0]) & (mine[1] < theirs[1]))
        opens = ~answered | earlier | ((mine == theirs).all(0) & (src[first] < dst[first]))
        first, reply, answered = first[opens], reply[opens], answered[opens]
        return cls(
            u=src[first],
            v=dst[first],
            first=time[first],
            answer=np.where(answered, time[reply], -1),
            action=action[first],
            answer_action=np.where(answered, action[reply], -1),
        )


def horizon(split: TemporalSplit, part: Part) -> int:
    """How long an answer is waited for, seconds: min(7 days, a quarter of the part's window)."""
    start, end = split.window(part)
    return max(1, min(WEEK, (end - start) // 4))


def evaluate_mutual(
    scorer: Scorer,
    graph: FriendGraph,
    *,
    part: Part = "test",
    split: TemporalSplit | None = None,
    k: int = 10,
    progress: bool = True,
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
    """
    split = split or TemporalSplit.of(graph)
    pairs = Pairs.of(graph)
    start, end = split.window(part)
    became = (pairs.answer >= start) & (pairs.answer < end)
    rows: list[Row] = []
    for name, inside, moment, action in (
        ("mutual", became & (pairs.first >= start), pairs.first, pairs.action),
        ("answered", became & (pairs.first < start), pairs.answer, pairs.answer_action),
    ):
        chosen = np.flatnonzero(inside)
        chosen = np.sort(sampled(chosen[np.lexsort((action[chosen], moment[chosen]))], graph.num_users))
        if len(chosen):
            chosen = chosen[np.argsort(moment[chosen], kind="stable")]
            u, v, time, act = (torch.from_numpy(x[chosen]) for x in (pairs.u, pairs.v, moment, action))
            title = f"{scorer.name} {part} {name}"
            ranks = [
                _ranks_without_contacts(scorer, graph, Query(a, time, act), b, title=title, progress=progress)
                for a, b in ((u, v), (v, u))
            ]
            worse = np.maximum(*ranks)
            # Where both acted at once nobody asked the other: such a pair is a group of its own.
            tied = pairs.first[chosen] == pairs.answer[chosen]
            group = np.where(tied, graph.num_users + np.arange(len(chosen)), pairs.u[chosen])
            low, high = bootstrap_interval(1 / worse, group)
            rows.append(
                {"model": scorer.name, "part": part, "slice": name, "n": len(worse)}
                | {"mutual_mrr": float((1 / worse).mean()), "mutual_mrr_low": low, "mutual_mrr_high": high}
                | {f"mutual_hits@{at}": float((worse <= at).mean()) for at in HITS_AT}
            )
    return [*rows, _snapshot(scorer, graph, pairs, part=part, split=split, k=k, progress=progress)]


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


def _snapshot(
    scorer: Scorer,
    graph: FriendGraph,
    pairs: Pairs,
    *,
    part: Part,
    split: TemporalSplit,
    k: int,
    progress: bool,
) -> Row:
    timeline, n = Timeline.of(graph), graph.num_users
    start, end = split.window(part)
    tick = timeline.tick(torch.tensor(start))
    everyone = torch.arange(n)
    seen = torch.from_numpy(np.flatnonzero(timeline.halves.count(everyone, tick.expand(n)).numpy()))
    users = torch.from_numpy(np.sort(sampled(seen.numpy(), n)))
    commonest = int(torch.bincount(timeline.events.action[: split.num_train]).argmax())
    query = Query(users, torch.full_like(users, start), torch.full_like(users, commonest))

    approach, answered, undecided = _approaches(pairs, start, end, horizon(split, part), n)
    exposure = torch.zeros(n, dtype=torch.float64)
    reciprocated, decided = np.zeros(len(users)), np.zeros(len(users))
    title = f"{scorer.name} {part} snapshot"

    def judge(
        rows: slice, asked: Query, scores: Tensor
    ) -> tuple[slice, Query, tuple[Tensor, Tensor, Tensor]]:
        excluded = and_self(asked, timeline.contacts.before(asked.user, timeline.tick(asked.time)))
        return rows, asked, top_k_share(scores, k, excluded)

    for rows, asked, (at, listed, share) in judged_batches(
        scorer, query, n, judge, title=title, progress=progress
    ):
        exposure.index_add_(0, listed, share)
        wanted = (asked.user[at] * n + listed).numpy()
        found = np.minimum(np.searchsorted(approach, wanted), max(len(approach) - 1, 0))
        hit = approach[found] == wanted if len(approach) else np.zeros(len(wanted), dtype=bool)
        place, weight = at.numpy()[hit], share.numpy()[hit]
        size = len(asked)
        reciprocated[rows] = np.bincount(place, weights=weight * answered[found[hit]], minlength=size)
        decided[rows] = k - np.bincount(place, weights=weight * undecided[found[hit]], minlength=size)
    judged = decided > 1e-9
    row: dict[str, str | int | float] = {
        "model": scorer.name,
        "part": part,
        "slice": "snapshot",
        "n": int(judged.sum()),
        "horizon_s": horizon(split, part),
        "exposure_gini": gini(exposure[seen].numpy()),
        "never_suggested": float((exposure[seen] < 1e-9).double().mean()),
    }
    if judged.any():
        precision = reciprocated[judged] / decided[judged]
        low, high = bootstrap_interval(precision, np.arange(len(precision)))
        name = f"reciprocated_precision@{k}"
        row |= {name: float(precision.mean()), f"{name}_low": low, f"{name}_high": high}
    return row


def _approaches(
    pairs: Pairs, start: int, end: int, wait: int, num_users: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directed first acts in a window between people without earlier contact.

    Returns:
        u * num_users + v, ascending [A]; whether each was reciprocated within the horizon, and whether that
        is still undecided at the end of the window, [A] bool. An answer after the window is not known in it.
    """
    inside = (pairs.first >= start) & (pairs.first < end)
    known = inside & (pairs.answer >= 0) & (pairs.answer < end)
    quick = known & (pairs.answer - pairs.first <= wait)
    waiting = inside & ~known & (pairs.first + wait >= end)
    forward, backward = pairs.u * num_users + pairs.v, pairs.v * num_users + pairs.u
    approach = np.concatenate([forward[inside], backward[known]])
    order = np.argsort(approach)
    answered = np.concatenate([quick[inside], quick[known]])[order]
    undecided = np.concatenate([waiting[inside], np.zeros(int(known.sum()), dtype=bool)])[order]
    return approach[order], answered, undecided
