"""The code head follows appended events: lists grow by these, and nothing is bound again between moments."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows
from hypothesis import given
from hypothesis import strategies as st
from test_append import index_of_first, part_of
from test_follow import DAY, FIRST, ROWS, USERS, append, cuts, fresh, rows_with_newcomers

from graphrec.data import Events
from graphrec.models import MixtureRecommender
from graphrec.models.heads.codes.head import BoundCodeHead, CodeHead
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.temporal import DecayedPopularity, GroupActivity, Timeline, snapshot_ticks

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

CODED = ("stu", "stu_generator", "stu_hybrid")


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-30)


def asked(index: Timeline, since: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All groups at all ticks, and times just after the last event that a tick has seen."""
    pairs = torch.cartesian_prod(torch.arange(len(since)), torch.arange(len(index.instants) + 1))
    group, tick = pairs[pairs[:, 1] >= since[pairs[:, 0]]].T
    return group, tick, index.instants[(tick - 1).clamp(min=0)] + (tick > 0)


# Activity of groups, and popularity


@checked
@given(
    logs(users=6, times=(0, 9)),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), unique=True),
    st.lists(st.integers(0, 6), min_size=4, max_size=4),
    st.lists(st.integers(1, 9), max_size=6),
    st.integers(0, 12),
)
def test_groups_and_popularity_follow_as_if_they_were_built_anew(
    rows: list[Row], members: list[tuple[int, int]], firsts: list[int], sizes: list[int], begin: int
) -> None:
    """Users 4 and 5 are in no group; groups may be empty, share members, and begin anywhere in the past."""
    graph = graph_of(sorted(rows, key=lambda row: row.time), 6)
    whole = Timeline(graph)
    size = len(whole.events)
    ends = [*np.minimum(np.cumsum([min(begin, size), *sizes]), size).tolist(), size]
    grown = index_of_first(graph, ends[0])
    group, user = torch.tensor(sorted(members), dtype=torch.int64).view(-1, 2).T.contiguous()
    # A tick whose events are all known; the last tie may still grow.
    since = torch.tensor(firsts).clamp(max=max(0, len(grown.instants) - 1))
    until = torch.full((4,), len(grown.instants))
    fading = DecayedPopularity(grown, 2.0)
    groups = GroupActivity(grown, group, user, since, until, fading)
    for start, end in pairwise(ends):
        grown.append(part_of(whole.events, start, end))
        fading, groups = fading.follow(grown), groups.follow(grown)
        anew = DecayedPopularity(grown, 2.0)
        expected = GroupActivity(
            grown, group, user, since, torch.full((4,), len(grown.instants)), anew
        ).activity(*asked(grown, since))
        found = groups.activity(*asked(grown, since))
        assert all(torch.equal(one, other) for one, other in zip(found[:4], expected[:4], strict=True))
        assert_close(found[4], expected[4])
        person, tick, time = asked(grown, torch.zeros(grown.num_users, dtype=torch.int64))
        received = grown.num_received(person, tick)
        assert_close(fading.of(person, received, time), anew.of(person, received, time))


def test_many_appends_move_lists_and_users_come() -> None:
    graph = graph_of(random_rows(4, users=20, events=3000, times=700, scale=90_000))
    whole = Timeline(graph)
    grown, half_life = index_of_first(graph, 40), 3.0 * DAY
    fading, group = DecayedPopularity(grown, half_life), torch.arange(20) // 4
    since = torch.full((5,), 3)
    groups = GroupActivity(grown, group, torch.arange(20), since, since + 9, fading)
    for start in range(40, 3000, 37):
        grown.append(part_of(whole.events, start, start + 37))
        fading, groups = fading.follow(grown), groups.follow(grown)
    events = Events(*(torch.tensor([x]) for x in (20, 3, int(whole.events.time[-1]), 0)))
    grown.append(events, num_users=25)
    fading, groups = fading.follow(grown), groups.follow(grown)
    anew = DecayedPopularity(grown, half_life)
    until = torch.full((5,), len(grown.instants))
    expected = GroupActivity(grown, group, torch.arange(20), since, until, anew)
    for one, other in zip(
        groups.activity(*asked(grown, since)), expected.activity(*asked(grown, since)), strict=True
    ):
        assert_close(one, other)
    person, tick, time = asked(grown, torch.zeros(25, dtype=torch.int64))
    received = grown.num_received(person, tick)
    assert_close(fading.of(person, received, time), anew.of(person, received, time))


def test_an_event_at_the_time_of_a_query_or_later_is_invisible_to_groups() -> None:
    grown = Timeline(graph_of(random_rows(6, users=6, events=50)))
    now = int(grown.events.time[-1]) + 5
    group, user = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    since = torch.tensor([2, 4])
    groups = GroupActivity(grown, group, user, since, since + 9, DecayedPopularity(grown, 2.0))
    groups = groups.follow(grown)
    query = torch.arange(2), grown.tick(torch.tensor([now, now])), torch.tensor([now, now])
    before = groups.activity(*query)
    zero = torch.zeros(2, dtype=torch.int64)
    grown.append(Events(zero, zero + 1, torch.tensor([now, now + 3]), zero))
    after = groups.follow(grown)
    assert all(torch.equal(one, other) for one, other in zip(before, after.activity(*query), strict=True))
    later = after.activity(query[0], query[1] + 1, query[2] + 1)
    assert (later[0] == torch.tensor([now, before[0][1]])).all()
    assert (later[1] == now).all()


def test_groups_do_not_follow_events_that_belong_to_their_sums() -> None:
    graph = graph_of([Row(0, 1, 5), Row(1, 2, 6), Row(1, 2, 6)], 3)
    grown, zero = index_of_first(graph, 2), torch.tensor([0])
    groups = GroupActivity(grown, zero, zero + 1, zero + 2, zero + 2, DecayedPopularity(grown, 2.0))
    grown.append(part_of(Timeline(graph).events, 2, 3))
    with pytest.raises(ValueError, match="before the `since` of a group"):
        groups.follow(grown)


# The head


def coded(name: str) -> MixtureRecommender[BoundCodeHead]:
    model = fresh(name)
    assert isinstance(model, MixtureRecommender)
    return model


def assert_alike(one: CodeHistory, other: CodeHistory) -> None:
    """Histories tell the same of codes, trees, and users without an STU; and of groups, to rounding."""
    assert torch.equal(one.tick, other.tick)
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.num_members, other.num_members)
    assert torch.equal(one.forest.place, other.forest.place)
    for tree, anew in zip(one.forest.trees, other.forest.trees, strict=True):
        assert torch.equal(tree.place, anew.place)
        assert tree.num_users == anew.num_users
    for number in range(-1, len(one.tick)):
        assert torch.equal(one.without_stu(number), other.without_stu(number))
    node = torch.arange(1, one.forest.num_nodes)
    for late in range(3):
        tick = torch.full_like(node, len(one._timeline.instants) - late)
        time = one._timeline.instants[tick - 1] + 1
        for part, expected in zip(
            one.activity(node, tick, time), other.activity(node, tick, time), strict=True
        ):
            assert_close(part, expected)


@pytest.mark.parametrize("name", CODED[:2])
@pytest.mark.parametrize("seed", range(4))
def test_a_head_that_follows_is_the_head_bound_to_all_events(name: str, seed: int) -> None:
    model, rows = coded(name), rows_with_newcomers()
    for start, end in pairwise(cuts(seed)):
        if start < end:
            append(model, rows, [start, end])
            head = model.head
            assert_alike(head.history, head.head.bind(model.view, model.network).history)


def test_the_head_is_bound_again_at_new_moments_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = coded("stu"), rows_with_newcomers()
    bound: list[int] = []
    bind = CodeHead.bind

    def counting(head: CodeHead, view: object, *args: object, **kwargs: object) -> BoundCodeHead:
        bound.append(model.graph.num_events)
        return bind(head, view, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(CodeHead, "bind", counting)
    quiet = moments = 0
    for end in range(FIRST, len(rows)):
        timeline, every = model.view.timeline, model.view.period.snapshot_events
        before, tick = snapshot_ticks(timeline, every), timeline.tick_of(torch.tensor([end - 1]))
        bound.clear()
        append(model, rows, [end, end + 1])
        timeline = model.view.timeline
        after = snapshot_ticks(timeline, every)
        same_tie = bool(timeline.tick_of(torch.tensor([end])) == tick)
        if len(after) > len(before) or (same_tie and int(before[-1]) == int(tick) + 1):
            moments += 1
            assert len(bound) == 1
        else:
            quiet += 1
            assert not bound
        assert model.head.history.tick[-1] == after[-1]
    assert min(quiet, moments) > 3


def test_the_head_that_was_followed_from_stays_as_it_was() -> None:
    model = coded("stu")
    append(model, ROWS, [FIRST, FIRST + 1])
    old = coded("stu")
    size = len(old.head.history.codes[0])
    head, codes = old.head, old.head.history.codes.clone()
    append(old, rows_with_newcomers(), [FIRST, len(ROWS)])
    assert len(old.head.history.codes[0]) > size
    assert torch.equal(head.history.codes, codes)
    assert head.history.forest.place.size(1) == size


@pytest.mark.parametrize("seed", range(6))
def test_newcomers_get_their_codes_however_many_events_come_at_once(seed: int) -> None:
    """Also where a moment falls into a tie of which only a part has been appended."""
    rng, rows, number = np.random.default_rng(seed), list(ROWS[:FIRST]), dict[int, int]()
    time = rows[-1].time
    for _ in range(36):
        time += DAY * int(rng.random() < 0.2)
        src, dst = rng.choice(12 + 8, 2, replace=False).tolist()
        users = (  # newcomers come in the order of their ids, so that these are in the order of indices
            user if user < 12 else number.setdefault(user, USERS + len(number)) for user in (src, dst)
        )
        rows.append(Row(*users, time, "call"))
    one_by_one, at_once = coded("stu_switched"), coded("stu_switched")
    append(one_by_one, rows, list(range(FIRST, len(rows) + 1)))
    append(at_once, rows, [FIRST, len(rows)])
    assert_alike(one_by_one.head.history, at_once.head.history)
    newcomers = one_by_one.head.history.codes[-1, USERS:]
    assert (newcomers >= 0).any()
