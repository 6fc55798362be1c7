"""`WindowOracle`: what it expects of a window is what many simulated futures bring, from earlier events."""

from __future__ import annotations

import copy
from functools import cache, partial

import numpy as np
import pytest
import torch

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import World
from graphrec.datasets.simulation import Simulation
from graphrec.datasets.world import HOUR_SECONDS, START_TIME
from graphrec.evaluate import ListOutcomes, ListQuestions, evaluate_lists
from graphrec.models import HEURISTICS, WindowOracle
from graphrec.temporal import Timeline

HOURS, NUM_FUTURES, NUM_USERS = 24, 80, 120
START = START_TIME + 150 * HOUR_SECONDS


@cache
def past() -> Simulation:
    """A world of 120 users after 150 of 240 hours."""
    generator = torch.Generator().manual_seed(0)
    world = World.draw(NUM_USERS, num_days=10, without=(), generator=generator)
    made = Simulation(world, num_events=4000, num_days=10, generator=generator)
    while made.hour < 150:
        made.arrive()
        made.simulate_hour()
    return made


def future(seed: int) -> FriendGraph:
    """The graph of one of its futures, a week later."""
    made = copy.copy(past())
    made.__dict__ = copy.deepcopy(made.__dict__)
    made._generator = torch.Generator().manual_seed(seed)
    made.run()
    return made.graph()


@cache
def outcomes() -> dict[str, np.ndarray]:
    """How many initiations and ties of each pair begin in the window, a future: [N, N]."""
    found = {name: np.zeros(NUM_USERS**2) for name in ("initiation", "tie")}
    end = START + HOURS * HOUR_SECONDS
    for seed in range(NUM_FUTURES):
        window = torch.tensor([START]), torch.tensor([end])
        row = ListOutcomes.of_windows(
            future(seed), *window, decided_until=2**37, reply_window=2 * HOURS * HOUR_SECONDS
        )
        found["initiation"][row.key] += 1 / NUM_FUTURES
        found["tie"][row.key[row.replied]] += 1 / NUM_FUTURES
    return {name: table.reshape(NUM_USERS, NUM_USERS) for name, table in found.items()}


@pytest.mark.parametrize("outcome", ["initiation", "tie"])
def test_many_futures_bring_what_is_expected(outcome: str) -> None:
    made = past()
    oracle = WindowOracle(made.truth()).fit(made.graph(), until=2**37)
    expected = oracle.expected_outcomes(START, HOURS * HOUR_SECONDS, outcome).numpy()
    timeline, user = Timeline.of(made.graph()), torch.arange(NUM_USERS)
    row, person = timeline.contacts.before(user, timeline.tick(torch.full_like(user, START)))
    strangers = ~np.eye(NUM_USERS, dtype=bool)
    strangers[row, person] = False
    said, came = -np.expm1(-expected[strangers]), outcomes()[outcome][strangers]
    assert said.sum() == pytest.approx(came.sum(), rel=0.15)
    fifths = np.array_split(said.argsort(), 5)
    for part in fifths[1:]:
        assert said[part].sum() == pytest.approx(came[part].sum(), rel=0.25)
    assert came[fifths[-1]].sum() > 4 * came[fifths[0]].sum()


def test_its_lists_beat_every_rule() -> None:
    graph = future(0)
    split = TemporalSplit.of(graph)
    oracle = WindowOracle(past().world).fit(graph, until=split.t_val)
    judge = partial(evaluate_lists, graph=graph, split=split, progress=False)
    best = judge(oracle, outcome="initiation").terms("initiation_precision")[0].mean()
    for name, rule in HEURISTICS.items():
        lists = judge(rule().fit(graph, until=split.t_val))
        assert best > 1.1 * lists.terms("initiation_precision")[0].mean(), name


def test_scores_are_those_of_expectations_and_see_only_earlier_events() -> None:
    graph, other = future(0), future(1)
    assert not torch.equal(graph.events().src, other.events().src)
    one, two = (WindowOracle(past().world).fit(each, until=START) for each in (graph, other))
    query = Query.of(graph, [3, 5, 3], torch.tensor([START, START, START - 9000]), "message")
    query = query.within(torch.tensor([3600, 7200, 7200]), "initiation")
    assert torch.equal(one.score(query), two.score(query))
    for row, (time, horizon) in enumerate([(START, 3600), (START, 7200), (START - 9000, 7200)]):
        expected = one.expected_outcomes(time, horizon, "initiation")[query.user[row]]
        torch.testing.assert_close(one.score(query)[row].exp(), -torch.expm1(-expected))
    later = Query.of(graph, [3], START + 90_000, "message").within(3600, "initiation")
    assert not torch.equal(one.score(later), two.score(later))
    ties = Query.of(graph, [3], START, "message").within(86_400, "tie")
    assert torch.equal(one.score(ties), one.score(Query.of(graph, [3], START, "message")))


def test_lists_can_be_asked_of_it_for_every_question() -> None:
    graph = future(0)
    questions = ListQuestions.of(graph)
    oracle = WindowOracle(past().world).fit(graph, until=START)
    assert torch.isfinite(oracle.score(questions.about("tie"))).all()
    with pytest.raises(RuntimeError, match="window_oracle has to be fitted first"):
        WindowOracle(past().world).expected_outcomes(START, 3600, "tie")
