"""The tokenizer report: counts, homophily and AUC against naive ones, structure where there is any, drift."""

from __future__ import annotations

import itertools
import json
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from graphs import Row, graph_of, planted_rows, random_rows
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.report import code_tree
from graphrec.tokenizer import (
    RandomCodes,
    ResidualKMeans,
    STUs,
    Ties,
    TokenizerQualityWarning,
    TokenizerReport,
    code_drift,
    evaluate_tokenizer,
    score_ties,
)
from graphrec.tokenizer.quality import tie_report as module
from graphrec.tokenizer.quality.ties import shared_prefix_length

quiet = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def circles(seed: int = 0, *, events: int = 4_000) -> FriendGraph:
    """Eight circles of sixteen."""
    return graph_of(planted_rows(seed, groups=8, size=16, events=events), 128)


def anybody(seed: int = 0) -> FriendGraph:
    """A graph without any structure."""
    return graph_of(random_rows(seed, users=400, events=6_000, times=2_000, actions=("text",)), 400)


# Ties


def test_ties_are_pairs_by_their_first_contact() -> None:
    ties = Ties.of(graph_of([Row(2, 1, 0), Row(1, 2, 1), Row(0, 1, 1), Row(0, 1, 5), Row(3, 0, 7)]))
    assert torch.stack([ties.src, ties.dst, ties.time]).tolist() == [[2, 0, 3], [1, 1, 0], [0, 1, 7]]
    assert ties.between(1, 7).tolist() == [False, True, False]
    assert ties.between(None, 7).tolist() == [True, True, False]
    assert ties.between(1, None).tolist() == [False, True, True]


def naive_chance(codes: Tensor, ties: Ties, weight: Tensor, length: int) -> float:
    """Over all pairs without a tie, by weight, the share with a common prefix."""
    known = {frozenset(pair) for pair in zip(ties.src.tolist(), ties.dst.tolist(), strict=True)}
    total = sharing = 0.0
    for u, v in itertools.combinations(range(len(codes)), 2):
        if frozenset((u, v)) not in known and codes[u, 0] >= 0 and codes[v, 0] >= 0:
            total += float(weight[u] * weight[v])
            sharing += float(weight[u] * weight[v]) * bool((codes[u, :length] == codes[v, :length]).all())
    return sharing / total


@pytest.mark.parametrize("seed", range(5))
def test_homophily_equals_a_naive_count(seed: int) -> None:
    graph = graph_of(random_rows(seed, users=24, events=120, times=60), 26)
    codes = torch.randint(3, (26, 3), generator=generator(seed))
    codes[::7] = -1
    ties = Ties.of(graph)
    judged = ties.between(20, 50)
    verdict = score_ties(codes, ties, past=ties.between(None, 20), scored=judged, generator=generator())
    kept = judged & (codes[ties.src, 0] >= 0) & (codes[ties.dst, 0] >= 0)
    assert verdict.num_ties == kept.sum()
    if verdict.num_ties < module.MIN_SCORED_TIES:
        assert verdict.auc == {"uniform": None, "matched": None}
        return
    src, dst = ties.src[kept], ties.dst[kept]
    weights = {"uniform": torch.ones(26), "matched": torch.bincount(torch.cat([src, dst]), minlength=26)}
    for kind, weight in weights.items():
        for length in (1, 2, 3):
            share = float((codes[src, :length] == codes[dst, :length]).all(1).double().mean())
            chance = naive_chance(codes, ties, weight, length)
            found = verdict.homophily[kind][length - 1]
            assert (found is None) == (chance == 0)
            if found is not None:
                assert found.value == pytest.approx(share / chance)
                assert found.low <= found.value <= found.high


def test_scores_equal_the_formula() -> None:
    graph = graph_of(random_rows(4, users=30, events=200, times=60), 30)
    codes, ties = torch.randint(3, (30, 3), generator=generator()), Ties.of(graph)
    one, other = torch.triu_indices(30, 30, 1)
    for weight in (
        torch.ones(30).double(),
        torch.bincount(torch.cat([ties.src, ties.dst]), minlength=30).double(),
    ):
        mass = (weight[one] * weight[other]) / (weight[one] * weight[other]).sum() * len(ties)
        tied = {frozenset(pair) for pair in zip(ties.src.tolist(), ties.dst.tolist(), strict=True)}
        is_tied = torch.tensor(
            [frozenset(pair) in tied for pair in zip(one.tolist(), other.tolist(), strict=True)]
        )
        shared = shared_prefix_length(codes, one, other)
        score = module._PairScorer(codes, ties, weight)(one, other)
        for row in range(0, len(one), 17):
            cell = {int(codes[one[row], 0]), int(codes[other[row], 0])}
            same_cell = torch.tensor(
                [{int(a), int(b)} == cell for a, b in zip(codes[one, 0], codes[other, 0], strict=True)]
            )
            parts = [same_cell]
            if shared[row]:
                parts = [same_cell, shared == shared[row], shared > 0]
            ratio = [(is_tied[part].sum() + 1) / (mass[part].sum() + 1) for part in parts]
            naive = ratio[0] * (ratio[1] / ratio[2] if len(ratio) == 3 else 1.0)
            assert float(score[row]) == pytest.approx(float(naive.log()), abs=1e-9)


def test_auc_is_the_share_of_pairs_in_order() -> None:
    """Of four camps, one knows nobody but the next: a code for a camp tells ties without any homophily."""
    rng = np.random.default_rng(0)
    rows = []
    for time in range(4_000):
        camp = int(rng.integers(4))
        u, v = 20 * camp + int(rng.integers(20)), 20 * ((camp + 1) % 4) + int(rng.integers(20))
        rows.append(Row(u, v, time))
    graph, codes = graph_of(rows, 80), torch.arange(80)[:, None] // 20
    ties = Ties.of(graph)
    early = ties.between(None, 300)
    verdict = score_ties(codes, ties, past=early, scored=~early, generator=generator())
    assert verdict.homophily["uniform"][0].value == 0
    assert verdict.auc["uniform"].value > 0.9
    assert verdict.finds_structure
    # With no past to learn from, one pair is like the other.
    blind = score_ties(codes, ties, past=torch.zeros_like(early), scored=~early, generator=generator())
    assert blind.auc["uniform"].value < 0.6


def test_names_do_not_matter() -> None:
    graph, order = circles(), torch.randperm(128, generator=generator(1))
    ties, codes = Ties.of(graph), torch.randint(4, (128, 2), generator=generator())
    renamed = Ties(order[ties.src], order[ties.dst], ties.time)
    there = torch.empty_like(codes).index_copy_(0, order, codes)
    now = ties.between(2_000 * 3600, None)
    one, other = (
        score_ties(c, t, past=~now, scored=now, generator=generator())
        for c, t in ((codes, ties), (there, renamed))
    )
    for kind in module.BASELINES:
        assert one.homophily[kind] == other.homophily[kind]
        assert one.auc[kind].value == pytest.approx(other.auc[kind].value, abs=0.03)


# What a report holds


@quiet
def test_counts_of_a_fit() -> None:
    graph = circles()
    tokenizer = ResidualKMeans(dim=8, unique=True).fit(graph, until=10**9)
    said, table, raw_codes = tokenizer.report, tokenizer.table, tokenizer.members.raw_codes
    assert (said.num_users, said.codebook_size, said.num_codebooks) == (128, 16, 3)
    share = np.bincount(table.codes[:, 0], minlength=16) / 128
    assert said.perplexity[0] == pytest.approx(
        np.exp(-(share[share > 0] * np.log(share[share > 0])).sum()) / 16
    )
    assert said.dead_codes[0] == (share == 0).sum()
    _, size = np.unique(raw_codes.numpy(), axis=0, return_counts=True)
    assert said.colliding == pytest.approx(size[size > 1].sum() / 128)
    assert said.largest_bucket == size.max()
    assert (said.resolved_colliding, said.resolved_largest_bucket) == (0, 1)
    assert 0 < said.explained_variance[0] < said.explained_variance[1] < said.explained_variance[2] < 1
    assert said.resolved_explained_variance <= said.explained_variance[2]
    loose = ResidualKMeans(dim=8, unique=False).fit(graph, until=10**9).report
    assert loose.resolved_colliding == loose.colliding > 0


@quiet
def test_seen_ties_flatter_and_say_so() -> None:
    graph = anybody()
    tokenizer = ResidualKMeans(balanced=True).fit(graph, until=1_600)
    said = tokenizer.report
    assert said.tie_source == "fit"
    assert said.ties.homophily["uniform"][0].low > 1.5
    assert "optimistic" in said.table()


@pytest.mark.parametrize("seed", range(3))
def test_no_structure_is_found_where_there_is_none(seed: int) -> None:
    graph = anybody(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TokenizerQualityWarning)
        tokenizer = ResidualKMeans(balanced=True, seed=seed).fit(graph, until=1_600)
        found = [evaluate_tokenizer(tokenizer, graph, later=2_000), evaluate_tokenizer(tokenizer, graph)]
    for said, kind in zip(found, ("later", "held out"), strict=True):
        assert said.tie_source == kind
        assert said.ties.num_ties > 100
        for against in module.BASELINES:
            for estimate, chance in ((said.ties.homophily[against][0], 1), (said.ties.auc[against], 0.5)):
                assert estimate.low <= chance <= estimate.high
        assert not said.ties.finds_structure
        assert any("do not separate ties" in text for text in said.warnings)
        assert "WARNING: the codes do not separate ties" in said.table()


@quiet
def test_structure_is_found_where_there_is_some() -> None:
    graph = circles(events=1_200)
    moments = graph.events().time
    tokenizer = ResidualKMeans(dim=8, balanced=True).fit(graph, until=int(moments[800]))
    said = evaluate_tokenizer(tokenizer, graph, later=int(moments[-1]))
    assert said.ties.num_ties > 100
    assert said.ties.homophily["matched"][0].low > 3
    assert said.ties.auc["matched"].low > 0.7
    assert not any("do not separate" in text for text in said.warnings)
    control = evaluate_tokenizer(
        RandomCodes().fit(graph, until=int(moments[800])), graph, later=int(moments[-1])
    )
    assert control.ties.homophily["matched"][0].low <= 1
    assert control.ties.auc["matched"].value < 0.6


@quiet
def test_what_is_set_aside() -> None:
    """A fit on all but a twenty-first of the events is judged, and refitted; the future is not looked at."""
    graph = circles(events=1_200)
    until = int(graph.events().time[1_000])
    tokenizer = ResidualKMeans(dim=8, balanced=True).fit(graph, until=until)
    said, cut = evaluate_tokenizer(tokenizer, graph), evaluate_tokenizer(tokenizer, graph.snapshot(until))
    assert said == cut
    assert said.tie_source == "held out"
    assert 0 < said.ties.num_ties < 100
    assert said.drift is not None
    assert said.drift[0] <= said.drift[1] <= said.drift[2]
    assert said.perplexity == tokenizer.report.perplexity
    still = graph_of([Row(0, 1, 5), Row(1, 2, 5), Row(2, 0, 5)])
    flat = ResidualKMeans().fit(still, until=6)
    assert evaluate_tokenizer(flat, still) == flat.report


@quiet
def test_a_report_survives_json() -> None:
    graph = circles(events=1_200)
    tokenizer = ResidualKMeans(dim=8).fit(graph, until=int(graph.events().time[1_000]))
    for said in (
        tokenizer.report,
        evaluate_tokenizer(tokenizer, graph),
        evaluate_tokenizer(tokenizer, graph, later=10**9),
    ):
        assert TokenizerReport.from_json(said.to_json()) == said
        assert json.loads(said.to_json())["warnings"] == said.warnings
    with pytest.raises(ValueError, match="format"):
        TokenizerReport.from_json(said.to_json().replace("TokenizerReport/1", "TokenizerReport/0"))


def test_warnings_are_loud() -> None:
    rows = [Row(0, 1 + k % 60, k) for k in range(300)]  # a star: sixty people whom nothing tells apart
    with pytest.warns(TokenizerQualityWarning) as heard:
        said = ResidualKMeans(dim=4).fit(graph_of(rows), until=10**9).report
    assert [str(one.message) for one in heard] == [f"ResidualKMeans: {text}" for text in said.warnings]
    assert any("the codes of level 1 are used unevenly" in text for text in said.warnings)
    assert any("shared an STU before collisions were resolved" in text for text in said.warnings)
    healthy = ResidualKMeans(dim=8, balanced=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = healthy.fit(anybody(), until=1_600).report
    assert said.warnings == []
    assert replace(said, drift=(0.2, 0.3, 0.4)).warnings == [
        "the first code of 20% of the users changes with a refit"
    ]
    assert "drift" in replace(said, drift=(0.2, 0.3, 0.4)).table()


# Drift


class Told(RandomCodes):
    """Codes as it is told."""

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.told = codes

    def shared_codes(self, other: RandomCodes) -> tuple[Tensor, Tensor]:
        assert isinstance(other, Told)
        return self.told, other.told


def test_drift_is_of_people_not_of_names() -> None:
    codes = torch.randint(6, (500, 3), generator=generator())
    names = [torch.randperm(6, generator=generator(level)) for level in range(3)]
    renamed = torch.stack([name[code] for name, code in zip(names, codes.unbind(1), strict=True)], dim=1)
    assert code_drift(Told(codes), Told(renamed)) == (0.0, 0.0, 0.0)
    moved = renamed.clone()
    moved[:50, 0] = (moved[:50, 0] + 1) % 6
    moved[100:125, 1] = (moved[100:125, 1] + 1) % 6
    moved[200:210, 2] = (moved[200:210, 2] + 1) % 6
    assert code_drift(Told(codes), Told(moved)) == pytest.approx((0.1, 0.15, 0.17))


def test_drift_of_what_cannot_be_compared() -> None:
    codes = torch.zeros(3, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="of 2 and of 3 codes"):
        code_drift(Told(codes), Told(torch.zeros(3, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="no user"):
        code_drift(Told(codes[:0]), Told(codes[:0]))


# The tree


def test_the_tree_fills_its_frame() -> None:
    graph = circles(events=1_200)
    codes = torch.stack([torch.arange(128) // 16, torch.arange(128) % 3], dim=1)
    codes[::9] = -1
    ties = Ties.of(graph)
    figure = code_tree(STUs(codes, 8), ties, "circles")
    left, right = figure.axes[:2]
    assert "112" not in figure._suptitle.get_text()
    assert f"{int((codes[:, 0] >= 0).sum())} users" in figure._suptitle.get_text()
    for axis, tiles in ((left, 8), (right, 24)):
        (patches, *_) = axis.collections
        boxes = np.array([path.get_extents().bounds for path in patches.get_paths()])
        assert len(boxes) == tiles
        assert (boxes[:, 2] * boxes[:, 3]).sum() == pytest.approx(1.0)
        for a, b in itertools.combinations(boxes, 2):
            assert (min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0]) < 1e-9) or (
                min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1]) < 1e-9
            )
    inside = np.ma.getdata(left.collections[0].get_array())
    first = codes[:, 0]
    kept = (first[ties.src] >= 0) & (first[ties.dst] >= 0)
    src, dst = first[ties.src[kept]], first[ties.dst[kept]]
    for code in range(8):
        ends = int((src == code).sum() + (dst == code).sum())
        assert inside[code] == pytest.approx(2 * int(((src == code) & (dst == code)).sum()) / ends)


def test_a_tree_of_many_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("graphrec.report.code_tree"), "MAX_FIRST_CODES", 3)
    codes = torch.stack([torch.arange(128) // 16, torch.arange(128) % 2], dim=1)
    figure = code_tree(STUs(codes, 8), Ties.of(circles()), "circles")
    assert [len(axis.collections[0].get_paths()) for axis in figure.axes[:2]] == [3, 6]


def test_no_tree_of_nobody() -> None:
    ties = Ties.of(circles())
    for codes in (torch.full((128, 2), -1), torch.zeros(128, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match="needs a user with an STU"):
            code_tree(STUs(codes, 4), ties, "nobody")
