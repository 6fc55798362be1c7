"""Kernels and cached values of a request, against loops and against values computed anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import graph_of, random_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphrec.data import Query
from graphrec.features import Timelines, presence_features, presence_features_of_pairs
from graphrec.models.heads.groups import groups_of
from graphrec.nn.cached_values import cached_value
from graphrec.nn.history import EventEmbedding, HistoryEncoder
from graphrec.nn.history_kernels import fill_gaps, fill_mask, find_ties
from graphrec.nn.layers import LARGE_INPUT, gelu, mlp
from graphrec.temporal import Neighborhood, NeighborhoodConfig, Timeline

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def streams(draw: st.DrawFn) -> Case:
    """Rows and times of timelines, with ties within and across rows."""
    pairs = sorted(draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=14)))
    row, time = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    return row, time


@settings(deadline=None)
@given(streams(), st.integers(1, 5))
def test_gaps_and_masks_are_those_of_loops_over_pairs(case: Case, window: int) -> None:
    row, time = case
    size = len(row)
    gaps = np.empty((2, size), np.float32)
    fill_gaps(row, time, gaps)
    mask = np.zeros((-(-size // window), window, 2 * window), bool)
    fill_mask(row, time, mask)
    for i in range(size):
        earlier = [j for j in range(i) if row[j] == row[i] and time[j] < time[i]]
        assert gaps[:, i].tolist() == [float(time[i] - time[earlier[-1]]) if earlier else 0.0, bool(earlier)]
        block = i // window
        seen = {(block - 1) * window + int(j) for j in np.flatnonzero(mask[block, i % window])}
        assert seen == {i, *(j for j in earlier if j > i - window)}


@settings(deadline=None)
@given(streams(), st.data())
def test_ties_hold_the_events_of_equal_time(case: Case, data: st.DataObject) -> None:
    row, time = case
    position = np.array(data.draw(st.lists(st.integers(-1, len(row) - 1), max_size=6)), np.int64)
    out, size, at = np.empty((2, len(row)), np.int64), np.empty(len(row), np.int64), np.empty_like(position)
    number, num_ties = find_ties(row, time, position, out, size, at)
    events = {
        int(p): {j for j in range(len(row)) if row[j] == row[p] and time[j] == time[p]}
        for p in position
        if p >= 0
    }
    wanted, tie = out[:, :number]
    assert wanted.tolist() == sorted(set().union(*events.values()))
    assert num_ties == len(set(map(frozenset, events.values())))
    for p, place in zip(position.tolist(), at.tolist(), strict=True):
        if p >= 0:
            assert set(wanted[tie == place].tolist()) == events[p]
            assert size[place] == len(events[p])


def test_the_last_events_are_those_strictly_before_a_query() -> None:
    graph = graph_of(random_rows(3, users=9, events=200, times=40), 9)
    timeline, events = Timeline(graph), graph.events()
    user, time = torch.arange(9), torch.randint(0, 45, (9,), generator=torch.Generator().manual_seed(0))
    found, position = Timelines.of_index(timeline, user, timeline.tick(time), 6)
    for u in range(9):
        mine = (events.src == u) | (events.dst == u)
        past = sorted(events.time[mine & (events.time < time[u])].tolist())[-6:]
        assert found.time[found.row == u].tolist() == past
        last = int(position[u])
        assert (last == -1) == (not past)
        assert last == -1 or (int(found.row[last]) == u and int(found.time[last]) == past[-1])
    assert torch.equal(position, found.before(user, time))


def test_presence_of_pairs_is_that_of_all_users() -> None:
    graph = graph_of(random_rows(5, users=9, events=150, times=60), 9)
    timeline = Timeline(graph)
    none = torch.zeros(4, dtype=torch.int64)
    query = Query(torch.arange(4), torch.tensor([5, 20, 40, 70]), none)
    row, user = torch.arange(4).repeat_interleave(9), torch.arange(9).repeat(4)
    every = torch.cat(list(presence_features(timeline, query)), dim=1).flatten(1)
    now = timeline.activity(user, timeline.tick(query.time)[row])
    for given_activity in (None, now):
        pairs = presence_features_of_pairs(timeline, query, row, user, None, given_activity)
        assert torch.equal(pairs, every)


def test_contacts_of_a_neighborhood_are_the_distinct_contacts() -> None:
    """The prior of lists reads those, the prior of all users these."""
    graph = graph_of(random_rows(7, users=20, events=400, times=60), 20)
    timeline, user = Timeline(graph), torch.arange(20)
    tick, config = timeline.tick(torch.full((20,), 50)), NeighborhoodConfig(max_contacts=3, contact_window=6)
    around = Neighborhood.of(timeline, user, tick, config).contacts
    contacts = timeline.distinct_contacts(user, tick, k=3, window=6)
    assert len(contacts) > 20
    for name, value in vars(contacts).items():
        assert torch.equal(getattr(around, name), value), name


def test_a_cached_value_follows_its_sources() -> None:
    layer, calls = nn.Linear(2, 2, bias=False), []

    def twice() -> Tensor:
        calls.append(1)
        return 2 * layer.weight

    def cached() -> Tensor:
        return cached_value(layer, "twice", (layer.weight,), twice)

    with torch.inference_mode():
        first = cached()
        assert cached() is first
    assert len(calls) == 1
    assert not first.is_inference()
    assert cached().requires_grad  # with gradients it is computed for each step
    with torch.no_grad():
        layer.weight.add_(1.0)
        assert torch.equal(cached(), 2 * layer.weight)
        layer.weight = nn.Parameter(torch.ones(2, 2))
        assert torch.equal(cached(), torch.full((2, 2), 2.0))
    assert set(layer.state_dict()) == {"weight"}


@pytest.mark.parametrize("training", [False, True])
def test_layers_without_gradients_are_those_with(training: bool) -> None:
    network = mlp(4, 8, 3).train(training)
    nn.init.normal_(network[-1].weight)
    x = torch.randn(5, 4)
    expected = network(x)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected)
        big = torch.randn(LARGE_INPUT // 4, 4)
        torch.testing.assert_close(gelu(big), nn.functional.gelu(big))


def test_queries_of_one_number_are_grouped() -> None:
    groups = groups_of(torch.tensor([2, 0, 2, 2, 0]), 2)
    assert [group.tolist() for group in groups] == [[1, 4], [0, 2], [3]]
    assert [group.tolist() for group in groups_of(torch.tensor([1, 1, 1]), 2)] == [[0, 1], [2]]
    assert groups_of(torch.empty(0, dtype=torch.int64), 2) == []


@settings(deadline=None)
@given(streams(), st.integers(1, 4), st.data())
def test_wanted_events_are_encoded_as_among_all(case: Case, window: int, data: st.DataObject) -> None:
    row, time = map(torch.from_numpy, case)
    wanted = sorted(data.draw(st.sets(st.integers(0, len(row) - 1), min_size=1))) if len(row) else []
    torch.manual_seed(0)
    encoder = HistoryEncoder(EventEmbedding(2, 4, 4), num_layers=3, num_heads=2, window=window).eval()
    timelines, other = Timelines(row, row, row % 2, time, 4), torch.randn(len(row), 4)
    with torch.no_grad():
        found = encoder(timelines, other, torch.tensor(wanted, dtype=torch.int64))
        torch.testing.assert_close(found, encoder(timelines, other)[wanted])
