"""Lists that a heuristic finds directly are those from the scores of all users."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import Row, checked, graph_of, logs, random_rows, rewritten
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.models import HEURISTICS, Heuristic, heuristic_lists
from graphrec.models.heuristics import Popularity
from graphrec.models.recommender import Recommender
from graphrec.models.wanted import Wanted
from graphrec.temporal import user_order

DAY = 86_400
DIRECT = sorted(name for name, kind in HEURISTICS.items() if kind.direct is not None)
Lists = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """On logs of a few events: many checkpoints and segments, short lists, walks along the most popular."""
    monkeypatch.setattr(user_order, "EVENTS_BETWEEN_CHECKPOINTS", 3)
    monkeypatch.setattr(user_order, "SEGMENT_LENGTH", 2)
    monkeypatch.setattr(user_order, "LISTED_USERS", 6)
    monkeypatch.setattr(heuristic_lists, "MAX_TIED", 2)


def from_scores(model: Heuristic, query: Query, k: int, exclude: Lists, always: Tensor) -> Lists:
    order = exclude[0].argsort(stable=True)
    wanted = Wanted(k, exclude[0][order], exclude[1][order], always.unique())
    return Recommender._recommend(model, query, wanted)


def asked(rng: np.random.Generator, num_users: int, last: int, size: int) -> Query:
    user, time = (
        torch.from_numpy(rng.integers(low, high, size)) for low, high in ((0, num_users), (-2, last))
    )
    return Query(user, time, torch.zeros_like(user))


def assert_same(model: Heuristic, query: Query, rng: np.random.Generator, k: int) -> None:
    users = model.graph.num_users
    excluded = rng.integers(0, len(query), 3 * len(query)), rng.integers(0, users, 3 * len(query))
    exclude = torch.from_numpy(excluded[0]), torch.from_numpy(excluded[1])
    always = torch.from_numpy(rng.integers(0, users, 3))
    found = model.recommend(query, k, exclude=exclude, exclude_users=always)
    expected = from_scores(model, query, k, exclude, always)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=0.0)
    assert torch.equal(found[0], expected[0])
    one_by_one = [model.recommend(query[b : b + 1], k)[0] for b in range(len(query))]
    assert torch.equal(torch.cat(one_by_one), model.recommend(query, k)[0])


def test_all_rules_but_those_of_the_whole_network_are_direct() -> None:
    assert set(HEURISTICS) - set(DIRECT) == {"random", "ppr"}


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("seed", range(4))
def test_lists_are_those_from_scores(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_users = [8, 20, 40, 60][seed]
    times = [3, 30, 500, 60][seed]
    rows = random_rows(
        seed, users=num_users - 3, events=[40, 200, 900, 1500][seed], times=times, scale=DAY // 3
    )
    model = HEURISTICS[name]().fit(graph_of(rows, num_users), until=rows[-1].time + 1)
    for k in (1, 4, 10, num_users + 5):
        assert_same(model, asked(rng, num_users, (times + 900) * DAY // 3, 12), rng, k)


@pytest.mark.parametrize("name", DIRECT)
@checked
@given(rows=logs(), seed=st.integers(0, 99), k=st.integers(1, 7))
def test_lists_are_those_from_scores_on_any_log(name: str, rows: list[Row], seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [row._replace(time=row.time * DAY) for row in rows]
    model = HEURISTICS[name]().fit(graph_of(rows, 6), until=9 * DAY)
    assert_same(model, asked(rng, 6, 10 * DAY, 5), rng, k)


@pytest.mark.parametrize("name", DIRECT)
def test_few_are_looked_at(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of the usual length takes no scores of all users."""
    rows = random_rows(1, users=50, events=900, times=200, scale=DAY)
    graph = graph_of(rows, 50)
    model = HEURISTICS[name]().fit(graph, until=rows[-1].time + 1)
    expected = model.score(Query.of(graph, torch.arange(50)))

    def refuse(self: Heuristic, query: Query) -> Tensor:
        raise AssertionError("scored all users")

    monkeypatch.setattr(Recommender, "score_all", refuse)
    users, scores = model.recommend(Query.of(graph, torch.arange(50)), 4)
    torch.testing.assert_close(scores, expected.gather(1, users), rtol=1e-12, atol=0.0)


@pytest.mark.parametrize("name", DIRECT)
def test_events_at_and_after_the_query_are_invisible(name: str) -> None:
    rows = random_rows(2, users=15, events=120, times=40, scale=DAY)
    for time in (5 * DAY, 20 * DAY, 33 * DAY):
        assert any(row.time == time for row in rows)
        assert any(row.time > time for row in rows)
        query = Query(torch.arange(15), torch.full((15,), time), torch.zeros(15, dtype=torch.int64))
        lists = [
            HEURISTICS[name]().fit(graph_of(log, 15), until=2 * DAY).recommend(query, 6)
            for log in (rows, rewritten(rows, time, num_users=15, seed=time))
        ]
        for one, other in zip(*lists, strict=True):
            assert torch.equal(one, other)


def test_a_rule_with_scores_of_its_own_is_listed_by_them() -> None:
    class Backwards(Popularity):
        name = "backwards"

        def _score_in_order(self, query: Query) -> Tensor:
            return -super()._score_in_order(query)

    rows = [Row(0, 1, 0), Row(0, 1, 1), Row(0, 2, 2), Row(1, 0, 3)]
    graph: FriendGraph = graph_of(rows)
    query = Query.of(graph, [0])
    assert Backwards().fit(graph, until=4).recommend(query, 2)[0].tolist() == [[2, 1]]
    assert HEURISTICS["popularity"]().fit(graph, until=4).recommend(query, 2)[0].tolist() == [[1, 2]]
