"""Nearest people by an index of user vectors, and candidates of several ways put in order by one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphs import graph_of, planted_rows
from recommenders import BARE, CODED, SMALL
from torch import Tensor

from graphrec.data import USER, DataError, FriendGraph, Query, TemporalSplit
from graphrec.models import HEURISTICS, GenerativeSTU, Hybrid, MixtureRecommender, Nearest, TwoTower
from graphrec.models.recommender import RECOMMENDER_CLASSES
from graphrec.retrieval import ApproximateIndex, ExactIndex, recall

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


@pytest.fixture(scope="module")
def graph() -> FriendGraph:
    return graph_of(planted_rows(0, groups=6, size=20, events=500))


@pytest.fixture(scope="module")
def split(graph: FriendGraph) -> TemporalSplit:
    return TemporalSplit.of(graph)


@pytest.fixture(scope="module")
def nearest(graph: FriendGraph, split: TemporalSplit) -> Nearest:
    model = Nearest(TwoTower(**BARE, **SMALL), index=ExactIndex)
    return model.fit(graph, until=split.t_val, validate_until=split.t_test)


@pytest.fixture(scope="module")
def scorer(graph: FriendGraph, split: TemporalSplit) -> MixtureRecommender:
    return GenerativeSTU(**CODED).fit(graph, until=split.t_val, validate_until=split.t_test)


def asked(graph: FriendGraph, split: TemporalSplit) -> Query:
    return Query.of_events(graph, split.event_ids("test")[:40])


def test_the_nearest_are_those_whom_the_towers_hold_likeliest(
    graph: FriendGraph, split: TemporalSplit, nearest: Nearest
) -> None:
    query = asked(graph, split)
    exclude = torch.arange(len(query)), (query.user + 1) % graph.num_users
    expected = nearest.two_tower.recommend(query, 12, exclude)
    found = nearest.recommend(query, 12, exclude)
    assert (found[0] == expected[0]).float().mean() > 0.99  # the same but for the last bit
    gap = found[1] - expected[1]  # the same for all people of a query
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), atol=1e-4, rtol=0)


def test_profiles_move_people_as_soon_as_they_are_known(split: TemporalSplit) -> None:
    graph = graph_of(planted_rows(0, groups=6, size=20, events=500))
    graph[USER].x = torch.randn(graph.num_users, 3, generator=torch.Generator().manual_seed(0))
    graph[USER].join_time = torch.zeros(graph.num_users, dtype=torch.int64)
    graph[USER].join_time[5] = late = split.t_test + 1
    model = Nearest(TwoTower(**BARE, **SMALL), index=ExactIndex)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    profile = model.two_tower.network.profile
    assert profile is not None
    torch.nn.init.normal_(profile.term.weight, generator=torch.Generator().manual_seed(1))
    model.join(graph)
    user = torch.tensor([0, 1, 2, 0, 1, 2])
    query = Query.of(graph, user, torch.tensor([late] * 3 + [late + 1] * 3))
    scores, towers = model.score(query), model.two_tower.score(query)
    gap = scores - towers
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), atol=1e-4, rtol=0)
    moved = (towers[:3] - towers[3:]).abs()
    assert moved[:, 5].min() > 10 * moved[:, torch.arange(graph.num_users) != 5].max()
    found, value = model.recommend(query, graph.num_users - 1)
    for row in range(6):
        torch.testing.assert_close(value[row].float(), scores[row, found[row]], atol=1e-5, rtol=0)


def test_an_approximate_index_finds_most(nearest: Nearest, graph: FriendGraph, split: TemporalSplit) -> None:
    query = asked(graph, split)
    few = Nearest(nearest.two_tower, index=lambda: ApproximateIndex(num_cells=8, num_probes=4)).join(graph)
    found = few.recommend(query, 10)[0]
    assert bool((found >= 0).all())
    assert not bool((found == query.user[:, None]).any())
    share = float(recall(found, nearest.recommend(query, 10)[0]).mean())
    assert 0.5 < share < 1.0


def test_a_hybrid_lists_the_union_in_the_order_of_its_scorer(
    graph: FriendGraph, split: TemporalSplit, nearest: Nearest, scorer: MixtureRecommender
) -> None:
    rule = HEURISTICS["adamic_adar"]().fit(graph, until=split.t_val)
    model = Hybrid(scorer, [scorer, nearest, rule], num_candidates=8).join(graph)
    query = asked(graph, split)
    exclude = torch.arange(len(query)), (query.user + 3) % graph.num_users
    users, scores = model.recommend(query, 6, exclude)
    lists = [way.recommend(query, 8, exclude)[0].tolist() for way in (scorer, nearest, rule)]
    everyone = scorer.score(query)
    for row in range(len(query)):
        union = {person for people in lists for person in people[row]}
        best = sorted(union, key=lambda person: -float(everyone[row, person]))[:6]
        torch.testing.assert_close(everyone[row, users[row]], everyone[row, best], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(scores[row].float(), everyone[row, users[row]], atol=1e-3, rtol=1e-3)
        assert set(users[row].tolist()) <= union


def test_candidates_leave_out_the_excluded(
    graph: FriendGraph, split: TemporalSplit, nearest: Nearest
) -> None:
    rule = HEURISTICS["adamic_adar"]().fit(graph, until=split.t_val)
    model, query = Hybrid(nearest, [nearest, rule]).join(graph), asked(graph, split)
    row, user = model.candidates(query, 8)
    excluded, gone = (row[::3], user[::3]), user.unique()[:2]
    left = model.candidates(query, 8, exclude=excluded, exclude_users=gone)
    pairs = set(zip(*map(Tensor.tolist, left), strict=True))
    assert pairs
    assert not pairs & set(zip(*map(Tensor.tolist, excluded), strict=True))
    assert not torch.isin(left[1], gone).any()


def test_lists_are_checked_in_one_place() -> None:
    """A recommender of the library says how it finds people; `recommend` itself is the contract's."""
    own = [kind for kind in RECOMMENDER_CLASSES.values() if kind.__module__.startswith("graphrec.")]
    assert len(own) > 15
    assert not [kind.__name__ for kind in own if "recommend" in vars(kind)]


def test_a_hybrid_on_another_graph(
    graph: FriendGraph, split: TemporalSplit, nearest: Nearest, scorer: MixtureRecommender
) -> None:
    model = Hybrid(scorer, [scorer, nearest], num_candidates=8).join(graph)
    query = Query.of(graph, torch.arange(10), split.t_test)
    past = model.on(graph.snapshot(split.t_test))
    assert past.retrievers[0] is past.scorer
    torch.testing.assert_close(
        past.recommend(query, 5)[1], model.recommend(query, 5)[1], atol=1e-3, rtol=1e-3
    )


def test_what_cannot_be_asked(graph: FriendGraph, nearest: Nearest) -> None:
    with pytest.raises(ValueError, match="at least one retriever"):
        Hybrid(nearest, [])
    with pytest.raises(ValueError, match="num_candidates must be at least 1"):
        Hybrid(nearest, [nearest], num_candidates=0)
    model = Hybrid(nearest, [nearest])
    query = Query.of(graph, torch.arange(2), 10)
    with pytest.raises(RuntimeError, match="has to be fitted first"):
        model.recommend(query, 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        model.join(graph).recommend(query, 0)


def test_the_nearest_are_kept(
    nearest: Nearest, graph: FriendGraph, split: TemporalSplit, tmp_path: Path
) -> None:
    nearest.save(tmp_path)
    again = Nearest.load(tmp_path, graph)
    query = asked(graph, split)
    for kept, given in zip(again.recommend(query, 9), nearest.recommend(query, 9), strict=True):
        assert torch.equal(kept, given)
    own = Nearest(nearest.two_tower, index=lambda: ApproximateIndex(num_cells=8)).join(graph)
    with pytest.raises(ValueError, match="cannot be saved; use one of approximate, exact"):
        own.save(tmp_path)
    for damaged in ("model.pt", "nearest.json"):
        (tmp_path / damaged).write_bytes(b"{}")
        with pytest.raises(DataError, match="not a Nearest as it was saved, or damaged"):
            Nearest.load(tmp_path, graph)


def test_a_hybrid_is_kept(
    nearest: Nearest, scorer: MixtureRecommender, graph: FriendGraph, split: TemporalSplit, tmp_path: Path
) -> None:
    rule = HEURISTICS["ppr"]().fit(graph, until=split.t_val)
    model = Hybrid(scorer, [nearest, scorer, rule], num_candidates=8).join(graph)
    model.save(tmp_path)
    again = Hybrid.load(tmp_path, graph)
    assert (again.name, again.num_candidates) == ("stu_hybrid", 8)
    assert again.retrievers[1] is again.scorer  # once on disk, once in memory
    assert again.tokenizer is again.scorer.tokenizer is not None
    query = asked(graph, split)
    for kept, given in zip(again.recommend(query, 9), model.recommend(query, 9), strict=True):
        assert torch.equal(kept, given)
    for damaged in ("1/model.pt", "2/heuristic.json", "hybrid.json"):
        (tmp_path / damaged).write_bytes(b"{}")
        with pytest.raises(DataError, match="not a Hybrid as it was saved, or damaged"):
            Hybrid.load(tmp_path, graph)
