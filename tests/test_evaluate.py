"""The protocols, against numbers worked out on paper, a naive evaluation, and what must change nothing."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_cases import (
    UNIT,
    Case,
    Hashed,
    ScoreOf,
    cases,
    hashed_naive,
    naive_metrics,
    naive_mutual,
    naive_streaming,
    reply_recency_naive,
    rows_among,
    split_at,
)
from graphs import Row, checked, graph_of, permuted, random_rows, shuffled_in_ties
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data import DataError, FriendGraph, Query, TemporalSplit
from graphrec.evaluate import EvaluationError, StreamingRanks, evaluate_mutual, evaluate_streaming, protocol
from graphrec.evaluate.protocol import Scorer
from graphrec.models import HEURISTICS

few = settings(checked, max_examples=15)
"""For properties that need many evaluations an example."""

PAST_READERS = ("reply_recency", "common_neighbors", "popularity")


def streaming(scorer: Scorer, graph: FriendGraph, split: TemporalSplit, part: str = "test") -> StreamingRanks:
    return evaluate_streaming(scorer, graph, part=part, split=split, progress=False)  # type: ignore[arg-type]


def mutual(
    scorer: Scorer, graph: FriendGraph, split: TemporalSplit, part: str = "test", k: int = 10
) -> dict[str, dict[str, Any]]:
    rows = evaluate_mutual(scorer, graph, part=part, split=split, k=k, progress=False)  # type: ignore[arg-type]
    return {str(row["slice"]): row for row in rows}


def seen_of(ranks: StreamingRanks, row: int) -> tuple[float, float, frozenset[str]]:
    """All that is said of one event."""
    slices = frozenset(name for name, inside in ranks.members.items() if inside[row])
    return ranks.rank_all[row], ranks.rank_slice[row], slices


# --- A dozen users, everything worked out on paper ----------------------------------------------------------


class Alphabet:
    """Whoever asks: a and b score 6, c and d 5, e and f 4, and so on."""

    name = "alphabet"

    def score(self, query: Query) -> torch.Tensor:
        return (6 - torch.arange(12) // 2).expand(len(query), 12)


# Training before 100, validation before 200, test from 200 to 300, so the window is [200, 301).
# The horizon is min(7 days, 101 // 4) = 25 seconds.
PAPER_PAST = [
    *(("a", "b", t) for t in range(10, 31)),  # 21 times
    ("c", "a", 20),
    ("b", "d", 30),
    *(("e", "f", t) for t in (40, 42, 44, 46, 48)),
    ("f", "e", 150),
    ("g", "a", 160),
]
# Each event of the test part: its rank among everyone but the actor, its rank in its own slice, its slices.
PAPER_TEST = [
    # above b: only a, who asks.
    (("a", "b", 200), 1.0, 1.0, "repeat actor_20"),
    # above c: a; d ties. b has met {a, d}, so both go. c has met {a}: a in common.
    (("b", "c", 205), 2.5, 1.0, "new hop_2 actor_1_4"),
    # above c: b; d ties. c -> a was before, so this is a reply; a has only approached b.
    (("a", "c", 210), 2.5, 1.5, "reply actor_20"),
    # a ties. c has approached a. It is quick: 10 seconds after b's first act.
    (("c", "b", 215), 1.5, 1.0, "reply actor_1_4"),
    # above d: a and b, both met by c; d has met {b}.
    (("c", "d", 220), 3.0, 1.0, "new hop_2 actor_1_4"),
    # b ties; d has met {b, c}, a has met {b, c, g}.
    (("d", "a", 230), 1.5, 1.0, "new hop_2 actor_0"),
    # above g: a, b, c, d, f; h ties. e has met {f}, g {a}. g was first seen in validation.
    (("e", "g", 240), 6.5, 5.5, "new hop_far actor_5_19 target_unseen"),
    # above c: a and b. d has approached a. It comes exactly at the horizon, 25 seconds after c's act.
    (("d", "c", 245), 3.0, 2.0, "reply actor_1_4"),
    # b ties. Nobody knows h; the act of a at the same moment is invisible.
    (("h", "a", 250), 1.5, 1.5, "new hop_far actor_0"),
    # above h: b, c, d, e, f; g ties. a has met {b, c, d, g}.
    (("a", "h", 250), 6.5, 3.0, "new hop_far actor_20 target_unseen"),
    # above e: a, b, c, d; f ties. g has approached a. 26 seconds after e's act: too late.
    (("g", "e", 266), 5.5, 4.5, "reply actor_1_4"),
    # above e: a, c, d, all met by b; f ties. e has met {f, g}. 280 + 25 > 300: undecided.
    (("b", "e", 280), 4.5, 1.5, "new hop_far actor_1_4"),
    # above j: a .. h.
    (("i", "j", 295), 9.0, 9.0, "new hop_far actor_0 target_unseen"),
    # above e: a, b, c, d.
    (("f", "e", 300), 5.0, 5.0, "repeat actor_1_4"),
]


def letters(events: Sequence[tuple[str, str, int]]) -> list[Row]:
    return [Row("abcdefghijkl".index(u), "abcdefghijkl".index(v), t) for u, v, t in events]


@pytest.fixture(scope="module")
def paper() -> tuple[FriendGraph, TemporalSplit]:
    graph = graph_of(letters([*PAPER_PAST, *(event for event, *_ in PAPER_TEST)]), 12)
    return graph, split_at(graph, 100, 200)


def test_streaming_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    ranks = streaming(Alphabet(), *paper)
    assert ranks.event_id.tolist() == list(range(30, 44))
    assert ranks.time.tolist() == [event[2] for event, *_ in PAPER_TEST]
    assert ranks.actor.tolist() == ["abcdefghijkl".index(event[0]) for event, *_ in PAPER_TEST]
    for row, (event, *expected, slices) in enumerate(PAPER_TEST):
        assert seen_of(ranks, row) == (*expected, frozenset(slices.split())), event


def test_streaming_rows_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    rows = {row["slice"]: row for row in streaming(Alphabet(), *paper).rows()}
    expected = {
        "all": [1, 2.5, 2.5, 1.5, 3, 1.5, 6.5, 3, 1.5, 6.5, 5.5, 4.5, 9, 5],
        "repeat": [1, 5],
        "reply": [1.5, 1, 2, 4.5],
        "new": [1, 1, 1, 5.5, 1.5, 3, 1.5, 9],  # among the candidates of `new`, as are its two halves
        "hop_2": [1, 1, 1],
        "hop_far": [5.5, 1.5, 3, 1.5, 9],
        "actor_0": [1.5, 1.5, 9],  # among everyone, as are the rest
        "actor_1_4": [2.5, 1.5, 3, 3, 5.5, 4.5, 5],
        "actor_5_19": [6.5],
        "actor_20": [1, 2.5, 6.5],
        "target_unseen": [6.5, 6.5, 9],
    }
    assert list(rows) == list(expected)
    for name, ranks in expected.items():
        row = rows[name]
        assert (row["model"], row["part"], row["n"]) == ("alphabet", "test", len(ranks))
        for metric, value in naive_metrics(ranks).items():
            assert row[metric] == pytest.approx(value), (name, metric)
        assert 0 < row["mrr_low"] <= row["mrr"] + 1e-12
        assert row["mrr"] <= row["mrr_high"] + 1e-12 <= 1 + 1e-12
    # Two of them in full: MRR (1 + 1/5) / 2; NDCG (1/log2(2) + 1/log2(6)) / 2; mean rank 3.
    assert rows["repeat"]["mrr"] == pytest.approx(0.6)
    assert rows["repeat"]["ndcg@10"] == pytest.approx((1 + 1 / np.log2(6)) / 2)
    assert (rows["repeat"]["hits@1"], rows["repeat"]["mean_rank"]) == (0.5, 3)
    assert rows["new"]["mrr"] == pytest.approx((3 + 2 / 11 + 2 / 3 + 1 / 3 + 2 / 3 + 1 / 9) / 8)


def test_mutual_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    rows = mutual(Alphabet(), *paper, k=2)
    # Just before the first contact, without contacts; the worse of the two ranks:
    #   b, c at 205: c for b 1; for c, who has met {a}, b is 1                                     -> 1
    #   c, d at 220: d for c 1; for d, who has met {b}, a is above c                               -> 2
    #   e, g at 240: g for e 5.5; for g, who has met {a}, b, c, d are above e, f ties: 4.5         -> 5.5
    #   a, h at 250: h for a 3; a for h 1.5                                                        -> 3
    row = rows["mutual"]
    assert (row["n"], row["mutual_hits@1"], row["mutual_hits@10"]) == (4, 1 / 4, 1)
    assert row["mutual_mrr"] == pytest.approx((1 + 1 / 2 + 2 / 11 + 1 / 3) / 4)
    assert row["mutual_mrr_low"] <= row["mutual_mrr"] <= row["mutual_mrr_high"]
    # c wrote to a at 20, answered at 210. c has met {a, b}: a is 1. a has met {b, c, g}: d ties, c is 1.5.
    row = rows["answered"]
    assert (row["n"], row["mutual_hits@1"], row["mutual_mrr"]) == (1, 0, pytest.approx(2 / 3))


def test_snapshot_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    row = mutual(Alphabet(), *paper, k=2)["snapshot"]
    # The two best of everybody seen before 200, without contacts; ties at the border share a place:
    #   a (met b, c, g): d 1, e 1/2, f 1/2     b (a, d): c 1, e 1/2, f 1/2     c (a): b 1, d 1
    #   d (b): a 1, c 1     e (f): a 1, b 1     f (e): a 1, b 1     g (a): b 1, c 1/2, d 1/2
    # Approached and answered in 25 seconds: b and c (10 s), c and d (25 s).
    # d -> a at 230 is unanswered; b -> e at 280 is undecided until 305.
    #   b: 1 / (2 - 1/2);  c: 2 / 2;  d: 1 / 2 (c, not a);  a, e, f, g: 0
    assert (row["n"], row["horizon_s"]) == (7, 25)
    assert row["reciprocated_precision@2"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 7)
    # Exposure a 3, b 4, c 5/2, d 5/2, e 1, f 1, g 0: all pairs differ by 70 in sum, 70 / (2 * 7 * 14).
    assert row["exposure_gini"] == pytest.approx(5 / 14)
    assert row["never_suggested"] == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("approach", "answer", "expected"),
    [
        (275, 300, 1.0),  # in time, and seen
        (275, None, 0.0),  # 275 + 25 = 300 is the window's last second: no answer is an answer
        (276, None, None),  # could still be answered at 301
        (276, 301, None),  # and was, but after the window
        (276, 300, 1.0),  # young, but answered
        (230, 256, 0.0),  # 26 seconds
    ],
)
def test_one_approach(approach: int, answer: int | None, expected: float | None) -> None:
    """Of one person suggested (k = 1), a reciprocated precision of 0 or 1, or nothing to judge."""
    log = [
        ("c", "d", 10),
        ("a", "l", 99),
        ("c", "d", 150),
        ("c", "d", 200),
        ("c", "d", 300),
        ("a", "b", approach),
    ]
    log += [("b", "a", answer)] if answer else []
    log = sorted(log, key=lambda event: event[2])
    graph = graph_of(letters(log), 12)
    # The window is a `val` of 200 .. 300; a first suggests b, c and d suggest a.
    split = split_at(graph, 200, 301) if answer == 301 else split_at(graph, 150, 200)
    part = "val" if answer == 301 else "test"
    row = mutual(Alphabet(), graph, split, part, k=1)["snapshot"]
    assert row["horizon_s"] == 25
    askers = 4  # a, c, d, l
    assert row["n"] == askers - (expected is None)
    assert row["reciprocated_precision@1"] == pytest.approx((expected or 0) / row["n"])


def test_nothing_to_judge() -> None:
    """Where every list is undecided there is no precision, and no crash."""
    graph = graph_of([Row(0, 1, 0), Row(0, 1, 100), Row(0, 2, 200), Row(1, 2, 200)], 3)
    row = mutual(Alphabetical(3), graph, split_at(graph, 100, 200), k=1)["snapshot"]
    assert row["horizon_s"] == 1
    assert row["n"] == 0
    assert not [key for key in row if key.startswith("reciprocated_precision")]
    # 0 and 1 are suggested the newcomer alone, and exposure is that of people seen before.
    assert (row["exposure_gini"], row["never_suggested"]) == (0, 1)


class Alphabetical:
    """The lower index, the better."""

    name = "alphabetical"

    def __init__(self, num_users: int) -> None:
        self.num_users = num_users

    def score(self, query: Query) -> torch.Tensor:
        return -torch.arange(self.num_users).double().expand(len(query), -1)


# --- Against the naive evaluation ---------------------------------------------------------------------------


def scorers_of(case: Case, graph: FriendGraph) -> list[tuple[Scorer, ScoreOf]]:
    reply = HEURISTICS["reply_recency"]().fit(graph, until=case.t_val)
    return [(Hashed(graph), hashed_naive), (reply, reply_recency_naive(case.t_val))]


def windows(case: Case) -> list[tuple[str, int, int]]:
    return [("val", case.t_val, case.t_test), ("test", case.t_test, case.rows[-1].time + 1)]


@given(cases())
@checked
def test_streaming_equals_the_naive_evaluation(case: Case) -> None:
    graph = graph_of(case.rows, case.num_users)
    split = split_at(graph, case.t_val, case.t_test)
    for (scorer, score), (part, start, end) in itertools.product(scorers_of(case, graph), windows(case)):
        expected = naive_streaming(case, score, start, end)
        ranks = streaming(scorer, graph, split, part)
        found = [seen_of(ranks, row) for row in range(len(ranks.event_id))]
        assert found == [(e.rank_all, e.rank_slice, frozenset(e.slices - {"all"})) for e in expected]
        rows = {str(row["slice"]): row for row in ranks.rows()}
        assert rows.keys() == set.union(*(e.slices for e in expected))
        for name, row in rows.items():
            own = name in ("repeat", "reply", "new", "hop_2", "hop_far")
            inside = [e.rank_slice if own else e.rank_all for e in expected if name in e.slices]
            metrics = naive_metrics(inside) | {"n": len(inside)}
            assert {key: row[key] for key in metrics} == pytest.approx(metrics)


@given(cases(), st.integers(1, 4))
@checked
def test_mutual_equals_the_naive_evaluation(case: Case, k: int) -> None:
    graph = graph_of(case.rows, case.num_users)
    split = split_at(graph, case.t_val, case.t_test)
    for (scorer, score), (part, start, end) in itertools.product(scorers_of(case, graph), windows(case)):
        expected = naive_mutual(case, score, start, end, k)
        found = mutual(scorer, graph, split, part, k)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert {key: found[name][key] for key in values} == pytest.approx(values, abs=1e-9), name
            assert (found[name]["model"], found[name]["part"]) == (scorer.name, part)


# --- The split ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), min_size=3, max_size=60))
@checked
def test_split_equals_its_definition(times: list[int]) -> None:
    times = sorted(times)
    graph = graph_of([Row(0, 1, t) for t in times])
    t_val, t_test = times[len(times) * 8 // 10], times[len(times) * 9 // 10]
    parts = [
        [i for i, t in enumerate(times) if t < t_val],
        [i for i, t in enumerate(times) if t_val <= t < t_test],
        [i for i, t in enumerate(times) if t >= t_test],
    ]
    if not all(parts):
        sizes = "{}, {} and {} events".format(*map(len, parts))
        with pytest.raises(DataError, match=f"^{len(times)} events cannot be split .* {sizes}"):
            TemporalSplit.of(graph)
        return
    split = TemporalSplit.of(graph)
    assert (split.t_val, split.t_test, split.start, split.end) == (t_val, t_test, times[0], times[-1])
    assert [split.num_train, split.num_val, split.num_test] == list(map(len, parts))
    assert (split.event_ids("val").tolist(), split.event_ids("test").tolist()) == tuple(parts[1:])
    assert (split.window("val"), split.window("test")) == ((t_val, t_test), (t_test, times[-1] + 1))


def test_events_of_one_time_never_part() -> None:
    # 20 events: number 16 and 18 are the limits, and each has a twin on both of its sides.
    times = [*range(14), 50, 50, 50, 60, 60, 60]
    split = TemporalSplit.of(graph_of([Row(0, 1, t) for t in times]))
    assert (split.t_val, split.t_test) == (50, 60)
    assert (split.num_train, split.num_val, split.num_test) == (14, 3, 3)


@pytest.mark.parametrize(
    ("times", "counts"),
    [
        ([5], "0, 0 and 1"),
        ([1, 2], "1, 0 and 1"),
        ([7] * 30, "0, 0 and 30"),
        ([*range(8), 9, 9], "8, 0 and 2"),
    ],
)
def test_too_few_events_to_split(times: list[int], counts: str) -> None:
    with pytest.raises(DataError, match=f"^{len(times)} events cannot be split .* {counts} events"):
        TemporalSplit.of(graph_of([Row(0, 1, t) for t in times]))


# --- Only the strict past counts ----------------------------------------------------------------------------


def judged(
    rows: Sequence[Row], case: Case, position: int, names: Sequence[str] = PAST_READERS
) -> list[tuple[float, float, frozenset[str]]]:
    """What several scorers' evaluations say of the event at a position of a log."""
    graph = graph_of(rows, case.num_users)
    split = split_at(graph, case.t_val, case.t_test)
    scorers = [Hashed(graph), *(HEURISTICS[name]().fit(graph, until=case.t_val) for name in names)]
    out = []
    for scorer in scorers:
        ranks = streaming(scorer, graph, split)
        out.append(seen_of(ranks, ranks.event_id.tolist().index(position)))
    return out


@given(cases(), st.data())
@few
def test_events_at_the_same_time_or_later_change_nothing(case: Case, data: st.DataObject) -> None:
    position = data.draw(st.sampled_from([i for i, row in enumerate(case.rows) if row.time >= case.t_test]))
    u, v, time, action = case.rows[position]
    before = judged(case.rows, case, position)
    w = data.draw(st.sampled_from([x for x in range(case.num_users) if x != u]))
    planted = [
        Row(a, b, t, action)
        for t in (time, time + 1)
        for a, b in ((u, v), (v, u), (u, w), (w, u), (v, w))
        if a != b
    ]
    after = sorted([*case.rows, *planted], key=lambda row: row.time)  # planted ones follow in ties
    assert judged(after, case, position) == before


@given(cases(), st.data())
@few
def test_the_other_direction_is_hidden(case: Case, data: st.DataObject) -> None:
    """Removing or moving the answers, at the time or later, changes nothing for the approach."""
    position = data.draw(st.sampled_from([i for i, row in enumerate(case.rows) if row.time >= case.t_test]))
    event = case.rows[position]
    answers = [
        i
        for i, row in enumerate(case.rows)
        if row.time >= event.time and (row.src, row.dst) == (event.dst, event.src)
    ]
    rest = [row for i, row in enumerate(case.rows) if i not in answers]
    here = position - sum(i < position for i in answers)
    alone = judged(rest, case, here)
    assert judged(case.rows, case, position) == alone
    for later in (0, 1):
        answer = Row(event.dst, event.src, event.time + later, data.draw(st.sampled_from(["call", "text"])))
        assert judged(sorted([*rest, answer], key=lambda row: row.time), case, here) == alone


@given(st.data(), st.booleans())
@few
def test_neither_side_of_a_pair_sees_the_other(data: st.DataObject, answered: bool) -> None:
    """Both ranks of a pair depend on the strict past of its moment alone."""
    n, start, moment = 6, 4 * UNIT, 6 * UNIT
    past = data.draw(rows_among(n, 0, 5, size=(5, 30)))
    # Pairs other than (0, 1) act one way only, so the pair judged is the only one.
    past = [Row(min(r[:2]), max(r[:2]), r.time, r.action) for r in past if {r.src, r.dst} != {0, 1}]
    past = [Row(2, 3, 0), Row(2, 3, 2 * UNIT), *past]
    opening = [Row(0, 1, UNIT, "call")] if answered else []
    pair = [Row(1, 0, moment, "text"), *([] if answered else [Row(0, 1, moment, "text")])]

    def rows_with(future: list[Row], reply: int) -> dict[str, Any]:
        others = [Row(min(r[:2]), max(r[:2]), r.time, r.action) for r in future if {r.src, r.dst} != {0, 1}]
        acts = [pair[0], *(row._replace(time=reply) for row in pair[1:])]
        end = [Row(4, 5, 20 * UNIT)]
        log = sorted([*past, *opening, *acts, *others, *end], key=lambda row: row.time)
        graph = graph_of(log, n)
        split = split_at(graph, 2 * UNIT, start)
        scorers = [Hashed(graph, salt) for salt in range(2)]
        scorers += [HEURISTICS[name]().fit(graph, until=split.t_val) for name in PAST_READERS]
        name = "answered" if answered else "mutual"
        rows = {scorer.name: mutual(scorer, graph, split)[name] for scorer in scorers}
        assert {row["n"] for row in rows.values()} == {1}
        return rows

    futures = [data.draw(rows_among(n, 6, 12, size=(0, 12))) for _ in range(2)]
    # `contact` exists in every log, `call` and `text` do not: the names of actions stay the same by these.
    names = [Row(4, 5, 13 * UNIT, name) for name in ("call", "text")]
    once = rows_with([*futures[0], *names], moment)
    assert rows_with([*futures[1], *names], moment) == once
    assert rows_with([*futures[1], *names], moment + 1) == once
    assert rows_with([*futures[0], *names], 15 * UNIT) == once


@given(cases())
@few
def test_validation_knows_nothing_of_the_test_part(case: Case) -> None:
    """Labels that mature after the window are unknown in it."""
    whole = graph_of(case.rows, case.num_users)
    split = split_at(whole, case.t_val, case.t_test)
    cut = [row for row in case.rows if row.time < case.t_test]
    actions = [Row(0, 1, case.t_test, name) for name in ("call", "text")]  # both names exist in both logs
    logs = [[*case.rows, *actions], [*cut, *actions]]
    results = []
    for log in logs:
        graph = graph_of(sorted(log, key=lambda row: row.time), case.num_users)
        scorers = [Hashed(graph), HEURISTICS["reply_recency"]().fit(graph, until=case.t_val)]
        results.append(
            [(streaming(s, graph, split, "val").rows(), mutual(s, graph, split, "val", 2)) for s in scorers]
        )
    assert results[0] == results[1]


def test_an_answer_after_validation_is_undecided_in_it() -> None:
    # The window of validation is [200, 300), so the horizon is 25. b answers a in time, but in the test part.
    log = [("c", "d", 10), ("a", "l", 99), ("c", "d", 200), ("a", "b", 290), ("b", "a", 300), ("c", "d", 400)]
    graph = graph_of(letters(log), 12)
    split = split_at(graph, 200, 300)
    rows = mutual(Alphabet(), graph, split, "val", k=1)
    assert rows.keys() == {"snapshot"}
    assert (rows["snapshot"]["n"], rows["snapshot"]["reciprocated_precision@1"]) == (3, 0)  # c, d, l
    # In the test part the same pair had its first contact before the window.
    assert mutual(Alphabet(), graph, split, "test")["answered"]["n"] == 1


# --- Indices and row order carry no information -------------------------------------------------------------


def tables(scorer: Scorer, graph: FriendGraph) -> dict[str, Any]:
    split = TemporalSplit.of(graph)
    rows = {}
    for part in ("val", "test"):
        for row in [
            *streaming(scorer, graph, split, part).rows(),
            *mutual(scorer, graph, split, part).values(),
        ]:
            for key, value in row.items():
                rows[f"{part} {row['slice']} {key}"] = value
    return rows


def assert_same_tables(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert len(one) > 100
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-9)), key


@pytest.mark.parametrize("name", [name for name in HEURISTICS if name != "random"])
def test_heuristics_do_not_depend_on_ids_or_row_order(name: str) -> None:
    rows = random_rows(7, users=25, events=400, times=90, scale=UNIT)
    results = []
    for seed in range(3):
        new_id = np.random.default_rng(seed).permutation(25) if seed else np.arange(25)
        graph = graph_of(shuffled_in_ties(permuted(rows, new_id), seed) if seed else rows, 25)
        results.append(tables(HEURISTICS[name]().fit(graph, until=TemporalSplit.of(graph).t_val), graph))
    assert_same_tables(results[0], results[1])
    assert_same_tables(results[0], results[2])


@pytest.mark.parametrize("seed", range(4))
def test_evaluation_does_not_depend_on_ids_or_row_order(seed: int) -> None:
    """With a scorer that follows names, action and time; pairs become mutual in ties, by two actions."""
    rows = random_rows(seed, users=9, events=300, times=40, scale=UNIT)
    rng = np.random.default_rng(seed)
    rows += [row._replace(src=row.dst, dst=row.src, action="poke") for row in rows if rng.random() < 0.2]
    # Newcomers of the test part, by threes: at one moment the first and each other one write to each other.
    for three in range(4):
        u, time = 9 + 3 * three, (45 + three) * UNIT
        for v, answer in ((u + 1, "call"), (u + 2, "text" if three % 2 else "call")):
            rows += [Row(u, v, time, "call"), Row(v, u, time, answer)]
    rows = sorted(rows, key=lambda row: row.time)
    split = TemporalSplit.of(graph_of(rows, 21))
    assert split.t_test < 45 * UNIT
    new_id = rng.permutation(21)
    old_id = np.argsort(new_id)
    one = graph_of(rows, 21)
    two = graph_of(shuffled_in_ties(permuted(rows, new_id), seed), 21)
    assert_same_tables(tables(Hashed(one), one), tables(Hashed(two, who=old_id.tolist()), two))


# --- Scores that cannot be ranked ---------------------------------------------------------------------------


class Broken:
    """Scores of zeros, except one."""

    name = "broken"

    def __init__(self, value: float, user: int, num_users: int = 12) -> None:
        self.value, self.user, self.num_users = value, user, num_users

    def score(self, query: Query) -> torch.Tensor:
        scores = torch.zeros(len(query), self.num_users)
        scores[-1, self.user] = self.value
        return scores


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("evaluate", [streaming, mutual])
def test_a_score_that_is_not_finite(
    paper: tuple[FriendGraph, TemporalSplit], evaluate: Any, value: float
) -> None:
    # Streaming asks last for f at 300; of mutual pairs, for a at 250 (or for h, whose answer is tied).
    who = "user index 5 at time 300" if evaluate is streaming else "user index [07] at time 250"
    with pytest.raises(EvaluationError, match=rf"^broken gave the score {value} to user index 3 for {who}"):
        evaluate(Broken(value, user=3), *paper)


def test_large_scores_are_finite_though_their_sum_is_not(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    class Large(Alphabet):
        def score(self, query: Query) -> torch.Tensor:
            return super().score(query).double() * 2.0**1021

    assert streaming(Large(), *paper).rank_all.tolist() == streaming(Alphabet(), *paper).rank_all.tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int32])
def test_scores_of_any_type(paper: tuple[FriendGraph, TemporalSplit], dtype: torch.dtype) -> None:
    class Typed(Alphabet):
        def score(self, query: Query) -> torch.Tensor:
            return super().score(query).to(dtype)

    assert streaming(Typed(), *paper).rows() == streaming(Alphabet(), *paper).rows()
    assert mutual(Typed(), *paper) == mutual(Alphabet(), *paper)


def test_batches_may_be_judged_by_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(random_rows(3, users=20, events=400, times=200, scale=UNIT), 20)
    split = TemporalSplit.of(graph)
    model = HEURISTICS["ppr"]().fit(graph, until=split.t_val)
    alone, used, shared = torch.get_num_threads(), set(), threading.Event()

    class Watched:
        name = "watched"

        def score(self, query: Query) -> torch.Tensor:
            assert torch.get_num_threads() == 1
            used.add(threading.get_ident())
            if len(used) > 1:
                shared.set()
            shared.wait(300)  # so that one thread cannot do all
            return model.score(query)

    whole = streaming(model, graph, split).rows(), mutual(model, graph, split)
    monkeypatch.setattr(protocol, "SCORES_PER_BATCH", 60)
    try:
        torch.set_num_threads(3)
        watched = streaming(Watched(), graph, split).rows(), mutual(Watched(), graph, split)
        assert len(used) > 1
        assert threading.get_ident() not in used
        assert torch.get_num_threads() == 3
        with pytest.raises(EvaluationError, match=r"^broken gave the score nan to user index 3"):
            streaming(Broken(float("nan"), user=3, num_users=20), graph, split)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(alone)
    assert [{**row, "model": "ppr"} for row in watched[0]] == whole[0]
    assert {name: {**row, "model": "ppr"} for name, row in watched[1].items()} == whole[1]


@pytest.mark.parametrize("evaluate", [streaming, mutual])
def test_scores_of_a_wrong_shape(paper: tuple[FriendGraph, TemporalSplit], evaluate: Any) -> None:
    with pytest.raises(EvaluationError, match=r"^broken gave scores of shape \[\d+, 11\] .* and 12 users"):
        evaluate(Broken(0.0, user=3, num_users=11), *paper)


# --- Chance on a graph of chance ----------------------------------------------------------------------------


class Leaking:
    """A heuristic that also sees what happens at the very time of a query."""

    def __init__(self, heuristic: Scorer) -> None:
        self.name, self.heuristic = f"leaking {heuristic.name}", heuristic

    def score(self, query: Query) -> torch.Tensor:
        return self.heuristic.score(Query(query.user, query.time + 1, query.action))


@pytest.fixture(scope="module")
def chance() -> tuple[FriendGraph, TemporalSplit, dict[str, float]]:
    """5,000 events between 200 people drawn at random, and the MRR of a random order, by slice."""
    num_users, size = 200, 5000
    rng = np.random.default_rng(0)
    src = rng.integers(num_users, size=size)
    dst = (src + rng.integers(1, num_users, size=size)) % num_users
    rows = [Row(u, v, 600 * t) for t, (u, v) in enumerate(zip(src.tolist(), dst.tolist(), strict=True))]
    graph = graph_of(rows, num_users)
    split = TemporalSplit.of(graph)
    expected_reciprocal = {n: sum(1 / rank for rank in range(1, n + 1)) / n for n in range(1, num_users)}
    met: list[set[int]] = [set() for _ in range(num_users)]
    new = []
    for row in rows:
        if row.time >= split.t_test and row.dst not in met[row.src]:
            new.append(expected_reciprocal[num_users - 1 - len(met[row.src])])
        met[row.src].add(row.dst)
        met[row.dst].add(row.src)
    return graph, split, {"all": expected_reciprocal[num_users - 1], "new": float(np.mean(new))}


def near_chance(
    make: type[Leaking] | None, name: str, chance: tuple[FriendGraph, TemporalSplit, dict[str, float]]
) -> list[bool]:
    """Whether the MRR of `all` and `new` lies within noise, about four standard errors, of chance."""
    graph, split, expected = chance
    heuristic = HEURISTICS[name]().fit(graph, until=split.t_val)
    rows = {
        row["slice"]: row for row in streaming(make(heuristic) if make else heuristic, graph, split).rows()
    }
    assert rows["new"]["n"] > 300
    return [
        abs(rows[name]["mrr"] - value) < rows[name]["mrr_high"] - rows[name]["mrr_low"]
        for name, value in expected.items()
    ]


@pytest.mark.parametrize("name", HEURISTICS)
def test_nothing_beats_chance_where_there_is_nothing_to_know(
    name: str, chance: tuple[FriendGraph, TemporalSplit, dict[str, float]]
) -> None:
    assert near_chance(None, name, chance) == [True, True]


@pytest.mark.parametrize("name", ["reply_recency", "repeat_recency", "last_seen"])
def test_a_leak_of_tied_events_beats_chance(
    name: str, chance: tuple[FriendGraph, TemporalSplit, dict[str, float]]
) -> None:
    assert near_chance(Leaking, name, chance) == [False, False]


# --- The sample of large parts ------------------------------------------------------------------------------


def test_large_parts_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Row(t % 4, (t + 1) % 4, t) for t in range(65_000)]
    graph = graph_of(rows)
    split = TemporalSplit.of(graph)
    test_index = np.arange(58_500, 65_000)
    scorer = Alphabetical(4)
    monkeypatch.setattr(protocol, "MAX_SCORES", 4 * 6500)
    assert streaming(scorer, graph, split).event_id.tolist() == test_index.tolist()
    monkeypatch.setattr(protocol, "MAX_SCORES", 4 * 6500 - 1)
    ranks = streaming(scorer, graph, split)
    chosen = np.random.default_rng(0).choice(test_index, 6000, replace=False)
    assert ranks.event_id.tolist() == sorted(chosen.tolist())
    assert ranks.time.tolist() == ranks.event_id.tolist()
    assert ranks.rows()[0]["n"] == 6000


def test_the_sample_has_a_limit_of_its_own() -> None:
    assert (protocol.MAX_SCORES, protocol.SAMPLE_SIZE) == (500_000_000, 6000)
    few, many = np.arange(6000), np.arange(6001)
    assert protocol.sample_rows(few, 10**9) is few
    assert len(protocol.sample_rows(many, 10**9)) == 6000
    assert protocol.sample_rows(many, 83_000) is many  # 6001 x 83,000 < 5e8 < 6001 x 84,000
    assert len(protocol.sample_rows(many, 84_000)) == 6000
