"""Fitted recommenders follow appended events: as if they had been put on a graph of all events."""

from __future__ import annotations

import copy
import threading
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from graphs import Row, random_rows
from recommenders import RECOMMENDERS, ROUNDING
from torch import Tensor

from graphrec.data import DataError, EventLog, FriendGraph, Query, UserTable
from graphrec.features.profiles import Profiles
from graphrec.models import HEURISTICS, Recommender
from graphrec.temporal import Timeline
from graphrec.temporal.follow import GrowingGraph

DAY = 86_400
UNTIL = 20 * DAY
USERS, NEWCOMERS = 14, 4
ROWS = random_rows(3, users=12, events=90, times=30, scale=DAY)
FIRST = sum(row.time < UNTIL for row in ROWS) + 3
"""Events of the graph of the fit: three after its end, in the middle of a tie."""

SPECTRAL = {
    "two_tower_mixture",
    "two_tower_switched",
    "stu",
    "stu_generator",
    "stu_hybrid",
    "clustered",
    "clustered_pointer",
    "clustered_only",
    "list_ranker",
}
"""Models with spectral embeddings, whose start depends on the users that there are."""

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def log_of(rows: list[Row], prefix: str = "p") -> EventLog:
    src, dst, time, action = zip(*rows, strict=True)
    return EventLog.from_arrays([f"{prefix}{x}" for x in src], [f"{prefix}{x}" for x in dst], time, action)


def first_graph(rows: list[Row] = ROWS, size: int = FIRST) -> FriendGraph:
    people = pa.table({"user": [f"p{x}" for x in range(USERS)]})
    return FriendGraph.from_events(log_of(rows[:size]), UserTable.from_table(people, where="the users"))


def rows_with_newcomers() -> list[Row]:
    """The rows, where later ones have users who were never seen before, and who meet each other too.

    Newcomers come in the order of their ids, so that they have the same indices however many come at once.
    """
    rng, rows = np.random.default_rng(1), list(ROWS[:FIRST])
    number: dict[int, int] = {}
    for row in ROWS[FIRST:]:
        src, dst = (
            user
            if rng.random() < 0.7
            else number.setdefault(int(rng.integers(NEWCOMERS)), USERS + len(number))
            for user in (row.src, row.dst)
        )
        rows.append(row if src == dst else Row(src, dst, row.time, row.action))
    assert len(number) == NEWCOMERS
    return rows


@cache
def shared(name: str) -> Recommender:
    """Fitted on the first events; not to be changed."""
    return RECOMMENDERS[name]().fit(first_graph(), until=UNTIL)


def fresh(name: str) -> Recommender:
    return shared(name).on(first_graph())


def cuts(seed: int) -> list[int]:
    sizes = np.random.default_rng(seed).integers(1, 9, size=len(ROWS))
    return [FIRST, *np.minimum(FIRST + np.cumsum(sizes), len(ROWS)).tolist()]


def append(model: Recommender, rows: list[Row], ends: list[int]) -> None:
    for start, end in pairwise(ends):
        if start < end:
            model.append(log_of(rows[start:end]))


def queries(num_users: int) -> Query:
    generator = torch.Generator().manual_seed(0)
    user = torch.randint(num_users, (12,), generator=generator)
    time = torch.randint(UNTIL // DAY, 32, (12,), generator=generator) * DAY
    time += torch.randint(0, 2, (12,), generator=generator)
    return Query(user, time, torch.randint(3, (12,), generator=generator))


def assert_alike(name: str, one: Recommender, other: Recommender) -> None:
    assert one.graph.num_users == other.graph.num_users
    query = queries(one.graph.num_users)
    close = {"rtol": ROUNDING[name], "atol": ROUNDING[name]}
    torch.testing.assert_close(one.score(query), other.score(query), **close)
    (users, scores), (others, expected) = one.recommend(query, 4), other.recommend(query, 4)
    torch.testing.assert_close(scores, expected, **close)
    differ = users != others
    assert bool((scores[differ] - expected[differ]).abs().max() < 1e-4) if bool(differ.any()) else True
    if name in HEURISTICS:
        assert torch.equal(users, others)


@pytest.fixture(params=RECOMMENDERS, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("seed", [0, 1])
def test_following_equals_being_put_on_all_events(name: str, seed: int) -> None:
    model = fresh(name)
    append(model, ROWS, cuts(seed))
    whole = first_graph(size=len(ROWS))
    assert model.graph.num_events == whole.num_events
    assert_alike(name, model, shared(name).on(whole))


def test_newcomers_are_followed(name: str) -> None:
    rows = rows_with_newcomers()
    model, at_once = fresh(name), fresh(name)
    append(model, rows, cuts(2))
    append(at_once, rows, [FIRST, len(rows)])
    assert model.graph.num_users == USERS + NEWCOMERS
    assert_alike(name, model, at_once)
    if name not in SPECTRAL:
        assert_alike(name, model, shared(name).on(copy.copy(model.graph)))


def test_questions_between_appends_change_nothing(name: str) -> None:
    rows = rows_with_newcomers()
    model, silent = fresh(name), fresh(name)
    for start, end in pairwise(cuts(3)):
        if start < end:
            model.append(log_of(rows[start:end]))
            query = queries(model.graph.num_users)
            model.score(query)
            model.recommend(query, 3)
    append(silent, rows, [FIRST, len(rows)])
    assert_alike(name, model, silent)


def test_events_of_a_query_s_own_time_and_later_are_invisible(name: str) -> None:
    rows = rows_with_newcomers()
    model = fresh(name)
    append(model, rows, [FIRST, 80])
    now = rows[79].time + 1
    user = torch.arange(USERS)
    query = Query(user, torch.full_like(user, now), torch.zeros_like(user))
    before = model.score(query).clone()
    later = [Row(src, (src + 3) % 12, now + late, "call") for late in (0, 5) for src in range(12)]
    model.append(log_of(later))
    torch.testing.assert_close(model.score(query), before, rtol=ROUNDING[name], atol=ROUNDING[name])
    if name != "random":
        after = Query(user, torch.full_like(user, now + 1), torch.zeros_like(user))
        assert not torch.equal(model.score(after), before)


# Errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([Row(1, 2, 3, "call")], "before the last event of the graph"),
        ([Row(1, 2, 99 * DAY, "wave")], "have an action 'wave'"),
    ],
)
def test_a_refused_log_changes_nothing(rows: list[Row], message: str) -> None:
    model = fresh("adamic_adar")
    append(model, ROWS, [FIRST, 80])
    graph, size = model.graph, len(Timeline.of(model.graph, follows=True).events)
    with pytest.raises(DataError, match=message):
        model.append(log_of(rows))
    assert model.graph is graph
    assert len(Timeline.of(graph, follows=True).events) == size
    append(model, ROWS, [80, len(ROWS)])
    assert_alike("adamic_adar", model, shared("adamic_adar").on(first_graph(size=len(ROWS))))


def test_a_model_that_cannot_follow_stays_as_it_was() -> None:
    model = fresh("stu")  # it has 16 STUs
    append(model, rows_with_newcomers(), cuts(4))
    query = queries(model.graph.num_users)
    graph, before = model.graph, model.score(query)
    crowd = [Row(30 + x, x % 12, 40 * DAY + x, "call") for x in range(20)]
    with pytest.raises(ValueError, match="users need an STU each"):
        model.append(log_of(crowd))
    assert model.graph is graph
    torch.testing.assert_close(model.score(query), before, rtol=1e-3, atol=1e-3)
    model.append(log_of([Row(1, 2, 40 * DAY, "call")]))


# Threads


def test_queries_of_other_threads_see_all_of_a_log_or_nothing() -> None:
    model = HEURISTICS["popularity"]().fit(first_graph(), until=UNTIL)
    user, errors, sums = torch.arange(12), list[Exception](), list[Tensor]()
    query = Query(user, torch.full_like(user, 10**9), torch.zeros_like(user))
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                sums.append(model.score(query).sum(1))
                model.recommend(query, 3)
        except Exception as error:  # to be raised in the main thread
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(60):
        block = [Row(x, (x + 1 + number % 5) % 12, (40 + number) * DAY, "text") for x in range(12)]
        newcomer = [Row(100 + number, x, (40 + number) * DAY, "text") for x in range(8)]
        model.append(log_of(block + newcomer))
    done.set()
    for thread in threads:
        thread.join()
    assert not errors
    # Each log has 20 events.
    assert {int(x) % 20 for part in sums for x in part.tolist()} == {FIRST % 20}
    assert len({float(part[0]) for part in sums}) > 1


def test_an_append_inside_a_query_is_refused() -> None:
    model = HEURISTICS["popularity"]().fit(first_graph(), until=UNTIL)
    with model.graph.guard.reading(), pytest.raises(RuntimeError, match="inside a query"):
        model.append(log_of([Row(1, 2, 99 * DAY, "call")]))
    model.append(log_of([Row(1, 2, 99 * DAY, "call")]))


def test_profiles_with_join_times_keep_no_part_of_a_growing_index() -> None:
    """Otherwise each append would copy the index."""
    people = UserTable.from_table(
        pa.table(
            {
                "user": [f"p{x}" for x in range(12)],
                "age": [float(x) for x in range(12)],
                "join_time": [0] * 12,
            }
        ),
        where="the users",
    )
    graph = FriendGraph.from_events(log_of(ROWS[:60]), people)
    growing = GrowingGraph(graph)
    first = growing.timeline
    for row in ROWS[60:64]:
        known = Profiles.of(growing.append(log_of([row])), until=UNTIL)
        assert known is not None
        assert not known.may_change
    assert growing.timeline is first
    assert growing.graph.impressions == ()
    assert growing.graph.weights() is None
    assert growing.graph._unmade_edges is not None  # neither has made the edges


def test_profiles_may_change_until_all_users_have_an_event_or_a_join_time() -> None:
    people = UserTable.from_table(
        pa.table({"user": ["p0", "late"], "age": [1.0, 2.0], "join_time": [5, None]}), where="the users"
    )
    growing = GrowingGraph(FriendGraph.from_events(log_of(ROWS[:60]), people))
    before = Profiles.of(growing.graph, until=UNTIL)
    assert before is not None
    assert before.may_change
    log = EventLog.from_arrays(["late"], ["p0"], [40 * DAY], ["call"])
    after = Profiles.of(growing.append(log), until=UNTIL)
    assert after is not None
    assert not after.may_change
