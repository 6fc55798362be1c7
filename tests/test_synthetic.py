"""The synthetic world: its shape, its mechanisms, and an oracle that knows its probabilities exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from math import log, log1p, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, ndtr

from graphrec.data import USER, DataError, EventLog, FriendGraph, Query, TemporalSplit
from graphrec.datasets import SyntheticFriends, World, load_dataset
from graphrec.datasets import world as law
from graphrec.datasets.growing_collections import ArrivingGroups, GrowingKeySet, GrowingLists
from graphrec.datasets.simulation import Simulation
from graphrec.datasets.world import (
    ACCEPT,
    ACTIONS,
    DAY_SECONDS,
    HOUR_SECONDS,
    MECHANISMS,
    REQUEST,
    START_TIME,
)
from graphrec.evaluate import evaluate_streaming
from graphrec.models import HEURISTICS, Oracle

LIKE, MESSAGE = ACTIONS.index("like"), ACTIONS.index("message")


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path / "home"))


def simulation(
    num_users: int, num_events: int, *, num_days: int = 10, seed: int = 0, without: tuple[str, ...] = ()
) -> Simulation:
    generator = torch.Generator().manual_seed(seed)
    world = World.draw(num_users, num_days=num_days, without=without, generator=generator)
    return Simulation(world, num_events=num_events, num_days=num_days, generator=generator)


@cache
def lived(without: tuple[str, ...] = (), seed: int = 0) -> tuple[FriendGraph, World]:
    """200 people, 6,000 events in 10 days."""
    made = simulation(200, 6_000, num_days=10, seed=seed, without=without)
    made.run()
    return made.graph(), made.truth()


@cache
def oracle(without: tuple[str, ...] = ()) -> Oracle:
    graph, world = lived(without)
    return Oracle(world).fit(graph, until=TemporalSplit.of(graph).t_val)


# The data set


def test_it_is_a_data_set(tmp_path: Path) -> None:
    dataset = SyntheticFriends(num_users=60, num_events=500, seed=3, num_days=4)
    graph = dataset[0]
    assert (len(dataset), graph.num_users, graph.num_events, graph.actions) == (1, 60, 500, ACTIONS)
    assert graph.validate()
    assert graph.feature_names == ["age", *(f"region={r}" for r in range(8))]
    assert torch.equal(graph[USER].x[:, 0].long(), dataset.world.age)
    assert torch.equal(graph[USER].x[:, 1:].argmax(1), dataset.world.region)
    assert torch.equal(graph[USER].join_time, dataset.world.join_time)
    assert Path(dataset.processed_paths[0]).is_relative_to(tmp_path / "home" / "SyntheticFriends")
    assert len(dataset.world.reply_probability) == graph[USER, "friend_request", USER].num_edges
    named = load_dataset("synthetic", num_users=60, num_events=500, seed=3, num_days=4)
    assert torch.equal(named.events().dst, graph.events().dst)


def same(one: SyntheticFriends, other: SyntheticFriends) -> bool:
    ours, theirs = one[0].events(), other[0].events()
    columns = all(torch.equal(a, b) for a, b in zip(vars(ours).values(), vars(theirs).values(), strict=True))
    return columns and torch.equal(one.world.reply_probability, other.world.reply_probability)


def test_the_same_arguments_give_the_same_world(tmp_path: Path) -> None:
    arguments = {"num_users": 60, "num_events": 500, "num_days": 4}
    made = SyntheticFriends(**arguments, root=tmp_path / "one")
    written = {path: Path(path).stat().st_mtime_ns for path in made.processed_paths}
    assert same(made, SyntheticFriends(**arguments, root=tmp_path / "two"))
    assert same(made, SyntheticFriends(**arguments, root=tmp_path / "one"))
    assert written == {path: Path(path).stat().st_mtime_ns for path in made.processed_paths}
    for other in ({"seed": 1}, {"without": ("bursts",)}, {"num_days": 5}):  # in one folder, yet not mixed up
        assert not same(made, SyntheticFriends(**arguments | other, root=tmp_path / "one"))
    assert same(made, SyntheticFriends(**arguments, root=tmp_path / "one"))


@pytest.mark.parametrize("name", ["num_users", "num_events", "num_days"])
def test_numbers_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must lie in .* got 0"):
        SyntheticFriends(**{name: 0})


def test_an_unknown_mechanism(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown mechanism 'gravity'; the mechanisms are communities, "):
        SyntheticFriends(60, 500, without=("bursts", "gravity"))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_world_in_which_nothing_is_left_to_do() -> None:
    """Both have asked, nobody accepts, and there is no other way to think of anybody."""
    stuck = simulation(2, 1000, num_days=1, without=("recency", "preferential_attachment", "presence"))
    stuck.world.openness.fill_(-50.0)
    with pytest.raises(DataError, match="of 1000 events took 2 days, twice the span"):
        stuck.run()


# What the events are like


def test_events_follow_the_rules() -> None:
    graph, world = lived()
    events = graph.events()
    assert graph.num_events == 6_000
    assert (events.time.diff() >= 0).all()
    assert events.time[0] >= START_TIME
    assert events.time[-1] < START_TIME + 11 * DAY_SECONDS
    begins = START_TIME + world.hour_of(events.time) * HOUR_SECONDS
    assert (world.join_time[events.src] < begins).all()
    assert (world.join_time[events.dst] < begins).all()

    asked: dict[tuple[int, int], int] = {}
    for src, dst, time, action in zip(*(column.tolist() for column in vars(events).values()), strict=True):
        number = (time - START_TIME) // HOUR_SECONDS
        if action == REQUEST:  # nobody is asked who has been, or has asked, in an earlier hour
            assert asked.get((src, dst), number) == asked.get((dst, src), number) == number
            asked.setdefault((src, dst), number)
        if action == ACCEPT:  # each answers a request of an earlier hour, once
            assert asked.pop((dst, src)) < number
            asked[dst, src] = -1


def test_it_is_like_real_networks() -> None:
    graph, _ = lived()
    events, n = graph.events(), graph.num_users
    acts = np.sort(np.bincount(events.src.numpy(), minlength=n))
    assert acts[-n // 20 :].sum() > 0.25 * acts.sum()  # heavy-tailed
    friends = np.bincount(graph[USER, "friend", USER].edge_index[0].numpy(), minlength=n)
    assert 1 <= np.median(friends) < 20
    pair = (events.src * n + events.dst).numpy()
    first = np.unique(pair, return_index=True)[1]
    assert 0.05 < len(first) / len(pair) < 0.5
    when = {int(pair[i]): int(events.time[i]) for i in first}
    approaches = [(t, when.get(p % n * n + p // n, 2**62)) for p, t in when.items()]
    early = [
        later - t <= 7 * DAY_SECONDS
        for t, later in approaches
        if t < later and t < START_TIME + 3 * DAY_SECONDS
    ]
    assert len(early) > 150
    assert 0.3 < np.mean(early) < 0.7


def test_indices_tell_nothing_about_arrival() -> None:
    world = simulation(5000, 1).world
    for column in (world.join_time, world.community, world.activity):
        assert abs(np.corrcoef(np.arange(5000), column.double().numpy())[0, 1]) < 0.05


def share(
    graph: FriendGraph, action: int, holds: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> float:
    events = graph.events()
    rows = events.action == action
    return float(holds(events.src[rows], events.dst[rows]).double().mean())


def closing(graph: FriendGraph, world: World) -> float:
    """Requests between people who have a common friend at the end."""
    edge = graph[USER, "friend", USER].edge_index
    friends = torch.zeros(200, 200)
    friends[edge[0], edge[1]] = 1.0
    common = friends @ friends
    return share(graph, REQUEST, lambda src, dst: common[src, dst] > friends[src, dst])


def hubs(graph: FriendGraph, world: World) -> float:
    """Requests to the ten people who are asked most."""
    events = graph.events()
    asked = torch.bincount(events.dst[events.action == REQUEST], minlength=200).sort(descending=True).values
    return float(asked[:10].sum() / asked.sum())


def watching(graph: FriendGraph, world: World) -> float:
    """Requests to people who acted in the day before."""
    events = graph.events()
    acts = {u: events.time[events.src == u] for u in range(graph.num_users)}
    rows = (events.action == REQUEST).nonzero().squeeze(1).tolist()
    when = ((acts[int(events.dst[i])], events.time[i]) for i in rows)
    return float(np.mean([bool(((past < t) & (past >= t - DAY_SECONDS)).any()) for past, t in when]))


def again(graph: FriendGraph, world: World) -> float:
    """Messages to the person of one's contact before."""
    events, last, hits = graph.events(), {}, []
    for src, dst, action in zip(
        events.src.tolist(), events.dst.tolist(), events.action.tolist(), strict=True
    ):
        if action == MESSAGE:
            hits.append(last.get(src) == dst)
        last[src], last[dst] = dst, src
    return float(np.mean(hits))


def evening(graph: FriendGraph, world: World) -> float:
    events = graph.events()
    hour = (events.time // HOUR_SECONDS + world.region[events.src]) % 24
    return float((hour >= 12).double().mean())


def weekend(graph: FriendGraph, world: World) -> float:
    events = graph.events()
    return float(((events.time - START_TIME) // DAY_SECONDS % 7 >= 5).double().mean())


def bursty(graph: FriendGraph, world: World) -> float:
    """Gaps between the acts of people with few of them that are shorter than two hours."""
    events = graph.events()
    order = torch.from_numpy(np.lexsort((events.time.numpy(), events.src.numpy())))
    gap, src = events.time[order].diff(), events.src[order]
    few = torch.bincount(src)[src[1:]] <= 40
    return float((gap[few & (src.diff() == 0)] < 2 * HOUR_SECONDS).double().mean())


def late(graph: FriendGraph, world: World) -> float:
    return float((world.join_time >= START_TIME).double().mean())


def slow(graph: FriendGraph, world: World) -> float:
    """Answers that take longer than two hours."""
    events, asked, delays = graph.events(), {}, []
    for src, dst, time, action in zip(*(column.tolist() for column in vars(events).values()), strict=True):
        if action == REQUEST:
            asked.setdefault((src, dst), time)
        if action == ACCEPT:
            delays.append(time - asked[dst, src] >= 2 * HOUR_SECONDS)
    return float(np.mean(delays))


CONTRASTS: dict[str, tuple[Callable[[FriendGraph, World], float], float]] = {
    "communities": (lambda g, w: share(g, REQUEST, lambda u, v: w.community[u] == w.community[v]), 0.05),
    "triadic_closure": (closing, 0.05),
    "preferential_attachment": (hubs, 0.03),
    "presence": (watching, 0.03),
    "homophily": (lambda g, w: share(g, REQUEST, lambda u, v: w.cell[u] == w.cell[v]), 0.02),
    "recency": (again, 0.1),
    "daily_rhythm": (evening, 0.1),
    "weekly_rhythm": (weekend, 0.02),
    "bursts": (bursty, 0.05),
    "arrivals": (late, 0.5),
    "delays": (slow, 0.5),
    "two_sided_replies": (lambda g, w: float(w.reply_probability.std()), 0.1),
}


CROWD = ("triadic_closure", "communities", "homophily", "recency")
HIDING = {
    "preferential_attachment": CROWD,
    "presence": CROWD,
    "bursts": ("daily_rhythm", "weekly_rhythm"),
}
"""What is off on both sides, since it would hide the contrast."""


def test_every_mechanism_has_its_contrast() -> None:
    assert sorted(CONTRASTS) == sorted(MECHANISMS)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_mechanism_switched_off(mechanism: str) -> None:
    measure, least = CONTRASTS[mechanism]
    others = HIDING.get(mechanism, ())
    found, missing = measure(*lived(others)), measure(*lived((*others, mechanism)))
    assert found > missing + least, f"{found:.3f} with, {missing:.3f} without"


# The oracle


def naive(graph: FriendGraph, world: World, user: int, time: int, action: int) -> np.ndarray:
    """The law, read aloud: one person after the other."""
    n, number = graph.num_users, (time - START_TIME) // HOUR_SECONDS
    begins = START_TIME + number * HOUR_SECONDS
    columns = (column.tolist() for column in vars(graph.events()).values())
    log_ = [row for row in zip(*columns, strict=True) if row[2] < begins]
    friends: dict[int, set[int]] = {u: set() for u in range(n)}

    def befriended(before: int) -> dict[int, set[int]]:
        out: dict[int, set[int]] = {u: set() for u in range(n)}
        for src, dst, when, what in log_:
            if what == ACCEPT and when < before:
                out[src].add(dst)
                out[dst].add(src)
        return out

    friends = befriended(begins)
    cell = [int(world.region[u]) * 6 + min(max(int(world.age[u]) // 10 - 1, 0), 5) for u in range(n)]
    community, joined = world.community.tolist(), [t < begins for t in world.join_time.tolist()]
    chance = np.zeros(n)

    if action == ACCEPT:
        asked = {}
        for src, dst, when, what in log_:
            if what == REQUEST and dst == user:
                asked.setdefault(src, when)
        for v, when in asked.items():
            if v in friends[user]:
                continue
            first = (when - START_TIME) // HOUR_SECONDS
            then = befriended(START_TIME + first * HOUR_SECONDS)
            score = -0.6 + float(world.openness[user]) + float(world.charm[v])
            score += 0.8 * (community[v] == community[user]) + 0.5 * (cell[v] == cell[user])
            ever = expit(score + 0.7 * log1p(len(then[v] & then[user])))
            by = [0.0 if k < 1 else ndtr(log(k / 8) / 1.5) for k in (number - first - 1, number - first)]
            chance[v] = ever * (by[1] - by[0]) / (1 - ever * by[0])
    else:
        weight = law.MECHANISM_PROBABILITIES[ACTIONS[action]]
        contacts = [(when, dst if src == user else src) for src, dst, when, _ in log_ if user in (src, dst)]
        memory = [0.7**j / sum(0.7**i for i in range(12)) for j in range(12)]
        for j, (_, v) in zip(range(12), sorted(contacts, reverse=True), strict=False):
            chance[v] += weight.get("recency", 0) * memory[j]
        for w in friends[user]:
            chance[w] += weight.get("friends", 0) / len(friends[user])
            for v in friends[w]:
                chance[v] += weight.get("triadic_closure", 0) / len(friends[user]) / len(friends[w])
        day = [src for src, _, when, _ in log_ if when >= begins - 24 * HOUR_SECONDS]
        for v in range(n):
            if log_:
                received = sum(dst == v for _, dst, _, _ in log_)
                chance[v] += weight.get("preferential_attachment", 0) * received / len(log_)
            if day:
                chance[v] += weight.get("presence", 0) * day.count(v) / len(day)
            if joined[v]:
                for way, group in (("communities", community), ("homophily", cell), ("anyone", [0] * n)):
                    if group[v] == group[user]:
                        size = sum(joined[w] and group[w] == group[user] for w in range(n))
                        chance[v] += weight.get(way, 0) / size
        chance[user] = 0
        if action == REQUEST:
            for src, dst, _, what in log_:
                if what == REQUEST and user in (src, dst):
                    chance[src] = chance[dst] = 0
    return chance / chance.sum() if chance.sum() else chance


def test_the_oracle_equals_the_law_read_aloud() -> None:
    """Also before the first event, in the night, and for accepts where nobody asks."""
    made = simulation(40, 1200, num_days=6, seed=4)
    made.run()
    graph, world = made.graph(), made.truth()
    sage = Oracle(world).fit(graph, until=START_TIME + DAY_SECONDS)
    generator = torch.Generator().manual_seed(0)
    user = torch.randint(40, (100,), generator=generator)
    time = START_TIME + torch.randint(-HOUR_SECONDS, 6 * DAY_SECONDS, (100,), generator=generator)
    asked = Query(user, time, torch.arange(100) % 5)
    found = sage.probabilities(asked).numpy()
    rows = zip(user.tolist(), time.tolist(), asked.action.tolist(), strict=True)
    expected = np.stack([naive(graph, world, *row) for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    assert set(np.round(expected.sum(1), 12)) == {0.0, 1.0}
    assert ((expected > 0).sum(1)[asked.action.numpy() == ACCEPT] > 1).sum() >= 5


def until_slice(number: int, **arguments: int) -> Simulation:
    made = simulation(60, 3000, **arguments)
    while made.hour < number:
        made.arrive()
        made.simulate_hour()
    made.arrive()
    return made


@pytest.mark.parametrize("action", [a for a in range(5) if a != ACCEPT])
def test_many_draws_from_one_state_follow_the_oracle(action: int) -> None:
    """20,000 choices of one user in one slice, against the probabilities; chi-squared below 5 sigma."""
    made = until_slice(150, seed=2)
    graph, world = made.graph(), made.truth()
    user = int(torch.bincount(graph.events().src).argsort()[-8])
    moment = torch.tensor([START_TIME + 150 * HOUR_SECONDS + 1234])
    sage = Oracle(world).fit(graph, until=2**37)
    chance = sage.probabilities(Query(torch.tensor([user]), moment, torch.tensor([action])))[0].numpy()
    size = 20_000
    drawn = made.targets(np.full(size, user), np.full(size, action))
    drawn = drawn[drawn >= 0]
    assert len(drawn) > size / 2
    count = np.bincount(drawn, minlength=60)
    assert (count[chance == 0] == 0).all()
    possible = chance > 0
    assert possible.sum() > 5
    expected = chance[possible] * len(drawn)
    squared = ((count[possible] - expected) ** 2 / expected).sum()
    freedom = possible.sum() - 1
    assert abs(squared - freedom) < 5 * sqrt(2 * freedom)


def test_answers_come_as_the_law_says() -> None:
    world = lived()[1]
    delay = world.draw_reply_delays(100_000, torch.Generator().manual_seed(0))
    assert delay.min() == 1
    for k in (0, 1, 2, 8, 24, 168):
        share_, expected = float((delay <= k).double().mean()), float(world.reply_delay_cdf(torch.tensor(k)))
        assert abs(share_ - expected) <= 5 * sqrt(expected * (1 - expected) / 1e5)


def test_requests_are_answered_as_often_as_their_kept_probability() -> None:
    """By the last whole hour of the log, over two worlds."""
    answered, expected, variance = 0, 0.0, 0.0
    for seed in range(2):
        graph, world = lived(seed=seed)
        requests, accepts = graph[USER, "friend_request", USER], graph[USER, "friend_accept", USER]
        (src, dst), (one, other) = requests.edge_index, accepts.edge_index
        late = world.hour_of(graph.events().time[-1:] - 1) - 1 - world.hour_of(requests.time)
        chance = world.reply_probability * world.reply_delay_cdf(late)
        # Of requests in both directions or twice in one hour, the others cannot be answered any more.
        low, high = torch.minimum(src, dst), torch.maximum(src, dst)
        _, which, times = torch.unique(low * 200 + high, return_inverse=True, return_counts=True)
        once = times[which] == 1
        hour = START_TIME + HOUR_SECONDS * world.hour_of(graph.events().time[-1:])
        in_time = accepts.time < hour
        came = torch.isin(src * 200 + dst, (other * 200 + one)[in_time])
        answered += int(came[once].sum())
        expected += float(chance[once].sum())
        variance += float((chance * (1 - chance))[once].sum())
    assert variance > 300
    assert abs(answered - expected) < 4 * sqrt(variance)


@pytest.mark.parametrize("without", [(), ("triadic_closure", "communities", "delays", "arrivals")])
def test_the_oracle_is_calibrated_on_the_log_itself(without: tuple[str, ...]) -> None:
    """Of all events of an action: the probability of whom they turned to, against what it is on average."""
    graph, _ = lived(without)
    events = graph.events()
    for action in range(5):
        rows = (events.action == action).nonzero().squeeze(1)
        chance = oracle(without).probabilities(Query.of_events(graph, rows))
        torch.testing.assert_close(chance.sum(1), torch.ones(len(rows), dtype=torch.float64))
        found = chance[torch.arange(len(rows)), events.dst[rows]]
        assert (found > 0).all()
        mean = chance.square().sum(1)
        variance = chance.pow(3).sum(1) - mean.square()
        assert abs(float((found - mean).sum() / variance.sum().sqrt())) < 4


def test_scores_are_finite_logarithms() -> None:
    graph, _ = lived()
    asked = Query.of_events(graph, torch.arange(5_500, 5_700))
    scores, chance = oracle().score(asked), oracle().probabilities(asked)
    assert torch.isfinite(scores).all()
    assert torch.allclose(scores[chance > 0].exp(), chance[chance > 0], rtol=1e-12)
    assert (scores[chance == 0] < -700).all()
    single = torch.cat([oracle().score(asked[b : b + 1]) for b in range(20)])
    torch.testing.assert_close(scores[:20], single, rtol=1e-12, atol=1e-12)
    assert oracle().score(asked[:0]).shape == (0, 200)
    users, _ = oracle().recommend(asked, 3)
    assert (users[torch.arange(200), 0] == scores.scatter(1, asked.user[:, None], -1e9).argmax(1)).all()


def test_only_earlier_slices_are_seen() -> None:
    """Another world from the start of the query's slice on, and the slice's rows in another order before."""
    graph, world = lived()
    events = graph.events()
    number = int(world.hour_of(events.time[5_000]))
    begins = START_TIME + number * HOUR_SECONDS
    asked = Query(
        torch.arange(200).repeat(5),
        torch.full((1000,), begins + HOUR_SECONDS - 1),
        torch.arange(5).repeat_interleave(200),
    )
    assert (world.hour_of(events.time) == number).sum() > 5
    before = events.time < begins
    shuffled = torch.randperm(6_000, generator=torch.Generator().manual_seed(0))
    other = torch.where(before, events.dst, (events.src + 1) % 200)[shuffled]
    columns = events.src[shuffled], other, events.time[shuffled]
    names = [ACTIONS[code] for code in events.action[shuffled].tolist()]
    log_ = EventLog.from_arrays(*columns, action=names)
    changed = FriendGraph.from_events(log_, world.users())
    scores = Oracle(world).fit(changed, until=2**37).score(asked)
    assert torch.equal(scores, oracle().score(asked))
    later = Query(asked.user, asked.time + 1, asked.action)
    assert not torch.equal(Oracle(world).fit(changed, until=2**37).score(later), oracle().score(later))


def test_refused() -> None:
    graph, world = lived()
    with pytest.raises(RuntimeError, match="oracle has to be fitted first"):
        Oracle(world).score(Query.of_events(graph, torch.arange(2)))
    with pytest.raises(ValueError, match="oracle: there is no event before until="):
        Oracle(world).fit(graph, until=START_TIME)
    with pytest.raises(ValueError, match=r"a graph of 60 users .* is none of a world of 200 users"):
        Oracle(world).fit(until_slice(40).graph(), until=2**37)


def test_the_oracle_beats_every_rule() -> None:
    graph, _ = lived()
    until = TemporalSplit.of(graph).t_val
    best = evaluate_streaming(oracle(), graph, progress=False).rows()[0]
    for name, rule in HEURISTICS.items():
        row = evaluate_streaming(rule().fit(graph, until=until), graph, progress=False).rows()[0]
        assert best["mrr"] > row["mrr"] + 0.01, name


# Collections that grow


batches = st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 99)), max_size=9), max_size=8)


@checked
@given(batches)
def test_lists_are_lists(added: list[list[tuple[int, int]]]) -> None:
    lists, expected = GrowingLists(5), {owner: [] for owner in range(5)}
    for batch in added:
        owner, item = np.array(batch, dtype=np.int64).reshape(-1, 2).T
        lists.extend(owner, item)
        for u, v in batch:
            expected[u].append(v)
        row, found = lists.all_of(np.arange(5))
        assert [(int(u), int(v)) for u, v in zip(row, found, strict=True)] == [
            (u, v) for u in range(5) for v in expected[u]
        ]
    for uniform in (0.0, 0.5, 0.999):
        picked = lists.pick(np.arange(5), np.full(5, uniform))
        assert picked.tolist() == [x[int(uniform * len(x))] if x else -1 for x in expected.values()]


@checked
@given(st.lists(st.lists(st.integers(0, 50), max_size=9), max_size=8), st.integers(1, 20))
def test_keys_are_a_set(added: list[list[int]], merge_at: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphrec.datasets.growing_collections.MAX_UNMERGED_KEYS", merge_at)
        keys, expected = GrowingKeySet(), set()
        for batch in added:
            keys.add(np.array(batch, dtype=np.int64))
            expected |= set(batch)
            assert keys.contain(np.arange(52)).tolist() == [key in expected for key in range(52)]


def test_groups_give_those_who_have_arrived() -> None:
    group, arrivals = np.array([0, 1, 0, 1, 0]), np.array([4, 1, 0, 2, 3])
    groups = ArrivingGroups(group, arrivals)
    groups.arrive(arrivals[:3])
    picked = groups.pick(np.zeros(4, dtype=np.int64), np.arange(4) / 4)
    assert Counter(picked.tolist()) == {4: 2, 0: 2}
    groups.arrive(arrivals[3:])
    assert set(groups.pick(np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.4, 0.9, 0.1, 0.9]))) == {4, 0, 2, 1, 3}
