"""Graphs that gain events and lose people are the graphs of the log that remains."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from graphs import Row, checked, graph_of, logs
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import FRIEND, USER, DataError, EventLog, FriendGraph, UserIds, UserTable


def log_of(rows: list[Row]) -> EventLog:
    src, dst, time, action = zip(*rows, strict=True)
    return EventLog.from_arrays(src, dst, time, action=action)


def content(graph: FriendGraph) -> dict[str, object]:
    """All that a graph says, by raw ids."""
    graph.validate()
    events, name = graph.events(), graph.user_ids.lookup
    friends = graph[USER, FRIEND, USER]
    return {
        "users": name(range(graph.num_users)),
        "events": list(
            zip(
                name(events.src),
                name(events.dst),
                events.time.tolist(),
                [graph.actions[code] for code in events.action.tolist()],
                strict=True,
            )
        ),
        "friends": sorted(
            zip(*(name(side) for side in friends.edge_index), friends.time.tolist(), strict=True)
        ),
    }


@checked
@given(logs(), st.integers(0, 30))
def test_more_events_are_those_of_one_log(rows: list[Row], cut: int) -> None:
    """Also of such as are older than what is there; and people come who were not."""
    first, more = rows[: 1 + cut], rows[1 + cut :]
    actions = {row.action for row in first}
    more = [row for row in more if row.action in actions]
    if more:
        assert content(graph_of(first).with_events(log_of(more))) == content(graph_of(first + more))


@checked
@given(logs(), st.sets(st.integers(0, 4), max_size=3))
def test_without_people_is_the_log_without_them(rows: list[Row], gone: set[int]) -> None:
    graph = graph_of(rows)
    gone &= set(graph.user_ids.lookup(range(graph.num_users)))
    kept = [row for row in rows if not {row.src, row.dst} & gone]
    if not kept:
        with pytest.raises(DataError, match="no event would be left"):
            graph.without(sorted(gone))
        return
    found = content(graph.without(sorted(gone)))
    expected = content(graph_of(kept))
    everyone = sorted({end for row in rows for end in (row.src, row.dst)} - gone)
    assert found["users"] == everyone
    assert found["events"] == expected["events"]
    assert found["friends"] == expected["friends"]
    assert graph.without(sorted(gone)).actions == graph.actions


def neighbors() -> FriendGraph:
    """Ann, Bob and Cem, with weights, features, join times and untimed friendships."""
    rows = ["ann", "bob", "cem"], ["bob", "cem", "ann"], [1, 2, 3]
    log = EventLog.from_arrays(*rows, action=["call", "text", "call"], weight=[0.5, 1.5, 2.5])
    people = pa.table({"user": ["ann", "bob", "cem"], "age": [30.0, None, 50.0], "join_time": [0, 1, None]})
    graph = FriendGraph.from_events(log, UserTable.from_table(people))
    graph.add_untimed("flatmate", ["ann", "bob"], ["bob", "cem"])
    return graph


def test_what_is_known_of_people_goes_with_them() -> None:
    more = EventLog.from_arrays(
        ["ada", "bob"], ["bob", "ann"], [9, 2], action=["call"] * 2, weight=[3.5, 4.5]
    )
    graph = neighbors().with_events(more)
    graph.validate()
    assert graph.user_ids.lookup(range(4)) == ["ada", "ann", "bob", "cem"]
    assert graph[USER].x.tolist() == [[0, 1], [30, 0], [0, 1], [50, 0]]  # age, age_missing
    assert graph[USER].join_time.tolist() == [-1, 0, 1, -1]
    assert graph.feature_names == ["age", "age_missing"]
    assert graph[USER, "flatmate", USER].edge_index.T.tolist() == [[1, 2], [2, 1], [2, 3], [3, 2]]
    assert graph[USER, "call", USER].weight.tolist() == [0.5, 4.5, 2.5, 3.5]
    left = graph.without(["bob"])
    left.validate()
    assert left.user_ids.lookup(range(3)) == ["ada", "ann", "cem"]
    assert left[USER].x.tolist() == [[0, 1], [30, 0], [50, 0]]
    assert left[USER, "call", USER].weight.tolist() == [2.5]
    assert left[USER, "flatmate", USER].edge_index.numel() == 0
    assert left.actions == graph.actions == ("call", "text")
    assert content(graph.without(torch.tensor([2]))) == content(left)


def test_ids_may_become_text() -> None:
    graph = graph_of([Row(7, 10, 0)]).with_events(EventLog.from_arrays(["ann"], ["7"], [5]))
    assert graph.user_ids.lookup(range(3)) == ["10", "7", "ann"]
    assert content(graph)["events"] == [("7", "10", 0, "contact"), ("ann", "7", 5, "contact")]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"'poke'.*call, text"):
        neighbors().with_events(EventLog.from_arrays(["a"], ["b"], [1], action=["poke"], weight=[1.0]))
    with pytest.raises(DataError, match="weights"):
        neighbors().with_events(EventLog.from_arrays(["a"], ["b"], [1], action=["call"]))
    with pytest.raises(KeyError, match="'dan'"):
        neighbors().without(["dan"])


@given(st.lists(st.integers(-3, 12), max_size=8))
@checked
def test_find_says_who_is_not_there(asked: list[int]) -> None:
    known = list(range(0, 10, 3))
    ids = UserIds(torch.tensor(known))
    expected = [known.index(one) if one in known else -1 for one in asked]
    assert ids.find(asked).tolist() == ids.find([str(one) for one in asked]).tolist() == expected
    names = UserIds.from_values(pa.array([f"p{one}" for one in known]))
    assert names.find([f"p{one}" for one in asked]).tolist() == expected
    assert ids.find(["ann"]).tolist() == [-1]
