"""The two questions: who is next, and with whom an outcome begins within a horizon."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recommenders import RECOMMENDERS

from graphrec.data import EventLog, FriendGraph, Query
from graphrec.evaluate import evaluate_lists
from graphrec.models import (
    HEURISTICS,
    FriendRecommender,
    ListRanker,
    TwoTower,
    WindowConfig,
    query_for,
    suggest,
)
from graphrec.nn.window import log_probability
from tests.graphs import Row, checked, graph_of, random_rows

DAY = 86_400
USERS = 20
UNTIL = 60 * DAY
ROWS = random_rows(3, users=USERS, events=300, times=100, scale=DAY, actions=("text",))
SMALL = WindowConfig(hidden_channels=8, max_epochs=2)


@pytest.fixture(scope="module")
def friends() -> FriendRecommender:
    model = RECOMMENDERS["friend_recommender"]().fit(graph_of(ROWS, USERS), until=UNTIL)
    assert isinstance(model, FriendRecommender)
    return model


def asked(graph: FriendGraph, time: int = 80 * DAY) -> Query:
    return Query.of(graph, torch.arange(graph.num_users), time)


# Queries


def test_horizons_go_along_with_rows_and_times() -> None:
    query = asked(graph_of(ROWS, USERS))
    assert query.horizon is None
    assert query.outcome is None
    each = query.within(torch.arange(1, USERS + 1), "tie")
    assert each[torch.tensor([3, 1])].horizon.tolist() == [4, 2]  # type: ignore[union-attr]
    assert each[5:7].outcome == "tie"
    assert each.at(5).horizon is not None
    assert query.within(7, "initiation").horizon.tolist() == [7] * USERS  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("horizon", "outcome", "message"),
    [
        (0, "tie", "horizon"),
        (-5, "tie", "horizon"),
        (1.5, "tie", "horizon"),
        (True, "tie", "horizon"),
        (torch.zeros(USERS, dtype=torch.int64), "tie", "horizon"),
        (torch.ones(3, dtype=torch.int64), "tie", "horizon"),
        (torch.ones(USERS), "tie", "horizon"),
        (10**15, "tie", "horizon"),
        (5, "friend", "outcome"),
        (5, None, "belong together"),
    ],
)
def test_wrong_horizons_and_outcomes_are_named(horizon: object, outcome: object, message: str) -> None:
    query = asked(graph_of(ROWS, USERS))
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        query.within(horizon, outcome)  # type: ignore[arg-type]


def test_an_outcome_needs_a_horizon() -> None:
    query = asked(graph_of(ROWS, USERS))
    with pytest.raises(ValueError, match="belong together"):
        Query(query.user, query.time, query.action, outcome="tie")


# Probabilities


@checked
@given(st.floats(-40.0, 15.0), st.floats(0.01, 100.0))
def test_an_outcome_comes_at_a_constant_rate(logit: float, length: float) -> None:
    stays_away = 1 / (1 + math.exp(logit))
    expected = -math.expm1(length * math.log(stays_away)) if logit > -30 else length * math.exp(logit)
    found = log_probability(torch.tensor([logit]), torch.tensor([length], dtype=torch.float64))
    assert float(found) == pytest.approx(math.log(expected), rel=1e-4, abs=1e-5)


def test_longer_horizons_are_likelier_in_the_same_order(friends: FriendRecommender) -> None:
    query = asked(friends.graph)
    users, scores = friends.recommend(query.within(DAY, "tie"), 5)
    later_users, later_scores = friends.recommend(query.within(9 * DAY, "tie"), 5)
    likely = scores > -40  # the others are no candidates, and are ordered by popularity
    assert bool(likely.any())
    assert torch.equal(users[likely], later_users[likely])
    assert bool((later_scores[likely] > scores[likely]).all())
    assert bool((later_scores[likely] <= 0).all())


def pace(model: ListRanker, time: int, horizon: int) -> float:
    return float(model._lengths(Query.of(model.graph, [0], time).within(horizon, "tie")))


def test_the_pace_is_that_of_as_long_a_time_before(friends: FriendRecommender) -> None:
    model, times = friends.lists, friends.graph.events().time
    for days in (1, 4, 30):
        time, horizon = 70 * DAY, days * DAY
        before = int(((times < time) & (times >= time - horizon)).sum())
        assert pace(model, time, horizon) == pytest.approx(max(before, 1) / model._window)
    first = int(times[0])
    # Longer than the log: its whole pace.
    before = int((times < 70 * DAY).sum())
    expected = before * 700 * DAY / (70 * DAY - first) / model._window
    assert pace(model, 70 * DAY, 700 * DAY) == pytest.approx(expected)
    assert pace(model, 10**6 * DAY, DAY) == pytest.approx(1 / model._window)  # a network gone quiet
    assert pace(model, first, DAY) > 0


def test_events_from_the_query_on_change_no_list_for_a_horizon(friends: FriendRecommender) -> None:
    time = 80 * DAY
    past = [row for row in ROWS if row.time < time]
    for delay in (0, 1):
        planted = [Row(one, (one + 7) % USERS, time + delay, "text") for one in range(USERS)]
        before, other = (friends.on(graph_of(rows, USERS)) for rows in (past, [*past, *planted]))
        for outcome in ("initiation", "tie"):
            found = [m.recommend(asked(m.graph, time).within(5 * DAY, outcome), 19) for m in (before, other)]  # type: ignore[arg-type]
            torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-5)
            assert torch.equal(found[0][0], found[1][0])


# The default


def test_each_question_goes_to_its_model(friends: FriendRecommender) -> None:
    query = asked(friends.graph)
    ahead = query.within(4 * DAY, "initiation")
    assert torch.equal(friends.score(query), friends.next_act.score(query))
    assert torch.equal(friends.score(ahead), friends.lists.score(ahead))
    for one, model in ((query, friends.next_act), (ahead, friends.lists)):
        for found, expected in zip(friends.recommend(one, 5), model.recommend(one, 5), strict=True):
            assert torch.equal(found, expected)
    assert friends.num_parameters == friends.next_act.num_parameters + friends.lists.num_parameters
    assert friends.curve == friends.next_act.curve
    assert friends.default_outcome == "tie"


def test_only_these_models_are_combined() -> None:
    with pytest.raises(TypeError, match="ListRanker"):
        FriendRecommender(TwoTower(progress=False), HEURISTICS["popularity"]())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="MixtureRecommender"):
        FriendRecommender(HEURISTICS["popularity"](), ListRanker())  # type: ignore[arg-type]


def test_a_saved_default_keeps_its_question(friends: FriendRecommender, tmp_path: Path) -> None:
    friends.save(tmp_path)
    loaded = FriendRecommender.load(tmp_path, friends.graph)
    assert loaded.default_horizon == friends.default_horizon is not None
    assert loaded.default_outcome == friends.default_outcome
    assert loaded.fitted_until == UNTIL
    ahead = asked(friends.graph).within(4 * DAY, "tie")
    torch.testing.assert_close(loaded.score(ahead), friends.score(ahead))


def test_without_answers_lists_are_for_initiations() -> None:
    rows = [row for row in ROWS if row.src < row.dst]
    model = ListRanker(config=SMALL).fit(graph_of(rows, USERS), until=UNTIL)
    assert model.default_outcome == "initiation"
    assert ListRanker("tie", SMALL).fit(graph_of(rows, USERS), until=UNTIL).default_outcome == "tie"


def test_lists_are_judged_by_the_question_they_answer(friends: FriendRecommender) -> None:
    found = evaluate_lists(friends, friends.graph, progress=False, in_sample=True)
    alone = evaluate_lists(friends.lists, friends.graph, progress=False, in_sample=True)
    assert torch.equal(found.lists.person, alone.lists.person)


# What users ask


def test_suggestions_are_for_the_time_that_follows(friends: FriendRecommender) -> None:
    query = query_for(friends, [0, 1])
    assert query.horizon.tolist() == [friends.default_horizon] * 2  # type: ignore[union-attr]
    assert query.outcome == "tie"
    assert query_for(friends, [0], horizon=5).outcome == "tie"
    other = query_for(friends, [0], outcome="initiation")
    assert (other.outcome, int(other.horizon)) == ("initiation", friends.default_horizon)  # type: ignore[arg-type]
    assert query_for(friends, [0], now=True).horizon is None
    now, ahead = suggest(friends, [0], now=True)[0], suggest(friends, [0])[0]
    assert now.scores != ahead.scores


def test_questions_that_contradict_each_other_are_named(friends: FriendRecommender) -> None:
    with pytest.raises(ValueError, match="now asks"):
        suggest(friends, [0], now=True, horizon=5)
    with pytest.raises(ValueError, match="now asks"):
        suggest(friends, [0], now=True, outcome="tie")
    rule = HEURISTICS["popularity"]().fit(friends.graph, until=UNTIL)
    with pytest.raises(ValueError, match="popularity knows only the next act"):
        suggest(rule, [0], horizon=5)
    assert query_for(rule, [0]).horizon is None
    with pytest.raises((TypeError, ValueError), match="horizon"):
        suggest(friends, [0], horizon=0)


def test_appended_events_are_seen_by_both_models() -> None:
    graph = graph_of([row for row in ROWS if row.time < 80 * DAY], USERS)
    model = RECOMMENDERS["friend_recommender"]().fit(graph, until=UNTIL)
    log = EventLog.from_arrays([0, 1, 97], [97, 98, 0], [80 * DAY, 80 * DAY + 5, 80 * DAY + 5], ["text"] * 3)
    anew = model.on(graph.with_events(log))
    model.append(log)
    ids = anew.graph.user_ids
    for one in ([*range(USERS), 97, 98],):
        for question in ({"now": True}, {"horizon": 3 * DAY}):
            first, second = (
                m.score(query_for(m, one, **question))
                for m in (model, anew)  # type: ignore[arg-type]
            )
            order = ids.index(model.graph.user_ids.lookup(torch.arange(model.graph.num_users)))
            torch.testing.assert_close(first, second[:, order], rtol=1e-4, atol=1e-4)
