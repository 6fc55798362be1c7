"""The strictly-past index against naive loops over the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from graphs import ACTIONS, Row, checked, graph_of, logs, permuted, random_rows, shuffled_in_ties
from hypothesis import given
from hypothesis import strategies as st
from readable_features import first_contact_time
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.temporal import NEVER, Contacts, DecayedPopularity, Timeline, dense, ragged

USERS = 6
"""One more than the logs have: the last user never has an event."""

MOMENTS = list(range(-4, 9))
"""Before, at, between and after all times of the logs."""

PairState = tuple[int, int, int, int]
"""last_out, last_in, num_out, num_in"""


class Naive:
    """What is known strictly before a moment, by looping over the rows."""

    def __init__(self, rows: Sequence[Row], time: int) -> None:
        self.past = [row for row in rows if row.time < time]
        self.time = time

    def acts(self, user: int) -> list[int]:
        return [row.time for row in self.past if row.src == user]

    def received(self, user: int) -> list[int]:
        return [row.time for row in self.past if row.dst == user]

    def met(self, user: int) -> set[int]:
        return self.approached(user) | {row.src for row in self.past if row.dst == user}

    def approached(self, user: int) -> set[int]:
        return {row.dst for row in self.past if row.src == user}

    def popularity(self, user: int, half_life: float) -> float:
        return sum(0.5 ** ((self.time - then) / half_life) for then in self.received(user))

    def pair(self, user: int, other: int) -> PairState:
        out = [row.time for row in self.past if (row.src, row.dst) == (user, other)]
        back = [row.time for row in self.past if (row.src, row.dst) == (other, user)]
        return max(out, default=NEVER), max(back, default=NEVER), len(out), len(back)

    def pairs(self, user: int) -> dict[int, PairState]:
        return {other: self.pair(user, other) for other in self.met(user)}

    def half_edges(self, user: int) -> Counter[tuple[int, int, bool, str]]:
        out = Counter((r.time, r.dst, True, r.action) for r in self.past if r.src == user)
        out.update((r.time, r.src, False, r.action) for r in self.past if r.dst == user)
        return out


def grid(rows: Sequence[Row]) -> list[list[tuple[Naive, int]]]:
    """Every moment and every user."""
    return [[(naive, user) for user in range(USERS)] for naive in (Naive(rows, t) for t in MOMENTS)]


def index_of(rows: Sequence[Row]) -> tuple[FriendGraph, Timeline]:
    graph = graph_of(rows, USERS)
    return graph, Timeline(graph)


def half_edges(timeline: Timeline, graph: FriendGraph, half: Tensor) -> list[tuple[int, int, bool, str]]:
    """(time, other, outgoing, action) of half-edges."""
    event = timeline.event_of(half)
    columns = (timeline.events.time[event], timeline.other_of(half), timeline.is_outgoing(half))
    names = [graph.actions[code] for code in timeline.events.action[event].tolist()]
    return list(zip(*(column.tolist() for column in columns), names, strict=True))


def states(found: Contacts, row: int) -> dict[int, PairState]:
    """The state of every pair of one row."""
    here = found.row == row
    columns = (found.last_out, found.last_in, found.num_out, found.num_in)
    values = zip(*(column[here].tolist() for column in columns), strict=True)
    users = found.user[here].tolist()
    assert len(set(users)) == len(users)
    return dict(zip(users, values, strict=True))


# Look-ups of users


@checked
@given(logs())
def test_lookups_equal_the_naive_loops(rows: list[Row]) -> None:
    _, timeline = index_of(rows)
    tick = timeline.tick(torch.tensor(MOMENTS))
    assert tick.tolist() == [len({row.time for row in rows if row.time < t}) for t in MOMENTS]
    user = torch.arange(USERS)
    for call, naive in (
        (timeline.num_acts, lambda past, u: len(past.acts(u))),
        (timeline.num_received, lambda past, u: len(past.received(u))),
        (timeline.last_act, lambda past, u: max(past.acts(u), default=NEVER)),
        (timeline.last_received, lambda past, u: max(past.received(u), default=NEVER)),
        (timeline.degree, lambda past, u: len(past.met(u))),
        (timeline.acted_on.count, lambda past, u: len(past.approached(u))),
        (timeline.half_edges.count, lambda past, u: len(past.acts(u)) + len(past.received(u))),
        (timeline.first_event_time, lambda past, u: min(past.acts(u) + past.received(u), default=NEVER)),
        (lambda u, t: timeline.counts(u, t)[0], lambda past, u: len(past.acts(u))),
        (lambda u, t: timeline.counts(u, t)[1], lambda past, u: len(past.received(u))),
    ):
        assert call(user, tick[:, None]).tolist() == [[naive(*cell) for cell in line] for line in grid(rows)]


@checked
@given(logs())
def test_first_meetings_equal_the_naive_loop(rows: list[Row]) -> None:
    _, timeline = index_of(rows)
    user, tick = torch.arange(USERS), timeline.tick(torch.tensor(99))
    found = timeline.distinct_contacts(user, tick.expand(USERS))
    naive = [
        min(r.time for r in rows if {r.src, r.dst} == {int(u), int(v)})
        for u, v in zip(found.row, found.user, strict=True)
    ]
    assert first_contact_time(timeline, found.half_edge).tolist() == naive


@checked
@given(logs(), st.sampled_from([0.05, 0.7, 3.0, 1000.0]))
def test_recent_popularity_equals_the_naive_loop(rows: list[Row], half_life: float) -> None:
    _, timeline = index_of(rows)
    times = torch.tensor(MOMENTS)
    user, time = torch.arange(USERS).repeat(len(MOMENTS)), times.repeat_interleave(USERS)
    received = timeline.num_received(user, timeline.tick(time))
    found = DecayedPopularity(timeline, half_life).of(user, received, time)
    naive = [[past.popularity(user, half_life) for past, user in line] for line in grid(rows)]
    torch.testing.assert_close(
        found.view(-1, USERS), torch.tensor(naive, dtype=torch.float64), rtol=1e-12, atol=1e-18
    )


# Sweeps over everyone


@checked
@given(logs(), st.lists(st.sampled_from(MOMENTS), min_size=1).map(sorted))
def test_sweeps_equal_the_lookups(rows: list[Row], moments: list[int]) -> None:
    _, timeline = index_of(rows)
    ticks = timeline.tick(torch.tensor(moments))
    user, column = torch.arange(USERS), ticks[:, None]
    last_act, last_received = timeline.last_act(user, column), timeline.last_received(user, column)
    for found, expected in (
        (dense.num_received(timeline, ticks), timeline.num_received(user, column).double()),
        (dense.num_acts(timeline, ticks), timeline.num_acts(user, column).double()),
        (dense.degree(timeline, ticks), timeline.degree(user, column).double()),
        (dense.last_time(timeline, ticks, role="src"), last_act),
        (dense.last_time(timeline, ticks, role="dst"), last_received),
        (dense.last_time(timeline, ticks, role="either"), torch.maximum(last_act, last_received)),
    ):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


@checked
@given(
    logs(),
    st.lists(st.sampled_from(MOMENTS), min_size=1).map(sorted),
    st.sampled_from([1, 3600, 10**6]),
    st.sampled_from([0.7, 3000.0]),
)
def test_sweep_of_recent_popularity_equals_the_naive_loop(
    rows: list[Row], moments: list[int], scale: int, half_life: float
) -> None:
    rows = [row._replace(time=row.time * scale) for row in rows]
    times = [moment * scale for moment in moments]  # up to 10^7 half-lives apart
    naive = [[Naive(rows, t).popularity(user, half_life) for user in range(USERS)] for t in times]
    for spacing in (1, 1000):  # with and without totals kept on the way: there are but few users
        found = recent_popularity(rows, times, half_life, spacing)
        torch.testing.assert_close(found, torch.tensor(naive, dtype=torch.float64), rtol=1e-9, atol=1e-300)


def recent_popularity(rows: list[Row], times: list[int], half_life: float, spacing: int) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "MIN_EVENTS_BETWEEN_TOTALS", spacing)
        return dense.PopularitySweep(index_of(rows)[1], half_life).at(torch.tensor(times))


@pytest.mark.parametrize("seed", range(3))
def test_kept_totals_tell_nothing_of_the_order_of_tied_rows(seed: int) -> None:
    """Bit by bit, so that who is equally popular stays so; and nothing of what comes later."""
    rows = random_rows(seed, users=USERS, events=200, times=12)
    times = [3, 7, 7, 11, 30]
    found = recent_popularity(rows, times, 1.7, 1)
    assert torch.equal(recent_popularity(shuffled_in_ties(rows, seed), times, 1.7, 1), found)
    past = [row for row in rows if row.time < times[0]]
    assert torch.equal(recent_popularity(past, times[:1], 1.7, 1), found[:1])


@checked
@given(logs(), st.lists(st.sampled_from(MOMENTS), min_size=1).map(sorted), st.integers(0, 99))
def test_contact_graph_spreads_over_the_contacts_of_each_moment(
    rows: list[Row], moments: list[int], seed: int
) -> None:
    _, timeline = index_of(rows)
    ticks = timeline.tick(torch.tensor(moments))
    graph = dense.ContactGraph(timeline, ticks)
    met = [[Naive(rows, t).met(user) for user in range(USERS)] for t in moments]
    for draw in range(2):  # a map may be used again
        generator = torch.Generator().manual_seed(seed + draw)
        amounts = torch.randint(-9, 9, (USERS, len(moments)), generator=generator).double()
        naive = [
            [sum(amounts[v, column].item() for v in met[column][user]) for column in range(len(moments))]
            for user in range(USERS)
        ]
        assert graph.spread(amounts).tolist() == naive
    fresh = sum(len(late) - len(early) for early, late in zip(met[0], met[-1], strict=True))
    assert dense.ContactGraph.num_fresh(timeline, ticks) == fresh


# People of a timeline


@checked
@given(logs())
def test_prefixes_equal_the_naive_sets(rows: list[Row]) -> None:
    _, timeline = index_of(rows)
    cells = [cell for line in grid(rows) for cell in line]
    user = torch.tensor([user for _, user in cells])
    tick = timeline.tick(torch.tensor([past.time for past, _ in cells]))
    for adjacency, naive in ((timeline.contacts, Naive.met), (timeline.acted_on, Naive.approached)):
        row, person = adjacency.before(user, tick)
        assert torch.equal(row, row.sort().values)
        found: list[list[int]] = [[] for _ in cells]
        for place, other in zip(row.tolist(), person.tolist(), strict=True):
            found[place].append(other)
        assert [sorted(people) for people in found] == [sorted(naive(*cell)) for cell in cells]


@checked
@given(logs())
def test_chronological_first_contacts(rows: list[Row]) -> None:
    _, timeline = index_of(rows)
    first: dict[tuple[int, int], int] = {}
    for row in sorted(rows, key=lambda row: row.time):
        for pair in ((row.src, row.dst), (row.dst, row.src)):
            first.setdefault(pair, row.time)
    tick, owner, other = timeline.contacts.chronological
    assert torch.equal(tick, tick.sort().values)
    pairs = list(zip(owner.tolist(), other.tolist(), strict=True))
    assert len(pairs) == len(first)
    assert dict(zip(pairs, timeline.instants[tick].tolist(), strict=True)) == first


@checked
@given(logs(), st.sampled_from([1, 2, 3, 5, 100]))
def test_last_contacts_are_the_latest(rows: list[Row], k: int) -> None:
    graph, timeline = index_of(rows)
    for line in grid(rows)[::2]:
        tick = timeline.tick(torch.full((USERS,), line[0][0].time))
        row, half = timeline.last_half_edges(torch.arange(USERS), tick, k)
        for past, user in line:
            found = half_edges(timeline, graph, half[row == user])
            everything = past.half_edges(user)
            times = sorted((then for then, *_ in everything.elements()), reverse=True)
            assert [then for then, *_ in found] == times[:k]
            assert Counter(found) <= everything  # a tie at the end may be cut anywhere


@checked
@given(logs(), st.sampled_from([None, 1, 2, 3]), st.sampled_from([None, 1, 2, 4, 7]))
def test_distinct_contacts_equal_the_naive_loop(rows: list[Row], k: int | None, window: int | None) -> None:
    graph, timeline = index_of(rows)
    for line in grid(rows)[::2]:
        user, tick = torch.arange(USERS), timeline.tick(torch.full((USERS,), line[0][0].time))
        found = timeline.distinct_contacts(user, tick, k=k, window=window)
        assert len(found) == len(found.row)
        assert torch.equal(found.row, found.row.sort().values)
        near_row, near = timeline.last_half_edges(user, tick, len(rows) * 2 if window is None else window)
        for past, asking in line:
            pairs = past.pairs(asking)
            seen = {other for _, other, *_ in half_edges(timeline, graph, near[near_row == asking])}
            people = states(found, asking)
            assert people == {other: pairs[other] for other in people}
            assert people.keys() <= seen
            assert len(people) == (len(seen) if k is None else min(k, len(seen)))
            moments = {other: max(pairs[other][:2]) for other in seen}
            latest = sorted(moments.values(), reverse=True)
            assert [moments[other] for other in people] == latest[: len(people)]
            here = found.row == asking
            assert found.rank[here].tolist() == [sum(m > moments[v] for m in latest) for v in people]
            contact = half_edges(timeline, graph, found.half_edge[here])
            assert [(then, other) for then, other, *_ in contact] == [(moments[v], v) for v in people]
            assert Counter(contact) <= past.half_edges(asking)


@checked
@given(logs(), st.lists(st.tuples(st.integers(0, USERS - 1), st.sampled_from(MOMENTS)), min_size=1))
def test_a_batch_equals_its_rows(rows: list[Row], asked: list[tuple[int, int]]) -> None:
    """In any order of time, with repeated questions."""
    _, timeline = index_of(rows)
    user, time = torch.tensor(asked).T.contiguous()
    tick = timeline.tick(time)
    for options in ({}, {"k": 2}, {"window": 3}, {"k": 2, "window": 4}):
        batch = timeline.distinct_contacts(user, tick, **options)
        for place in range(len(asked)):
            single = timeline.distinct_contacts(user[[place]], tick[[place]], **options)
            here = batch.row == place
            for name in ("user", "last_out", "last_in", "num_out", "num_in", "rank", "half_edge"):
                assert torch.equal(getattr(batch, name)[here], getattr(single, name)), name


def test_no_questions() -> None:
    timeline = index_of([Row(0, 1, 5)])[1]
    none = torch.zeros(0, dtype=torch.int64)
    assert len(timeline.distinct_contacts(none, none, k=3, window=3)) == 0
    assert timeline.last_half_edges(none, none, 3)[0].tolist() == []
    assert timeline.contacts.before(none, none)[0].tolist() == []
    assert timeline.num_acts(none, none).tolist() == timeline.last_act(none, none).tolist() == []


# Strictly past


@pytest.mark.parametrize("time", [-7, 0, 7])
def test_an_event_at_the_time_itself_or_later_is_invisible(time: int) -> None:
    """User 1 acts on 0 just before, user 2 at the time itself, user 3 later."""
    rows = [Row(1, 0, time - 1), Row(2, 0, time), Row(0, 4, time), Row(3, 0, time + 1)]
    _, timeline = index_of(rows)
    user, times = torch.tensor([0]), torch.tensor([time])
    tick = timeline.tick(times)
    assert timeline.num_received(user, tick).tolist() == [1]
    assert timeline.num_acts(user, tick).tolist() == [0]
    assert timeline.last_received(user, tick).tolist() == [time - 1]
    assert timeline.last_act(user, tick).tolist() == [NEVER]
    assert timeline.degree(user, tick).tolist() == [1]
    assert DecayedPopularity(timeline, 1.0).of(user, timeline.num_received(user, tick), times).tolist() == [
        0.5
    ]
    assert timeline.contacts.before(user, tick)[1].tolist() == [1]
    assert timeline.acted_on.before(user, tick)[1].tolist() == []
    assert len(timeline.last_half_edges(user, tick, 9)[1]) == 1
    assert states(timeline.distinct_contacts(user, tick), 0) == {1: (NEVER, time - 1, 0, 1)}
    assert states(timeline.distinct_contacts(user, tick + 1), 0).keys() == {1, 2, 4}
    assert dense.num_received(timeline, tick)[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert dense.degree(timeline, tick)[0].tolist() == [1, 1, 0, 0, 0, 0]
    assert dense.last_time(timeline, tick, role="src")[0].tolist() == [NEVER, time - 1] + [NEVER] * 4
    assert dense.PopularitySweep(timeline, 1.0).at(times)[0].tolist() == [0.5, 0, 0, 0, 0, 0]
    one = torch.ones(USERS, 1, dtype=torch.float64)
    assert dense.ContactGraph(timeline, tick).spread(one)[:, 0].tolist() == [1, 1, 0, 0, 0, 0]


@checked
@given(logs(), st.sampled_from(MOMENTS))
def test_the_index_of_a_snapshot_answers_alike(rows: list[Row], time: int) -> None:
    graph, whole = index_of(rows)
    past = graph.snapshot(time)
    if not past.num_events:
        return
    cut = Timeline(past)
    user = torch.arange(USERS)
    times = torch.full((USERS,), time)
    for k in (None, 2):
        one, other = (
            index.distinct_contacts(user, index.tick(times), k=k, window=4) for index in (whole, cut)
        )
        for name in ("row", "user", "last_out", "last_in", "num_out", "num_in", "rank"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


# Ties and names


def story(timeline: Timeline, user: int, tick: int, k: int) -> list[tuple[object, ...]]:
    """The last k half-edges of a user by content: everything known of them but who the other person is."""
    _, half = timeline.last_half_edges(torch.tensor([user]), torch.tensor([tick]), k)
    event = timeline.event_of(half)
    other = timeline.other_of(half)
    moment = timeline.event_tick[event]
    counts = torch.from_numpy(timeline.columns.pair)[event, :2]
    counts = torch.where(timeline.is_outgoing(half)[:, None], counts, counts.flip(-1))
    last = torch.maximum(timeline.last_act(other, moment), timeline.last_received(other, moment))
    columns = (
        moment,
        timeline.is_outgoing(half),
        timeline.events.action[event],
        *counts.T,
        timeline.half_edges.count(other, moment),
        last,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@checked
@given(logs(times=(0, 3)), st.integers(0, 999), st.sampled_from([1, 2, 3, 100]))
def test_the_order_of_tied_rows_leaves_no_trace(rows: list[Row], seed: int, k: int) -> None:
    one, other = (index_of(log)[1] for log in (rows, shuffled_in_ties(rows, seed)))
    num_ticks = one.instants.numel()
    for user in range(USERS):
        for tick in range(num_ticks + 1):
            assert story(one, user, tick, k) == story(other, user, tick, k)
    user = torch.arange(USERS).repeat(num_ticks + 1)
    tick = torch.arange(num_ticks + 1).repeat_interleave(USERS)
    a, b = (index.distinct_contacts(user, tick) for index in (one, other))
    for row in range(len(user)):
        assert states(a, row) == states(b, row)


@checked
@given(logs(times=(0, 3)), st.permutations(range(USERS)), st.sampled_from([1, 2, 3, 100]))
def test_new_names_permute_the_answers(rows: list[Row], new_id: list[int], k: int) -> None:
    one, other = (index_of(log)[1] for log in (rows, permuted(rows, new_id)))
    renamed = torch.tensor(new_id)
    user, ticks = torch.arange(USERS), torch.arange(one.instants.numel() + 1)
    for name in ("num_acts", "num_received", "last_act", "last_received", "degree"):
        assert torch.equal(
            getattr(one, name)(user, ticks[:, None]), getattr(other, name)(renamed, ticks[:, None])
        ), name
    for tick in ticks.tolist():
        a = one.distinct_contacts(user, torch.full((USERS,), tick))
        b = other.distinct_contacts(renamed, torch.full((USERS,), tick))
        for person in range(USERS):
            assert {new_id[v]: state for v, state in states(a, person).items()} == states(b, person)
            assert story(one, person, tick, k) == story(other, new_id[person], tick, k)


# The index of a graph


def test_the_index_is_built_once() -> None:
    graph = graph_of(random_rows(0))
    assert Timeline.of(graph) is Timeline.of(graph)
    assert Timeline.of(graph) is not Timeline.of(graph_of(random_rows(0)))
    assert Timeline.of(graph.snapshot(5)) is not Timeline.of(graph)
    assert len(Timeline.of(graph.snapshot(5)).events) < len(graph.events())


@pytest.mark.parametrize("key", ["time", "edge_index", "event_id"])
def test_the_index_is_built_again_for_new_tensors(key: str) -> None:
    rows = [Row(0, 1, 1, "call"), Row(1, 2, 1, "call"), Row(2, 0, 1, "poke"), Row(0, 2, 1, "poke")]
    graph = graph_of(rows)
    before = Timeline.of(graph)
    call, poke = (graph[USER, name, USER] for name in ("call", "poke"))
    if key == "time":
        poke.time = poke.time + 5
    elif key == "edge_index":
        call.edge_index = call.edge_index.flip(0)
    else:
        call.event_id, poke.event_id = poke.event_id, call.event_id
    after = Timeline.of(graph)
    assert after is not before
    now = graph.events()
    assert all(
        torch.equal(getattr(after.events, k), getattr(now, k)) for k in ("src", "dst", "time", "action")
    )
    assert Timeline.of(graph) is after


def test_the_index_is_built_again_for_new_users() -> None:
    graph = graph_of([Row(0, 1, 1)])
    assert Timeline.of(graph).num_users == 2
    graph[USER].num_nodes = 3
    assert Timeline.of(graph).num_users == 3


def test_one_event_and_a_user_without() -> None:
    _, timeline = index_of([Row(2, 1, 0)])
    user, tick = torch.arange(USERS), timeline.tick(torch.tensor(1))
    assert timeline.num_acts(user, tick).tolist() == [0, 0, 1, 0, 0, 0]
    assert timeline.last_act(user, tick).tolist() == [NEVER, NEVER, 0, NEVER, NEVER, NEVER]
    assert timeline.last_received(user, tick).tolist() == [NEVER, 0, NEVER, NEVER, NEVER, NEVER]
    found = timeline.distinct_contacts(user, tick.expand(USERS))
    assert (found.row.tolist(), found.user.tolist()) == ([1, 2], [2, 1])


def test_ragged() -> None:
    row, position = ragged(torch.tensor([3, 5, 0]), torch.tensor([5, 4, 3]))
    assert row.tolist() == [0, 0, 2, 2, 2]
    assert position.tolist() == [3, 4, 0, 1, 2]


def test_the_logs_of_these_tests_have_what_they_test() -> None:
    rows = random_rows(1)
    assert len({row.time for row in rows}) < len(rows) / 2
    assert {row.action for row in rows} == set(ACTIONS)
    pairs = {(row.src, row.dst) for row in rows}
    assert any((v, u) in pairs for u, v in pairs)


def test_a_log_without_events_is_an_index_of_nothing() -> None:
    graph = graph_of([Row(0, 1, 5)], USERS)
    timeline = Timeline.of(graph.select_events(torch.tensor([False])))
    users = torch.arange(USERS)
    tick = timeline.tick(torch.full((USERS,), 9))
    known = timeline.activity(users, tick)
    assert not (known.num_acts + known.num_received + known.degree).any()
    assert (
        torch.stack([known.last_act, known.last_received, timeline.first_event_time(users, tick)]) == NEVER
    ).all()
    assert not len(timeline.distinct_contacts(users, tick))
    assert not len(timeline.recently_seen(tick, k=3, window=5)[0])
    assert not dense.PopularitySweep(timeline, 9.0).at(torch.tensor([3, 9])).any()
    assert not DecayedPopularity(timeline, 9.0).of(users, known.num_received, torch.full((USERS,), 9)).any()
