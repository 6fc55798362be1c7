"""Ranks and metrics against naive loops and numbers worked out by hand."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from evaluation_cases import naive_gini, naive_metrics, naive_rank
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.metrics import (
    bootstrap_interval,
    calibration_error,
    count_above,
    gini,
    mean_rank,
    ndcg_at_10,
    ranking_metrics,
    reciprocal_rank,
    reliability,
    top_k_share,
)

matrices = st.integers(1, 5).flatmap(
    lambda b: st.integers(1, 7).flatmap(
        lambda n: st.tuples(
            st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=b, max_size=b),
            st.lists(st.integers(0, n - 1), min_size=b, max_size=b),
            st.sets(st.tuples(st.integers(0, b - 1), st.integers(0, n - 1))),
        )
    )
)


def pairs_of(exclude: set[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.tensor(sorted(exclude), dtype=torch.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


@given(matrices, st.sampled_from([torch.float32, torch.float64, torch.int64]))
@settings(deadline=None)
def test_mean_rank_equals_the_naive_loop(
    drawn: tuple[list[list[int]], list[int], set[tuple[int, int]]], dtype: torch.dtype
) -> None:
    values, targets, exclude = drawn
    scores, target = torch.tensor(values, dtype=dtype), torch.tensor(targets)
    counts = count_above(scores, target)
    above = [sum(x > row[v] for x in row) for row, v in zip(values, targets, strict=True)]
    same = [sum(x == row[v] for x in row) - 1 for row, v in zip(values, targets, strict=True)]
    assert [part.tolist() for part in counts] == [above, same]
    naive = [
        naive_rank({c: s for c, s in enumerate(row) if c == v or (b, c) not in exclude}, v)
        for b, (row, v) in enumerate(zip(values, targets, strict=True))
    ]
    ranks = mean_rank(scores, target, counts, pairs_of(exclude))
    assert ranks.dtype == torch.float64
    assert ranks.tolist() == naive
    # The counts may serve a second set of exclusions.
    assert mean_rank(scores, target, counts, pairs_of(exclude)).tolist() == naive


def test_metrics_by_hand() -> None:
    ranks = np.array([1.0, 1.5, 10.0, 10.5, 50.0, 50.5])
    assert reciprocal_rank(ranks).tolist() == pytest.approx([1, 2 / 3, 1 / 10, 2 / 21, 1 / 50, 2 / 101])
    # 1 / log2(2) = 1; a rank of 10 counts still, one of 10.5 does not.
    assert ndcg_at_10(ranks).tolist() == pytest.approx([1, 1 / math.log2(2.5), 1 / math.log2(11), 0, 0, 0])
    row = ranking_metrics(ranks, np.arange(6))
    assert (row["hits@1"], row["hits@10"], row["hits@50"]) == (1 / 6, 3 / 6, 5 / 6)
    assert row["mrr"] == pytest.approx((1 + 2 / 3 + 1 / 10 + 2 / 21 + 1 / 50 + 2 / 101) / 6)
    assert row["mean_rank"] == pytest.approx(123.5 / 6)
    assert row["ndcg@10"] == pytest.approx((1 + 1 / math.log2(2.5) + 1 / math.log2(11)) / 6)
    assert 0 < row["mrr_low"] < row["mrr"] < row["mrr_high"] < 1


@given(st.lists(st.integers(2, 240).map(lambda x: x / 2), min_size=1, max_size=30))
def test_metrics_equal_the_naive_loop(ranks: list[float]) -> None:
    row = ranking_metrics(np.array(ranks), np.arange(len(ranks)) % 3)
    assert {name: row[name] for name in naive_metrics(ranks)} == pytest.approx(naive_metrics(ranks))
    assert row.keys() == naive_metrics(ranks).keys() | {"mrr_low", "mrr_high"}


def test_interval_covers_the_mean_and_narrows_with_the_level() -> None:
    rng = np.random.default_rng(5)
    values, group = rng.random(400), rng.integers(0, 60, 400)
    low, high = bootstrap_interval(values, group)
    assert low < values.mean() < high
    inner = bootstrap_interval(values, group, level=0.5)
    assert low < inner[0] < values.mean() < inner[1] < high


def test_interval_of_one_group_is_its_mean() -> None:
    assert bootstrap_interval(np.array([0.0, 0.5, 1.0]), np.array([7, 7, 7])) == (0.5, 0.5)


def test_interval_resamples_groups_and_not_values() -> None:
    values = np.repeat([0.0, 1.0], 200)  # two people of one opinion each
    assert bootstrap_interval(values, values) == (0.0, 1.0)
    low, high = bootstrap_interval(values, np.arange(400))
    assert 0.4 < low < high < 0.6


def test_interval_does_not_depend_on_labels_or_order() -> None:
    rng = np.random.default_rng(2)
    values, group = 1 / rng.integers(1, 30, 500), rng.integers(0, 40, 500)
    once = bootstrap_interval(values, group)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        order, labels = rng.permutation(500), rng.permutation(1000)[:40]
        assert bootstrap_interval(values[order], labels[group][order]) == pytest.approx(once, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_interval_agrees_with_a_naive_resampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.geometric(0.08, 600)  # groups of very different sizes
    values = rng.random(600) * 0.3 + rng.random(100)[group % 100]
    people = [values[group == label] for label in np.unique(group)]
    means = [
        np.concatenate([people[i] for i in rng.integers(0, len(people), len(people))]).mean()
        for _ in range(4000)
    ]
    expected = np.quantile(means, [0.025, 0.975])
    width = expected[1] - expected[0]
    assert bootstrap_interval(values, group) == pytest.approx(expected, abs=0.15 * width)


@given(matrices, st.integers(1, 5))
@settings(deadline=None)
def test_top_k_share_equals_all_ways_to_break_ties(
    drawn: tuple[list[list[int]], list[int], set[tuple[int, int]]], k: int
) -> None:
    values, _, exclude = drawn
    values = [row[:5] for row in values]
    exclude = {(b, c) for b, c in exclude if c < 5}
    scores = torch.tensor(values, dtype=torch.float64)
    row, user, share = top_k_share(scores, k, pairs_of(exclude))
    assert torch.equal(scores, torch.tensor(values, dtype=torch.float64)), "the scores given stay as they are"
    assert row.tolist() == sorted(row.tolist())
    found = {(b, c): s for b, c, s in zip(row.tolist(), user.tolist(), share.tolist(), strict=True)}
    assert len(found) == len(row)
    expected: dict[tuple[int, int], float] = {}
    for b, line in enumerate(values):
        left = [c for c in range(len(line)) if (b, c) not in exclude]
        orders = list(permutations(left))
        for order in orders:
            for c in sorted(order, key=lambda c: -line[c])[:k]:  # sorting is stable: `order` breaks ties
                expected[b, c] = expected.get((b, c), 0.0) + 1 / len(orders)
    assert found == pytest.approx(expected, abs=1e-12)


def test_top_k_share_leaves_shared_scores_alone() -> None:
    """A scorer may give one row of memory to all queries, and whole numbers."""
    scores = torch.tensor([3, 2, 2, 1]).expand(2, 4)
    row, user, share = top_k_share(scores, 2, (torch.tensor([0]), torch.tensor([0])))
    assert row.tolist() == [0, 0, 1, 1, 1]
    assert user.tolist() == [1, 2, 0, 1, 2]
    assert share.tolist() == [1, 1, 1, 0.5, 0.5]


def test_gini_by_hand() -> None:
    assert gini([]) == 0
    assert gini([0, 0]) == 0
    assert gini([3, 3, 3]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(3 / 4)
    assert gini([1, 3]) == pytest.approx(1 / 4)  # |1 - 3| twice, over 2 * 2 * 4
    assert gini([0, 1, 1, 2.5, 2.5, 3, 4]) == pytest.approx(5 / 14)


@given(st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=1, max_size=20))
def test_gini_equals_the_naive_pairs(amounts: list[float]) -> None:
    assert gini(amounts) == pytest.approx(naive_gini(amounts), abs=1e-9)
    assert gini(np.array(amounts)[::-1]) == pytest.approx(gini(amounts), abs=1e-12)


def test_reliability_on_paper() -> None:
    probability = np.array([0.04, 0.06, 0.55, 0.95, 1.0])
    outcome = np.array([False, True, True, True, True])
    predicted, happened, number = reliability(probability, outcome)
    assert predicted == pytest.approx([0.05, 0.55, 0.975])
    assert happened.tolist() == [0.5, 1, 1]
    assert number.tolist() == [2, 1, 2]
    assert calibration_error(probability, outcome) == pytest.approx((2 * 0.45 + 0.45 + 2 * 0.025) / 5)
    assert calibration_error(probability[:0], outcome[:0]) == 0
    with pytest.raises(ValueError, match=r"1\.5 is not a probability"):
        reliability(np.array([0.5, 1.5]), outcome[:2])


def test_true_probabilities_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(100_000)
    outcome = rng.random(100_000) < probability
    assert calibration_error(probability, outcome) < 0.01
    assert calibration_error(probability**2, outcome) > 0.1
