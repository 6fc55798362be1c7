"""Each rule of thumb against its definition, written a second time as a loop or by networkx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import permutations
from math import floor, log

import networkx as nx
import pytest
import torch
from graphs import Row, checked, graph_of, logs, planted_rows, random_rows, rewritten
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import FriendGraph, Query
from graphrec.models import HEURISTICS, heuristics
from graphrec.models.heuristics import PPR
from graphrec.temporal import Timeline

DAY = 86_400
NEW = {
    "preferential_attachment",
    "common_neighbors",
    "jaccard",
    "adamic_adar",
    "decayed_adamic_adar",
    "ppr",
}
"""Those that add recent popularity as a tie-break."""


@dataclass(frozen=True)
class Past:
    """What was known before one question."""

    rows: Sequence[Row]
    user: int
    time: int
    half_life: float
    num_users: int

    @property
    def graph(self) -> nx.Graph:
        """The undirected contact graph."""
        graph = nx.Graph()
        graph.add_nodes_from(range(self.num_users))
        graph.add_edges_from((row.src, row.dst) for row in self.rows)
        return graph

    def received(self, v: int) -> list[int]:
        return [row.time for row in self.rows if row.dst == v]

    def popularity(self, v: int) -> float:
        return sum(0.5 ** ((self.time - then) / self.half_life) for then in self.received(v))

    def walk(self) -> dict[int, float]:
        """Power iterations of personalised PageRank from the user, as many as by default."""
        graph = self.graph
        visits = {v: float(v == self.user) for v in graph}
        for _ in range(PPR().num_steps):
            visits = {
                v: 0.15 * (v == self.user) + 0.85 * sum(visits[w] / graph.degree[w] for w in graph[v])
                for v in graph
            }
        return visits


Key = tuple[float | Fraction, float]
"""What counts first, and the popularity that breaks its ties."""


def latest(past: Past, v: int, *, either_way: bool) -> Key:
    pairs = {(past.user, v), (v, past.user)} if either_way else {(past.user, v)}
    last = max((row.time for row in past.rows if (row.src, row.dst) in pairs), default=None)
    return (-1e9, past.popularity(v)) if last is None else (last, 0.0)


def common(past: Past, v: int) -> set[int]:
    return set(past.graph[past.user]) & set(past.graph[v])


def jaccard(past: Past, v: int) -> Fraction:
    either = set(past.graph[past.user]) | set(past.graph[v])
    return Fraction(len(common(past, v)), max(len(either), 1))


def new_popularity(past: Past, v: int) -> float:
    first = {(row.src, row.dst): row.time for row in sorted(past.rows, key=lambda row: -row.time)}
    return sum(0.5 ** ((past.time - then) / past.half_life) for (_, dst), then in first.items() if dst == v)


def decayed_adamic_adar(past: Past, v: int) -> float:
    times = [row.time for row in past.rows]

    def contact(a: int, b: int) -> float:
        last = max(row.time for row in past.rows if {row.src, row.dst} == {a, b})
        age = sum(time >= last for time in times)
        return 2 ** (-age / (len(times) / 20)) + 0.02

    weight = {w: 1 / log(max(past.graph.degree[w], 2)) for w in common(past, v)}
    return sum(weight[w] * contact(past.user, w) * contact(w, v) for w in weight)


DEFINITIONS: dict[str, Callable[[Past, int], Key]] = {
    "popularity": lambda past, v: (len(past.received(v)), 0.0),
    "recent_popularity": lambda past, v: (0.0, past.popularity(v)),
    "new_popularity": lambda past, v: (0.0, new_popularity(past, v)),
    "last_active": lambda past, v: (max((r.time for r in past.rows if r.src == v), default=-1e9), 0.0),
    "last_seen": lambda past, v: (max((r.time for r in past.rows if v in (r.src, r.dst)), default=-1e9), 0.0),
    "repeat_recency": lambda past, v: latest(past, v, either_way=False),
    "reply_recency": lambda past, v: latest(past, v, either_way=True),
    "common_neighbors": lambda past, v: (len(common(past, v)), past.popularity(v)),
    "jaccard": lambda past, v: (jaccard(past, v), past.popularity(v)),
    "adamic_adar": lambda past, v: (
        sum(1 / log(max(past.graph.degree[w], 2)) for w in common(past, v)),
        past.popularity(v),
    ),
    "decayed_adamic_adar": lambda past, v: (decayed_adamic_adar(past, v), past.popularity(v)),
    "preferential_attachment": lambda past, v: (
        past.graph.degree[past.user] * past.graph.degree[v],
        past.popularity(v),
    ),
    "ppr": lambda past, v: (past.walk()[v], past.popularity(v)),
}


def assert_ordered_like(scores: list[float], keys: dict[int, Key]) -> None:
    """Scores rise with the first part of the key, then with the second; what is equal in both ties."""
    for one, other in permutations(keys, 2):
        (first, popular), (first_other, popular_other) = keys[one], keys[other]
        same, more = abs(first - first_other) <= 1e-12, popular > popular_other * (1 + 1e-4) + 1e-4
        if first > first_other + 1e-8 or (same and more):
            assert scores[one] > scores[other], (one, other)
        elif (first, popular) == (first_other, popular_other):
            assert scores[one] == pytest.approx(scores[other], rel=1e-12, abs=1e-12), (one, other)


def squeezed(popularity: float) -> float:
    return popularity / (popularity + 1)


def test_every_heuristic_is_defined_here() -> None:
    assert DEFINITIONS.keys() == HEURISTICS.keys() - {"random"}
    assert all(kind.name == name for name, kind in HEURISTICS.items())


@pytest.mark.parametrize("name", DEFINITIONS)
@pytest.mark.parametrize("seed", range(3))
def test_scores_follow_the_definition(name: str, seed: int) -> None:
    users = 9
    rows = random_rows(seed, users=users - 1, events=[12, 30, 70][seed], times=20, scale=DAY)
    until = 14 * DAY
    asked = Query.of(
        graph := graph_of(rows, users),
        torch.arange(users).repeat(5),
        torch.tensor([3, 20, 7, 14, 11]).repeat_interleave(users) * DAY,
    )
    scores = HEURISTICS[name]().fit(graph, until=until).score(asked).tolist()
    for row, (user, time) in enumerate(zip(asked.user.tolist(), asked.time.tolist(), strict=True)):
        past = Past([r for r in rows if r.time < time], user, time, 3.0 * DAY, users)
        keys = {v: DEFINITIONS[name](past, v) for v in range(users) if v != user}
        assert_ordered_like(scores[row], keys)


@pytest.mark.parametrize(
    "name",
    [
        "repeat_recency",
        "reply_recency",
        "adamic_adar",
        "decayed_adamic_adar",
        "jaccard",
        "popularity",
        "new_popularity",
    ],
)
@checked
@given(rows=logs(), time=st.integers(-2, 8))
def test_scores_follow_the_definition_on_any_log(name: str, rows: list[Row], time: int) -> None:
    rows = [row._replace(time=row.time * DAY) for row in rows]
    users = 6
    asked = Query(
        torch.arange(users), torch.full((users,), time * DAY), torch.zeros(users, dtype=torch.int64)
    )
    scores = HEURISTICS[name]().fit(graph_of(rows, users), until=9 * DAY).score(asked).tolist()
    for user in range(users):
        past = Past([r for r in rows if r.time < time * DAY], user, time * DAY, 3.0 * DAY, users)
        keys = {v: DEFINITIONS[name](past, v) for v in range(users) if v != user}
        assert_ordered_like(scores[user], keys)


# Values, where they mean something by themselves


def dense_case() -> tuple[FriendGraph, Query, list[Past]]:
    users = 12
    rows = random_rows(9, users=users - 1, events=40, times=30, scale=DAY)
    graph = graph_of(rows, users)
    times = torch.tensor([12, 30, 21]).repeat_interleave(users) * DAY
    asked = Query.of(graph, torch.arange(users).repeat(3), times)
    pasts = [
        Past([r for r in rows if r.time < time], user, time, 3.0 * DAY, users)
        for user, time in zip(asked.user.tolist(), asked.time.tolist(), strict=True)
    ]
    return graph, asked, pasts


def test_popularity_counts() -> None:
    graph, asked, pasts = dense_case()
    found = HEURISTICS["popularity"]().fit(graph, until=20 * DAY).score(asked)
    assert found.tolist() == [[len(past.received(v)) for v in range(12)] for past in pasts]


@pytest.mark.parametrize(("span", "half_life"), [(20, 3.0), (144, 3.0), (480, 10.0)])
def test_the_half_life_is_a_48th_of_the_training_span_but_three_days_at_least(
    span: int, half_life: float
) -> None:
    """The span runs from the first event to `until`; what comes after plays no part."""
    rows = [Row(0, 1, 7 * DAY), Row(0, 2, (7 + span - 1) * DAY), Row(2, 1, 10_000 * DAY)]
    graph = graph_of(rows)
    asked = Query.of(graph, torch.tensor([0]), (7 + span) * DAY)
    found = HEURISTICS["recent_popularity"]().fit(graph, until=(7 + span) * DAY).score(asked)
    expected = torch.tensor([[0.0, 0.5 ** (span / half_life), 0.5 ** (1 / half_life)]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    ("name", "unit", "naive"),
    [
        ("common_neighbors", 1.0, lambda graph, u, v: len(list(nx.common_neighbors(graph, u, v)))),
        ("jaccard", 144.0, lambda graph, u, v: next(nx.jaccard_coefficient(graph, [(u, v)]))[2]),
        ("adamic_adar", 2.0**32, lambda graph, u, v: next(nx.adamic_adar_index(graph, [(u, v)]))[2]),
        (
            "preferential_attachment",
            1.0,
            lambda graph, u, v: next(nx.preferential_attachment(graph, [(u, v)]))[2],
        ),
    ],
)
def test_neighbourhoods_equal_those_of_networkx(
    name: str, unit: float, naive: Callable[[nx.Graph, int, int], float]
) -> None:
    graph, asked, pasts = dense_case()
    scores = HEURISTICS[name]().fit(graph, until=20 * DAY).score(asked).tolist()
    for row, past in zip(scores, pasts, strict=True):
        snapshot = nx.Graph(graph.snapshot(past.time).to_networkx())
        for v in set(range(12)) - {past.user}:
            expected = naive(snapshot, past.user, v)
            assert (row[v] - squeezed(past.popularity(v))) / unit == pytest.approx(expected, abs=1e-8)
            if name in ("common_neighbors", "preferential_attachment"):
                assert floor(row[v]) == expected  # the tie-break stays below one


def test_ppr_equals_that_of_networkx() -> None:
    graph, asked, pasts = dense_case()
    order = asked.time.argsort(stable=True)
    visits = PPR(restart=0.15, num_steps=200).fit(graph, until=20 * DAY).visits(asked[order])
    compared = 0
    for row, place in zip(visits.tolist(), order.tolist(), strict=True):
        past = pasts[place]
        snapshot = nx.Graph(graph.snapshot(past.time).to_networkx())
        if not snapshot.degree[past.user]:  # networkx keeps a walker without contacts where it is
            assert row == [0.15 * (v == past.user) for v in range(12)]
            continue
        expected = nx.pagerank(
            snapshot, alpha=0.85, personalization={past.user: 1.0}, tol=1e-14, max_iter=1000
        )
        assert row == pytest.approx([expected[v] for v in range(12)], abs=1e-10)
        assert sum(row) == pytest.approx(1.0)
        compared += 1
    assert compared > 25


def test_what_a_short_walk_leaves_out_is_bounded() -> None:
    graph, asked, _ = dense_case()
    asked = asked[asked.time.argsort(stable=True)]
    exact = PPR(num_steps=200).fit(graph, until=20 * DAY).visits(asked)
    for steps in (0, 1, 4, 9):
        short = PPR(num_steps=steps).fit(graph, until=20 * DAY).visits(asked)
        assert (short - exact).abs().max() <= 0.85**steps + 1e-12
    assert not torch.allclose(PPR(restart=0.5).fit(graph, until=20 * DAY).visits(asked), exact, atol=1e-2)


# The rules' own promises


@pytest.mark.parametrize("name", ["repeat_recency", "reply_recency"])
def test_contacts_stand_above_strangers_however_popular(name: str) -> None:
    """User 0 wrote to 1 once, long ago, and to 2 and 3 at one later moment; all the world writes to 4."""
    rows = [Row(0, 1, 0), Row(0, 2, DAY), Row(0, 3, DAY)]
    rows += [Row(5 + i % 3, 4, 400 * DAY + i) for i in range(300)]
    graph = graph_of(rows)
    asked = Query.of(graph, [0], 400 * DAY + 300)
    score = HEURISTICS[name]().fit(graph, until=DAY + 1).score(asked)[0].tolist()
    assert score[2] == score[3] > score[1] > score[4] > score[5] == score[6]


@pytest.mark.parametrize("name", sorted(NEW))
def test_popularity_never_outweighs_the_rule(name: str) -> None:
    """User 2 shares one contact with 0, and nobody ever wrote to it; all the world writes to 4."""
    rows = [Row(0, 1, 0), Row(2, 1, 0), Row(2, 3, 0), Row(2, 6, 0)]
    rows += [Row(5, 4, DAY + i) for i in range(500)]
    graph = graph_of(rows)
    score = HEURISTICS[name]().fit(graph, until=DAY).score(Query.of(graph, [0]))[0].tolist()
    assert score[2] > score[4] > score[5]


@pytest.mark.parametrize("name", HEURISTICS)
@pytest.mark.parametrize("time", [-7, -5, 0, 5, 9])
def test_the_future_changes_no_score_during_training_either(name: str, time: int) -> None:
    """Also before the first event, where nothing is known."""
    rows = [row._replace(time=row.time - 5) for row in random_rows(4, users=6, events=40, times=15)]
    until = 10
    assert min(row.time for row in rows) == -5
    one, other = (
        HEURISTICS[name]().fit(graph_of(log, 7), until=until)
        for log in (rows, rewritten(rows, time, num_users=7, seed=time + 9))
    )
    query = Query(torch.arange(7), torch.full((7,), time), torch.zeros(7, dtype=torch.int64))
    assert torch.equal(one.score(query), other.score(query))


@pytest.mark.parametrize("name", HEURISTICS)
def test_far_apart_queries_are_answered_in_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, asked, _ = dense_case()
    whole = HEURISTICS[name]().fit(graph, until=20 * DAY).score(asked)
    monkeypatch.setattr(heuristics.base, "MAX_FRESH", 3)
    parts = HEURISTICS[name]().fit(graph, until=20 * DAY).score(asked)
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


def test_random_is_uniform_and_depends_on_the_whole_question() -> None:
    graph = graph_of(planted_rows(0), 400)
    first = HEURISTICS["random"]().fit(graph, until=DAY)
    query = Query.of(graph, torch.tensor([1, 2, 1]), torch.tensor([9, 9, 10]))
    scores = first.score(query)
    assert 0 <= scores.min() < 0.02 < 0.98 < scores.max() < 1
    assert abs(scores.mean() - 0.5) < 0.03
    assert len(scores.unique()) == scores.numel()
    assert scores.corrcoef().fill_diagonal_(0).abs().max() < 0.2
    salted = heuristics.Random(torch.Generator().manual_seed(1)).fit(graph, until=DAY).score(query)
    assert not torch.isclose(salted, scores).any()


def test_on_circles_of_friends_neighbourhoods_beat_chance() -> None:
    """Of those never met, people of one's own circle should come first."""
    graph = graph_of(planted_rows(1, events=250))
    asked = Query.of(graph, torch.arange(32))
    exclude = Timeline.of(graph).contacts.before(asked.user, Timeline.of(graph).tick(asked.time))
    own = {}
    for name in HEURISTICS:
        best = HEURISTICS[name]().fit(graph, until=DAY).recommend(asked, 1, exclude=exclude)[0][:, 0]
        own[name] = float((best // 8 == asked.user // 8).double().mean())
    assert own["random"] < 0.35
    assert min(own[name] for name in ("common_neighbors", "adamic_adar", "jaccard", "ppr")) > 0.5


# On another graph


@pytest.mark.parametrize("name", HEURISTICS)
def test_on_its_own_graph_and_on_its_past_a_rule_says_the_same(name: str) -> None:
    graph, asked, _ = dense_case()
    model = HEURISTICS[name]().fit(graph, until=20 * DAY)
    whole = model.score(asked)
    assert torch.equal(model.on(graph).score(asked), whole)
    last = int(asked.time.max())
    assert torch.equal(model.on(graph.snapshot(last)).score(asked), whole)
    assert model.graph is graph


@pytest.mark.parametrize("name", sorted(set(HEURISTICS) - {"random"}))
def test_on_another_graph_a_rule_reads_that_one_and_keeps_its_pace(name: str) -> None:
    """Without its oldest event too: recency and the half-life do not count from what is first there."""
    graph, asked, _ = dense_case()
    model = HEURISTICS[name]().fit(graph, until=20 * DAY)
    kept = torch.arange(graph.num_events) % 3 > 0
    fewer = graph.select_events(kept)
    scores = model.on(fewer).score(asked)
    assert not torch.equal(scores, model.score(asked))
    again = HEURISTICS[name]().fit(graph, until=20 * DAY).on(fewer).on(graph)
    assert torch.equal(again.score(asked), model.score(asked))
    gone = int(graph.events().src[0]), int(graph.events().dst[0])
    without_first = model.on(graph.select_events(torch.arange(graph.num_events) > 0)).score(asked)
    others = torch.tensor([v for v in range(12) if v not in gone])
    rows = (asked.user != gone[0]) & (asked.user != gone[1])
    if name in ("last_active", "last_seen", "repeat_recency", "reply_recency"):
        assert torch.equal(without_first[rows][:, others], model.score(asked)[rows][:, others])


@pytest.mark.parametrize("name", HEURISTICS)
def test_on_a_graph_without_events_a_rule_knows_nothing_of_anybody(name: str) -> None:
    graph, asked, _ = dense_case()
    model = HEURISTICS[name]().fit(graph, until=20 * DAY)
    scores = model.on(graph.select_events(torch.zeros(graph.num_events, dtype=torch.bool))).score(asked)
    assert torch.isfinite(scores).all()
    others = asked.user[:, None] != torch.arange(12)
    assert name == "random" or len(scores[others].unique()) == 1


def test_earlier_events_of_another_graph_still_count_as_acts() -> None:
    """They must not fall below the popular, who come after everyone acted upon."""
    late = graph_of([Row(0, 1, 100 * DAY), Row(2, 1, 100 * DAY)], 5)
    early = graph_of([Row(0, 3, DAY), Row(0, 1, 100 * DAY), Row(2, 1, 100 * DAY)], 5)
    model = HEURISTICS["repeat_recency"]().fit(late, until=101 * DAY).on(early)
    score = model.score(Query.of(early, torch.tensor([0]), 102 * DAY))[0].tolist()
    assert score[1] > score[3] >= 1.0 > score[4]


def test_only_what_is_fitted_can_be_put_on_another_graph() -> None:
    graph, _, _ = dense_case()
    with pytest.raises(RuntimeError, match=r"popularity.*fit"):
        HEURISTICS["popularity"]().on(graph)
