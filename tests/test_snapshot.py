"""The snapshot protocol on paper, in both directions, by slice; lists made elsewhere; the window's limits."""

from __future__ import annotations

import pytest
import torch
from evaluation_cases import split_at
from graphs import Row, checked, graph_of, logs, permuted, random_rows
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.evaluate import (
    Initiations,
    Snapshot,
    SuggestionLists,
    evaluate_mutual,
    evaluate_snapshot,
    evaluate_snapshot_lists,
)
from graphrec.models import HEURISTICS
from graphrec.temporal import Timeline

# Test window 200 .. 300, horizon 101 // 4 = 25 seconds. Before it a knows b and c, b and c know d, e knows f.
PAST = [("a", "b", 10), ("a", "c", 20), ("b", "d", 30), ("c", "d", 40), ("e", "f", 150)]
LATER = [
    ("a", "d", 210),  # two hops, answered after 20 seconds
    ("d", "a", 230),
    ("a", "e", 215),  # far, never answered
    ("b", "e", 220),  # far, answered after 30 seconds: too late
    ("e", "b", 250),
    ("c", "f", 290),  # far, too young to be judged
    ("f", "d", 205),  # far, answered at once
    ("d", "f", 206),
    ("g", "a", 299),  # of somebody who was not there before
]


def letters(events: list[tuple[str, str, int]]) -> list[Row]:
    return [Row("abcdefg".index(u), "abcdefg".index(v), t) for u, v, t in sorted(events, key=lambda e: e[2])]


@pytest.fixture(scope="module")
def paper() -> tuple[FriendGraph, TemporalSplit]:
    graph = graph_of(letters(PAST + LATER), 7)
    return graph, split_at(graph, 100, 200)


def judged(paper: tuple[FriendGraph, TemporalSplit], people: list[list[int]], k: int = 2) -> Snapshot:
    graph, split = paper
    lists = SuggestionLists.of(torch.arange(len(people)), torch.tensor(people))
    return evaluate_snapshot_lists(lists, graph, name="by hand", split=split, k=k)


def test_lists_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    # a: d (tie), e (approached). b: e (late). c: f (undecided). d: a, f (both ties of d, who answered).
    # e: nobody. f: d (tie).
    people = [[3, 4], [4, -1], [5, 0], [0, 5], [-1, -1], [3, 1]]
    snapshot = judged(paper, people)
    row = snapshot.row("all")
    assert (row["n"], row["horizon_s"], row["ties"]) == (6, 25, 4)
    assert row["precision@2"] == pytest.approx((2 / 2 + 1 / 2 + 1 / 2 + 2 / 2 + 0 + 1 / 2) / 6)
    assert row["reciprocated_precision@2"] == pytest.approx((1 / 2 + 0 + 0 + 2 / 2 + 0 + 1 / 2) / 6)
    assert row["ties_found@2"] == 1
    # Suggested: a 2, b 1, c 0, d 2, e 2, f 2 times.
    assert (row["most_suggested"], row["never_suggested"]) == (2, pytest.approx(1 / 6))


def test_slices_on_paper(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    snapshot = judged(paper, [[3, 4], [4, -1], [5, 0], [0, 5], [-1, -1], [3, 1]])
    rows = {row["slice"]: row for row in snapshot.rows()}
    assert set(rows) == {"all", "newcomer", "degree_1_4", "hop_2", "hop_far"}
    # e and f were first seen at 150, later than 200 - 101. f has a tie with d.
    assert (rows["newcomer"]["n"], rows["newcomer"]["ties"]) == (2, 1)
    assert rows["newcomer"]["reciprocated_precision@2"] == pytest.approx((0 + 1 / 2) / 2)
    # Two hops: a - d and b - c alone are friends of friends; a's list has d, d's has a.
    assert (rows["hop_2"]["n"], rows["hop_2"]["ties"]) == (2, 2)
    assert rows["hop_2"]["reciprocated_precision@2"] == 1
    # Far: a has e, b e, c nobody who is decided, d f, f both; c already knows a, who is no suggestion anybody
    # makes but stands at one hop.
    assert rows["hop_far"]["ties"] == 2
    with pytest.raises(KeyError, match="unknown slice 'hop_3'"):
        snapshot.row("hop_3")


def test_a_tie_that_is_not_listed_is_not_found(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    row = judged(paper, [[3], [0], [0], [1], [0], [0]], k=1).row("all")
    assert (row["ties"], row["ties_found@1"]) == (4, 1 / 4)


def test_nobody_suggested(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    row = judged(paper, [[-1, -1]] * 6).row("all")
    assert (row["precision@2"], row["ties_found@2"], row["never_suggested"]) == (0, 0, 1)


def test_wrong_lists_are_named(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    with pytest.raises(ValueError, match="3 places, more than k = 2"):
        judged(paper, [[1, 2, 3]])
    with pytest.raises(ValueError, match=r"people must be \[2, k\], got \[1, 2\]"):
        SuggestionLists.of(torch.arange(2), torch.tensor([[1, 2]]))


class Hopeful:
    """Whoever asks, the later letters are better; it notes what it was asked."""

    name = "hopeful"

    def __init__(self) -> None:
        self.asked: list[Query] = []

    def score(self, query: Query) -> torch.Tensor:
        self.asked.append(query)
        return torch.arange(7.0).expand(len(query), 7)


def test_scores_become_lists(paper: tuple[FriendGraph, TemporalSplit]) -> None:
    graph, split = paper
    scorer = Hopeful()
    snapshot = evaluate_snapshot(scorer, graph, split=split, k=2, progress=False)
    asked = torch.cat([query.user for query in scorer.asked])
    assert asked.tolist() == [0, 1, 2, 3, 4, 5]  # g was not seen before
    assert {int(time) for query in scorer.asked for time in query.time} == {200}
    lists = [snapshot.lists.person[snapshot.lists.row == row].tolist() for row in range(6)]
    # e knows f, and b's contacts a and d are no suggestions.
    assert lists == [[5, 6], [5, 6], [5, 6], [5, 6], [3, 6], [3, 6]]
    row = evaluate_mutual(scorer, graph, split=split, k=2, progress=False)[-1]
    assert row == snapshot.row("all") | {"slice": "snapshot"}


def test_the_action_hoped_for() -> None:
    graph = graph_of(
        [Row(0, 1, 0, "like"), Row(0, 1, 1, "like"), Row(1, 2, 2, "ask"), Row(2, 0, 3, "ask")], 7
    )
    split = split_at(graph, 2, 3)
    for action, code in ((None, 1), ("ask", 0)):
        scorer = Hopeful()
        evaluate_snapshot(scorer, graph, split=split, action=action, progress=False)
        assert {int(a) for query in scorer.asked for a in query.action} == {code}


def test_names_change_nothing() -> None:
    rows = random_rows(2, users=30, events=120, times=60, scale=9)
    new_id = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for log in (rows, permuted(rows, new_id)):
        graph = graph_of(log, 30)
        split = split_at(graph, 200, 300)
        model = HEURISTICS["adamic_adar"]().fit(graph, until=split.t_val)
        found.append(evaluate_snapshot(model, graph, split=split, k=3, progress=False).rows())
    assert len(found[0]) >= 4
    for one, other in zip(*found, strict=True):
        same = {key: value for key, value in one.items() if not key.endswith(("_low", "_high"))}
        assert same == pytest.approx({key: other[key] for key in same})


# --- What is known of answers, and of common people ---------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "expected"),
    [(100, -1), (101, -1), (110, -1), (111, 1), (120, 1), (200, 1)],  # asked at 100, answered at 110
)
def test_an_answer_is_known_once_it_has_come(until: int, expected: int) -> None:
    pairs = Initiations.of(graph_of([Row(0, 1, 100), Row(1, 0, 110)]))
    assert pairs.reply_labels(until=until, reply_window=15).tolist() == [expected]


@pytest.mark.parametrize(("until", "expected"), [(101, -1), (115, -1), (116, 0), (131, 0)])
def test_silence_is_a_no_once_the_horizon_is_over(until: int, expected: int) -> None:
    pairs = Initiations.of(graph_of([Row(0, 1, 100), Row(1, 0, 130)]))
    assert pairs.reply_labels(until=until, reply_window=15).tolist() == [expected]


@checked
@given(logs(users=6, events=40, times=(0, 9)), st.integers(0, 10))
def test_common_contacts_are_those_both_had_met(rows: list[Row], time: int) -> None:
    graph = graph_of(rows, 6)
    timeline = Timeline.of(graph)
    met: dict[int, set[int]] = {user: set() for user in range(6)}
    for row in rows:
        if row.time < time:
            met[row.src].add(row.dst)
            met[row.dst].add(row.src)
    one, other = (x.flatten() for x in torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij"))
    tick = timeline.tick(torch.full_like(one, time))
    at, person = timeline.common_contacts(one, other, tick)
    found = [set(person[at == row].tolist()) for row in range(36)]
    assert found == [met[u] & met[v] for u, v in zip(one.tolist(), other.tolist(), strict=True)]
    assert timeline.num_common_contacts(one, other, tick).tolist() == [len(people) for people in found]
    known = [v in met[u] for u, v in zip(one.tolist(), other.tolist(), strict=True)]
    assert timeline.had_contact(one, other, tick).tolist() == known
