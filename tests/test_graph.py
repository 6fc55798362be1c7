"""The friend graph: what it holds, what it hides, and how it travels."""

import copy
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
import torch
import torch_geometric.transforms as T
from torch_geometric.data import Batch
from torch_geometric.nn import HeteroConv, SAGEConv

from graphrec.data import FRIEND, USER, DataError, EventLog, FriendGraph, Query, UserTable, as_indices

FRIENDS = (USER, FRIEND, USER)
CALL = (USER, "call", USER)


def random_log(seed: int = 0, *, users: int = 12, events: int = 300, weight: bool = True) -> EventLog:
    """String ids, three actions, many tied times, a few self-loops."""
    rng = np.random.default_rng(seed)
    src, dst = rng.integers(0, users, (2, events))
    return EventLog.from_arrays(
        [f"é{i}" for i in src],
        [f"é{i}" for i in dst],
        rng.integers(0, events // 4, events),
        action=rng.choice(["call", "poke", "text"], events),
        weight=rng.random(events) if weight else None,
    )


@pytest.fixture
def graph() -> FriendGraph:
    log = random_log()
    ids = [*log.user_ids.values.to_pylist(), "lonely"]
    table = pa.table(
        {
            "user": ids,
            "age": [None, *range(1, len(ids))],
            "town": ["A", "B"] * (len(ids) // 2) + ["A"],
            "join_time": range(len(ids)),
        }
    )
    return FriendGraph.from_events(log, UserTable.from_table(table, where="users"))


def rows_of(graph: FriendGraph) -> list[tuple[object, ...]]:
    """The events by raw id, in order."""
    events, ids = graph.events(), graph.user_ids
    columns = (ids.lookup(events.src), ids.lookup(events.dst), events.time.tolist(), events.action.tolist())
    return [(u, v, t, graph.actions[a]) for u, v, t, a in zip(*columns, strict=True)]


def friends_of(graph: FriendGraph) -> set[tuple[object, object, int]]:
    store, ids = graph[FRIENDS], graph.user_ids
    ends = (ids.lookup(end) for end in store.edge_index)
    edges = list(zip(*ends, store.time.tolist(), strict=True))
    assert len(set(edges)) == len(edges)
    assert store.time.tolist() == sorted(store.time.tolist())
    return set(edges)


def same(one: FriendGraph, other: FriendGraph) -> bool:
    """Equal in every tensor and value."""
    a, b = one.to_dict(), other.to_dict()

    def equal(x: object, y: object) -> bool:
        if isinstance(x, dict) and isinstance(y, dict):
            return x.keys() == y.keys() and all(equal(x[key], y[key]) for key in x)
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            return x.dtype == y.dtype and torch.equal(x, y)
        return type(x) is type(y) and x == y

    return equal(a, b)


def test_events_are_those_of_the_log() -> None:
    log = random_log()
    graph = FriendGraph.from_events(log)
    events = graph.events()
    for name in ("src", "dst", "time", "action"):
        assert torch.equal(getattr(events, name), getattr(log, name))
    assert (graph.actions, graph.num_events, graph.num_users) == (("call", "poke", "text"), len(log), 12)
    assert graph.num_self_loops == log.num_self_loops == 300 - len(log)
    assert log.num_self_loops > 0
    for name in graph.actions:
        store = graph[USER, name, USER]
        assert torch.equal(store.weight, log.weight[store.event_id])  # type: ignore[index]


def test_one_event_and_one_action() -> None:
    graph = FriendGraph.from_events(EventLog.from_arrays([7], [3], [5]))
    assert graph.validate()
    assert (graph.actions, rows_of(graph), friends_of(graph)) == (("contact",), [(7, 3, 5, "contact")], set())


@pytest.mark.parametrize("seed", range(5))
def test_friends_equal_the_naive_loop(seed: int) -> None:
    graph = FriendGraph.from_events(random_log(seed, events=80))
    first: dict[tuple[object, object], int] = {}
    for u, v, t, _ in rows_of(graph):
        first.setdefault((u, v), t)  # type: ignore[arg-type]
    naive = {(u, v, max(t, first[v, u])) for (u, v), t in first.items() if (v, u) in first}
    assert naive
    assert friends_of(graph) == naive


@pytest.mark.parametrize("time", [-1, 0, 1, 37, 74, 75, 1000])
def test_snapshot_is_the_graph_of_the_strict_past(graph: FriendGraph, time: int) -> None:
    past = graph.snapshot(time)
    past.validate()
    assert past.num_users == graph.num_users
    assert past.actions == graph.actions
    kept = [row for row in rows_of(graph) if row[2] < time]  # type: ignore[operator]
    assert rows_of(past) == kept
    if kept:
        u, v, t, a = zip(*kept, strict=True)
        assert friends_of(past) == friends_of(
            FriendGraph.from_events(EventLog.from_arrays(u, v, t, action=a))
        )
    else:
        assert friends_of(past) == set()
    assert past[USER].join_time.tolist() == [j if j < time else -1 for j in graph[USER].join_time.tolist()]
    assert torch.equal(past[USER].x, graph[USER].x)


def test_an_event_at_the_time_itself_is_invisible() -> None:
    graph = FriendGraph.from_events(EventLog.from_arrays(["a", "b", "a"], ["b", "a", "c"], [1, 2, 3]))
    assert rows_of(graph.snapshot(2)) == [("a", "b", 1, "contact")]
    assert friends_of(graph.snapshot(2)) == set()
    assert rows_of(graph.snapshot(3)) == [("a", "b", 1, "contact"), ("b", "a", 2, "contact")]
    assert friends_of(graph.snapshot(3)) == {("a", "b", 2), ("b", "a", 2)}


def test_snapshot_leaves_out_untimed_edges_and_keeps_edge_features_whole(graph: FriendGraph) -> None:
    graph.add_untimed("school", ["é1"], ["é2"])
    size = graph[CALL].num_edges
    graph[CALL].edge_attr = torch.arange(3 * size).view(size, 3)
    past = graph.snapshot(37)
    assert (USER, "school", USER) not in past.edge_types
    assert 0 < past[CALL].num_edges < size
    assert torch.equal(past[CALL].edge_attr, graph[CALL].edge_attr[: past[CALL].num_edges])


def test_a_saved_snapshot_does_not_contain_the_future(tmp_path: Path) -> None:
    secret = 123_456_789_012
    graph = FriendGraph.from_events(EventLog.from_arrays(list("aba"), list("bab"), [1, 2, secret]))
    pattern = struct.pack("<q", secret)
    graph.save(tmp_path / "all.pt")
    graph.snapshot(secret).save(tmp_path / "past.pt")
    assert pattern in (tmp_path / "all.pt").read_bytes()
    assert pattern not in (tmp_path / "past.pt").read_bytes()


def test_users_join_by_id() -> None:
    users = UserTable.from_table(
        pa.table({"user": [30, 10, 40], "age": [3, 1, 4], "join_time": [33, 11, 44]}), where="T"
    )
    graph = FriendGraph.from_events(EventLog.from_arrays([10, 20], [30, 10], [1, 2]), users)
    assert graph.user_ids.values.to_pylist() == [10, 20, 30, 40]
    assert graph[USER].x.tolist() == [[1], [0], [3], [4]]
    assert graph[USER].join_time.tolist() == [11, -1, 33, 44]
    assert graph.feature_names == ["age"]
    assert [row[:2] for row in rows_of(graph)] == [(10, 30), (20, 10)]


def test_users_join_where_one_side_has_integers() -> None:
    users = UserTable.from_table(pa.table({"user": ["10", "x"], "age": [1, 2]}), where="T")
    graph = FriendGraph.from_events(EventLog.from_arrays([10, 9], [9, 10], [1, 2]), users)
    assert graph.user_ids.values.to_pylist() == ["10", "9", "x"]
    assert graph[USER].x.tolist() == [[1], [0], [2]]
    assert [row[:2] for row in rows_of(graph)] == [("10", "9"), ("9", "10")]


def test_ids_both_ways(graph: FriendGraph) -> None:
    ids = graph.user_ids
    assert ids.lookup(ids.index(["lonely", "é3"])) == ["lonely", "é3"]
    assert torch.equal(as_indices(graph, ["é3"]), ids.index(["é3"]))
    assert torch.equal(as_indices(graph, torch.tensor([3, 1])), torch.tensor([3, 1]))
    with pytest.raises(KeyError, match="unknown user id 'nobody'"):
        ids.index(["é3", "nobody"])
    with pytest.raises(IndexError, match="user index 13 lies outside"):
        as_indices(graph, torch.tensor([1, 13]))
    with pytest.raises(TypeError, match="bool"):
        as_indices(graph, torch.ones(13, dtype=torch.bool))
    numbers = FriendGraph.from_events(EventLog.from_arrays([7], [3], [5])).user_ids
    assert numbers.index(["7", 3]).tolist() == [1, 0]
    with pytest.raises(KeyError, match="integers"):
        numbers.index(["x"])


def test_query(graph: FriendGraph) -> None:
    query = Query.of(graph, ["é3", "é1"], action="poke")
    assert query.time.tolist() == [int(graph.events().time[-1]) + 1] * 2
    assert query.action.tolist() == [1, 1]
    with pytest.raises(KeyError, match="call, poke, text"):
        Query.of(graph, ["é3"], action="wave")
    asked = Query.of_events(graph, torch.tensor([5]))
    assert [asked.user, asked.time] == [graph.events().src[5], graph.events().time[5]]


def test_untimed_friendships(graph: FriendGraph) -> None:
    graph.add_untimed("school", ["é1", "é2", "é2", "é1", "é4"], ["é2", "é1", "é3", "é1", "é4"])
    edges = graph[USER, "school", USER].edge_index
    assert {tuple(graph.user_ids.lookup(edge)) for edge in edges.T} == {
        ("é1", "é2"),
        ("é2", "é1"),
        ("é2", "é3"),
        ("é3", "é2"),
    }
    assert edges.size(1) == 4
    assert graph.validate()
    assert "school" not in graph.actions
    for name, src, dst, message in (
        ("school", ["é1"], ["é2"], "already"),
        ("friend", ["é1"], ["é2"], "reserved"),
        ("one__two", ["é1"], ["é2"], "one_two"),
        ("work", ["é1"], ["é2", "é3"], "1 users on one side, 2"),
    ):
        with pytest.raises(DataError, match=message):
            graph.add_untimed(name, src, dst)
    with pytest.raises(KeyError, match="nobody"):
        graph.add_untimed("work", ["nobody"], ["é1"])


def drop(edge_type: tuple[str, str, str] | str, key: str) -> Callable[[FriendGraph], None]:
    def plant(graph: FriendGraph) -> None:
        del graph[edge_type][key]

    return plant


def change(
    edge_type: tuple[str, str, str] | str, key: str, make: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[FriendGraph], None]:
    def plant(graph: FriendGraph) -> None:
        graph[edge_type][key] = make(graph[edge_type][key].clone())

    return plant


def swap_times_across_actions(graph: FriendGraph) -> None:
    graph[CALL].time = graph[CALL].time + 50


def add_node_type(graph: FriendGraph) -> None:
    graph["item"].x = torch.zeros(2, 1)


FAULTS: dict[str, tuple[Callable[[FriendGraph], None], str]] = {
    "no edge_index": (drop(CALL, "edge_index"), "'call'"),
    "int32": (change(CALL, "edge_index", torch.Tensor.int), "'call'"),
    "flat edge_index": (change(CALL, "edge_index", torch.flatten), "'call'"),
    "outside": (
        change(CALL, "edge_index", lambda e: e.index_fill(1, torch.tensor([0]), 13)),
        "outside the 13",
    ),
    "negative": (
        change(CALL, "edge_index", lambda e: e.index_fill(1, torch.tensor([0]), -1)),
        "outside the 13",
    ),
    "no time": (drop(CALL, "time"), "action 'call' has no 'time'"),
    "time falls": (change(CALL, "time", lambda t: t.flip(0)), "'time' of 'call' is not ascending"),
    "time short": (change(CALL, "time", lambda t: t[:-1]), "'time' of 'call'"),
    "float time": (change(CALL, "time", torch.Tensor.float), "'time' of 'call'"),
    "friends fall": (change(FRIENDS, "time", lambda t: t.flip(0)), "'time' of 'friend'"),
    "event lost": (drop(CALL, "event_id"), "event_id"),
    "event twice": (
        change(CALL, "event_id", lambda e: e.index_copy(0, torch.tensor([1]), e[:1])),
        "each once",
    ),
    "order across actions": (swap_times_across_actions, "does not follow time"),
    "weight short": (change(CALL, "weight", lambda w: w[:-1]), "'weight' of 'call'"),
    "weight NaN": (change(CALL, "weight", lambda w: w * torch.nan), "'weight' of 'call'"),
    "features short": (change(USER, "x", lambda x: x[:-1]), "'x' has 12 rows for 13 users"),
    "features NaN": (change(USER, "x", lambda x: x * torch.nan), "not finite"),
    "join_time short": (change(USER, "join_time", lambda x: x[:-1]), "'join_time' has 12 rows"),
    "no ids": (drop(USER, "raw_id"), "raw_id"),
    "ids short": (change(USER, "raw_id", lambda r: r[:-1]), "raw_id"),
    "ids twice": (change(USER, "raw_id", lambda r: r[[0, *range(12)]]), "two users alike"),
    "ids of a wrong kind": (change(USER, "raw_id", torch.Tensor.float), "raw ids must be"),
    "a second node type": (add_node_type, "one node type"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_validate_finds_planted_faults(graph: FriendGraph, fault: str) -> None:
    assert graph.validate()
    plant, message = FAULTS[fault]
    plant(graph)
    with pytest.raises(DataError, match=message):
        graph.validate()
    assert graph.validate(raise_on_error=False) is False


def test_an_empty_graph_is_not_valid() -> None:
    assert FriendGraph().validate(raise_on_error=False) is False


def test_networkx_round_trip(graph: FriendGraph) -> None:
    out = graph.to_networkx()
    assert (out.number_of_nodes(), out.number_of_edges()) == (graph.num_users, graph.num_events)
    back = FriendGraph.from_networkx(out)
    back.validate()
    assert sorted(rows_of(back)) == sorted(rows_of(graph))
    assert friends_of(back) == friends_of(graph)
    assert torch.equal(back[USER].raw_id, graph[USER].raw_id)
    assert torch.equal(back[USER].x, graph[USER].x)
    assert torch.equal(back[USER].join_time, graph[USER].join_time)
    for name in graph.actions:
        one, other = (g[USER, name, USER].weight.sort().values for g in (graph, back))
        assert torch.equal(one, other)


def test_networkx_keeps_integer_ids_and_needs_no_features() -> None:
    graph = FriendGraph.from_events(random_log(weight=False))
    numbers = FriendGraph.from_events(EventLog.from_arrays([10, 9], [9, 10], [1, 2]))
    assert same(FriendGraph.from_networkx(numbers.to_networkx()), numbers)
    assert "weight" not in FriendGraph.from_networkx(graph.to_networkx())[CALL]


def test_networkx_keeps_the_columns_of_edges() -> None:
    log = EventLog.from_arrays(
        ["a", "b", "c", "a", "a"],
        ["b", "c", "a", "c", "a"],
        [3, 1, 1, 2, 0],
        action=["m", "m", "l", "m", "m"],
    )
    graph = FriendGraph.from_events(log)
    graph[USER, "m", USER].edge_attr = torch.rand(3, 2)
    graph[USER, "l", USER].kind = torch.tensor([2])
    back = FriendGraph.from_networkx(graph.to_networkx())
    back.validate()
    assert torch.equal(back[USER, "m", USER].edge_attr, graph[USER, "m", USER].edge_attr)
    assert torch.equal(back[USER, "l", USER].kind, graph[USER, "l", USER].kind)
    assert "kind" not in back[USER, "m", USER]
    source = nx.MultiDiGraph()
    for u, v, time in [("a", "b", 9), ("b", "b", 1), ("c", "a", 3), ("b", "a", 3)]:
        source.add_edge(u, v, time=time, edge_attr=[float(time), float(ord(u))])
    (read,) = [store for store in FriendGraph.from_networkx(source).edge_stores if "event_id" in store]
    assert read.edge_attr[:, 0].tolist() == read.time.tolist()
    assert read.edge_attr[:, 1].tolist() == [ord("abc"[index]) for index in read.edge_index[0].tolist()]


def lopsided(**attributes: object) -> nx.DiGraph:
    source = nx.DiGraph()
    source.add_edge("a", "b", time=1, action="x", weight=1.0)
    source.add_edge("b", "c", **attributes)
    return source


def ragged() -> nx.DiGraph:
    source = nx.DiGraph([("a", "b", {"time": 1})])
    source.nodes["a"]["x"], source.nodes["b"]["x"] = [1.0], [1.0, 2.0]
    return source


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (nx.Graph([("a", "b", {"time": 1})]), "undirected"),
        (nx.DiGraph(), "no events"),
        (lopsided(action="x"), "from 'b' to 'c' has no attribute 'time'"),
        (lopsided(time=1, weight=1.0), "from 'b' to 'c' has no attribute 'action'"),
        (lopsided(time=1, action="x", weight=1.0, kind=3), "from 'a' to 'b' has no attribute 'kind'"),
        (nx.DiGraph([("a", "b", {"time": 1, "text": "hi"})]), "'text' .* is not made of numbers"),
        (nx.DiGraph([("a", "b", {"time": 1, "v": [1, [2]]})]), "'v' .* is not made of numbers"),
        (nx.DiGraph([(1, "a", {"time": 1})]), "one type"),
        (nx.DiGraph([((1, 2), (3, 4), {"time": 1})]), "integers or strings"),
        (ragged(), "vectors of one length"),
    ],
)
def test_networkx_graphs_that_do_not_fit(source: nx.Graph, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FriendGraph.from_networkx(source)


@pytest.mark.parametrize("kind", ["strings", "integers", "snapshot", "nothing yet"])
def test_save_and_load(graph: FriendGraph, kind: str, tmp_path: Path) -> None:
    graph.add_untimed("school", ["é1"], ["é2"])
    saved = {
        "strings": graph,
        "integers": FriendGraph.from_events(EventLog.from_arrays([7, -3], [-3, 8], [5, 6])),
        "snapshot": graph.snapshot(37),
        "nothing yet": graph.snapshot(0),
    }[kind]
    saved.save(tmp_path / "graph.pt")
    loaded = FriendGraph.load(tmp_path / "graph.pt")
    assert type(loaded) is FriendGraph
    assert same(loaded, saved)
    assert loaded.user_ids.values.equals(saved.user_ids.values)


def test_no_file_and_files_of_others(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    with pytest.raises(FileNotFoundError, match=r"graph\.pt"):
        FriendGraph.load(path)
    for content in ([1], {"format": "other"}, {"format": "graphrec.FriendGraph/1", "graph": 3}):
        torch.save(content, path)
        with pytest.raises(DataError, match="not a graph that graphrec saved"):
            FriendGraph.load(path)
    for text in ("", "src,dst,time\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"graph\.pt"):
            FriendGraph.load(path)


def test_damaged_files_are_refused(graph: FriendGraph, tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    graph.save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"graph\.pt.*damaged"):
            FriendGraph.load(path)


def test_an_invalid_graph_is_refused(graph: FriendGraph, tmp_path: Path) -> None:
    graph[CALL].time = graph[CALL].time.flip(0)
    graph.save(tmp_path / "graph.pt")
    with pytest.raises(DataError, match=r"graph\.pt.*not ascending"):
        FriendGraph.load(tmp_path / "graph.pt")


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "graph.pt", tmp_path / "trace"
    attack = {"format": "graphrec.FriendGraph/1", "graph": Malicious(trace)}
    for save in (lambda: torch.save(attack, path), lambda: path.write_bytes(pickle.dumps(attack))):
        save()
        with pytest.raises(DataError, match="not a graph"):
            FriendGraph.load(path)
        assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the attack is a real one


def test_copies(graph: FriendGraph) -> None:
    for other in (copy.copy(graph), copy.deepcopy(graph), graph.clone(), pickle.loads(pickle.dumps(graph))):
        assert type(other) is FriendGraph
        assert same(other, graph)
        other.add_untimed("school", ["é1"], ["é2"])
        assert (USER, "school", USER) not in graph.edge_types
    clone = graph.clone()
    clone[CALL].time += 1
    assert not torch.equal(clone[CALL].time, graph[CALL].time)


def test_ids_follow_a_subgraph(graph: FriendGraph) -> None:
    assert len(graph.user_ids) == 13
    part = graph.subgraph({USER: graph.user_ids.index(["é3", "lonely"])})
    assert part.user_ids.values.to_pylist() == ["é3", "lonely"]


def test_transforms_and_layers_of_pyg(graph: FriendGraph) -> None:
    out = T.Compose([T.NormalizeFeatures(), T.Constant(2.0)])(graph)
    assert type(out) is FriendGraph
    assert out.validate()
    assert rows_of(out) == rows_of(graph)
    assert torch.allclose(out[USER].x.sum(1), torch.full((13,), 3.0))
    assert not torch.equal(graph[USER].x.sum(1), torch.ones(13))
    both = T.ToUndirected()(graph)
    pairs = set(map(tuple, graph[CALL].edge_index.T.tolist()))
    assert set(map(tuple, both[CALL].edge_index.T.tolist())) == pairs | {(v, u) for u, v in pairs}

    layer = HeteroConv({edge_type: SAGEConv((-1, -1), 4) for edge_type in graph.edge_types}, aggr="sum")
    hidden = layer(graph.x_dict, graph.edge_index_dict)[USER]
    assert hidden.shape == (13, 4)
    hidden.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())

    batch = Batch.from_data_list([graph, graph.snapshot(37)])
    assert batch[USER].num_nodes == 26
    assert rows_of(batch.get_example(0)) == rows_of(graph)


def test_events_are_selected_like_rows_of_the_log() -> None:
    log = random_log()
    kept = torch.rand(len(log), generator=torch.Generator().manual_seed(0)) < 0.4
    kept &= log.action != log.actions.index("poke")  # an action that loses all its events stays
    part = FriendGraph.from_events(log).select_events(kept)
    part.validate()
    assert part.actions == log.actions
    assert part.num_events == int(kept.sum())
    events = part.events()
    for name in ("src", "dst", "time", "action"):
        assert torch.equal(getattr(events, name), getattr(log, name)[kept])
    raw = log.user_ids
    columns = [raw.lookup(log.src[kept]), raw.lookup(log.dst[kept]), log.time[kept]]
    again = FriendGraph.from_events(EventLog.from_arrays(*columns))
    ties = [
        set(
            zip(
                *map(graph.user_ids.lookup, graph[FRIENDS].edge_index),
                graph[FRIENDS].time.tolist(),
                strict=True,
            )
        )
        for graph in (part, again)
    ]
    assert ties[0] == ties[1]
    assert len(ties[0]) > 10
    for name in ("call", "text"):
        store = part[USER, name, USER]
        assert log.weight is not None
        assert torch.equal(store.weight, log.weight[kept][store.event_id])
    with pytest.raises(ValueError, match="kept must be"):
        part.select_events(kept)
