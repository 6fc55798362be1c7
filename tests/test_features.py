"""Features in kernels against the same by tensor operations, bit for bit."""

from __future__ import annotations

from types import ModuleType

import pytest
import readable_features as readable
import torch
from graphs import Row, checked, graph_of, logs, planted_rows, random_rows
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphrec import features
from graphrec.data import Events, Query
from graphrec.temporal import NEVER, Neighborhood, NeighborhoodConfig, SpectralEmbeddings, Timeline
from graphrec.temporal.sorting import rank_latest

USERS = 6
QUERIES = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(-3, 9)), max_size=12)


def query_of(asked: list[tuple[int, int]]) -> Query:
    user, time = torch.tensor(asked, dtype=torch.int64).view(-1, 2).T.contiguous()
    return Query(user, time, torch.zeros_like(user))


def all_features(
    timeline: Timeline, query: Query, of: ModuleType, *, spectral: bool = True
) -> dict[str, Tensor]:
    """The features that a module's functions compute."""
    tick, near = timeline.tick(query.time), None
    if spectral:
        start = torch.randn(timeline.num_users, 3, generator=torch.Generator().manual_seed(0))
        embeddings = SpectralEmbeddings(timeline, start, every=max(1, len(timeline.events) // 3))
        near = embeddings.query(query.user, tick)
    around = Neighborhood.of(timeline, query.user, tick, NeighborhoodConfig())
    now = timeline.activity(around.user, tick[around.row])
    users = torch.arange(timeline.num_users)
    presence = of.presence_features(timeline, query, users, near)
    return {
        "pace": of.query_pace(timeline, query),
        "pair": of.pair_features(timeline, query, around.contacts),
        "path": of.path_features(timeline, query, around, now),
        "person": of.person_features(timeline, query, around, now, near),
        "query": of.query_features(timeline, query),
        "presence": presence if isinstance(presence, Tensor) else torch.cat(list(presence), dim=1),
    }


def assert_equal_features(timeline: Timeline, query: Query, *, spectral: bool = True) -> None:
    found = all_features(timeline, query, features, spectral=spectral)
    expected = all_features(timeline, query, readable, spectral=spectral)
    for name, value in found.items():
        assert value.dtype == torch.float32, name
        assert value.is_contiguous(), name
        assert torch.equal(value, expected[name]), name


@checked
@given(logs(), QUERIES, st.booleans())
def test_features_equal_the_readable_ones(
    rows: list[Row], asked: list[tuple[int, int]], spectral: bool
) -> None:
    """For queries in any order of time, repeated ones, users without events, and no query at all."""
    assert_equal_features(Timeline(graph_of(rows, USERS)), query_of(asked), spectral=spectral)


@pytest.mark.parametrize("seed", [0, 1])
def test_features_of_long_logs_equal_the_readable_ones(seed: int) -> None:
    """Longer than every window of events; the second with gaps of days."""
    rows = planted_rows(seed, events=5000, scale=86_400) if seed else random_rows(seed, users=99, events=5000)
    timeline = Timeline(graph_of(rows))
    generator = torch.Generator().manual_seed(seed)
    event = torch.randint(len(rows), (150,), generator=generator)
    late = torch.randint(2, (150,), generator=generator)
    events = timeline.events
    assert_equal_features(timeline, Query(events.src[event], events.time[event] + late, events.action[event]))


def test_the_queries_of_one_moment_equal_the_readable_ones() -> None:
    timeline = Timeline(graph_of(random_rows(4, users=30, events=2000, times=900), 31))
    user = torch.arange(31)
    assert_equal_features(timeline, Query(user, torch.full((31,), 800), torch.zeros_like(user)))


@pytest.mark.parametrize("time", [-7, 0, 7])
def test_events_at_the_time_itself_or_later_change_no_feature(time: int) -> None:
    """Among old users and with new ones; the planted pairs would be in every feature."""
    past = [Row(0, 1, time - 3), Row(1, 2, time - 2), Row(2, 0, time - 1), Row(3, 1, time - 1)]
    planted = [Row(a, b, then) for then in (time, time + 1) for a, b in ((0, 1), (1, 2), (4, 0), (0, 5))]
    query = query_of([(user, time) for user in range(USERS)])
    short, long = (Timeline(graph_of(rows, USERS)) for rows in (past, past + planted))
    one, two = (all_features(x, query, features, spectral=False) for x in (short, long))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
    later = all_features(
        long, query_of([(user, time + 1) for user in range(USERS)]), features, spectral=False
    )
    assert later["pair"].size(0) > one["pair"].size(0)
    assert not torch.equal(later["query"], one["query"])


@checked
@given(logs(), st.integers(0, 30), QUERIES)
def test_features_after_an_append_are_those_of_a_new_index(
    rows: list[Row], kept: int, asked: list[tuple[int, int]]
) -> None:
    """Nothing is kept of the index as it was."""
    graph = graph_of(rows, USERS)
    whole, grown = Timeline(graph), Timeline(graph.select_events(torch.arange(len(rows)) < kept))
    events = whole.events
    all_features(grown, query_of(asked), features, spectral=False)
    grown.append(Events(events.src[kept:], events.dst[kept:], events.time[kept:], events.action[kept:]))
    one, two = (all_features(x, query_of(asked), features, spectral=False) for x in (whole, grown))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_presence_of_all_users_is_that_of_each() -> None:
    timeline = Timeline(graph_of(random_rows(5, users=30, events=900, times=300), 31))
    time = torch.tensor([5, 80, 80, 200, 299])
    query = Query(torch.arange(5), time, torch.zeros(5, dtype=torch.int64))
    every, each = (
        torch.cat(list(features.presence_features(timeline, query, users)), dim=1)
        for users in (None, torch.arange(31))
    )
    assert torch.equal(every, each)


@checked
@given(st.lists(st.one_of(st.just(NEVER), st.integers(-(2**61), 2**61), st.integers(0, 300)), max_size=99))
def test_ranks_count_later_times(times: list[int]) -> None:
    time = torch.tensor(times, dtype=torch.int64)
    rank = torch.full_like(time, -1)
    rank_latest(time.numpy(), rank.numpy())
    assert rank.tolist() == [sum(other > one for other in times) for one in times]
