"""The loaders inside PyG: batches, epochs, workers, layers."""

from __future__ import annotations

import gc
import inspect
import pickle
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from batches import by_seed, check_batch
from graphs import ACTIONS, Row, graph_of, random_rows
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import HeteroData
from torch_geometric.nn import GATConv, HeteroConv, SAGEConv, to_hetero
from torch_geometric.utils import trim_to_layer

from graphrec.data import USER, EventLog, FriendGraph, Query, reverse_of
from graphrec.loader import EVENT_TYPE, EventLoader, LoaderOptions, QueryLoader, TemporalSampler
from graphrec.loader.seeds import Seeds
from graphrec.temporal import Timeline

USERS = 11
"""One more than have events."""


@pytest.fixture
def graph() -> FriendGraph:
    graph = graph_of(random_rows(0), USERS)
    graph[USER].x = torch.randn(USERS, 4, generator=torch.Generator().manual_seed(0))
    return graph


def queries(graph: FriendGraph, *, size: int = 40) -> Query:
    generator = torch.Generator().manual_seed(1)
    return Query.of_events(graph, torch.randint(graph.num_events, (size,), generator=generator))


def loader_of(kind: str, graph: FriendGraph, **kwargs: Any) -> QueryLoader | EventLoader:
    """One of each, with the same options."""
    options: dict[str, Any] = {"strategy": "uniform", "num_negatives": 3, "batch_size": 7} | kwargs
    if kind == "query":
        return QueryLoader(graph, queries(graph), [3, 2], **options)
    return EventLoader.of_events(graph, [3, 2], event_ids=torch.arange(20, 60), **options)


def everything(batches: Iterable[HeteroData]) -> dict[int, Any]:
    """What each seed got, whatever batch it came in."""
    out: dict[int, Any] = {}
    for batch in batches:
        out |= by_seed(batch)
    return out


def values(batch: HeteroData) -> dict[Any, Any]:
    """A batch in full, for comparison."""
    return {
        store: {key: value.tolist() if isinstance(value, Tensor) else value for key, value in content.items()}
        for store, content in batch.to_dict().items()
    }


KINDS = pytest.mark.parametrize("kind", ["query", "event"])


@KINDS
def test_what_a_batch_holds(kind: str, graph: FriendGraph) -> None:
    loader = loader_of(kind, graph)
    assert len(loader) == 6
    batches = list(loader)
    assert torch.equal(torch.cat([batch.input_id for batch in batches]), torch.arange(40))
    for batch in batches:
        check_batch(graph, batch, [3, 2], strategy="uniform")
        titles = [title for name in ACTIONS for title in (name, reverse_of(name))]
        assert batch.edge_types == [(USER, title, USER) for title in titles]
        assert EVENT_TYPE not in batch.edge_types
        assert batch.node_types == [USER]
        assert torch.equal(batch[USER].x, graph[USER].x[batch[USER].n_id])
        seeds = loader.query[batch.input_id]
        size = len(seeds)
        assert torch.equal(batch[USER].n_id[:size], seeds.user)
        assert torch.equal(batch.seed_time, seeds.time)
        assert torch.equal(batch.seed_action, seeds.action)
        assert batch.negatives.shape == (size, 3)
        if isinstance(loader, EventLoader):
            target = loader.target[batch.input_id]
            assert torch.equal(batch[USER].n_id[batch.dst_index], target)
            assert torch.equal(batch[USER].n_id[batch.src_index], seeds.user)
            assert torch.equal(graph.events().dst[batch.input_id + 20], target)
        keys = {"edge_index", "time", "event_id", "e_id", "num_sampled_edges"}
        assert all(set(batch[edge_type].keys()) == keys for edge_type in batch.edge_types)
        assert set(batch[USER].keys()) == {"num_nodes", "n_id", "x", "batch", "num_sampled_nodes"}


def test_weights_come_along() -> None:
    src, dst, time, action = zip(*random_rows(0), strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action, weight=list(range(len(src))))
    graph = FriendGraph.from_events(log)
    for batch in QueryLoader(graph, queries(graph), [3], batch_size=10):
        for edge_type in batch.edge_types:
            assert torch.equal(batch[edge_type].weight, batch[edge_type].event_id.float())


def test_whole_timelines(graph: FriendGraph) -> None:
    loader = QueryLoader.of_timelines(graph, until=12, batch_size=100)
    (batch,) = loader
    check_batch(graph, batch, [-1])
    past = graph.snapshot(12).events()
    met = torch.unique(torch.cat([past.src, past.dst]))
    assert torch.equal(loader.query.user, met)
    assert sum(batch[edge_type].edge_index.size(1) for edge_type in batch.edge_types) == 2 * len(past)
    some = QueryLoader.of_timelines(graph, until=12, users=torch.tensor([3, 10]), actions=["call"])
    assert [batch[USER].n_id[0].item() for batch in some] == [3, 10]
    assert {title for _, title, _ in batch.edge_types} > {
        title for _, title, _ in next(iter(some)).edge_types
    }


def test_a_choice_of_actions_leaves_no_trace_of_the_others(graph: FriendGraph) -> None:
    (batch,) = EventLoader.of_events(graph, [4, 2], actions=["text", "call"], batch_size=200)
    assert {title for _, title, _ in batch.edge_types} == {
        "text",
        reverse_of("text"),
        "call",
        reverse_of("call"),
    }
    check_batch(graph, batch, [4, 2], actions=["text", "call"])
    assert bool((batch.seed_action == 1).any())  # pokes are seeds all the same


@KINDS
def test_draws_know_neither_batch_nor_order(kind: str, graph: FriendGraph) -> None:
    expected = everything(loader_of(kind, graph))
    assert len(expected) == 40
    for options in (
        {"batch_size": 1},
        {"batch_size": 40},
        {"shuffle": True},
        {"shuffle": True, "batch_size": 3},
    ):
        assert everything(loader_of(kind, graph, **options)) == expected
    assert everything(loader_of(kind, graph, seed=1)) != expected


@KINDS
def test_workers_make_no_difference(kind: str, graph: FriendGraph) -> None:
    alone = loader_of(kind, graph, shuffle=True)
    helped = loader_of(kind, graph, shuffle=True, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):  # running workers hear of the second
        for loader in (alone, helped):
            loader.set_epoch(epoch)
        assert list(map(values, alone)) == list(map(values, helped))
    helped._iterator = None  # else the workers of a PyG loader wait seconds for the garbage collector


@KINDS
def test_a_loader_is_let_go_of(kind: str, graph: FriendGraph) -> None:
    """By counting references alone: the graph behind it may be most of the memory there is."""
    loader = loader_of(kind, graph)
    kept = weakref.ref(loader)
    gc.disable()
    try:
        everything(loader)
        del loader
        assert kept() is None
    finally:
        gc.enable()


@KINDS
def test_an_epoch_draws_anew_and_the_same_one_repeats(kind: str, graph: FriendGraph) -> None:
    loader = loader_of(kind, graph, shuffle=True)

    def run(epoch: int) -> tuple[list[int], dict[int, Any]]:
        loader.set_epoch(epoch)
        batches = list(loader)
        return torch.cat([batch.input_id for batch in batches]).tolist(), everything(batches)

    (order, seeds), (later_order, later_seeds) = run(0), run(1)
    assert sorted(order) == sorted(later_order) == list(range(40))
    assert order != later_order
    assert order != list(range(40))
    assert sum(seeds[i][2] != later_seeds[i][2] for i in range(40)) > 30  # negatives
    assert sum(seeds[i][3] != later_seeds[i][3] for i in range(40)) > 20  # trees
    assert run(0) == (order, seeds)
    assert run(1) == (later_order, later_seeds)
    resumed = loader_of(kind, graph, shuffle=True)
    resumed.set_epoch(1)
    assert everything(resumed) == later_seeds


def test_negatives_are_uniform_and_never_the_user(graph: FriendGraph) -> None:
    user = torch.arange(USERS).repeat(400)
    loader = QueryLoader(graph, Query.of(graph, user, 5), [1], num_negatives=10, batch_size=10**4)
    (batch,) = loader
    assert not bool((batch.negatives == user[:, None]).any())
    counts = torch.zeros(USERS, USERS).index_put_(
        (user[:, None].expand(-1, 10), batch.negatives), torch.ones(()), accumulate=True
    )
    expected = 4000 / (USERS - 1)
    others = counts[~torch.eye(USERS, dtype=torch.bool)]
    freedom = USERS * (USERS - 2)
    chi_square = float(((others - expected) ** 2 / expected).sum())
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5
    with pytest.raises(AttributeError):
        _ = next(iter(QueryLoader(graph, Query.of(graph, user, 5), [1]))).negatives


def test_layers_take_a_batch(graph: FriendGraph) -> None:
    batch = next(iter(loader_of("event", graph)))
    for build in (lambda: SAGEConv((4, 4), 5), lambda: GATConv((4, 4), 5, add_self_loops=False)):
        layer = HeteroConv({edge_type: build() for edge_type in batch.edge_types})
        out = layer({USER: batch[USER].x}, batch.edge_index_dict)[USER]
        assert out.shape == (batch[USER].num_nodes, 5)
        assert bool(torch.isfinite(out).all())


class Plain(nn.Module):
    """A GNN of one edge type."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(4, 5), SAGEConv(5, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.second(self.first(x, edge_index).relu(), edge_index)


def test_a_plain_model_made_heterogeneous_takes_a_batch(graph: FriendGraph) -> None:
    batch = next(iter(loader_of("query", graph)))
    model = to_hetero(Plain(), batch.metadata())
    assert model(batch.x_dict, batch.edge_index_dict)[USER].shape == (batch[USER].num_nodes, 3)


def test_what_the_last_layer_does_not_need_can_be_trimmed(graph: FriendGraph) -> None:
    batch = next(iter(loader_of("query", graph)))
    layers = [HeteroConv({kind: SAGEConv((4, 4), 4) for kind in batch.edge_types}) for _ in range(2)]
    full = batch.x_dict
    for layer in layers:
        full = layer(full, batch.edge_index_dict)
    x, edges = batch.x_dict, batch.edge_index_dict
    nodes, sizes = batch.num_sampled_nodes_dict, batch.num_sampled_edges_dict
    for depth, layer in enumerate(layers):
        x, edges, _ = trim_to_layer(depth, nodes, sizes, x, edges)
        x = layer(x, edges)
    assert x[USER].size(0) < full[USER].size(0)
    torch.testing.assert_close(x[USER][:7], full[USER][:7])


def test_ids_may_be_strings() -> None:
    rows = random_rows(0)
    log = EventLog.from_arrays(
        [f"u{row.src}" for row in rows],
        [f"u{row.dst}" for row in rows],
        [row.time for row in rows],
        action=[row.action for row in rows],
    )
    graph, plain = FriendGraph.from_events(log), graph_of(rows)
    query = Query.of(graph, ["u3", "u7"], 20)
    assert query.user.tolist() == [3, 7]
    assert everything(QueryLoader(graph, query, [4, 2])) == everything(QueryLoader(plain, query, [4, 2]))


def test_a_batch_travels_without_the_index(graph: FriendGraph) -> None:
    Timeline.of(graph)
    batch = next(iter(loader_of("query", graph)))
    assert not {"_timeline", "_events"} & set(batch.__dict__)
    assert values(pickle.loads(pickle.dumps(batch))) == values(batch)
    assert "_timeline" in graph.__dict__
    assert "_timeline" not in pickle.loads(pickle.dumps(graph)).__dict__


def test_a_batch_does_not_change_the_graph(graph: FriendGraph, tmp_path: Path) -> None:
    graph.save(tmp_path / "before")
    for batch in loader_of("event", graph):
        batch[USER].x.zero_()
        for edge_type in batch.edge_types:
            batch[edge_type].edge_index.zero_()
            batch[edge_type].time.zero_()
        batch.seed_time.zero_()
        batch.negatives.zero_()
        batch[USER].n_id.zero_()
    before = FriendGraph.load(tmp_path / "before")
    graph.validate()
    assert values(before) == values(graph)


def test_a_transform_sees_the_whole_batch(graph: FriendGraph) -> None:
    def age(batch: HeteroData) -> HeteroData:
        for edge_type in batch.edge_types:
            store = batch[edge_type]
            store.age = batch.seed_time[batch[USER].batch[store.edge_index[1]]] - store.time
        return batch

    for kind in ("query", "event"):
        for batch in loader_of(kind, graph, transform=age):
            assert all(
                int(batch[edge_type].age.min()) > 0
                for edge_type in batch.edge_types
                if batch[edge_type].age.numel()
            )


def test_every_option_is_known_to_the_seeds_or_to_torch(graph: FriendGraph) -> None:
    own, torchs = (set(inspect.signature(kind).parameters) for kind in (Seeds, DataLoader))
    assert set(LoaderOptions.__annotations__) <= own | torchs
    unknown: dict[str, Any] = {"colour": 1}
    with pytest.raises(TypeError, match="colour"):
        QueryLoader(graph, queries(graph), [1], **unknown)


def test_rebuilding_keeps_the_options(graph: FriendGraph) -> None:
    for kind in ("query", "event"):
        loader = loader_of(kind, graph, num_workers=1, shuffle=True, drop_last=True, seed=4, actions=["text"])
        rows = torch.tensor([5, 9, 30])
        (batch,) = loader.rebuild(graph, rows, 15)
        assert batch.seed_time.tolist() == [15, 15, 15]
        assert torch.equal(batch[USER].n_id[:3], loader.query.user[rows])
        assert {title for _, title, _ in batch.edge_types} == {"text", reverse_of("text")}
        assert batch.negatives.shape == (3, 3)
        check_batch(graph, batch, [3, 2], strategy="uniform", actions=["text"])


class Turning:
    """Batches of five, which begin elsewhere in each epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        order = [(seed + self.epoch) % 40 for seed in range(40)]
        return iter([order[start : start + 5] for start in range(0, 40, 5)])

    def __len__(self) -> int:
        return 8


@KINDS
def test_a_batch_sampler_hears_of_the_epoch(kind: str, graph: FriendGraph) -> None:
    loader = loader_of(kind, graph, batch_sampler=Turning(), batch_size=1)
    loader.set_epoch(3)
    assert next(iter(loader)).input_id.tolist() == [3, 4, 5, 6, 7]
    (batch,) = loader.rebuild(graph, torch.arange(40), 15)
    assert batch.input_id.tolist() == list(range(40))


def test_bad_requests(graph: FriendGraph) -> None:
    nobody = queries(graph)[:0]
    with pytest.raises(ValueError, match="at least one seed"):
        QueryLoader(graph, nobody, [1])
    with pytest.raises(ValueError, match="at least one seed"):
        EventLoader(graph, nobody, nobody.user, [1])
    with pytest.raises(ValueError, match="at least one seed"):
        QueryLoader.of_timelines(graph, until=-5)
    with pytest.raises(KeyError, match="unknown action 'like'"):
        QueryLoader(graph, queries(graph), [1], actions=["like"])
    with pytest.raises(ValueError, match="num_neighbors"):
        EventLoader.of_events(graph, [])
    with pytest.raises(ValueError, match="strategy"):
        EventLoader.of_events(graph, [1], strategy="best")
    with pytest.raises(ValueError, match="one target for each seed"):
        EventLoader(graph, queries(graph), torch.tensor([1]), [1])


def test_the_sampler_serves_one_loader_of_everyone(graph: FriendGraph) -> None:
    """Epochs of two loaders are their own."""
    one, other = loader_of("query", graph), loader_of("query", graph)
    one.set_epoch(3)
    assert isinstance(one.seeds.sampler, TemporalSampler)
    assert (one.seeds.sampler.epoch, other.seeds.sampler.epoch) == (3, 0)


def test_two_people_and_one_event() -> None:
    graph = graph_of([Row(0, 1, 5)])
    (batch,) = EventLoader.of_events(graph, [2], num_negatives=4)
    assert batch[USER].n_id.tolist() == [0, 1]
    assert batch.negatives.tolist() == [[1, 1, 1, 1]]
    check_batch(graph, batch, [2])
