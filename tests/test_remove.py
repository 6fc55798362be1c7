"""Removing events from the index: always what an index of the other events would be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows
from hypothesis import given
from hypothesis import strategies as st
from test_append import part_of

from graphrec.data import Query
from graphrec.features import Timelines, pair_features, path_features, person_features, query_features
from graphrec.features.gaps import query_pace
from graphrec.features.initiation import initiation_features
from graphrec.models.heads.clusters.index import ClusterIndex
from graphrec.models.heuristic_lists import DirectRule, HeuristicLists, Measured
from graphrec.models.wanted import Wanted
from graphrec.temporal import (
    DecayedPopularity,
    GroupActivity,
    Neighborhood,
    NeighborhoodConfig,
    ReplyIndex,
    SpectralEmbeddings,
    Timeline,
    dense,
)
from graphrec.temporal.build import build_index
from graphrec.temporal.columns import LAST_PLACE, IndexColumns
from graphrec.temporal.lookups import link_appearances


def content(columns: IndexColumns, following: np.ndarray, position: Sequence[int]) -> dict[str, list[object]]:
    """All that an index holds, list by list; events by their positions in a whole log."""
    place = [int(2 * position[i // 2] + i % 2) for i in range(2 * len(position))]
    out: dict[str, list[object]] = {
        "pair": columns.pair[: len(position)].tolist(),
        "following": [place[i] if i < len(place) else -1 for i in following.reshape(-1).tolist()],
    }
    for name in ("half_edges", "contacts", "acted_on"):
        lists = getattr(columns, name)
        for field, column in zip(lists._fields[2:], lists[2:], strict=True):
            one_by_one = [
                column[start : start + length].tolist()
                for start, length in zip(lists.start, lists.length, strict=True)
            ]
            if field == "code":
                one_by_one = [[2 * position[i // 2] + i % 2 for i in one] for one in one_by_one]
            out[f"{name}.{field}"] = one_by_one
    return out


def left(timeline: Timeline) -> dict[str, list[object]]:
    """What an index holds of events that are not removed."""
    kept = np.setdiff1d(np.arange(len(timeline.events)), timeline.removed)
    everything = content(timeline.columns, timeline.following, range(len(timeline.events)))
    everything["pair"] = timeline.columns.pair[kept].tolist()
    everything["following"] = np.array(everything["following"]).reshape(-1, 2)[kept].reshape(-1).tolist()
    return everything


def anew(timeline: Timeline) -> dict[str, list[object]]:
    """What an index built from the events that are left holds, ticks numbered as before."""
    kept = np.setdiff1d(np.arange(len(timeline.events)), timeline.removed)
    src, dst, _, action = (column.numpy()[kept] for column in vars(timeline.events).values())
    columns = build_index(
        src,
        dst,
        action,
        timeline.event_tick.numpy()[kept],
        num_users=timeline.num_users,
        num_actions=timeline._num_actions,
    )
    following, latest = np.empty(2 * len(kept), np.int32), np.full(timeline.num_users, LAST_PLACE, np.int64)
    link_appearances(src, dst, 0, latest, following)
    return content(columns, following, kept.tolist())


@checked
@given(logs(times=(0, 5)), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**30)), max_size=9))
def test_an_index_is_that_of_the_events_left(rows: list[Row], steps: list[tuple[int, int]]) -> None:
    graph = graph_of(rows)
    whole = Timeline(graph)
    timeline = Timeline(graph.select_events(torch.arange(graph.num_events) < len(rows) // 2))
    undo = []
    for kind, number in steps:
        size, kept = len(timeline.events), np.setdiff1d(np.arange(len(timeline.events)), timeline.removed)
        if kind == 0:
            timeline.append(part_of(whole.events, size, size + 1 + number % 5))
            undo = []
        elif kind == 1:
            chosen = np.random.default_rng(number).permutation(kept)[: 1 + number % 7]
            before = left(timeline)
            undo.append((before, timeline.remove(torch.from_numpy(chosen.copy()))))
        elif undo:
            before, removal = undo.pop()
            timeline.restore(removal)
            assert left(timeline) == before
        assert left(timeline) == anew(timeline)


# What is read from it


def some_of_each_instant(timeline: Timeline, seed: int, share: float) -> torch.Tensor:
    """Random events, but at least one of each time stays, so that ticks have the same numbers."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(timeline.events))
    stays = order[np.unique(timeline.event_tick.numpy()[order], return_index=True)[1]]
    goes = np.setdiff1d(order[: int(share * len(order))], stays)
    return torch.from_numpy(goes)


def read(index: Timeline) -> list[torch.Tensor]:
    """Everything that models read, of all users at some ticks."""
    num_users = index.num_users
    user = torch.arange(num_users).repeat(6)
    tick = torch.tensor([0, 1, 7, 20, 33, len(index.instants)]).repeat_interleave(num_users)
    moment, ticks = index.instants[(tick - 1).clamp(min=0)] + 1, tick.unique()
    query = Query(user, moment, torch.zeros_like(user))
    start = torch.randn(num_users, 4, generator=torch.Generator().manual_seed(0))
    replies, popularity = ReplyIndex(index), DecayedPopularity(index, 5.0)
    group, since = torch.arange(len(user)) % 5, tick.new_full((5,), 7)
    spectral = SpectralEmbeddings(index, start, every=20)
    known = torch.ones(num_users, dtype=torch.bool)
    shares = torch.full((num_users, 2), 0.5)
    clusters = ClusterIndex(
        index, torch.arange(2 * num_users).view(-1, 2) % 4, shares, known & (user[:num_users] > 3), 4
    )
    lists = [
        HeuristicLists(rule, index, half_life=5.0, origin=0, weight=torch.ones_like)
        for rule in (
            DirectRule(),
            DirectRule(measure=Measured.RECEIVED),
            DirectRule(measure=Measured.LAST_ACT),
            DirectRule(measure=Measured.LAST_EVENT),
            DirectRule(measure=Measured.DEGREE),
        )
    ]
    none = torch.empty(0, dtype=torch.int64)
    out: list[torch.Tensor] = [
        popularity.of(user, index.num_received(user, tick), moment),
        dense.PopularitySweep(index, 5.0).at(moment.unique()),
        *(dense.last_time(index, ticks, role=role) for role in ("src", "dst", "either")),
        dense.degree(index, ticks),
        dense.num_acts(index, ticks),
        dense.num_received(index, ticks),
        *vars(replies.history(user, tick, "recipient")).values(),
        *GroupActivity(index, group, user, since, since + 20, popularity).activity(
            group, tick.clamp(min=7), moment
        ),
        spectral.tick,
        spectral.embedding,
        *index.recently_seen(tick, k=9, window=41),
        *index.recently_seen(tick, k=4, window=8),
        *index.common_contacts(user, user.flip(0), tick),
        *index.contacts.chronological,
        index.num_events_before(tick),
        index.first_tick,
        query_features(index, query),
        query_pace(index, query),
        clusters.features(query),
        clusters.since,
        initiation_features(index, replies, query, user.flip(0), reply_window=9),
    ]
    for scores in lists:
        out += scores.best(query, Wanted(6, none, none, none), torch.ones(len(user), dtype=torch.float64))
    around = Neighborhood.of(index, user, tick, NeighborhoodConfig(recent_window=64))
    now = index.activity(around.user, tick[around.row])
    found = [value for value in vars(around).values() if isinstance(value, torch.Tensor)]
    out += [*found, person_features(index, query, around, now, spectral.query(user, tick))]
    out += [pair_features(index, query, around.contacts), path_features(index, query, around, now)]
    timelines, _ = Timelines.of_index(index, user, tick, 9)
    return [*out, timelines.other, timelines.kind, timelines.time]


@pytest.mark.parametrize(("seed", "share"), [(0, 0.02), (1, 0.3), (2, 0.9), (3, 1.0)])
def test_what_is_read_is_what_is_read_from_the_events_left(seed: int, share: float) -> None:
    graph = graph_of(random_rows(seed, users=15, events=1500, times=40))
    timeline = Timeline(graph)
    goes = some_of_each_instant(timeline, seed, share)
    before = read(timeline.copy())
    removal = timeline.remove(goes)
    kept = torch.ones(graph.num_events, dtype=torch.bool).index_fill_(0, goes, False)
    anew = Timeline(graph.select_events(kept))
    for number, (one, other) in enumerate(zip(read(timeline), read(anew), strict=True)):
        assert torch.equal(one, other), number
    timeline.restore(removal)
    for number, (one, other) in enumerate(zip(read(timeline), before, strict=True)):
        assert torch.equal(one, other), number


def test_the_graph_is_left_as_it_is_and_a_copy_is_another_index(tmp_path: Path) -> None:
    graph = graph_of(random_rows(5, users=9, events=80))
    timeline = Timeline(graph)
    log = [column.clone() for column in vars(graph.events()).values()]
    before = left(timeline)
    other = timeline.copy()
    other.remove(torch.arange(40))
    timeline.save(tmp_path / "index")
    mapped = Timeline.open(tmp_path / "index")
    again = mapped.copy()
    again.remove(torch.arange(40))
    assert left(again) == left(other) == anew(other)
    assert left(timeline) == left(mapped) == before
    assert all(torch.equal(a, b) for a, b in zip(vars(graph.events()).values(), log, strict=True))
    again.save(tmp_path / "fewer")
    fewer = Timeline.open(tmp_path / "fewer")
    assert left(fewer) == left(again)
    assert left(fewer.copy()) == left(again)
    again.remove(torch.tensor([50]))
    assert left(again.copy()) == left(again)


@pytest.mark.parametrize(
    ("events", "error", "words"),
    [
        ([3, 3], ValueError, "event 3 is named twice"),
        ([0], ValueError, "event 0 was removed before"),
        ([80], IndexError, "event"),
        ([-1], IndexError, "event"),
        ([1.0], TypeError, "event"),
    ],
)
def test_what_cannot_be_removed_is_named_and_changes_nothing(
    events: list[int], error: type[Exception], words: str
) -> None:
    timeline = Timeline(graph_of(random_rows(6, users=9, events=80)))
    timeline.remove(torch.tensor([0]))
    before = left(timeline)
    with pytest.raises(error, match=words):
        timeline.remove(torch.tensor(events))
    assert left(timeline) == before
    timeline.remove(torch.empty(0, dtype=torch.int64))
    assert left(timeline) == before
