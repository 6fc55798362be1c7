"""Small graphs, scorers and a naive evaluation, written from the contract and not from the library."""

import math
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from graphs import Row
from hypothesis import assume
from hypothesis import strategies as st

from graphrec.data import FriendGraph, Query, TemporalSplit

UNIT = 25_200
"""Times are multiples of 7 hours: no two different sets of events have the same decayed popularity."""


class Case(NamedTuple):
    """Events in order of time, users 0 .. num_users-1, and the limits of the parts."""

    rows: list[Row]
    num_users: int
    t_val: int
    t_test: int


def split_at(graph: FriendGraph, t_val: int, t_test: int) -> TemporalSplit:
    """The split with given limits."""
    time = graph.events().time
    before_val, before_test = int((time < t_val).sum()), int((time < t_test).sum())
    return TemporalSplit(
        t_val=t_val,
        t_test=t_test,
        num_train=before_val,
        num_val=before_test - before_val,
        num_test=len(time) - before_test,
        start=int(time[0]),
        end=int(time[-1]),
    )


@st.composite
def rows_among(draw: st.DrawFn, num_users: int, first: int, last: int, *, size: tuple[int, int]) -> list[Row]:
    """Events between distinct users at `first` .. `last` units of time, in order of time."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, num_users - 1),
                st.integers(1, num_users - 1),
                st.integers(first, last),
                st.sampled_from(["call", "text"]),
            ),
            min_size=size[0],
            max_size=size[1],
        )
    )
    rows = [Row(u, (u + step) % num_users, t * UNIT, a) for u, step, t, a in drawn]
    return sorted(rows, key=lambda row: row.time)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Logs with many ties, and limits at any two of their times."""
    num_users = draw(st.integers(3, 7))
    rows = draw(rows_among(num_users, 0, 9, size=(8, 50)))
    times = sorted({row.time for row in rows})
    assume(len(times) >= 3)
    t_val, t_test = sorted(draw(st.sets(st.sampled_from(times[1:]), min_size=2, max_size=2)))
    return Case(rows, num_users, t_val, t_test)


ScoreOf = Callable[[Sequence[Row], int, int, str, int], float]
"""(the strict past, user, time, action, candidate) -> score."""


def hashed(user: Any, time: int, action: str, candidate: Any, salt: int = 0, levels: int = 4) -> int:
    """A score out of few, so that ties abound; nothing of the graph is in it."""
    return zlib.crc32(repr((salt, user, time, action, candidate)).encode()) // 7 % levels


class Hashed:
    """The scorer of `hashed`.

    Args:
        graph: the graph.
        salt: another one, another order.
        who: the name of each user index; by default the index.
    """

    def __init__(self, graph: FriendGraph, salt: int = 0, who: Sequence[int] | None = None) -> None:
        self.name, self.salt, self.actions = f"hashed {salt}", salt, graph.actions
        self.who = list(range(graph.num_users)) if who is None else list(who)

    def score(self, query: Query) -> torch.Tensor:
        asked = zip(query.user.tolist(), query.time.tolist(), query.action.tolist(), strict=True)
        return torch.tensor(
            [[hashed(self.who[u], t, self.actions[a], c, self.salt) for c in self.who] for u, t, a in asked]
        )


def hashed_naive(past: Sequence[Row], user: int, time: int, action: str, candidate: int) -> float:
    """What `Hashed` with salt 0 scores."""
    return hashed(user, time, action, candidate)


def reply_recency_naive(t_val: int) -> ScoreOf:
    """The heuristic `reply_recency` fitted until `t_val`, from its definition."""

    def score(past: Sequence[Row], user: int, time: int, action: str, candidate: int) -> float:
        met = [row.time for row in past if {row.src, row.dst} == {user, candidate}]
        if met:
            return 1.0 + max(met)  # any number above 1 that grows with time
        half_life = max(3 * 86_400, (t_val - past[0].time) / 48)
        popularity = sum(0.5 ** ((time - row.time) / half_life) for row in past if row.dst == candidate)
        return popularity / (1.0 + popularity)

    return score


def naive_rank(scores: dict[int, float], target: int) -> float:
    """The mean of the best and the worst rank among candidates."""
    better = sum(score > scores[target] for score in scores.values())
    same = sum(score == scores[target] for score in scores.values())
    return (better + 1 + better + same) / 2


def contacts_of(past: Sequence[Row], user: int) -> set[int]:
    """Everybody met, either way."""
    return {row.dst for row in past if row.src == user} | {row.src for row in past if row.dst == user}


class Judged(NamedTuple):
    """What streaming evaluation says of one event."""

    rank_all: float
    rank_slice: float
    slices: set[str]


def naive_streaming(case: Case, score: ScoreOf, start: int, end: int) -> list[Judged]:
    """Every event with start <= time < end, in order."""
    everyone = range(case.num_users)
    trained = [row for row in case.rows if row.time < case.t_val]
    out = []
    for row in case.rows:
        if not start <= row.time < end:
            continue
        u, v, time, action = row
        past = [old for old in case.rows if old.time < time]
        scores = {c: score(past, u, time, action, c) for c in everyone if c != u}
        met = contacts_of(past, u)
        acted = [old.dst for old in past if old.src == u]
        if v in acted:
            slices, hidden = {"repeat"}, set()
        elif v in met:
            slices, hidden = {"reply"}, set(acted)
        else:
            slices, hidden = {"new", "hop_2" if met & contacts_of(past, v) else "hop_far"}, met
        limits = {"actor_0": 0, "actor_1_4": 1, "actor_5_19": 5, "actor_20": 20, "": math.inf}
        for (name, low), (_, high) in pairwise(limits.items()):
            if low <= len(acted) < high:
                slices.add(name)
        if all(v not in (old.src, old.dst) for old in trained):
            slices.add("target_unseen")
        among = {c: s for c, s in scores.items() if c not in hidden}
        out.append(Judged(naive_rank(scores, v), naive_rank(among, v), slices | {"all"}))
    return out


def naive_metrics(ranks: Sequence[float]) -> dict[str, float]:
    """All ranking metrics but the interval, one event after another."""
    n = len(ranks)
    hits = {f"hits@{k}": sum(rank <= k for rank in ranks) / n for k in (1, 10, 50)}
    gain = sum(1 / math.log2(1 + rank) for rank in ranks if rank <= 10) / n
    return {"mrr": sum(1 / rank for rank in ranks) / n, "ndcg@10": gain, "mean_rank": sum(ranks) / n} | hits


def naive_pairs(rows: Sequence[Row]) -> dict[frozenset[int], dict[int, Row]]:
    """For each pair the first act of each side; of tied ones that of the first action by name."""
    first: dict[frozenset[int], dict[int, Row]] = {}
    for row in sorted(rows, key=lambda row: (row.time, row.action)):
        first.setdefault(frozenset((row.src, row.dst)), {}).setdefault(row.src, row)
    return first


def naive_gini(amounts: Sequence[float]) -> float:
    """Half the mean absolute difference of all pairs, over the mean."""
    n, total = len(amounts), sum(amounts)
    return sum(abs(x - y) for x in amounts for y in amounts) / (2 * n * total) if total else 0.0


def naive_mutual(case: Case, score: ScoreOf, start: int, end: int, k: int) -> dict[str, dict[str, float]]:
    """The rows of mutual evaluation of one window, by slice, without intervals."""
    rows, n = case.rows, case.num_users

    def candidates(user: int, target: int | None, time: int, action: str) -> dict[int, float]:
        past = [row for row in rows if row.time < time]
        hidden = contacts_of(past, user) - {target} | {user}
        return {c: score(past, user, time, action, c) for c in range(n) if c not in hidden}

    pairs = naive_pairs(rows)
    worse: dict[str, list[float]] = {"mutual": [], "answered": []}
    for sides in pairs.values():
        if len(sides) == 2:
            opening, answer = sorted(sides.values(), key=lambda row: (row.time, row.action))
            if start <= answer.time < end:
                name = "mutual" if opening.time >= start else "answered"
                moment = opening if name == "mutual" else answer
                u, v, time, action = moment
                both = [naive_rank(candidates(x, y, time, action), y) for x, y in ((u, v), (v, u))]
                worse[name].append(max(both))
    out: dict[str, dict[str, float]] = {
        name: {"n": len(ranks), "mutual_mrr": sum(1 / rank for rank in ranks) / len(ranks)}
        | {f"mutual_hits@{at}": sum(rank <= at for rank in ranks) / len(ranks) for at in (1, 10, 50)}
        for name, ranks in worse.items()
        if ranks
    }

    known = [row for row in rows if row.time < end]
    wait = max(1, min(7 * 86_400, (end - start) // 4))
    trained = [row.action for row in rows if row.time < case.t_val]
    action = max(("call", "text"), key=trained.count)
    seen = [u for u in range(n) if contacts_of([row for row in rows if row.time < start], u)]
    exposure, precision = dict.fromkeys(range(n), 0.0), []
    for u in seen:
        good, decided = 0.0, float(k)
        scores = candidates(u, None, start, action)
        for c, value in scores.items():
            better = sum(other > value for other in scores.values())
            same = sum(other == value for other in scores.values())
            share = min(1.0, max(0.0, (k - better) / same))  # expected under random breaking of ties
            exposure[c] += share
            mine = [row.time for row in known if (row.src, row.dst) == (u, c)]
            theirs = [row.time for row in known if (row.src, row.dst) == (c, u)]
            if mine and theirs:
                good += share * (abs(mine[0] - theirs[0]) <= wait)
            elif mine and mine[0] + wait >= end:
                decided -= share
        if decided > 1e-9:
            precision.append(good / decided)
    out["snapshot"] = {
        "n": len(precision),
        "horizon_s": wait,
        "exposure_gini": naive_gini([exposure[u] for u in seen]),
        "never_suggested": sum(exposure[u] == 0 for u in seen) / len(seen),
    }
    if precision:
        out["snapshot"][f"reciprocated_precision@{k}"] = sum(precision) / len(precision)
    return out
