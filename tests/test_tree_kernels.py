"""The kernels of the sampler against loops over trees, edge by edge and in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.sampler import HeteroSamplerOutput, NodeSamplerInput

from graphrec.data import USER, Events, FriendGraph, reverse_of
from graphrec.data.draws import distinct_below, hashed
from graphrec.loader import TemporalSampler
from graphrec.loader.tree_kernels import (
    INSTANTS_APART,
    MAX_RANKED_BY_COUNTING,
    READ_AT_ONCE,
    fill_distinct,
    find_ticks,
    sort_users,
)
from graphrec.temporal import Timeline

int64s = st.integers(-(2**63), 2**63 - 1)


@checked
@given(int64s, st.integers(1, 70), st.integers(1, 2**40), st.integers(0, 3))
@example(0, 40, 1, 0)
def test_distinct_numbers_are_those_of_the_tensor_function(salt: int, k: int, more: int, first: int) -> None:
    out = np.full(first + k, -7)
    fill_distinct(salt, k + more, k, first, out)
    _, number = distinct_below(torch.tensor([salt]), torch.tensor([k + more]), k)
    assert out[first:].tolist() == number.tolist()
    assert out[:first].tolist() == [-7] * first


@checked
@given(st.sets(st.integers(-500, 500), max_size=400), st.lists(st.integers(-501, 501), max_size=50))
def test_ticks_count_the_times_before(instants: set[int], asked: list[int]) -> None:
    every, time = np.array(sorted(instants), np.int64), np.array([*asked, *instants], np.int64)
    tick = np.empty_like(time)
    find_ticks(every, every[::INSTANTS_APART].copy(), time, tick)
    assert tick.tolist() == np.searchsorted(every, time).tolist()


@checked
@given(st.integers(0, 300), st.sampled_from([1, 7, 8, 9, 15, 16, 17, 20, 31]), st.integers(0, 2**32))
@example(MAX_RANKED_BY_COUNTING, 20, 0)
@example(MAX_RANKED_BY_COUNTING + 1, 20, 0)
def test_users_are_sorted(size: int, bits: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user = np.unique(rng.integers(0, 2**bits, size))
    fresh = rng.permutation(user) << 32 | rng.integers(0, 2**32, len(user))
    expected = sorted(fresh.tolist())
    sort_users(fresh, np.empty_like(fresh), len(fresh), bits)
    assert fresh.tolist() == expected


def naive(
    graph: FriendGraph, actions: tuple[str, ...], hops: list[int], uniform: bool, seed: int, inputs: Any
) -> dict[str, Any]:
    """Trees of nodes and edges as `TemporalSampler` orders them, from the tensor functions of the index."""
    timeline = Timeline(graph.select_actions(actions))
    action = timeline.events.action.tolist()
    place = [action[:event].count(kind) for event, kind in enumerate(action)]
    tick = timeline.tick(inputs.time)
    nodes = [(tree, user) for tree, user in enumerate(inputs.node.tolist())]
    number = {key: at for at, key in enumerate(nodes)}
    edges: list[tuple[int, int, int, int, int]] = []  # kind, hop, row, col, place
    frontier, sizes = range(len(nodes)), [len(nodes)]
    for hop, k in enumerate(hops):
        found: list[tuple[int, int, int, tuple[int, int]]] = []
        for col in frontier:
            tree, user = nodes[col]
            asked = torch.tensor([user]), tick[tree : tree + 1]
            if k == -1 or not uniform:
                _, drawn = timeline.last_half_edges(*asked, 2 * len(action) if k == -1 else k)
            else:
                salt = hashed(hashed(seed, 0, inputs.input_id[tree]), user, hop)
                _, drawn = distinct_below(salt.view(1), timeline.half_edges.count(*asked), k)
                drawn = drawn + timeline.half_edges.start[user]
            columns: tuple[Tensor, ...] = (
                timeline.kind(drawn),
                timeline.event_of(drawn),
                timeline.other_of(drawn),
            )
            for kind, event, other in zip(*(column.tolist() for column in columns), strict=True):
                found.append((kind, col, place[event], (tree, other)))
        fresh = sorted({key for *_, key in found} - number.keys())
        number |= {key: len(nodes) + at for at, key in enumerate(fresh)}
        edges += [(kind, hop, number[key], col, at) for kind, col, at, key in found]
        frontier = range(len(nodes), len(nodes) + len(fresh))
        nodes += fresh
        sizes.append(len(fresh))
    edges.sort(key=lambda edge: edge[:2])
    return {
        "nodes": [user for _, user in nodes],
        "trees": [tree for tree, _ in nodes],
        "sizes": sizes,
        "edges": [edge[0:1] + edge[2:] for edge in edges],
        "hops": [
            [sum(e[:2] == (kind, h) for e in edges) for h in range(len(hops))] for kind in kinds_of(actions)
        ],
    }


def kinds_of(actions: tuple[str, ...]) -> range:
    return range(2 * len(actions))


def told(out: HeteroSamplerOutput, actions: tuple[str, ...]) -> dict[str, Any]:
    titles = [(USER, title, USER) for name in actions for title in (name, reverse_of(name))]
    assert out.row is not None
    assert out.col is not None
    assert out.edge is not None
    assert out.batch is not None
    assert list(out.row) == list(out.col) == list(out.edge) == list(out.num_sampled_edges or ()) == titles
    edges = [
        (kind, *edge)
        for kind, title in enumerate(titles)
        for edge in zip(*(c[title].tolist() for c in (out.row, out.col, out.edge)), strict=True)
    ]
    return {
        "nodes": out.node[USER].tolist(),
        "trees": out.batch[USER].tolist(),
        "sizes": (out.num_sampled_nodes or {})[USER],
        "edges": edges,
        "hops": list((out.num_sampled_edges or {}).values()),
    }


def compare(graph: FriendGraph, hops: list[int], strategy: Any, actions: tuple[str, ...], inputs: Any) -> int:
    sampler = TemporalSampler(graph, hops, strategy=strategy, actions=actions, seed=5)
    out = told(sampler.sample_from_nodes(inputs), actions)
    assert out == naive(graph, actions, hops, strategy == "uniform", 5, inputs)
    if len(actions) > 1:  # as in a log with too many events for 32 bits
        sampler._spot = sampler._spot.astype(np.int64)
        assert told(sampler.sample_from_nodes(inputs), actions) == out
    return len(out["edges"])


@checked
@given(
    logs(),
    st.lists(st.sampled_from([1, 2, 3, 7, -1]), min_size=1, max_size=3),
    st.sampled_from(["last", "uniform"]),
    st.booleans(),
)
def test_trees_are_those_of_the_loops(rows: list[Row], hops: list[int], strategy: Any, every: bool) -> None:
    graph = graph_of(rows, 6)
    moments = torch.arange(-1, 9)
    user, time = torch.arange(6).repeat(len(moments)), moments.repeat_interleave(6)
    inputs = NodeSamplerInput(torch.arange(len(user)) * 2**55, user, time, USER)
    compare(graph, hops, strategy, graph.actions if every else graph.actions[-1:], inputs)


@pytest.mark.parametrize("strategy", ["last", "uniform"])
@pytest.mark.parametrize("hops", [[40, 4], [-1, 3], [-1, -1, 2], [90, 1, 1]])
def test_large_trees_among_many_users(hops: list[int], strategy: Any) -> None:
    # Hubs with hundreds of contacts at far indices: more than are ranked by counting or read at once.
    num_users, rng = 70_000, np.random.default_rng(0)
    hub = rng.integers(0, 3, 700)
    leaf = rng.integers(3, 400, 700) * (num_users // 400) + rng.integers(0, 2, 700)
    outgoing, action = rng.random(700) < 0.5, rng.choice(["contact", "like"], 700)
    rows = [
        Row(*((h, x) if out else (x, h)), t // 3, a)
        for t, (h, x, out, a) in enumerate(
            zip(*(c.tolist() for c in (hub, leaf, outgoing, action)), strict=True)
        )
    ]
    graph = graph_of(rows, num_users)
    user = torch.tensor([0, 1, 2, int(leaf[0]), 0, 5])
    inputs = NodeSamplerInput(torch.arange(6), user, torch.tensor([300, 300, 299, 200, 0, 300]), USER)
    edges = compare(graph, hops, strategy, graph.actions, inputs)
    assert edges > (READ_AT_ONCE if hops == [-1, -1, 2] else 200)


def test_seeds_are_checked() -> None:
    graph = graph_of(random_rows(0), 11)
    sampler, three = TemporalSampler(graph, [2]), torch.arange(3)
    with pytest.raises(IndexError, match=r"users 11 lies outside 0\.\.10"):
        sampler.sample_from_nodes(NodeSamplerInput(three, three + 9, three, USER))
    with pytest.raises(ValueError, match=r"must be \[n\] each, got \[3\], \[2\], \[3\]"):
        sampler.sample_from_nodes(NodeSamplerInput(three, three, three[:2], USER))


def test_a_sampler_stays_with_its_graph_when_the_index_grows() -> None:
    graph = graph_of(random_rows(0), 11)
    user = torch.arange(11)
    inputs = NodeSamplerInput(user, user, torch.full((11,), 1000), USER)
    sampler = TemporalSampler(graph, [5, 2])
    before = told(sampler.sample_from_nodes(inputs), graph.actions)
    src, time = torch.arange(10), torch.full((10,), 500)
    Timeline.of(graph).append(Events(src, src + 1, time, torch.zeros(10, dtype=torch.int64)))
    assert told(sampler.sample_from_nodes(inputs), graph.actions) == before
    assert told(TemporalSampler(graph, [5, 2]).sample_from_nodes(inputs), graph.actions) == before
