"""The audit passes sound loaders and finds leaks planted in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from benchmarks.correctness.leakage import LEAKS, planted
from graphrec.data import USER, EventLog, FriendGraph, Query, UserTable
from graphrec.loader import EventLoader, LeakageError, QueryLoader, audit_leakage, rewrite_future

PAGE = Path(__file__).parents[1] / "docs" / "loaders.md"


@pytest.fixture(scope="module")
def graph() -> FriendGraph:
    return graph_of(random_rows(5, users=20, events=400, times=120, scale=3600), 21)


def some_events(graph: FriendGraph, size: int = 150) -> Tensor:
    return torch.randperm(graph.num_events, generator=torch.Generator().manual_seed(0))[:size]


@pytest.mark.parametrize("strategy", ["last", "uniform"])
@pytest.mark.parametrize("kind", [QueryLoader, EventLoader])
def test_sound_loaders_pass(kind: Any, strategy: str, graph: FriendGraph) -> None:
    done = audit_leakage(planted(kind, graph, some_events(graph), strategy), num_moments=6)
    assert (done.num_seeds, done.num_moments) == (150, 6)
    assert done.num_rewritten > graph.num_events


def test_whole_timelines_pass(graph: FriendGraph) -> None:
    for until in (0, 50 * 3600, 10**9):
        users = torch.arange(graph.num_users)
        assert audit_leakage(QueryLoader.of_timelines(graph, until=until, users=users), num_moments=2)


def test_options_are_audited_too(graph: FriendGraph) -> None:
    loader = EventLoader.of_events(
        graph, [2, 2, 1], actions=["poke"], num_negatives=2, shuffle=True, num_workers=1, batch_size=64
    )
    assert audit_leakage(loader, num_moments=3).num_seeds == graph.num_events


@checked
@given(logs(), st.sampled_from(["last", "uniform"]))
def test_sound_loaders_pass_on_any_log(rows: list[Row], strategy: Any) -> None:
    graph = graph_of(rows, 6)
    audit_leakage(EventLoader.of_events(graph, [3, 2], strategy=strategy, batch_size=99), num_moments=3)


@pytest.mark.parametrize("strategy", ["last", "uniform"])
@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
def test_planted_leaks_are_found(leak: Any, strategy: str, graph: FriendGraph) -> None:
    with pytest.raises(LeakageError, match="depends on events at or after the seeds' time"):
        audit_leakage(planted(leak, graph, some_events(graph), strategy), num_moments=6)


@pytest.mark.parametrize("leak", LEAKS[:1], ids=lambda leak: leak.__name__)
def test_even_a_few_seeds_are_enough(leak: Any, graph: FriendGraph) -> None:
    for event in range(0, graph.num_events, 50):
        with pytest.raises(LeakageError):
            audit_leakage(planted(leak, graph, torch.tensor([event]), "last"))


# Other people's loaders


def audited(graph: FriendGraph, batches: Any) -> SimpleNamespace:
    """A loader of whatever `batches(graph, query)` yields."""
    query = Query.of_events(graph, some_events(graph))
    return SimpleNamespace(
        graph=graph,
        query=query,
        rebuild=lambda graph, rows, time: batches(graph, query[rows].at(time)),
    )


def degrees(graph: FriendGraph, query: Query, *, late: int) -> Tensor:
    events = graph.events()
    past = events.time[:, None] < query.time + late
    return ((events.src[:, None] == query.user) & past).sum(0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda count: Data(x=count),
        lambda count: HeteroData({USER: {"x": count}}),
        lambda count: (count, ["user", 3]),
        lambda count: {"x": count.double() / 0 * 0},  # NaN where the count is 0
    ],
)
def test_batches_of_many_kinds(wrap: Any, graph: FriendGraph) -> None:
    def batches(graph: FriendGraph, query: Query, late: int) -> Iterator[Any]:
        for start in range(0, len(query), 10):
            yield wrap(degrees(graph, query[start : start + 10], late=late))

    audit_leakage(audited(graph, lambda g, q: batches(g, q, 0)), num_moments=5)
    if isinstance(wrap(torch.ones(1)), dict):
        return
    with pytest.raises(LeakageError):
        audit_leakage(audited(graph, lambda g, q: batches(g, q, 1)), num_moments=5)


@pytest.mark.parametrize(
    "look",
    [
        lambda graph, query: [[0]] * graph.num_events,  # the number of batches
        lambda graph, query: [{"n": graph.num_events}],  # a plain value
        lambda graph, query: [{f"n{graph.num_events}": 0}],  # a key
        lambda graph, query: [(0,) * graph.num_events],  # a length
        lambda graph, query: [graph.events().dst],  # a shape
        lambda graph, query: [graph["user", "friend", "user"].time.sum()],
        lambda graph, query: [graph["user", graph.actions[0], "user"].weight],
        lambda graph, query: [graph[USER].join_time],
    ],
)
def test_leaks_of_any_form_are_found(look: Any) -> None:
    rows = random_rows(1)
    src, dst, time, action = zip(*rows, strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action, weight=[1.0] * len(rows))
    users = UserTable(log.user_ids.values, torch.rand(10, 2), ("a", "b"), torch.arange(10) * 3 - 1)
    graph = FriendGraph.from_events(log, users)
    with pytest.raises(LeakageError, match="depends on events"):
        audit_leakage(audited(graph, look), num_moments=5)


def test_loaders_that_cannot_be_judged(graph: FriendGraph) -> None:
    with pytest.raises(ValueError, match="no batch"):
        audit_leakage(audited(graph, lambda graph, query: []))
    with pytest.raises(ValueError, match="differs between two runs"):
        audit_leakage(audited(graph, lambda graph, query: [torch.rand(3)]))


# The rewriting


@checked
@given(logs(), st.integers(-4, 8), st.integers(0, 5))
def test_the_past_stays_and_the_future_goes(rows: list[Row], time: int, seed: int) -> None:
    graph = graph_of(rows, 6)
    graph[USER].x = torch.randn(6, 2)
    graph.add_untimed("facebook", [0, 1], [2, 3])
    other = rewrite_future(graph, time, near=torch.tensor([5]), seed=seed)
    other.validate()
    past = sum(row.time < time for row in rows)
    one, new = graph.events(), other.events()
    for key in ("src", "dst", "time", "action"):
        assert torch.equal(getattr(one, key)[:past], getattr(new, key)[:past])
    future = new.time[past:]
    assert len(future) == len(rows) - past + 64
    assert int(future.min()) == time
    assert bool((new.src != new.dst).all())
    assert bool(((new.src[past:] == 5) & (future == time)).any())
    assert bool(((new.dst[past:] == 5) & (future == time)).any())
    assert other.actions == graph.actions
    assert other.user_ids.raw is graph.user_ids.raw
    assert other[USER].x is graph[USER].x
    assert torch.equal(other[USER, "facebook", USER].edge_index, graph[USER, "facebook", USER].edge_index)
    again = rewrite_future(graph, time, near=torch.tensor([5]), seed=seed).events()
    assert torch.equal(again.src, new.src)


# The page


def test_the_page_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
