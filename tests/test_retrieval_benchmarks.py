"""The benchmarks of decoding and of reach: what they compare is alike, and what is wrong is counted."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from graphs import graph_of, planted_rows
from recommenders import SMALL

from benchmarks.quality import reach
from benchmarks.speed.decoding import Towers, generic_search, trie_of, violations
from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.decode import PrefixTree, beam_search, score_all
from graphrec.models import GenerativeSTU, MixtureRecommender
from graphrec.models.heads.codes.diagnostics import generators
from graphrec.temporal import Neighborhood, NeighborhoodConfig, Timeline
from graphrec.tokenizer import ResidualKMeans, TokenizerQualityWarning


@pytest.fixture(scope="module")
def graph() -> FriendGraph:
    return graph_of(planted_rows(0, groups=6, size=20, events=500))


@pytest.fixture(scope="module")
def model(graph: FriendGraph) -> MixtureRecommender:
    split = TemporalSplit.of(graph)
    model = GenerativeSTU(tokenizer=ResidualKMeans(dim=4), **{**SMALL, "max_epochs": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TokenizerQualityWarning)
        return model.fit(graph, until=split.t_val, validate_until=split.t_test)


def test_the_generic_search_finds_what_ours_finds() -> None:
    torch.manual_seed(0)
    code = torch.randperm(8**3)[:200]
    codes = torch.stack([code // 64, code // 8 % 8, code % 8], dim=1)
    codes[:5] = -1
    tree, towers = PrefixTree(codes, 8), Towers(4, 8).eval()
    scorer = towers.asked(torch.randn(6, 4))
    found = generic_search(scorer, trie_of(codes), [set()] * 6)
    # Without renormalising, both multiply the same numbers.
    ours = beam_search(scorer, tree, 6, 20, beam_size=50, renormalize=False)[0]
    assert found == ours.tolist()
    barred = [{people[0]} for people in found]
    again = generic_search(scorer, trie_of(codes), barred)
    assert [people[:19] for people in again] == [people[1:] for people in found]


def test_every_kind_of_violation_is_counted() -> None:
    codes = torch.tensor([[0], [1], [2], [-1], [3]])
    tree, none = PrefixTree(codes, 4), torch.empty(0, dtype=torch.int64)
    right = violations(torch.tensor([[0, 1]]), (none, none), tree, 2)
    assert right == {"suggestions": 2, "do not exist": 0, "not allowed": 0, "twice": 0, "missing": 0}
    exclude = torch.tensor([0, 0]), torch.tensor([0, 4])
    wrong = violations(torch.tensor([[0, 1, 1, 3, -1]]), exclude, tree, 2)
    assert wrong == {"suggestions": 4, "do not exist": 1, "not allowed": 1, "twice": 1, "missing": 2}


def test_the_generator_alone_is_its_share_of_the_mixture(
    graph: FriendGraph, model: MixtureRecommender
) -> None:
    query = Query.of_events(graph, TemporalSplit.of(graph).event_ids("test")[:12])
    for rows, scorer in generators(model, query):
        with torch.no_grad():
            alone = score_all(scorer, scorer.tree, len(rows))
            everyone = model.head.log_probs(model.encode_query(query[rows]))
        has = scorer.tree.place >= 0
        share = everyone[:, has].logsumexp(1, keepdim=True)
        torch.testing.assert_close(alone[:, has], everyone[:, has] - share, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(alone.logsumexp(1), torch.zeros(len(rows)), atol=1e-3, rtol=0)


def test_what_is_asked_lies_outside(graph: FriendGraph) -> None:
    timeline, ids = Timeline.of(graph), TemporalSplit.of(graph).event_ids("test")
    asked, share = reach.questions(graph, ids, 20, around=False)
    query, target = Query.of_events(graph, asked.event), timeline.events.dst[asked.event]
    tick = timeline.tick(query.time)
    assert 0 < share < 1
    assert 0 < len(asked.event) <= 20
    assert bool((timeline.num_acts(query.user, tick) < reach.FEW).all())
    row, user = asked.exclude
    assert not bool((user == target[row]).any())
    pairs = reach.barred(timeline, query, around=True)
    around = Neighborhood.of(timeline, query.user, tick, NeighborhoodConfig())
    kept = set(zip(*(part.tolist() for part in pairs), strict=True))
    assert set(zip(around.row.tolist(), around.user.tolist(), strict=True)) <= kept
    assert set(enumerate(query.user.tolist())) <= kept


def test_ranks_of_lists_and_of_scores_agree(graph: FriendGraph, model: MixtureRecommender) -> None:
    asked, _ = reach.questions(graph, TemporalSplit.of(graph).event_ids("test"), 20, around=False)
    query, target = Query.of_events(graph, asked.event), graph.events().dst[asked.event]
    cost = reach.Cost()
    written = reach.Written(model, 200).ranks(query, target, asked.exclude, cost)
    scores = reach.Everyone(lambda part: reach.everyone_written(model, part), graph.num_users, rows=7)
    exact = scores.ranks(query, target, asked.exclude, reach.Cost())
    has = written < torch.inf
    assert bool(has.any())
    assert cost.scored > 0 < cost.seconds
    torch.testing.assert_close(written[has], exact[has], atol=1.0, rtol=0)  # ties


@pytest.mark.parametrize("row", ["structure", "last_seen"])
def test_a_row_of_reach(row: str, graph: FriendGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "load_dataset", lambda name: graph)
    monkeypatch.setattr(reach, "measure", lambda prepare, folder: (0.0, 0.0, 0.0, prepare(Path())() or 0.0))
    figures = reach.judge("any", {}, "test", row, 20, {})
    assert {one["slice"] for one in figures["rows"]} >= {"few acts"}
    assert all(0 <= one["recall@50"] <= one["recall@200"] <= 1 and one["n"] for one in figures["rows"])
    by_cost = {one["way"]: one["scored"] for one in figures["rows"] if one["slice"] == "few acts"}
    assert by_cost["everyone"] == graph.num_users
