"""The affinity of profiles: learned from contacts before the end of training, and 0 where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import Row, graph_of

from graphrec.data import USER, FriendGraph, Query
from graphrec.models import TwoTower
from graphrec.models.mixture import profile_affinity
from graphrec.models.mixture.plan import plan_training
from graphrec.models.mixture.profile_affinity import ProfilePairs, fit_affinity
from graphrec.models.mixture.view import GraphView
from graphrec.nn import ProfileNet

USERS, GROUPS, UNTIL = 120, 4, 5_000


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_affinity, "BATCH_SIZE", 256)


def circles(seed: int = 0, *, alike: float = 0.9) -> list[Row]:
    """Contacts between users of one circle, u % GROUPS, with probability `alike`, else with anyone."""
    rng = np.random.default_rng(seed)
    rows = []
    for time in range(1500):
        src = int(rng.integers(USERS))
        dst = int(rng.integers(USERS))
        if rng.random() < alike:
            dst = dst - dst % GROUPS + src % GROUPS
        if src != dst:
            rows.append(Row(src, dst, time))
    return rows


def described(rows: list[Row], *, informative: bool = True) -> FriendGraph:
    """The users' features: their circles, one-hot, or one drawn at random, and two columns of noise."""
    graph = graph_of(rows, USERS)
    generator = torch.Generator().manual_seed(1)
    circle = torch.arange(USERS) % GROUPS
    if not informative:
        circle = circle[torch.randperm(USERS, generator=generator)]
    noise = torch.randn(USERS, 2, generator=generator)
    graph[USER].x = torch.cat([torch.nn.functional.one_hot(circle, GROUPS), noise], dim=1)
    return graph


def view_of(graph: FriendGraph, until: int = UNTIL) -> GraphView:
    return plan_training(graph, until, TwoTower(features=()).config)[0]


def affinities(graph: FriendGraph, until: int = UNTIL) -> torch.Tensor:
    """The affinities of all pairs, [N, N]."""
    view = view_of(graph, until)
    assert view.profiles is not None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ProfileNet(view.profile_columns, 8)
    fit_affinity(net, view, seed=0)
    rows = net.table(view.profiles.x)
    query = net.affinity_query(rows).repeat_interleave(USERS, 0)
    return net.affinity(query, net.person(rows).repeat(USERS, 1)).view(USERS, USERS)


def test_alike_users_have_affinity_though_they_were_never_seen() -> None:
    unseen = torch.arange(USERS) >= USERS - 20
    rows = [row for row in circles() if not (unseen[row.src] or unseen[row.dst])]
    score = affinities(described(rows))[unseen][:, ~unseen]
    circle = torch.arange(USERS) % GROUPS
    same = circle[unseen][:, None] == circle[~unseen]
    assert score[same].mean() > score[~same].mean() + 1.0
    best = score.argmax(1)
    assert (circle[~unseen][best] == circle[unseen]).float().mean() > 0.9


def test_features_that_say_nothing_bring_none() -> None:
    score = affinities(described(circles(), informative=False))
    circle = torch.arange(USERS) % GROUPS
    same = circle[:, None] == circle
    assert abs(score[same].mean() - score[~same].mean()) < 0.1
    few = described([Row(0, 1, 0), Row(1, 2, 1), Row(2, 3, 2)])
    assert affinities(few).abs().max() == 0.0


def test_events_from_the_end_of_training_on_change_nothing() -> None:
    """Planted at the end's own second, and later."""
    rows, until = circles(), 1_000
    before = affinities(described(rows), until)
    planted = [row for row in rows if row.time < until]
    planted += [Row(0, 1, until), Row(5, 6, until + 1), Row(5, 9, until + 2)]
    torch.testing.assert_close(affinities(described(planted), until), before, rtol=0, atol=0)
    assert before.abs().max() > 0


def test_pairs_are_those_of_a_loop_and_carry_no_index() -> None:
    rows = [row for row in circles() if row.time < 60]
    graph, until = described(rows), 40
    graph[USER].join_time = torch.where(torch.arange(USERS) % 7 == 0, 50, 0)  # some are not known yet
    view = view_of(graph, until)
    pairs = ProfilePairs.of(view)
    found = list(zip(view.known[pairs.one].tolist(), view.known[pairs.other].tolist(), strict=True))
    met = {(a, b) for s, d, t, _ in rows if t < until for a, b in ((s, d), (d, s))}
    expected = {(a, b) for a, b in met if a % 7 and b % 7}
    assert set(found) == expected
    assert len(found) == len(expected)
    degree = [sum(a == user for a, _ in met) for user in view.known.tolist()]
    torch.testing.assert_close(pairs.log_degree, torch.tensor(degree).float().log1p())
    assert (pairs.one.diff() >= 0).all()


@pytest.mark.parametrize("asks_all", [True, False])
def test_popularity_is_expected_until_the_first_event(asks_all: bool) -> None:
    """Users without an event before a query have the popularity of their features, others do not."""
    rows = [*circles(), Row(0, USERS - 1, 2_000)]
    rows = [row for row in rows if USERS - 1 not in row[:2] or row.time == 2_000]
    model = TwoTower(features=(), components=(), embedding_dim=8, max_epochs=1, progress=False)
    model.fit(described(rows), until=1_500)
    view, net = model.view, model.network.profile
    assert net is not None
    assert view.profiles is not None
    query = Query.of(view.graph, [3, 3], torch.tensor([2_000, 2_001]))
    users = torch.arange(USERS)

    def scores() -> torch.Tensor:
        if asks_all:
            return model.head.logits(model.encode_query(query), None)
        return torch.stack([model.head.user_vectors(time)[:, -1] for time in query.time.tolist()])

    with torch.no_grad():
        before = scores()
        net.target[-1].bias[-1] += 0.75  # type: ignore[union-attr,operator]
        moved = scores() - before
    first = torch.tensor([min((r.time for r in rows if u in r[:2]), default=9_999) for u in users.tolist()])
    expected = torch.where(first >= query.time[:, None], 0.75, 0.0)
    torch.testing.assert_close(moved, expected, atol=1e-2, rtol=0)
    assert expected[0, -1] == 0.75
    assert expected[1, -1] == 0.0


def test_the_table_is_computed_again_for_other_weights_and_profiles() -> None:
    net, x = ProfileNet(4, 8), torch.randn(10, 4)
    with torch.no_grad():
        first = net.table(x)
        assert net.table(x) is first
        net.query[0].weight += 1.0  # type: ignore[union-attr,operator]
        again = net.table(x)
        assert not torch.equal(again, first)
        assert not torch.equal(net.table(x.clone() + 1), again)
    parts = net.query(x), net.target(x), torch.ones(10, 1)
    torch.testing.assert_close(again, torch.cat(parts, dim=1))
