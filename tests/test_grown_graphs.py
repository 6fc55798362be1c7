"""Graphs that events were appended to: versions of one log that share arrays and never change."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from graphs import Row, random_rows

from graphrec.data import DataError, EventLog, FriendGraph, Query, UserTable
from graphrec.models import HEURISTICS, suggest
from graphrec.temporal import Timeline

DAY = 86_400
UNTIL = 20 * DAY
ROWS = random_rows(3, users=12, events=90, times=30, scale=DAY)
ENDS = [40, 45, 46, 60, 61, 75, 90]


def log_of(rows: list[Row]) -> EventLog:
    src, dst, time, action = zip(*rows, strict=True)
    return EventLog.from_arrays([f"p{x}" for x in src], [f"p{x}" for x in dst], time, action)


def graph_of_first(size: int) -> FriendGraph:
    people = pa.table({"user": [f"p{x}" for x in range(12)]})
    return FriendGraph.from_events(log_of(ROWS[:size]), UserTable.from_table(people, where="the users"))


def test_the_graph_before_and_its_snapshots_stay() -> None:
    graph = graph_of_first(ENDS[0])
    index, past = Timeline.of(graph), graph.snapshot(10 * DAY)
    model = HEURISTICS["adamic_adar"]().fit(graph, until=UNTIL)

    def sizes() -> list[object]:
        lengths = index.columns.half_edges.length.tolist()
        return [graph.num_events, len(index.events), past.num_events, lengths]

    before, versions = sizes(), []
    for start, end in pairwise(ENDS):
        model.append(log_of(ROWS[start:end]))
        versions.append((model.graph, end))
    assert sizes() == before
    for version, size in versions:
        whole = graph_of_first(size)
        assert version.num_events == whole.num_events
        assert version.action_counts == whole.action_counts
        version.validate()
        assert list(version.edge_types) == list(whole.edge_types)
        for kind in whole.edge_types:
            for key, value in whole[kind].items():
                assert torch.equal(version[kind][key], value), (kind, key)
        lengths = Timeline.of(version).columns.half_edges.length.tolist()
        assert lengths == Timeline.of(whole).columns.half_edges.length.tolist()
    for same in (copy.copy(version), copy.deepcopy(version), pickle.loads(pickle.dumps(version))):
        assert type(same) is FriendGraph
        assert same.num_events == len(ROWS)
        assert same.user_ids.values.equals(version.user_ids.values)


def test_another_model_on_the_graph_does_not_follow() -> None:
    model = HEURISTICS["popularity"]().fit(graph_of_first(40), until=UNTIL)
    model.append(log_of(ROWS[40:70]))
    other = HEURISTICS["popularity"]().fit(model.graph, until=UNTIL)
    query = Query.of(model.graph, ["p0"], 40 * DAY)
    before = other.score(query)
    model.append(log_of(ROWS[70:80]))
    model.append(log_of(ROWS[80:]))
    assert torch.equal(other.score(query), before)
    assert not torch.equal(model.score(query), before)
    other.append(log_of(ROWS[70:]))
    assert torch.equal(other.score(query), model.score(query))


def test_a_copy_of_a_model_does_not_follow() -> None:
    model = HEURISTICS["last_seen"]().fit(graph_of_first(40), until=UNTIL)
    model.append(log_of(ROWS[40:70]))
    other, query = model.on(model.graph), Query.of(model.graph, ["p0"], 40 * DAY)
    before = other.score(query)
    model.append(log_of(ROWS[70:]))
    assert torch.equal(other.score(query), before)
    other.append(log_of(ROWS[70:80]))
    assert model.graph.num_events == 90
    assert other.graph.num_events == 80


def test_edges_of_a_grown_graph_are_made_when_asked_for() -> None:
    model = HEURISTICS["adamic_adar"]().fit(graph_of_first(40), until=UNTIL)
    model.append(log_of(ROWS[40:]))
    suggest(model, ["p0", "p3"])
    assert model.graph.__dict__["_unmade"] is not None
    assert len(model.graph["user", "call", "user"].time) == model.graph.action_counts[0]
    assert model.graph.__dict__["_unmade"] is None
    assert Timeline.of(model.graph, follows=True).events is model.graph.events()


@pytest.mark.parametrize("kind", ["integers", "text", "mixed"])
def test_ids_of_newcomers_follow_all_others(kind: str) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(3000)
    named = [f"u{x}" * (1 + x % 3) for x in ids] if kind == "text" else ids.tolist()
    graph = FriendGraph.from_events(EventLog.from_arrays(named[:9], named[1:10], range(9)))
    model = HEURISTICS["last_seen"]().fit(graph, until=20)
    known = graph.user_ids.values.to_pylist()
    for time, start in enumerate(range(9, 2900, 90), start=10):
        part = named[start : start + 90]
        if kind == "mixed" and start > 1000:
            part = [f"x{x}" for x in part]
        model.append(EventLog.from_arrays(part[:-1], part[1:], [time] * 89))
        there = model.graph.user_ids
        assert list(map(str, there.values.to_pylist()))[: len(known)] == list(map(str, known))
        known = there.values.to_pylist()
        assert len(set(known)) == len(known) == model.graph.num_users
        some = rng.choice(len(known), size=9).tolist()
        assert there.index([known[x] for x in some]).tolist() == some
        assert there.find(["no one", 10**9]).tolist() == [-1, -1]
    assert graph.num_users == 10
    assert int(graph.user_ids.find([known[20]])) == -1


def test_a_few_ids_are_searched_as_all_are() -> None:
    for values in (pa.array([9, 4, 7, -3, 2**62]), pa.array(["b", "abc", "ä", "abcd"])):
        src = pa.concat_arrays([values] * 100)
        log = EventLog.from_arrays(src[:-1], src[1:], range(len(src) - 1))
        wanted = [*values.to_pylist(), "nobody", 5, " b ", "7", "a", "abcde"]
        ids = log.user_ids
        few = [int(ids.find([one])) for one in wanted]
        assert few == ids.find(wanted).tolist()


def test_features_and_weights_grow() -> None:
    log = EventLog.from_arrays([1, 2], [2, 3], [1, 2], weight=[0.5, 1.5])
    people = pa.table({"user": [1, 2, 3], "age": [3.0, 4.0, None], "join_time": [0, 1, None]})
    graph = FriendGraph.from_events(log, UserTable.from_table(people))
    model = HEURISTICS["last_seen"]().fit(graph, until=3)
    more = EventLog.from_arrays([9, 1], [8, 9], [3, 4], weight=[2.5, 3.5])
    model.append(more)
    same, weights = graph.with_events(more), model.graph.weights()
    assert weights is not None
    assert weights.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert torch.equal(model.graph["user"].x, same["user"].x)
    assert torch.equal(model.graph["user"].join_time, same["user"].join_time)
    with pytest.raises(DataError, match="have weights"):
        model.append(EventLog.from_arrays([1], [2], [5]))


def test_columns_of_edges_and_users_are_not_lost() -> None:
    graph = graph_of_first(40)
    graph["user", "call", "user"].edge_attr = torch.ones(graph.action_counts[0], 2)
    model = HEURISTICS["last_seen"]().fit(graph, until=UNTIL)
    model.append(log_of([Row(1, 2, 40 * DAY, "text")]))
    assert model.graph["user", "call", "user"].edge_attr.shape == (graph.action_counts[0], 2)
    with pytest.raises(DataError, match="has 'edge_attr' for each event"):
        model.append(log_of([Row(1, 2, 41 * DAY, "call")]))
    graph = graph_of_first(40)
    graph["user"].height = torch.ones(12)
    model = HEURISTICS["last_seen"]().fit(graph, until=UNTIL)
    with pytest.raises(DataError, match="the new users have no 'height'"):
        model.append(log_of([Row(1, 99, 41 * DAY, "text")]))
