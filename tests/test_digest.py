"""Content digests: equal for equal content however it lies in memory, different for any other content."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from graphs import checked, random_rows
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import (
    FRIEND,
    USER,
    EventLog,
    FriendGraph,
    UserIds,
    UserTable,
    digest_graph,
    digest_log,
    digest_value,
)

CONTACT = (USER, "text", USER)


def rich_graph(seed: int = 0) -> FriendGraph:
    """Weights, features, join times, friendships without a time, and attributes of edges."""
    src, dst, time, action = zip(*random_rows(seed), strict=True)
    weight = [float(row) for row in range(len(src))]
    people = pa.table({"user": list(range(10)), "age": [float(i) for i in range(10)], "join_time": [0] * 10})
    graph = FriendGraph.from_events(
        EventLog.from_arrays(src, dst, time, action=action, weight=weight),
        UserTable.from_table(people),
    )
    graph.add_untimed("facebook", [0, 1], [2, 3])
    graph[CONTACT].edge_attr = torch.ones(graph[CONTACT].num_edges, 2)
    return graph


def other_ids(graph: FriendGraph) -> None:
    graph[USER].raw_id = graph[USER].raw_id + 1


def feature(graph: FriendGraph) -> None:
    graph[USER].x = graph[USER].x.clone()
    graph[USER].x[3, 0] += 1


def feature_kind(graph: FriendGraph) -> None:
    graph[USER].x = graph[USER].x.double()


def feature_name(graph: FriendGraph) -> None:
    graph.feature_names = ["height"]


def no_features(graph: FriendGraph) -> None:
    del graph[USER].x


def join_time(graph: FriendGraph) -> None:
    graph[USER].join_time = graph[USER].join_time + 1


def edge_time(graph: FriendGraph) -> None:
    graph[CONTACT].time = graph[CONTACT].time + 1


def edge_weight(graph: FriendGraph) -> None:
    graph[CONTACT].weight = graph[CONTACT].weight + 1


def edge_attr(graph: FriendGraph) -> None:
    graph[CONTACT].edge_attr = 2 * graph[CONTACT].edge_attr


def turned_edges(graph: FriendGraph) -> None:
    graph[CONTACT].edge_index = graph[CONTACT].edge_index.flip(0)


def untimed(graph: FriendGraph) -> None:
    graph[USER, "facebook", USER].edge_index = graph[USER, "facebook", USER].edge_index[:, :2]


def untimed_name(graph: FriendGraph) -> None:
    graph[USER, "family", USER].update(graph[USER, "facebook", USER])
    del graph[USER, "facebook", USER]


def friends(graph: FriendGraph) -> None:
    graph[USER, FRIEND, USER].time = graph[USER, FRIEND, USER].time + 1


CHANGES: list[Callable[[FriendGraph], None]] = [
    other_ids,
    feature,
    feature_kind,
    feature_name,
    no_features,
    join_time,
    edge_time,
    edge_weight,
    edge_attr,
    turned_edges,
    untimed,
    untimed_name,
    friends,
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_graph_changes_its_digest(change: Callable[[FriendGraph], None]) -> None:
    graph = rich_graph()
    changed = copy.copy(graph)
    change(changed)
    assert digest_graph(changed) != digest_graph(graph)
    assert digest_graph(rich_graph()) == digest_graph(graph)


def test_a_digest_does_not_depend_on_memory_or_the_order_of_attributes(tmp_path: Path) -> None:
    graph = rich_graph()
    wanted = digest_graph(graph)
    graph.save(tmp_path / "graph.pt")
    assert digest_graph(FriendGraph.load(tmp_path / "graph.pt")) == wanted
    graph.events()  # what is derived is no content
    strided = copy.copy(graph)
    strided[USER].x = torch.stack([graph[USER].x, graph[USER].x + 1], 2)[:, :, 0]
    strided[CONTACT].edge_index = graph[CONTACT].edge_index.T.contiguous().T
    weight = strided[CONTACT].weight
    del strided[CONTACT].weight
    strided[CONTACT].weight = weight
    assert digest_graph(strided) == wanted


def test_the_order_of_actions_counts() -> None:
    graph = rich_graph()
    turned = FriendGraph()
    turned[USER].update(graph[USER])
    turned.feature_names = graph.feature_names
    for edge_type in reversed(graph.edge_types):
        turned[edge_type].update(graph[edge_type])
    assert turned.actions == graph.actions[::-1]
    assert digest_graph(turned) != digest_graph(graph)


def test_what_has_no_digest_is_named() -> None:
    graph = rich_graph()
    graph[USER].friends_of_mine = object()
    with pytest.raises(TypeError, match=r"friends_of_mine.*object"):
        digest_graph(graph)


@checked
@given(st.integers(0, 999), st.integers(0, 999))
def test_a_log_is_known_by_ids_not_by_indices(seed: int, shift: int) -> None:
    rows = random_rows(seed)
    src, dst, time, action = zip(*rows, strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action)
    wanted = digest_log(log)
    text = EventLog.from_arrays([str(u) for u in src], [str(v) for v in dst], time, action=action)
    assert digest_log(text) == wanted
    # The same events among more ids, numbered at random.
    known = log.user_ids.lookup(torch.arange(len(log.user_ids)))
    numbers = np.random.default_rng(shift).permutation(len(known) + 5)
    raw = torch.full((len(numbers),), 10**6) + torch.arange(len(numbers))
    raw[torch.from_numpy(numbers[: len(known)])] = torch.tensor([int(i) for i in known])
    place = torch.from_numpy(numbers)
    renumbered = EventLog(
        src=place[log.src],
        dst=place[log.dst],
        time=log.time,
        action=len(log.actions) - log.action,
        actions=("unused", *log.actions[::-1]),
        user_ids=UserIds(raw),
        num_self_loops=7,
    )
    assert digest_log(renumbered) == wanted


@pytest.mark.parametrize("column", ["src", "dst", "time", "action", "weight", "row"])
def test_any_other_log_has_another_digest(column: str) -> None:
    columns: dict[str, list[Any]] = {
        "src": [1, 2, 3],
        "dst": [2, 3, 1],
        "time": [5, 6, 7],
        "action": ["a", "b", "a"],
        "weight": [1.0, 2.0, 3.0],
    }
    wanted = digest_log(EventLog.from_arrays(**columns))
    other = {"src": 4, "dst": 4, "time": 8, "action": "c", "weight": 4.0}
    if column == "row":
        changed = {name: values[:2] for name, values in columns.items()}
    else:
        changed = columns | {column: [*columns[column][:2], other[column]]}
    assert digest_log(EventLog.from_arrays(**changed)) != wanted


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def spelled(value: Any) -> Any:
    """The value with kinds spelled out, since to Python 1 == True == 1.0, and 0.0 == -0.0."""
    if isinstance(value, dict):
        return "dict", sorted((key, repr(spelled(item))) for key, item in value.items())
    if isinstance(value, list):
        return "list", [spelled(item) for item in value]
    return type(value).__name__, repr(value)


@checked
@given(VALUES, VALUES)
def test_values_are_alike_exactly_when_their_digests_are(one: Any, other: Any) -> None:
    assert digest_value(copy.deepcopy(one)) == digest_value(one)
    assert (digest_value(one) == digest_value(other)) == (spelled(one) == spelled(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["ab", "c"], ["a", "bc"]),
        ([["a"], "b"], ["a", ["b"]]),
        ({"a": {"b": 1}}, {"a": None, "b": 1}),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(1), torch.zeros(())),
        (torch.zeros(0, 3), torch.zeros(0, 4)),
        (1, "1"),
        (1, True),
        (1, 1.0),
    ],
)
def test_parts_are_not_run_together(one: Any, other: Any) -> None:
    assert digest_value(one) != digest_value(other)


def test_large_and_small_parts_of_a_tensor_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(1000).view(100, 10)
    wanted = digest_value(tensor)
    monkeypatch.setattr("graphrec.data.digest.CHUNK_BYTES", 240)
    assert digest_value(tensor) == digest_value(tensor.T.contiguous().T) == wanted
    assert digest_value(tensor.numpy()) == wanted
