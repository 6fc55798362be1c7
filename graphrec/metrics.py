"""Metrics. Ranks are computed once, and every ranking metric is a function of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HIT_CUTOFFS = (1, 10, 50)
NUM_BOOTSTRAP_RESAMPLES = 1000
RARE_QUANTILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 0.999)
"""Deciles, and two more at the top, where the likeliest of many candidates are."""


def count_above(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Count the users with a score above each target's, and the others with the same score.

    Args:
        scores: [B, N].
        target: [B] int64.

    Returns:
        (number above [B], number of others tied [B]) int64.
    """
    all_scores, own = scores.numpy(), scores.gather(1, target[:, None]).numpy()
    above, same = (np.count_nonzero(compared, axis=1) for compared in (all_scores > own, all_scores == own))
    return torch.from_numpy(above), torch.from_numpy(same - 1)


def mean_rank(
    scores: Tensor, target: Tensor, counts: tuple[Tensor, Tensor], excluded: tuple[Tensor, Tensor]
) -> Tensor:
    """Rank each target among all users but the excluded ones: the mean of its best and worst rank under ties.

    Args:
        scores: [B, N].
        target: [B] int64; a target is never excluded.
        counts: `count_above(scores, target)`.
        excluded: (row [M], user [M]) int64, distinct pairs.

    Returns:
        [B] float64, 1 for the best.
    """
    row, user = excluded
    kept = user != target[row]
    row, user = row[kept], user[kept]
    own = scores.gather(1, target[:, None]).squeeze(1)[row]
    theirs = scores[row, user]
    above = counts[0].index_add(0, row, (theirs > own).long(), alpha=-1)
    same = counts[1].index_add(0, row, (theirs == own).long(), alpha=-1)
    return 1.0 + above.double() + same.double() / 2


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """Return 1 / rank: [n] float64."""
    return 1.0 / ranks


def ndcg_at_10(ranks: np.ndarray) -> np.ndarray:
    """Return NDCG@10 with one relevant user, 1 / log2(1 + rank) up to rank 10 and else 0: [n] float64."""
    return np.where(ranks <= 10, 1.0 / np.log2(1.0 + ranks), 0.0)


def ranking_metrics(ranks: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Compute MRR with its 95% interval, Hits@1/10/50, NDCG@10 and the mean rank.

    Args:
        ranks: [n] float64, at least one.
        group: [n], labels such as the actors of the events; the interval resamples whole groups.

    Returns:
        A number for each of `mrr`, `mrr_low`, `mrr_high`, `hits@1`, `hits@10`, `hits@50`, `ndcg@10`,
        `mean_rank`.
    """
    reciprocal = reciprocal_rank(ranks)
    low, high = bootstrap_interval(reciprocal, group)
    return {
        "mrr": float(reciprocal.mean()),
        "mrr_low": low,
        "mrr_high": high,
        **{f"hits@{k}": float((ranks <= k).mean()) for k in HIT_CUTOFFS},
        "ndcg@10": float(ndcg_at_10(ranks).mean()),
        "mean_rank": float(ranks.mean()),
    }


def bootstrap_interval(values: np.ndarray, group: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Compute the percentile interval of the mean under resampling of whole groups, such as actors.

    The groups are drawn in the order of their contents, so that the interval does not depend on ids.

    Args:
        values: [n] float64.
        group: [n], any labels.
        level: the fraction of resampled means inside the interval.

    Returns:
        (low, high).
    """
    _, code = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(code, weights=values), np.bincount(code)
    order = np.lexsort((sums, sizes))
    sums, sizes = sums[order], sizes[order]
    rng = np.random.default_rng(0)
    means = np.empty(NUM_BOOTSTRAP_RESAMPLES)
    chunk = max(1, 2**22 // len(sums))
    for start in range(0, NUM_BOOTSTRAP_RESAMPLES, chunk):
        drawn = rng.integers(len(sums), size=(min(chunk, NUM_BOOTSTRAP_RESAMPLES - start), len(sums)))
        means[start : start + chunk] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_ratio(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], *, level: float = 0.95
) -> tuple[float, float, float]:
    """Compute the ratio of two means over the same groups, and its interval under resampling of groups.

    Args:
        one: (values [n], group [n]) of the numerator.
        other: (values [m], group [m]) of the denominator.
        level: the fraction of resampled ratios inside the interval.

    Returns:
        (ratio, low, high); NaN where the denominator's mean is 0.
    """
    groups = np.unique(np.concatenate([one[1], other[1]]))
    sums = np.zeros((4, len(groups)))
    for row, (values, group) in enumerate((one, other)):
        code = np.searchsorted(groups, group)
        sums[2 * row] = np.bincount(code, weights=values, minlength=len(groups))
        sums[2 * row + 1] = np.bincount(code, minlength=len(groups))
    sums = sums[:, np.lexsort(sums)]
    rng = np.random.default_rng(0)
    ratios = np.empty(NUM_BOOTSTRAP_RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number in range(NUM_BOOTSTRAP_RESAMPLES):
            total = sums[:, rng.integers(len(groups), size=len(groups))].sum(1)
            ratios[number] = total[0] / total[1] / (total[2] / total[3])
        total = sums.sum(1)
        ratio = total[0] / total[1] / (total[2] / total[3])
    if not np.isfinite(ratio):
        return np.nan, np.nan, np.nan
    low, high = np.quantile(ratios[np.isfinite(ratios)], [(1 - level) / 2, (1 + level) / 2])
    return float(ratio), float(low), float(high)


def top_k_share(scores: Tensor, k: int, excluded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """List the k best users of each row, each with its share of a list place.

    Users whose scores tie at the end of the list share its last places.

    Args:
        scores: [B, N], finite.
        k: the length of the list.
        excluded: (row [M], user [M]) int64, never on the list.

    Returns:
        (row [L], user [L]) int64, rows ascending, and share [L] float64 in (0, 1]; the shares of a row sum to
        k, or to the number of users left.
    """
    scores = scores.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    scores[excluded] = -torch.inf
    border = scores.topk(min(k, scores.size(1)), dim=1).values[:, -1:]
    row, user = map(torch.from_numpy, np.nonzero(scores.numpy() >= border.numpy()))
    value = scores[row, user]
    listed = value > -torch.inf
    row, user, value = row[listed], user[listed], value[listed]
    inside = value > border[row, 0]
    num_inside = torch.bincount(row[inside], minlength=len(scores))
    num_tied = torch.bincount(row[~inside], minlength=len(scores))
    tied_share = ((k - num_inside).double() / num_tied.clamp(min=1)).clamp(max=1.0)
    return row, user, torch.where(inside, 1.0, tied_share[row])


def reliability(
    probability: np.ndarray, outcome: np.ndarray, *, num_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare predicted probabilities with outcomes in equal ranges of the prediction.

    Args:
        probability: [n] float64 in [0, 1].
        outcome: [n] bool.
        num_bins: number of ranges.

    Returns:
        (mean prediction, fraction of positive outcomes, number of predictions), [K] each, of the ranges that
        hold any.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise ValueError(f"{probability[outside][0]} is not a probability: it lies outside 0..1")
    place = np.minimum((probability * num_bins).astype(np.int64), num_bins - 1)
    number = np.bincount(place, minlength=num_bins)
    some = number > 0
    predicted, happened = (np.bincount(place, weights=x, minlength=num_bins) for x in (probability, outcome))
    return predicted[some] / number[some], happened[some] / number[some], number[some]


def reliability_by_quantile(
    probability: np.ndarray, outcome: np.ndarray, *, quantiles: Sequence[float] = RARE_QUANTILES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare predicted probabilities with outcomes between quantiles of the prediction.

    For rare outcomes, whose predictions would all lie in one of the equal ranges of `reliability`. Equal
    predictions are never separated.

    Args:
        probability: [n] float64.
        outcome: [n] bool.
        quantiles: borders inside 0..1, ascending; by default deciles, the last one cut at 99 and 99.9 %.

    Returns:
        (mean prediction, fraction of positive outcomes, number of predictions), [K] each, of the ranges that
        hold any.
    """
    if not len(probability):
        return np.empty(0), np.empty(0), np.empty(0, dtype=np.int64)
    place = np.searchsorted(np.quantile(probability, quantiles), probability, side="left")
    number = np.bincount(place)
    some = number > 0
    predicted, happened = (np.bincount(place, weights=x) for x in (probability, outcome))
    return predicted[some] / number[some], happened[some] / number[some], number[some]


def calibration_error(probability: np.ndarray, outcome: np.ndarray, *, num_bins: int = 10) -> float:
    """Compute the expected calibration error: the mean gap of `reliability`, weighted by the ranges' sizes.

    With few outcomes even true probabilities have an error: about .03 for a thousand.
    """
    predicted, happened, number = reliability(probability, outcome, num_bins=num_bins)
    return float(np.average(np.abs(predicted - happened), weights=number)) if len(number) else 0.0


def gini(amounts: Sequence[float] | np.ndarray) -> float:
    """Compute the Gini coefficient of non-negative amounts: 0 if all are equal, near 1 if one has all."""
    x = np.sort(np.asarray(amounts, dtype=np.float64))
    total = x.sum()
    if total == 0:
        return 0.0
    n = len(x)
    return float(2 * np.dot(np.arange(1, n + 1), x) / (n * total) - (n + 1) / n)
