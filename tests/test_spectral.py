"""Where people stand in the network: strictly past, equal under new names, and near their own."""

from __future__ import annotations

import pytest
import torch
from graphs import Row, checked, graph_of, logs, permuted, planted_rows, rewritten, shuffled_in_ties
from hypothesis import given
from hypothesis import strategies as st

from graphrec.temporal import SpectralEmbeddings, Timeline

USERS = 6
START = torch.randn(USERS, 3, generator=torch.Generator().manual_seed(0))


def structure_of(
    rows: list[Row], start: torch.Tensor = START, every: int = 2
) -> tuple[Timeline, SpectralEmbeddings]:
    timeline = Timeline(graph_of(rows, len(start)))
    return timeline, SpectralEmbeddings(timeline, start, every=every)


def places(rows: list[Row], time: int, start: torch.Tensor = START) -> torch.Tensor:
    timeline, structure = structure_of(rows, start)
    user = torch.arange(len(start))
    return structure.query(user, timeline.tick(torch.full_like(user, time))).cosines()


@checked
@given(logs(), st.integers(-3, 8), st.integers(0, 99))
def test_the_future_is_invisible(rows: list[Row], time: int, seed: int) -> None:
    """Not even when the next event comes may be told by which snapshot is read."""
    other = rewritten(rows, time, num_users=USERS, seed=seed)
    torch.testing.assert_close(places(rows, time), places(other, time), atol=1e-4, rtol=0)


@checked
@given(logs(times=(0, 3)), st.integers(0, 999))
def test_the_order_of_tied_rows_leaves_no_trace(rows: list[Row], seed: int) -> None:
    torch.testing.assert_close(places(rows, 4), places(shuffled_in_ties(rows, seed), 4), atol=1e-4, rtol=0)


@checked
@given(logs(), st.permutations(range(USERS)))
def test_new_names_permute_the_places(rows: list[Row], new_id: list[int]) -> None:
    renamed = torch.tensor(new_id)
    start = torch.empty_like(START).index_copy_(0, renamed, START)
    found = places(permuted(rows, new_id), 9, start)
    torch.testing.assert_close(found[renamed][:, renamed], places(rows, 9), atol=1e-4, rtol=0)


def test_circles_stand_together() -> None:
    rows = planted_rows(0, groups=4, size=8, events=600)
    start = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    near = places(rows, rows[-1].time, start)
    circle = torch.arange(32) // 8
    same = circle[:, None] == circle
    assert near[same].mean() > 0.9
    assert near[~same].mean() < 0.5


def test_a_newcomer_stands_where_their_contacts_do() -> None:
    """User 5 writes to user 0 after the last snapshot; user 4 is never heard of."""
    rows = [Row(0, 1, 0), Row(1, 0, 1), Row(2, 3, 2), Row(3, 2, 3), Row(5, 0, 4)]
    timeline, structure = structure_of(rows, every=4)
    tick = timeline.tick(torch.tensor([9, 9, 9]))
    stands = structure.query(torch.tensor([5, 0, 4]), tick)
    place = stands.vector
    torch.testing.assert_close(place[0], place[1])
    assert place[2].tolist() == [0.0, 0.0, 0.0]
    row, other = torch.tensor([0, 0, 2]), torch.tensor([0, 4, 0])
    found = stands.cosine(row, other)
    assert found.tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)


@checked
@given(logs())
def test_one_by_one_equals_all_at_once(rows: list[Row]) -> None:
    timeline, structure = structure_of(rows)
    user = torch.arange(USERS)
    tick = timeline.tick(torch.arange(USERS))
    row, other = user.repeat_interleave(USERS), user.repeat(USERS)
    stands = structure.query(user, tick)
    found = stands.cosine(row, other).view(USERS, USERS)
    torch.testing.assert_close(found, stands.cosines(), atol=1e-5, rtol=0)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(stands.cosines(some), found[:, some], atol=1e-5, rtol=0)
