"""`ListRanker`: rates, candidates and ranks against naive versions, strict time, a planted pattern."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data import EventLog, Events, FriendGraph, Query, TemporalSplit
from graphrec.evaluate import evaluate_lists
from graphrec.explain import explain
from graphrec.features.window import WindowFeatures
from graphrec.features.window_kernels import fill_ranks
from graphrec.features.window_pools import WindowPools
from graphrec.models import HEURISTICS, ListRanker, WindowConfig
from graphrec.models.windows.examples import collect_examples
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.temporal.rates import FIRST_ACTED, FIRST_RECEIVED, RECEIVED, Rates
from tests.graphs import checked, graph_of, random_rows

HALF_LIVES = (2.0, 7.0)
SMALL = WindowConfig(hidden_channels=16, max_epochs=8, batch_size=256)


def naive_rates(graph: FriendGraph, user: int, end: int) -> list[float]:
    """What `Rates.gather` returns, by counting."""
    log = graph.events()
    events = list(zip(log.src.tolist(), log.dst.tolist(), log.time.tolist(), strict=True))
    past = events[:end]
    position = [next(i for i, other in enumerate(events) if other[2] == row[2]) for row in past]
    seen: set[tuple[int, int]] = set()
    kinds: list[list[int]] = [[], [], [], []]
    for place, (src, dst, _) in zip(position, past, strict=True):
        opens = (src, dst) not in seen
        seen.add((src, dst))
        for side, one in enumerate((src, dst)):
            if one == user:
                kinds[side].append(place)
                if opens:
                    kinds[2 + side].append(place)
    out = []
    for places in kinds:
        out += [sum(2.0 ** (-(end - place) / life) for place in places) for life in HALF_LIVES]
        out.append(float(len(places)))
    both = sum((user, other) in seen and (other, user) in seen for other in range(graph.num_users))
    out += [(both + 0.3) / (len(kinds[3]) + 1), (both + 0.3) / (len(kinds[2]) + 1)]
    out += [float(end - kinds[side][-1]) if kinds[side] else float(end) for side in range(2)]
    either = kinds[0] + kinds[1]
    return [*out, float(end - min(either)) if either else float(end)]


@checked
@given(st.integers(0, 10_000))
def test_rates_are_those_of_a_count(seed: int) -> None:
    graph = graph_of(random_rows(seed, users=6, events=150, times=60), num_users=6)
    timeline = Timeline.of(graph)
    rates = Rates(timeline, HALF_LIVES)
    ticks = np.random.default_rng(seed).integers(0, len(timeline.instants) + 1, size=6)
    for tick in ticks.tolist():
        assert_rates(rates, graph, tick)


def assert_rates(rates: Rates, graph: FriendGraph, tick: int) -> None:
    """They are those of a count of a graph's events, also for users who are named twice."""
    now = rates.num_before(tick)
    users = torch.arange(graph.num_users)
    found = rates.gather(users, tick)
    for user in users.tolist():
        np.testing.assert_allclose(found[:, user], naive_rates(graph, user, now), rtol=1e-5)
    assert torch.equal(rates.gather(torch.cat([users, users]), tick), found.repeat(1, 2))


@patch("graphrec.temporal.rates.SPACING", 4)
@checked
@given(st.integers(0, 10_000))
def test_rates_follow_an_index_that_grows_and_lose_its_removed_events(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = random_rows(seed, users=6, events=150, times=60)
    graph = graph_of(rows, num_users=6)
    events, cuts = graph.events(), np.sort(rng.integers(0, 151, size=3)).tolist()
    timeline = Timeline(graph.select_events(torch.arange(150) < cuts[0]))
    rates = Rates(timeline, HALF_LIVES)
    for start, end in zip(cuts, [*cuts[1:], 150], strict=True):
        timeline.append(Events(*(column[start:end] for column in vars(events).values())))
        rates.follow(timeline)
    for tick in rng.integers(0, len(timeline.instants) + 1, size=3).tolist():
        assert_rates(rates, graph, tick)
    index = timeline.copy()
    gone = torch.from_numpy(rng.permutation(150)[: rng.integers(1, 40)])
    if seed % 2:  # of one pair alone, at few times: other users keep all events
        gone = ((events.src == 0) & (events.dst == 1)).nonzero().squeeze(1)[:2]
    removal = index.remove(gone)
    left = graph.select_events(torch.ones(150, dtype=torch.bool).index_fill_(0, gone, False))
    for tick in rng.integers(0, len(timeline.instants) + 1, size=3).tolist():
        assert_rates(rates.reading(index, torch.from_numpy(removal.owner)), left, tick)
        assert_rates(rates, graph, tick)


def features_of(graph: FriendGraph) -> WindowFeatures:
    timeline = Timeline.of(graph)
    start = torch.randn(graph.num_users, 4, generator=torch.Generator().manual_seed(0))
    return WindowFeatures(
        timeline,
        SpectralEmbeddings(timeline, start, every=5, regularized=False),
        4.0,
        torch.arange(graph.num_users),
    )


@checked
@given(st.integers(0, 10_000))
def test_candidates_are_strangers_with_their_common_contacts(seed: int) -> None:
    graph = graph_of(random_rows(seed, users=12, events=60, times=20), num_users=12)
    timeline = Timeline.of(graph)
    tick = 1 + seed % len(timeline.instants)
    past = int((timeline.event_tick < tick).sum())
    contacts: list[set[int]] = [set() for _ in range(12)]
    log = graph.events().src, graph.events().dst
    for src, dst in zip(*(column[:past].tolist() for column in log), strict=True):
        contacts[src].add(dst)
        contacts[dst].add(src)
    found = features_of(graph).candidates(torch.arange(12), tick)
    asked = set(zip(found.row.tolist(), found.user.tolist(), strict=True))
    assert len(asked) == len(found.row)
    near = Counter((u, w) for u in range(12) for v in contacts[u] for w in contacts[v])
    common = found.x[:, 2].expm1().round().long().tolist()
    for row, user, number in zip(found.row.tolist(), found.user.tolist(), common, strict=True):
        assert user != row
        assert user not in contacts[row]
        assert number == near[row, user]
    time = graph.events().time[:past].tolist()
    last: dict[tuple[int, int], int] = {}
    for src, dst, now in zip(*(column[:past].tolist() for column in log), time, strict=True):
        last[src, dst] = last[dst, src] = time.index(now)
    for row, user, whole, decayed in zip(
        found.row.tolist(), found.user.tolist(), found.x[:, 0].tolist(), found.x[:, 1].tolist(), strict=True
    ):
        middle = contacts[row] & contacts[user]
        weight = {other: 1.0 / np.log(max(len(contacts[other]), 2)) for other in middle}
        fades = {
            pair: 2.0 ** (-(past - last[pair]) / (0.05 * past)) + 0.02
            for other in middle
            for pair in ((row, other), (other, user))
        }
        expected = sum(weight[other] * fades[row, other] * fades[other, user] for other in middle)
        assert whole == pytest.approx(np.log1p(sum(weight.values())), rel=1e-5)
        assert decayed == pytest.approx(np.log(expected + 1e-6), rel=1e-4)
    strangers = {pair for pair in near if pair[0] != pair[1] and pair[1] not in contacts[pair[0]]}
    assert strangers <= asked
    assert bool(torch.isfinite(found.x).all())


def test_no_more_candidates_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphrec.features.window.MAX_TWO_HOP", 2)
    monkeypatch.setattr("graphrec.features.window_pools.POOLS", ())
    monkeypatch.setattr("graphrec.features.window_pools.NUM_LAST_ACTIVE", 1)
    hub = [(0, 1, 0), (1, 2, 1), (1, 3, 2), (1, 4, 3), (1, 5, 4), (0, 6, 5), (6, 2, 6)]
    graph = graph_of(hub, num_users=7)
    found = features_of(graph).candidates(torch.tensor([0]), 7)
    # 2 has two common contacts; 2 and 5, the latest, lead the decayed values; 3 comes first of the others.
    assert sorted(found.user.tolist()) == [2, 3, 5]


@checked
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=30))
def test_ranks_count_the_larger(pairs: list[tuple[int, int]]) -> None:
    pairs = sorted(pairs, key=lambda pair: pair[0])
    row, value = np.array([p[0] for p in pairs]), np.array([[p[1] for p in pairs]], np.float32)
    out = np.empty_like(value)
    fill_ranks(row, value, out)
    expected = [sum(other == r and v > own for other, v in pairs) for r, own in pairs]
    assert out[0].tolist() == expected


def mutual_circles(seed: int) -> list[tuple[int, int, int]]:
    """People of 8 circles of 12 begin contacts within their circle, and are always answered."""
    rng = np.random.default_rng(seed)
    rows = []
    for time in range(900):
        circle = int(rng.integers(8)) * 12
        one, other = (circle + rng.choice(12, size=2, replace=False)).tolist()
        if rng.random() < 0.3:  # noise, never answered
            rows.append((one, int((circle + 12 * rng.integers(1, 8) + rng.integers(12)) % 96), 4 * time))
        else:
            rows += [(one, other, 4 * time), (other, one, 4 * time + 1)]
    return rows


def test_planted_circles_are_found() -> None:
    graph = graph_of(mutual_circles(0), num_users=96)
    split = TemporalSplit.of(graph)
    model = ListRanker(config=SMALL).fit(graph, until=split.t_val)
    found, chance = (
        evaluate_lists(one, graph, split=split, progress=False).terms("tie_recall")[0].mean()
        for one in (model, HEURISTICS["random"]().fit(graph, until=split.t_val))
    )
    assert found > 3 * chance


def test_what_happens_from_the_moment_on_changes_no_list() -> None:
    rows = random_rows(3, users=20, events=300, times=100, actions=("text",))
    moment = 80
    model = ListRanker(config=SMALL).fit(graph_of(rows, num_users=20), until=60)
    query = Query.of(model.graph, list(range(20)), moment)
    before = model.recommend(query, 19)
    planted = [row for row in rows if row.time < moment]
    planted += [(one, (one + 7) % 20, moment) for one in range(20)]
    planted += [(one, (one + 3) % 20, moment + 1) for one in range(20)]
    other = model.on(graph_of(planted, num_users=20))
    users, scores = other.recommend(Query.of(other.graph, list(range(20)), moment), 19)
    torch.testing.assert_close(scores, before[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(users, before[0])
    seen = [row for row in rows if row.time < moment] + [
        (one, (one + 7) % 20, moment - 1) for one in range(20)
    ]
    other = model.on(graph_of(seen, num_users=20))
    assert not torch.equal(other.recommend(Query.of(other.graph, list(range(20)), moment), 19)[1], before[1])


@pytest.fixture(scope="module")
def ranker() -> ListRanker:
    """Fitted among 40 users, with an event of two others at every time."""
    rows = random_rows(3, users=38, events=700, times=150, actions=("text",))
    rows = sorted([*rows, *((38, 39, time) for time in range(150))], key=lambda row: row[2])
    return ListRanker(config=SMALL).fit(graph_of(rows, num_users=40), until=100)


@pytest.mark.parametrize("seed", range(4))
def test_a_reading_scores_as_if_the_removed_events_had_never_been(
    ranker: ListRanker, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the spectral embeddings, which stay as they are; first acts among the events."""
    monkeypatch.setattr("graphrec.features.window_pools.POOLS", ((3, 9), (1, 5), (2, 7)))
    monkeypatch.setattr("graphrec.features.window_pools.NUM_LAST_ACTIVE", 4)
    graph = ranker.graph
    others = (graph.events().src != 38).nonzero().squeeze(1)
    gone = others[torch.randperm(len(others), generator=torch.Generator().manual_seed(seed))[: 3 + 40 * seed]]
    index = Timeline.of(graph, follows=True).copy()
    removal = index.remove(gone)
    kept = torch.ones(graph.num_events, dtype=torch.bool).index_fill_(0, gone, False)
    naive = ranker.on(graph.select_events(kept))
    assert naive._features is not None
    assert ranker._features is not None
    naive._features._spectral = ranker._features._spectral.reading(Timeline.of(naive.graph))
    found = ranker.reading(index, torch.from_numpy(removal.owner))
    assert found is not None
    user = torch.arange(40).repeat(2)
    query = Query(user, torch.tensor([150, 120]).repeat_interleave(40), torch.zeros_like(user))
    torch.testing.assert_close(found.score(query), naive.score(query), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ranker.score(query), naive.score(query), rtol=1e-3)
    users, scores = found.recommend(query, 30)
    others_users, others_scores = naive.recommend(query, 30)
    torch.testing.assert_close(scores, others_scores, rtol=1e-5, atol=1e-5)
    differ = users != others_users
    assert not bool(differ.any()) or float((scores[differ] - others_scores[differ]).abs().max()) < 1e-6


def test_neither_appends_nor_explanations_rebuild(
    ranker: ListRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ranker.on(ranker.graph)

    def fail(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(ListRanker, "on", fail)
    model.append(EventLog.from_arrays([1, 100], [2, 3], [200, 201]))
    monkeypatch.setattr("graphrec.temporal.timeline.build_index", fail)
    monkeypatch.setattr("graphrec.temporal.rates.Rates.__init__", fail)
    model.append(EventLog.from_arrays([5, 101], [6, 100], [202, 203]))
    users, _ = model.recommend(Query.of(model.graph, [101], 204), 5)
    assert explain(model, 101, int(model.graph.user_ids.lookup(users[0, :1])[0]), 204).score < 0


def test_pairs_are_scored_as_all_users_are(ranker: ListRanker, monkeypatch: pytest.MonkeyPatch) -> None:
    user = torch.arange(40)
    query = Query(user, 100 + user % 7, torch.zeros_like(user))
    scores = ranker.score(query)
    row, other = torch.randint(40, (2, 300), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(ListRanker, "score_all", None)
    torch.testing.assert_close(
        ranker.score_pairs(query, row, other), scores[row, other], rtol=1e-6, atol=1e-6
    )
    assert ranker.score_pairs(query, row[:0], other[:0]).shape == (0,)


def test_pools_are_those_of_the_rates_of_all_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """At any time, before and after appends, whether the users who acted last are near or far back."""
    monkeypatch.setattr("graphrec.temporal.user_order.EVENTS_BETWEEN_CHECKPOINTS", 16)
    sizes = ((FIRST_RECEIVED, 5), (RECEIVED, 3), (FIRST_ACTED, 6))
    monkeypatch.setattr("graphrec.features.window_pools.POOLS", sizes)
    monkeypatch.setattr("graphrec.features.window_pools.NUM_LAST_ACTIVE", 4)
    rows = random_rows(0, users=30, events=600, times=200)
    graph, half_life = graph_of(rows, num_users=30), 20.0
    events, tie_rank = graph.events(), torch.randperm(30, generator=torch.Generator().manual_seed(1))
    timeline = Timeline(graph.select_events(torch.arange(600) < 250))
    rates = Rates(timeline, (half_life,))
    pools = WindowPools(timeline, tie_rank, half_life, rates.clock)
    rng = np.random.default_rng(0)
    for start, end in ((250, 250), (250, 253), (253, 420), (420, 600)):
        if end > start:
            timeline.append(Events(*(column[start:end] for column in vars(events).values())))
            rates.follow(timeline)
            pools.follow(timeline, tie_rank, rates.clock)
        for tick in [*rng.integers(1, len(timeline.instants) + 1, size=12).tolist(), len(timeline.instants)]:
            monkeypatch.setattr("graphrec.features.window_pools.MAX_EVENTS_BACK", int(rng.integers(1, 40)))
            everybody = rates.gather(torch.arange(30), tick)
            expected: set[int] = set()
            for kind, size in sizes:
                value = everybody[rates.row_of(kind, 0)].tolist()
                order = sorted(range(30), key=lambda user: (-value[user], int(tie_rank[user])))
                expected |= {user for user in order[:size] if value[user] > 0}
            age = everybody[10].tolist()
            acted = [user for user in range(30) if everybody[1, user] > 0]
            expected |= set(sorted(acted, key=lambda user: (age[user], int(tie_rank[user])))[:4])
            assert pools.before(tick).tolist() == sorted(expected)
            assert pools.popularity(tick).numpy() == pytest.approx(everybody[rates.row_of(3, 0)].numpy())


def test_labels_end_where_training_ends() -> None:
    """Initiations that may still be answered are no examples of ties; later events decide nothing."""
    rows = [
        row for row in random_rows(5, users=12, events=400, times=200, actions=("text",)) if row.time < 150
    ]
    graph = graph_of(rows, num_users=12)
    later = graph_of([*rows, *((b, a, 150) for a, b, *_ in rows)], num_users=12)
    parts = [
        collect_examples(
            one,
            features_of(one),
            until=150,
            generator=torch.Generator().manual_seed(0),
        )
        for one in (graph, later)
    ]
    for name in ("label", "weight"):
        assert torch.equal(getattr(parts[0], name), getattr(parts[1], name))
    assert bool(((parts[0].weight[:, 1] == 0) <= (parts[0].label[:, 0] == 1)).all())


def test_without_anything_to_learn_common_contacts_and_popularity_decide() -> None:
    """All contacts begin early; from then on people act on whom they know."""
    early = [(0, 1), (0, 2), (0, 3), (4, 1), (4, 2), (4, 3), (5, 1), (6, 7), (7, 8)]
    rows = [(*pair, time) for time, pair in enumerate(early)]
    rows += [(*early[i % len(early)], 20 + i) for i in range(300)]
    model = ListRanker(config=SMALL).fit(graph_of(rows, num_users=9), until=320)
    assert model.curve == []
    users, scores = model.recommend(Query.of(model.graph, [0], 320), 4)
    assert users[0, :2].tolist() == [4, 5]
    assert float(scores[0, 0]) > float(scores[0, 1])


def test_a_network_without_initiations_is_ranked_by_popularity() -> None:
    graph = FriendGraph.from_events(EventLog.from_arrays([1, 2, 1], [2, 1, 3], [0, 1, 2]))
    model = ListRanker(config=SMALL).fit(graph, until=3)
    users, scores = model.recommend(Query.of(graph, [1, 3], 3), 5)
    assert users.shape == (2, 3) or users.shape == (2, 5)
    assert bool(torch.isfinite(scores[users >= 0]).all())


@pytest.mark.parametrize("outcome", ["friend", 3])
def test_unknown_outcomes_are_named(outcome: object) -> None:
    with pytest.raises((TypeError, ValueError), match="outcome"):
        ListRanker(outcome)  # type: ignore[arg-type]
