"""The benchmark of lists: what it computes against naive loops, and one small run from end to end."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quality import boosted_lists, lists
from benchmarks.quality.boosted_lists import BoostedLists, Candidates
from benchmarks.quality.list_calibration import Predictions
from benchmarks.quality.lists import Run
from graphrec.data import OUTCOMES, FriendGraph, Outcome, Query, TemporalSplit
from graphrec.datasets import SyntheticFriends
from graphrec.evaluate import ListQuestions
from graphrec.metrics import bootstrap_ratio, reliability_by_quantile
from graphrec.models import ListRanker, WindowConfig
from graphrec.report import log_reliability_diagram
from tests.graphs import Row, checked, graph_of, random_rows

SMALL = WindowConfig(hidden_channels=8, max_epochs=1)


def small_graph(seed: int = 0) -> FriendGraph:
    return graph_of(random_rows(seed, users=24, events=600, times=300, scale=60, actions=("text",)))


# Calibration


@checked
@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.integers(0, 99))
def test_reliability_by_quantile_is_that_of_a_loop(values: list[int], seed: int) -> None:
    probability = np.array(values) / 100
    outcome = np.random.default_rng(seed).random(len(values)) < 0.5
    borders = np.quantile(probability, (0.25, 0.5, 0.9))
    bins: dict[int, list[int]] = {}
    for row, value in enumerate(probability):
        bins.setdefault(sum(border < value for border in borders), []).append(row)
    found = reliability_by_quantile(probability, outcome, quantiles=(0.25, 0.5, 0.9))
    for number, rows in enumerate(bins[key] for key in sorted(bins)):
        naive = [probability[rows].mean(), outcome[rows].mean(), len(rows)]
        np.testing.assert_allclose([column[number] for column in found], naive)
    assert found[2].sum() == len(values)


def test_no_predictions_have_no_reliability() -> None:
    assert [len(column) for column in reliability_by_quantile(np.empty(0), np.empty(0, bool))] == [0, 0, 0]


class Fixed:
    """Scores from a table of log-probabilities, -50 for no candidates."""

    name = "fixed"

    def __init__(self, score: torch.Tensor) -> None:
        self._score = score

    def score(self, query: Query) -> torch.Tensor:
        return self._score[query.user].clone()


@pytest.mark.parametrize("outcome", ["initiation", "tie"])
def test_predictions_are_those_of_a_loop_over_the_log(outcome: Outcome) -> None:
    rows = random_rows(3, users=60, events=600, times=300, scale=60, actions=("text",))
    replies = [Row(row.dst, row.src, row.time + 90, "text") for row in rows[::2]]
    graph = graph_of(sorted([*rows, *replies], key=lambda row: row.time))
    split = TemporalSplit.of(graph)
    questions = ListQuestions.of(graph, split=split, num_moments=2)
    n, generator = graph.num_users, torch.Generator().manual_seed(0)
    score = torch.rand(n, n, generator=generator).double().log()
    score[torch.rand(n, n, generator=generator) < 0.3] = -50.0
    found = Predictions.of(Fixed(score), graph, questions, outcome)

    log = graph.events()
    events = list(zip(log.src.tolist(), log.dst.tolist(), log.time.tolist(), strict=True))
    expected: list[tuple[float, bool]] = []
    beyond = 0
    for user, number in zip(questions.query.user.tolist(), questions.moment.tolist(), strict=True):
        start, end = int(questions.start[number]), int(questions.end[number])
        for other in range(n):
            first = {
                pair: min((t for s, d, t in events if (s, d) == pair), default=None)
                for pair in ((user, other), (other, user))
            }
            own, theirs = first[user, other], first[other, user]
            times = [time for time in (own, theirs) if time is not None]
            if other == user or (times and min(times) < start):
                continue
            begun = own is not None and start <= own < end
            opened = min(times, default=0)
            answered = len(times) == 2 and max(times) < questions.decided_until
            tie = begun and answered and max(times) - opened <= questions.reply_window
            late = len(times) < 2 or max(times) >= questions.decided_until
            open_ = begun and late and opened + questions.reply_window >= questions.decided_until
            happened = tie if outcome == "tie" else begun
            if float(score[user, other]) <= -40.0:
                beyond += happened
            elif outcome == "initiation" or not open_:
                expected.append((float(score[user, other].exp()), happened))
    order = sorted(zip(found.probability.tolist(), found.happened.tolist(), strict=True))
    assert [row[1] for row in order] == [row[1] for row in sorted(expected)]
    np.testing.assert_allclose([row[0] for row in order], [row[0] for row in sorted(expected)])
    assert found.num_beyond == beyond
    assert sum(row[1] for row in expected) > 3


def test_errors_of_predictions() -> None:
    one = Predictions(np.full(4, 0.5), np.array([True, True, True, False]), 1)
    other = Predictions(np.full(4, 0.25), np.array([True, False, False, False]), 2)
    assert (one.ratio, one.error, other.error) == (2 / 3, 0.25, 0.0)
    joined = Predictions.joined([one, other])
    assert (joined.ratio, joined.error, joined.num_beyond) == (0.75, 0.125, 3)
    assert np.isnan(Predictions(np.ones(1), np.zeros(1, bool), 0).ratio)


def test_the_diagram_has_logarithmic_axes_and_a_point_for_each_range() -> None:
    probability = 10 ** np.random.default_rng(0).uniform(-4, -1, size=20_000)
    outcome = np.random.default_rng(1).random(len(probability)) < probability
    axis = log_reliability_diagram({"tie": (probability, outcome)}, "a $title$").axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    happened = reliability_by_quantile(probability, outcome)[1]
    assert len(axis.lines[0].get_xdata()) == (happened > 0).sum() >= 8
    with pytest.raises(ValueError, match="no outcome"):
        log_reliability_diagram({"tie": (probability, np.zeros_like(outcome))}, "title")


# Gradient boosting


def test_boosting_has_the_candidates_of_the_list_ranker() -> None:
    pytest.importorskip("sklearn")
    graph = small_graph()
    split = TemporalSplit.of(graph)
    candidates = Candidates.of(graph, until=split.t_val, seed=0)
    examples = candidates.examples(graph, until=split.t_val, seed=0)
    query = ListQuestions.of(graph, split=split).query
    ranker = ListRanker(config=SMALL).fit(graph, until=split.t_val).score(query)
    for outcome in ("initiation", "tie"):
        score = BoostedLists(outcome, examples, candidates, 0).score(query)
        assert torch.equal(score > -40.0, ranker > -40.0)
        assert (score > -40.0).any()
        assert not torch.equal(score.argmax(1), ranker.argmax(1))


def test_a_missing_scikit_learn_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(SystemExit, match=r"needs scikit-learn: pip install 'graphrec\[benchmarks\]'"):
        boosted_lists.booster(0)


# Tables


def run_of(values: list[float]) -> Run:
    terms = np.array(values), np.arange(len(values))
    return Run(dict.fromkeys(lists.METRICS, terms), {"gini": 0.5, "sameness": 0.25}, 1.5)


def test_the_share_of_the_way() -> None:
    assert lists.share_of_way(0.3, 0.2, 0.4) == pytest.approx(0.5)
    assert lists.share_of_way(0.1, 0.2, 0.4) == pytest.approx(-0.5)
    assert np.isnan(lists.share_of_way(0.3, 0.4, 0.4))


def test_figures_of_lists_compare_with_the_best_rule() -> None:
    runs = {
        "popularity": [run_of([0.1, 0.0]), run_of([0.1, 0.0])],
        "adamic_adar": [run_of([0.1, 0.1]), run_of([0.1, 0.1])],
        "list_ranker, tie": [run_of([0.2, 0.1]), run_of([0.3, 0.2])],
        "window_oracle, tie": [run_of([0.3, 0.3]), run_of([0.3, 0.3])],
        "window_oracle, initiation": [run_of([0.2, 0.3]), run_of([0.2, 0.3])],
    }
    assert lists.best_rule(runs, "tie_precision") == "adamic_adar"
    columns, rows = lists.list_figures(runs)
    models = [row[0].split(", i")[0] for row in rows]
    assert models == ["window_oracle, tie", "window_oracle", "list_ranker, tie", "adamic_adar*", "popularity"]
    row = dict(zip(columns, rows[2], strict=True))
    assert row["tie precision@10"] == ".20000 (.15000 to .25000)"
    terms = [np.array([0.2, 0.1, 0.3, 0.2]), np.array([0.1] * 4)]
    ratio, low, high = bootstrap_ratio(*((values, np.array([0, 1, 0, 1])) for values in terms))
    assert row["ties: ratio to best rule [95 %]"] == f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    assert row["initiations: share of the way"] == f"{0.1 / 0.15:.2f}"[1:]
    assert (row["ties: share of the way"], row["gini"], row["fit CPU s"]) == (".50", ".500", "2")


@pytest.mark.parametrize(
    ("value", "text"), [(0.00588, ".00588"), (-0.5, "-.50000"), (1.25, "1.25000"), (10.5, "10.50000")]
)
def test_numbers_have_no_leading_zero(value: float, text: str) -> None:
    assert lists.short(value) == text


def test_a_small_run_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    kept = {name: lists.HEURISTICS[name] for name in ("random", "popularity", "adamic_adar", "ppr")}
    monkeypatch.setattr(lists, "HEURISTICS", kept)
    monkeypatch.setattr(lists, "ListRanker", partial(ListRanker, config=SMALL))
    monkeypatch.setattr(lists, "SyntheticFriends", partial(SyntheticFriends, 40, 600, root=tmp_path))
    monkeypatch.setitem(boosted_lists.BOOSTING, "max_iter", 3)
    arguments = ["--dataset", "Synthetic", "--seeds", "0", "1", "--out", str(tmp_path)]
    lists.main([*arguments, "--models", "popularity"])
    tables = json.loads((tmp_path / "Synthetic.json").read_text())["tables"]
    models = {row[0].rstrip("*") for row in tables[0]["rows"]}
    names = ("boosting", "list_ranker", "window_oracle")
    assert models == {f"{name}, {outcome}" for name in names for outcome in OUTCOMES} | {*kept}
    assert [row[1] for row in tables[1]["rows"]] == ["initiation", "tie"]
    assert all(len(row) == len(table["columns"]) for table in tables for row in table["rows"])
    assert (tmp_path / "reliability-Synthetic.png").stat().st_size > 1000
