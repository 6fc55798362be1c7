"""The sampler against loops over the log."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import by_seed, check_batch, edges_of
from graphs import ACTIONS, Row, checked, graph_of, logs, permuted, random_rows
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import HeteroData
from torch_geometric.sampler import EdgeSamplerInput, NodeSamplerInput

from graphrec.data import FRIEND, USER, FriendGraph, Query, reverse_of
from graphrec.loader import EVENT_TYPE, EventLoader, QueryLoader, TemporalSampler, message_graph

USERS = 6
"""One more than the logs have: the last user never has an event."""

MOMENTS = list(range(-4, 9))
"""Before, at, between and after all times of the logs."""

fan_outs = st.lists(st.sampled_from([1, 2, 3, 7, -1]), min_size=1, max_size=2)
strategies = st.sampled_from(["last", "uniform"])


def everyone_always(graph: FriendGraph) -> Query:
    """Every user at every moment."""
    user = torch.arange(USERS).repeat(len(MOMENTS))
    return Query.of(graph, user, torch.tensor(MOMENTS).repeat_interleave(USERS))


def one_batch(graph: FriendGraph, query: Query, num_neighbors: list[int], **kwargs: Any) -> HeteroData:
    (batch,) = QueryLoader(graph, query, num_neighbors, batch_size=len(query), **kwargs)
    return batch


@checked
@given(logs(), fan_outs, strategies)
def test_trees_of_users(rows: list[Row], num_neighbors: list[int], strategy: Any) -> None:
    graph = graph_of(rows, USERS)
    query = everyone_always(graph)
    batch = one_batch(graph, query, num_neighbors, strategy=strategy)
    assert batch[USER].n_id[: len(query)].tolist() == query.user.tolist()
    check_batch(graph, batch, num_neighbors, strategy=strategy)


@checked
@given(logs(), fan_outs, strategies)
def test_trees_of_events(rows: list[Row], num_neighbors: list[int], strategy: Any) -> None:
    graph = graph_of(rows, USERS)
    size = graph.num_events
    (batch,) = EventLoader.of_events(graph, num_neighbors, strategy=strategy, batch_size=size)
    events = graph.events()
    assert batch[USER].n_id[: 2 * size].tolist() == events.src.tolist() + events.dst.tolist()
    assert batch.src_index.tolist() == list(range(size))
    assert batch.dst_index.tolist() == list(range(size, 2 * size))
    assert batch.seed_time.tolist() == events.time.tolist()
    check_batch(graph, batch, num_neighbors, strategy=strategy)


@checked
@given(logs(), st.sets(st.sampled_from(ACTIONS), min_size=1), strategies)
def test_a_choice_of_actions(rows: list[Row], chosen: set[str], strategy: Any) -> None:
    graph = graph_of(rows, USERS)
    for actions in (sorted(chosen), sorted(chosen, reverse=True)):
        if chosen <= set(graph.actions):
            query = everyone_always(graph)
            batch = one_batch(graph, query, [2, 2], actions=actions, strategy=strategy)
            check_batch(graph, batch, [2, 2], actions=actions, strategy=strategy)
        else:
            with pytest.raises(KeyError, match="unknown action"):
                TemporalSampler(graph, [2, 2], actions=actions)


def test_three_hops() -> None:
    graph = graph_of(random_rows(3), 11)
    (batch,) = EventLoader.of_events(graph, [3, 2, 2], strategy="uniform", batch_size=graph.num_events)
    check_batch(graph, batch, [3, 2, 2], strategy="uniform")


@pytest.mark.parametrize("strategy", ["last", "uniform"])
@pytest.mark.parametrize(
    "hidden",
    [
        Row(1, 2, 10),  # at the seed's own time
        Row(2, 1, 10),  # its reverse
        Row(1, 2, 11),
        Row(2, 1, 12),
        Row(3, 4, 10),  # at the second hop, where the first is older
        Row(4, 3, 11),
    ],
)
def test_planted_events_are_invisible(hidden: Row, strategy: Any) -> None:
    past = [Row(1, 3, 5), Row(3, 0, 6), Row(0, 2, 9)]
    clean, planted = graph_of(past, 5), graph_of([*past, hidden], 5)
    one, other = (
        by_seed(one_batch(graph, Query.of(graph, torch.tensor([1, 2]), 10), [5, 5], strategy=strategy))
        for graph in (clean, planted)
    )
    assert one == other
    # One second later, what lay at the seeds' own time is seen.
    later = by_seed(
        one_batch(planted, Query.of(planted, torch.tensor([1, 2]), 13), [5, 5], strategy=strategy)
    )
    assert [tree[3:] for tree in later.values()] != [tree[3:] for tree in one.values()]


def test_each_seed_has_its_own_moment() -> None:
    graph = graph_of([Row(0, 1, 1), Row(0, 1, 2), Row(0, 1, 3)])
    query = Query.of(graph, torch.tensor([0, 0, 0, 0]), torch.tensor([4, 1, 3, 2]))
    trees = by_seed(one_batch(graph, query, [-1]))
    assert [[edge[3] for edge in trees[seed][3][2]] for seed in range(4)] == [[1, 2, 3], [], [1, 2], [1]]


def test_users_without_a_past() -> None:
    graph = graph_of([Row(0, 1, 5)], 3)
    batch = one_batch(graph, Query.of(graph, torch.tensor([2, 0]), torch.tensor([9, 5])), [3, 3])
    assert batch[USER].n_id.tolist() == [2, 0]
    assert batch[USER].num_sampled_nodes == [2, 0, 0]
    assert all(batch[edge_type].edge_index.shape == (2, 0) for edge_type in batch.edge_types)
    check_batch(graph, batch, [3, 3])


def test_uniform_is_uniform_and_draws_anew_each_epoch() -> None:
    size, k = 12, 4
    graph = graph_of([Row(0, 1 + i, i) for i in range(size)], size + 1)
    query = Query.of(graph, torch.zeros(2000, dtype=torch.int64), size)
    sampler = TemporalSampler(graph, [k], strategy="uniform")
    counts, seen = torch.zeros(size), set()
    for epoch in range(3):
        sampler.set_epoch(epoch)
        assert sampler.epoch == epoch
        inputs = NodeSamplerInput(torch.arange(2000), query.user, query.time, USER)
        out = sampler.sample_from_nodes(inputs)
        drawn = out.edge[USER, reverse_of("contact"), USER]
        assert torch.equal(sampler.sample_from_nodes(inputs).edge[USER, reverse_of("contact"), USER], drawn)
        counts += torch.bincount(drawn, minlength=size)
        seen.add(tuple(drawn.tolist()))
    assert len(seen) == 3
    assert bool((counts / counts.sum() * size - 1).abs().max() < 0.05)


def test_people_of_one_tree_draw_independently() -> None:
    past = [Row(who, 3 + i, i) for i in range(10) for who in (1, 2)]
    graph = graph_of([*past, Row(0, 1, 20), Row(0, 2, 21)])
    query = Query.of(graph, torch.zeros(500, dtype=torch.int64), 30)
    (batch,) = QueryLoader(graph, query, [2, 1], strategy="uniform", batch_size=500)
    drawn: dict[tuple[int, int], int] = {}
    n_id, tree = batch[USER].n_id.tolist(), batch[USER].batch.tolist()
    for edge in edges_of(batch):
        if edge.hop == 1:
            drawn[tree[edge.col], n_id[edge.col]] = edge.time
    same = sum(drawn[seed, 1] == drawn[seed, 2] for seed in range(500))
    assert 20 < same < 90  # of 500, at one chance in eleven


@pytest.mark.parametrize("num_neighbors", [[4], [3, 2]])
def test_permuting_ids_permutes_the_batch(num_neighbors: list[int]) -> None:
    # No ties: which of two tied people comes last may depend on nothing that tells them apart.
    rows = [row._replace(time=time) for time, row in enumerate(random_rows(1, events=60))]
    new_id = torch.randperm(10, generator=torch.Generator().manual_seed(0)).tolist()
    one, other = graph_of(rows, 10), graph_of(permuted(rows, new_id), 10)

    def renamed(tree: Any) -> Any:
        user, nodes, edges = tree
        moved = sorted((*edge[:5], new_id[edge[5]], new_id[edge[6]]) for edge in edges)
        return new_id[user], sorted(new_id[node] for node in nodes), moved

    for seed in (0, 1):
        left, right = (
            by_seed(next(iter(EventLoader.of_events(graph, num_neighbors, seed=seed, batch_size=60))))
            for graph in (one, other)
        )
        for key, value in left.items():
            assert (*value[:3], *map(renamed, value[3:])) == right[key]


def test_the_message_graph() -> None:
    rows = random_rows(0)
    graph = graph_of(rows, 11)
    graph[USER].x = torch.randn(11, 4)
    graph.add_untimed("facebook", [0, 1], [2, 3])
    whole = message_graph(graph)
    whole.validate()
    titles = {title for _, title, _ in whole.edge_types}
    assert titles == {title for name in ACTIONS for title in (name, reverse_of(name))}
    assert FRIEND in {title for _, title, _ in graph.edge_types}
    for name in ACTIONS:
        there, back = whole[USER, name, USER], whole[USER, reverse_of(name), USER]
        assert torch.equal(there.edge_index, back.edge_index.flip(0))
        assert torch.equal(there.edge_index, graph[USER, name, USER].edge_index)
        assert torch.equal(there.event_id, back.event_id)
        assert torch.equal(there.time, back.time)
    assert whole[USER].x is graph[USER].x


@pytest.mark.parametrize("num_neighbors", [[], [0], [3, -2], [2, 0]])
def test_bad_fan_outs(num_neighbors: list[int]) -> None:
    with pytest.raises(ValueError, match="num_neighbors"):
        TemporalSampler(graph_of([Row(0, 1, 0)]), num_neighbors)


def test_other_bad_requests() -> None:
    graph = graph_of([Row(0, 1, 0)])
    with pytest.raises(ValueError, match="strategy must be 'last' or 'uniform', got 'first'"):
        TemporalSampler(graph, [1], strategy="first")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match=r"unknown action 'like'.*contact"):
        TemporalSampler(graph, [1], actions=["like"])
    sampler, user = TemporalSampler(graph, [1]), torch.tensor([0])
    with pytest.raises(ValueError, match="time"):
        sampler.sample_from_nodes(NodeSamplerInput(torch.tensor([0]), user, None, USER))
    edges = EdgeSamplerInput(torch.tensor([0]), user, user + 1, time=torch.tensor([1]), input_type=EVENT_TYPE)
    with pytest.raises(ValueError, match="num_negatives"):
        sampler.sample_from_edges(edges, neg_sampling="binary")


def test_a_bare_sampler_may_be_asked_for_nobody() -> None:
    nobody = torch.zeros(0, dtype=torch.int64)
    out = TemporalSampler(graph_of([Row(0, 1, 0)]), [2, 2]).sample_from_nodes(
        NodeSamplerInput(nobody, nobody, nobody, USER)
    )
    assert out.node[USER].numel() == 0
