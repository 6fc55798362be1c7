"""What is given with an edge or a user stays with it, or is refused by name."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import torch_geometric.transforms as T
from graphs import ACTIONS, Row, checked, graph_of, logs, random_rows
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import FRIEND, USER, DataError, EventLog, FriendGraph, Query, UserTable, reverse_of
from graphrec.loader import EventLoader, QueryLoader, audit_leakage
from graphrec.temporal import Timeline


def with_attributes(rows: list[Row]) -> FriendGraph:
    """A graph whose edges carry, two-dimensional, what they are: src, dst and time."""
    graph = graph_of(rows)
    for name in graph.actions:
        edges = graph[USER, name, USER]
        ends = [graph.user_ids.values.to_pylist()[i] for i in edges.edge_index.flatten().tolist()]
        edges.edge_attr = torch.stack([*torch.tensor(ends).view(2, -1), edges.time], dim=1).float()
        edges.seen = edges.time > 2
    graph.validate()
    return graph


def check_attributes(graph: FriendGraph, actions: tuple[str, ...]) -> None:
    graph.validate()
    assert graph.actions == actions
    raw = torch.tensor(graph.user_ids.values.to_pylist())
    for name in actions:
        edges = graph[USER, name, USER]
        expected = torch.stack([*raw[edges.edge_index], edges.time], dim=1).float()
        assert torch.equal(edges.edge_attr, expected)
        assert torch.equal(edges.seen, edges.time > 2)


@checked
@given(logs(), st.integers(-3, 7), st.sets(st.integers(0, 4), max_size=2), st.randoms())
def test_edge_attributes_follow_their_edges(
    rows: list[Row], time: int, gone: set[int], rng: random.Random
) -> None:
    graph = with_attributes(rows)
    known = set(graph.user_ids.lookup(range(graph.num_users)))
    check_attributes(graph.snapshot(time), graph.actions)
    kept = torch.tensor([rng.random() < 0.5 for _ in range(graph.num_events)])
    check_attributes(graph.select_events(kept), graph.actions)
    some = tuple(sorted(rng.sample(graph.actions, 1)))
    check_attributes(graph.select_actions(some), some)
    if not all({row.src, row.dst} & gone for row in rows):
        check_attributes(graph.without(sorted(gone & known)), graph.actions)


def test_edge_attributes_are_saved(tmp_path: Path) -> None:
    graph = with_attributes(random_rows(0))
    graph.save(tmp_path / "graph.pt")
    check_attributes(FriendGraph.load(tmp_path / "graph.pt"), graph.actions)


def test_new_events_without_the_edge_attributes_are_refused() -> None:
    graph = with_attributes([Row(0, 1, 0, "call"), Row(1, 0, 1, "text")])
    del graph[USER, "text", USER].edge_attr, graph[USER, "text", USER].seen
    with pytest.raises(DataError, match=r"'call' has 'edge_attr'.*new ones none"):
        graph.with_events(EventLog.from_arrays([0], [1], [2], action=["call"]))
    more = graph.with_events(EventLog.from_arrays([2], [0], [0], action=["text"]))
    assert torch.equal(more[USER, "call", USER].edge_attr, graph[USER, "call", USER].edge_attr)
    assert "edge_attr" not in more[USER, "text", USER]
    assert more.num_events == 3


def test_edge_attributes_reach_the_batches() -> None:
    graph = with_attributes(random_rows(1, events=120))
    events = graph.events()
    everything = torch.stack([events.src, events.dst, events.time], dim=1).float()
    query = Query.of(graph, torch.arange(graph.num_users))
    for loader in (
        QueryLoader(graph, query, [4, 3], batch_size=4),
        EventLoader.of_events(graph, [-1, 2], batch_size=16, num_negatives=1),
    ):
        num_edges = 0
        for batch in loader:
            for _, name, _ in batch.edge_types:
                edges = batch[USER, name, USER]
                assert torch.equal(edges.edge_attr, everything[edges.event_id])
                assert torch.equal(edges.seen, edges.time > 2)
                num_edges += len(edges.event_id)
        assert num_edges > 100
        audit_leakage(loader, num_moments=5)


def test_rows_that_are_no_tensor_or_too_few_are_refused() -> None:
    graph = with_attributes(random_rows(0))
    first = graph[USER, ACTIONS[0], USER]
    size = first.time.numel()
    first.edge_attr = torch.zeros(size + 1, 2)
    with pytest.raises(DataError, match=r"'edge_attr' of 'call' must have one row"):
        graph.validate()
    with pytest.raises(DataError, match=r"'edge_attr' of 'call'"):
        QueryLoader(graph, Query.of(graph, [0]), [2])
    first.edge_attr = ["x"] * size
    with pytest.raises(DataError, match="'edge_attr' must be a tensor, got list"):
        graph.without([0])
    del first.edge_attr
    graph[USER].names = ["ann"] * graph.num_users
    with pytest.raises(DataError, match="node attribute 'names' must be a tensor"):
        graph.without([0])


def test_attributes_of_users_go_with_them_or_are_refused() -> None:
    graph = graph_of([Row(0, 1, 0), Row(1, 2, 1), Row(2, 0, 2)])
    graph[USER].y = torch.tensor([5, 6, 7])
    assert graph.without([1])[USER].y.tolist() == [5, 7]
    assert graph.with_events(EventLog.from_arrays([0], [1], [9]))[USER].y.tolist() == [5, 6, 7]
    with pytest.raises(DataError, match="the new users have no 'y'"):
        graph.with_events(EventLog.from_arrays([0], [3], [9]))


def test_what_only_derived_ties_carry_is_refused() -> None:
    graph = graph_of([Row(0, 1, 0), Row(1, 0, 1), Row(2, 0, 2)])
    graph[USER, FRIEND, USER].edge_attr = torch.ones(2, 1)
    more = EventLog.from_arrays([0], [2], [9])
    for change in (
        lambda: graph.with_events(more),
        lambda: graph.select_events(torch.tensor([True, True, False])),
        lambda: graph.select_actions(["contact"]),
    ):
        with pytest.raises(DataError, match="'friend' has 'edge_attr', which would be lost"):
            change()
    assert graph.without([2])[USER, FRIEND, USER].edge_attr.tolist() == [[1], [1]]


def test_untimed_friendships_keep_their_attributes() -> None:
    graph = graph_of([Row(0, 1, 0), Row(1, 2, 1), Row(2, 0, 2)])
    graph.add_untimed("school", [0, 1], [1, 2])
    edges = graph[USER, "school", USER]
    edges.edge_attr = edges.edge_index.sum(0)
    left = graph.without([0])[USER, "school", USER]
    assert (left.edge_index.tolist(), left.edge_attr.tolist()) == ([[0, 1], [1, 0]], [3, 3])
    more = graph.with_events(EventLog.from_arrays([-1], [0], [5]))[USER, "school", USER]
    assert torch.equal(more.edge_index, edges.edge_index + 1)
    assert torch.equal(more.edge_attr, edges.edge_attr)


def test_weights_of_some_actions_alone_are_refused() -> None:
    graph = graph_of([Row(0, 1, 0, "call"), Row(1, 0, 1, "text")])
    graph[USER, "call", USER].weight = torch.ones(1)
    with pytest.raises(DataError, match="'text' has no 'weight', others do"):
        graph.validate()
    with pytest.raises(DataError, match="'text' has no 'weight'"):
        graph.with_events(EventLog.from_arrays([0], [1], [2], action=["call"]))


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("actions", [("text",), ACTIONS])
def test_undirected_events_are_refused_by_name(merge: bool, actions: tuple[str, ...]) -> None:
    graph = T.ToUndirected(merge=merge)(graph_of(random_rows(3, actions=actions)))
    for use in (graph.validate, graph.events, lambda: Timeline.of(graph), lambda: graph.without([0])):
        with pytest.raises(DataError, match="ToUndirected"):
            use()
    assert not graph.validate(raise_on_error=False)


def people() -> FriendGraph:
    rows = ["ann", "bob", "cem"], ["bob", "cem", "ann"], [1, 2, 3]
    table = pa.table(
        {
            "user": ["ann", "bob", "cem"],
            "email": ["ann@x.org", "bob=b@x.org", "cem@x.org"],
            "country": ["UK", "DK", "DK"],
            "likes": [["tea", "ann's own"], ["tea"], []],
            "age": [30.0, None, 50.0],
        }
    )
    return FriendGraph.from_events(EventLog.from_arrays(*rows), UserTable.from_table(table))


def test_categories_of_the_removed_alone_lose_their_names(tmp_path: Path) -> None:
    graph = people()
    left = graph.without(["ann"])
    assert left[USER].x.shape == (2, graph[USER].x.size(1))
    kept = [
        name
        for name in graph.feature_names
        if name not in ("email=ann@x.org", "country=UK", "likes=ann's own")
    ]
    assert [name for name in left.feature_names if name in graph.feature_names] == kept
    assert len(set(left.feature_names)) == len(graph.feature_names)
    left.save(tmp_path / "graph.pt")
    written = (tmp_path / "graph.pt").read_bytes()
    assert b"bob=b@x.org" in written  # the names are not compressed
    assert not any(word in written for word in (b"ann", b"UK"))
    del left
    nobody = people().with_events(EventLog.from_arrays(["dan"], ["eve"], [4])).without(["ann", "bob", "cem"])
    names = nobody.feature_names
    assert not any(word in " ".join(names) for word in ("@", "UK", "DK", "tea", "ann"))
    assert names[-2:] == ["age", "age_missing"]
    assert nobody[USER].x.tolist() == [[0.0] * (len(names) - 1) + [1.0]] * 2


def test_the_removed_leave_no_trace_of_their_id() -> None:
    long = "a" * 100
    log = EventLog.from_arrays([long, "bob", "cem", long], ["bob", "cem", "bob", long], [1, 2, 3, 4])
    graph = FriendGraph.from_events(log).without([long])
    assert graph[USER].raw_id.shape == (2, 3)
    assert graph.num_self_loops == 0
    graph.validate()


def test_features_of_one_name_are_refused() -> None:
    columns = {"age": [1.0, None], "age_missing": [0, 1]}
    with pytest.raises(DataError, match="two features would be named 'age_missing'"):
        UserTable.from_table(pa.table({"user": [1, 2]} | columns))
    with pytest.raises(DataError, match=r"'a=b'.*must not contain '='"):
        UserTable.from_table(pa.table({"user": [1, 2], "a": ["b=c", "d"], "a=b": ["c", "d"]}))
    with pytest.raises(DataError, match=r"'a=b'.*must not contain '='"):
        UserTable.from_table(pa.table({"user": [1, 2], "a=b": [1, 2]}))
    table = UserTable.from_table(pa.table({"user": [1, 2], "town": ["x", "x_missing"]}))
    graph = FriendGraph.from_events(EventLog.from_arrays([1, 3], [2, 1], [0, 1]), table)
    assert graph[USER].x.tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("ids", "users"),
    [([1, 2], [3, 4]), (["ann", "bob"], [1, 2]), ([1, 2], ["ann"]), ([7, 8], ["007", "008"])],
)
def test_users_of_whom_none_is_in_the_log_are_refused(ids: list[int], users: list[int]) -> None:
    log = EventLog.from_arrays(ids, ids[::-1], [0, 1])
    table = UserTable.from_table(pa.table({"user": users}))
    with pytest.raises(DataError, match=f"none of the {len(users)} users.*{ids[0]!r}.*{users[0]!r}"):
        FriendGraph.from_events(log, table)
    some = UserTable.from_table(pa.table({"user": [str(ids[0]), *map(str, users)]}))
    assert FriendGraph.from_events(log, some).num_users == 2 + len(users)


def test_reserved_names_do_not_enter_by_another_way() -> None:
    log = EventLog.from_arrays([1], [2], [0])
    for name in ("friend", "event", "a__b", reverse_of("text"), reverse_of("_text")):
        bad = EventLog(log.src, log.dst, log.time, log.action, (name,), log.user_ids)
        with pytest.raises(DataError, match="is reserved"):
            FriendGraph.from_events(bad)
        with pytest.raises(DataError, match="is reserved"):
            EventLog.from_arrays([1], [2], [0], action=[name])
