"""Appending to the index: always what an index built anew would be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import DataError, Events, FriendGraph
from graphrec.temporal import (
    DecayedPopularity,
    GroupActivity,
    ReplyIndex,
    SpectralEmbeddings,
    Timeline,
    dense,
)


def part_of(events: Events, start: int, end: int) -> Events:
    return Events(*(column[start:end] for column in vars(events).values()))


def content(timeline: Timeline) -> dict[str, list[object]]:
    """All that an index holds, list by list."""
    columns = timeline.columns
    out: dict[str, list[object]] = {
        "log": [column.tolist() for column in vars(timeline.events).values()],
        "event_tick": timeline.event_tick.tolist(),
        "instants": timeline.instants.tolist(),
        "pair": columns.pair[: len(timeline.events)].tolist(),
        "following": timeline.following.tolist(),
        "first_tick": [int(tick) for tick in timeline.first_tick if tick < len(timeline.instants)],
    }
    for name in ("half_edges", "contacts", "acted_on"):
        lists = getattr(columns, name)
        for field, column in zip(lists._fields[2:], lists[2:], strict=True):
            out[f"{name}.{field}"] = [
                column[start : start + length].tolist()
                for start, length in zip(lists.start, lists.length, strict=True)
            ]
    return out


def index_of_first(graph: FriendGraph, size: int) -> Timeline:
    """The index of the first events of a graph."""
    return Timeline(graph.select_events(torch.arange(graph.num_events) < size))


@checked
@given(logs(times=(0, 3)), st.lists(st.integers(1, 9), max_size=9))
def test_appending_equals_building_anew(rows: list[Row], sizes: list[int]) -> None:
    graph = graph_of(rows)
    whole = Timeline(graph)
    ends = [*np.minimum(np.cumsum([1, *sizes]), len(whole.events)).tolist(), len(whole.events)]
    grown = index_of_first(graph, ends[0])
    for start, end in pairwise(ends):
        grown.append(part_of(whole.events, start, end))
        assert content(grown) == content(index_of_first(graph, end))
    assert content(grown) == content(whole)


def test_an_index_without_room_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphrec.temporal.append.MIN_HEADROOM", 1)
    graph = graph_of(random_rows(3, users=9, events=400))
    whole = Timeline(graph)
    grown = index_of_first(graph, 1)
    for start in range(1, 400, 3):
        grown.append(part_of(whole.events, start, start + 3))
    assert content(grown) == content(whole)


@pytest.mark.parametrize("mapped", [False, True])
def test_long_lists_have_room_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mapped: bool
) -> None:
    monkeypatch.setattr("graphrec.temporal.long_lists.LONG_LIST", 8)
    graph = graph_of(random_rows(6, users=6, events=300))
    whole = Timeline(graph)
    timeline = index_of_first(graph, 200)
    if mapped:
        timeline.save(tmp_path / "index")
        timeline = Timeline.open(tmp_path / "index")
        assert content(timeline) == content(index_of_first(graph, 200))
    else:  # the first append makes room
        timeline.append(part_of(whole.events, 200, 200))
    start = timeline.columns.half_edges.start.copy()
    timeline.append(part_of(whole.events, 200, 210))
    assert timeline.columns.half_edges.start.tolist() == start.tolist()  # no list had to move
    timeline.append(part_of(whole.events, 210, 300))
    assert content(timeline) == content(whole)


def test_new_users_can_join() -> None:
    graph = graph_of(random_rows(4, users=12, events=100))
    whole, few = Timeline(graph), 3
    events = whole.events
    start = int((torch.maximum(events.src, events.dst) >= few).nonzero()[0])
    grown = Timeline(graph.select_events(torch.arange(100) < start))
    grown.append(part_of(events, start, 100), num_users=graph.num_users + 5)
    assert grown.num_users == graph.num_users + 5
    assert grown.degree(torch.tensor([graph.num_users + 4]), torch.tensor([9])).tolist() == [0]
    one = torch.arange(graph.num_users)
    tick = torch.full_like(one, len(whole.instants))
    assert torch.equal(grown.degree(one, tick), whole.degree(one, tick))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": -(10**9)}, "s too early"),
        ({"src": 99}, "src must be below"),
        ({"dst": -1}, "dst must be below"),
        ({"action": 77}, "action must be below"),
        ({"dst": 0}, "with themselves"),
    ],
)
def test_what_cannot_be_appended_is_named_and_changes_nothing(change: dict[str, int], message: str) -> None:
    graph = graph_of(random_rows(5, users=6, events=50))
    timeline = Timeline(graph)
    before = content(timeline)
    last = int(timeline.events.time[-1])
    event = {"src": 0, "dst": 1, "time": last, "action": 0} | change
    with pytest.raises(ValueError, match=message):
        timeline.append(Events(**{name: torch.tensor([value]) for name, value in event.items()}))
    assert content(timeline) == before


def test_an_appended_event_is_seen_later_and_not_at_its_own_time() -> None:
    graph = graph_of(random_rows(6, users=6, events=50))
    timeline = Timeline(graph)
    now = int(timeline.events.time[-1]) + 10
    user = torch.tensor([0])
    before = timeline.distinct_contacts(user, timeline.tick(torch.tensor([now])))
    seen = timeline.recently_seen(timeline.tick(torch.tensor([now])), k=9, window=99)
    event = Events(*(torch.tensor([value]) for value in (0, 1, now, 0)))
    timeline.append(event)
    again = timeline.distinct_contacts(user, timeline.tick(torch.tensor([now])))
    assert torch.equal(before.user, again.user)
    assert torch.equal(before.num_out, again.num_out)
    seen_again = timeline.recently_seen(timeline.tick(torch.tensor([now])), k=9, window=99)
    assert torch.equal(seen[1], seen_again[1])
    after = timeline.distinct_contacts(user, timeline.tick(torch.tensor([now + 1])))
    assert (after.user[0], after.last_out[0]) == (1, now)
    assert timeline.num_acts(user, timeline.tick(torch.tensor([now + 1]))) == 1 + timeline.num_acts(
        user, timeline.tick(torch.tensor([now]))
    )


def test_the_graph_of_an_index_is_left_as_it_is() -> None:
    graph = graph_of(random_rows(7, users=6, events=50))
    timeline = Timeline(graph)
    events = graph.events()
    copies = [column.clone() for column in vars(events).values()]
    for _ in range(3):
        timeline.append(Events(*(torch.tensor([x]) for x in (0, 1, int(events.time[-1]), 0))))
    assert all(torch.equal(x, y) for x, y in zip(vars(graph.events()).values(), copies, strict=True))
    assert Timeline.of(graph) is not timeline


@pytest.mark.parametrize("grown", [False, True])
def test_an_index_is_saved_and_mapped(tmp_path: Path, grown: bool) -> None:
    graph = graph_of(random_rows(8, users=12, events=200))
    whole = Timeline(graph)
    timeline = index_of_first(graph, 120 if grown else 150)
    if grown:
        timeline.append(part_of(whole.events, 120, 150))
    timeline.save(tmp_path / "index")
    here, there = Timeline.open(tmp_path / "index"), Timeline.open(tmp_path / "index")
    assert content(here) == content(timeline)
    here.append(part_of(whole.events, 150, 200))
    assert content(here) == content(whole)
    assert content(there) == content(timeline) == content(Timeline.open(tmp_path / "index"))
    with pytest.raises(FileExistsError, match="holds an index already"):
        timeline.save(tmp_path / "index")


def test_a_folder_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no index"):
        Timeline.open(tmp_path)
    Timeline(graph_of(random_rows(8, users=12, events=20))).save(tmp_path)
    other = np.load(tmp_path / "time.npy")[:3]
    np.save(tmp_path / "time.npy", other)
    with pytest.raises(DataError, match=r"time\.npy"):
        Timeline.open(tmp_path)
    (tmp_path / "time.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        Timeline.open(tmp_path)


def test_what_is_read_from_a_grown_index_is_what_is_read_from_a_new_one() -> None:
    graph = graph_of(random_rows(9, users=15, events=300))
    whole = Timeline(graph)
    grown = index_of_first(graph, 100)
    grown.append(part_of(whole.events, 100, 300))
    user, tick = torch.arange(15).repeat(4), torch.tensor([40, 99, 170, 250]).repeat_interleave(15)
    tick = whole.tick_of(tick)
    moment = whole.instants[tick]
    start = torch.randn(graph.num_users, 4, generator=torch.Generator().manual_seed(0))
    found = []
    for index in (whole, grown):
        replies = ReplyIndex(index)
        group = torch.arange(60) % 5, user
        since, until = tick.new_full((5,), 5), tick.new_full((5,), 30)
        popularity = DecayedPopularity(index, 5.0)
        parts: list[torch.Tensor] = [
            popularity.of(user, index.num_received(user, tick), moment),
            dense.PopularitySweep(index, 5.0).at(moment.unique()),
            dense.last_time(index, tick.unique(), role="either"),
            dense.degree(index, tick.unique()),
            *vars(replies.history(user, tick, "recipient")).values(),
            *GroupActivity(index, *group, since, until, popularity).activity(
                group[0], tick.clamp(min=5), moment
            ),
            SpectralEmbeddings(index, start, every=50).embedding,
            *index.recently_seen(tick, k=9, window=40),
            *index.common_contacts(user, user.flip(0), tick),
            *index.contacts.chronological,
        ]
        found.append(parts)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_an_index_may_begin_empty_and_nothing_may_be_appended() -> None:
    graph = graph_of(random_rows(10, users=6, events=40))
    whole = Timeline(graph)
    grown = index_of_first(graph, 0)
    grown.append(part_of(whole.events, 0, 0))
    assert len(grown.events) == 0
    grown.append(part_of(whole.events, 0, 40))
    grown.append(part_of(whole.events, 40, 40))
    assert content(grown) == content(whole)


def test_columns_of_another_kind_are_named() -> None:
    graph = graph_of(random_rows(11, users=6, events=40))
    timeline = Timeline(graph)
    last = part_of(timeline.events, 39, 40)
    with pytest.raises(ValueError, match=r"time must be \[1\] int64, got \[1\] torch.float32"):
        timeline.append(Events(last.src, last.dst, last.time.float(), last.action))
    with pytest.raises(ValueError, match=r"dst must be \[1\] int64, got \[2\]"):
        timeline.append(Events(last.src, last.dst.repeat(2), last.time, last.action))
    with pytest.raises(ValueError, match="num_users must be at least"):
        timeline.append(last, num_users=1)
