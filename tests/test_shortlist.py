"""The search of the two-tower: exact where all users are listed, close to it where few are."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from graphs import Row, graph_of, planted_rows
from torch import Tensor

from graphrec.data import Query, TemporalSplit
from graphrec.models import TWO_TOWER_PRESETS, MixtureRecommender, TwoTower
from graphrec.models.heads import shortlist
from graphrec.models.heads.shortlist import Shortlists
from graphrec.models.heads.softmax import BoundSoftmaxHead

USERS = 32
ROWS = planted_rows(1, events=400)


@cache
def fitted(preset: str) -> MixtureRecommender[BoundSoftmaxHead]:
    graph = graph_of(ROWS, USERS + 2)
    model = TwoTower(
        **TWO_TOWER_PRESETS[preset],
        embedding_dim=8,
        hidden_channels=8,
        window=8,
        max_epochs=2,
        progress=False,
    ).fit(graph, until=TemporalSplit.of(graph).t_val)
    presence = model.head.table.presence
    assert presence is not None
    with torch.no_grad():  # after two epochs it is still nearly zero
        presence.score.weight.normal_(generator=torch.Generator().manual_seed(0))
        presence.score.bias.fill_(0.5)
    return model


def queries() -> Query:
    last = ROWS[-1].time
    user = torch.tensor([0, 5, 9, 3, USERS, 0])
    time = torch.tensor([last + 1, last + 1, last + 1, last + 900, last + 1, last - 1])
    return Query(user, time, torch.zeros_like(user))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortlists of 12 of 34 users, renewed after 16 events."""
    monkeypatch.setattr(shortlist, "LISTED", 8)
    monkeypatch.setattr(shortlist, "SAMPLED", 4)
    monkeypatch.setattr(shortlist, "MIN_EVENTS", 16)


@pytest.mark.parametrize("preset", TWO_TOWER_PRESETS)
def test_lists_of_all_users_are_exact(preset: str) -> None:
    model, query = fitted(preset), queries()
    users, values = model.recommend(query, 10)
    scores = model.score(query).double()
    scores[torch.arange(len(query)), query.user] = -torch.inf
    torch.testing.assert_close(values, scores.topk(10).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, scores.gather(1, users), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("few")
def test_a_shortlist_stands_for_all_users_and_knows_the_past_alone() -> None:
    view = fitted("two_tower").view
    score = torch.rand(USERS + 2, generator=torch.Generator().manual_seed(3))
    asked: list[int] = []

    def scored(tick: int) -> Tensor:
        asked.append(tick)
        return score

    lists = Shortlists(view, scored)
    ticks = torch.tensor([200, len(view.timeline.instants)])
    for tick, number in zip(ticks.tolist(), lists.number(ticks).tolist(), strict=True):
        one = lists[number]
        assert len(one.user.unique()) == len(one.user) == 12
        assert float(one.log_weight.exp().sum()) == pytest.approx(USERS + 2)
        assert set(score.topk(8).indices.tolist()) == set(one.user[one.log_weight == 0].tolist())
        assert 0 <= tick - asked[-1] <= 17
        assert lists[number] is one
        found, column = one.columns(torch.arange(USERS + 2), USERS + 2)
        assert set(found.nonzero().squeeze(1).tolist()) == set(one.user.tolist())
        assert torch.equal(one.user[column[found]], torch.arange(USERS + 2)[found])


@pytest.mark.usefixtures("few")
def test_a_short_shortlist_changes_scores_by_the_error_of_one_sum() -> None:
    model = fitted("two_tower_mixture").on(graph_of(ROWS, USERS + 2))
    query = queries()
    users, values = model.recommend(query, 5, exclude_users=torch.tensor([7]))
    assert (users >= 0).all()
    assert not ((users == query.user[:, None]) | (users == 7)).any()
    scores = model.score(query).double().gather(1, users)
    torch.testing.assert_close(values, scores, atol=0.7, rtol=0.0)
    assert float((values - scores).abs().max()) > 1e-4
    single = torch.cat([model.recommend(query[[row]], 5)[1] for row in range(len(query))])
    torch.testing.assert_close(single, model.recommend(query, 5)[1], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("few")
def test_events_at_the_time_of_a_query_and_later_change_no_list() -> None:
    model, now = fitted("two_tower_mixture"), ROWS[-1].time + 10
    query = Query(torch.arange(6), torch.full((6,), now), torch.zeros(6, dtype=torch.int64))
    late = [Row(0, 7, now), Row(7, 1, now), Row(2, 7, now + 1), Row(9, 7, now + 5)]
    before = model.on(graph_of(ROWS, USERS + 2)).recommend(query, 8)
    later = model.on(graph_of([*ROWS, *late], USERS + 2))
    for mine, other in zip(before, later.recommend(query, 8), strict=True):
        assert torch.equal(mine, other)
    assert not torch.equal(later.recommend(Query(query.user, query.time + 1, query.action), 8)[1], before[1])


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("preset", TWO_TOWER_PRESETS)
@pytest.mark.parametrize(("k", "kept"), [(30, USERS + 2), (5, 9)])
def test_a_list_longer_than_a_shortlist_is_exact(preset: str, k: int, kept: int) -> None:
    model = fitted(preset).on(graph_of(ROWS, USERS + 2))
    query, nobody = queries(), torch.arange(kept, USERS + 2)
    users, values = model.recommend(query, k, exclude_users=nobody)
    scores = model.score(query).double()
    scores[torch.arange(len(query)), query.user] = -torch.inf
    scores[:, nobody] = -torch.inf
    torch.testing.assert_close(values, scores.topk(k).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, scores.gather(1, users), atol=1e-5, rtol=1e-5)
