"""The decayed counts of first acts, and what else follows an index that grows, each against a loop."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from graphs import Row, checked, graph_of, logs
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import Events
from graphrec.temporal import Timeline
from graphrec.temporal.act_lists import ActLists
from graphrec.temporal.event_counts import EventCounts

USERS = 6
HALF_LIFE = 3.0


def naive(rows: list[Row], time: int, side: Literal["src", "dst"]) -> list[float]:
    """Each user's first acts on others (or on it) before a time, each halved every half-life."""
    out, known = [0.0] * USERS, set()
    for row in sorted(rows, key=lambda row: row.time):
        if row.time < time and (row.src, row.dst) not in known:
            known.add((row.src, row.dst))
            out[getattr(row, side)] += 0.5 ** ((time - row.time) / HALF_LIFE)
    return out


def grown(rows: list[Row], cut: int) -> tuple[Timeline, Events]:
    """An index of the first events, and the others."""
    events = graph_of(rows, USERS).events()
    timeline = Timeline(graph_of(rows, USERS).select_events(torch.arange(len(events)) < cut))
    return timeline, Events(*(column[cut:] for column in vars(events).values()))


@pytest.mark.parametrize("side", ["src", "dst"])
@checked
@given(rows=logs(), cut=st.integers(0, 12))
def test_only_the_first_act_on_a_user_counts(side: Literal["src", "dst"], rows: list[Row], cut: int) -> None:
    """Also where a time is parted by an append, or events are removed."""
    times = torch.arange(-1, 11)
    timeline, later = grown(rows, cut)
    lists = ActLists(timeline, side, HALF_LIFE, first_only=True)
    timeline.append(later)
    lists.follow(timeline)
    expected = torch.tensor([naive(rows, time, side) for time in times.tolist()], dtype=torch.float64)
    torch.testing.assert_close(lists.at(timeline, times), expected, rtol=1e-12, atol=1e-15)
    if len(rows) > 1:
        order = sorted(rows, key=lambda row: row.time)
        timeline.remove(torch.arange(0, len(rows), 2))
        left = ActLists(timeline, side, HALF_LIFE, first_only=True).at(timeline, times)
        expected = torch.tensor(
            [naive(order[1::2], time, side) for time in times.tolist()], dtype=torch.float64
        )
        torch.testing.assert_close(left, expected, rtol=1e-12, atol=1e-15)


@checked
@given(rows=logs(), cut=st.integers(0, 12))
def test_events_before_each_tick_follow_an_index(rows: list[Row], cut: int) -> None:
    timeline, later = grown(rows, cut)
    counts = EventCounts()
    counts.of(timeline)
    timeline.append(later)
    times = sorted({row.time for row in rows})
    expected = [sum(row.time < time for row in rows) for time in times]
    assert counts.of(timeline).tolist() == [*expected, len(rows)]
