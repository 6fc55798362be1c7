"""Ranks and what is made of them. Relevance is computed once: every ranking metric is a function of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

HITS_AT = (1, 10, 50)
NUM_RESAMPLES = 1000


def count_above(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """How many users score above each target, and how many others score the same.

    Args:
        scores: [B, N].
        target: [B] int64.

    Returns:
        ([B], [B]) int64.
    """
    everyone, own = scores.numpy(), scores.gather(1, target[:, None]).numpy()
    above, same = (np.count_nonzero(compared, axis=1) for compared in (everyone > own, everyone == own))
    return torch.from_numpy(above), torch.from_numpy(same - 1)


def mean_rank(
    scores: Tensor, target: Tensor, counts: tuple[Tensor, Tensor], exclude: tuple[Tensor, Tensor]
) -> Tensor:
    """Rank of each target among all users but the excluded ones: the mean of its best and worst under ties.

    Args:
        scores: [B, N].
        target: [B] int64; a target is never excluded.
        counts: `count_above(scores, target)`.
        exclude: (row [M], user [M]) int64, distinct pairs.

    Returns:
        [B] float64, 1 for the best.
    """
    row, user = exclude
    kept = user != target[row]
    row, user = row[kept], user[kept]
    own = scores.gather(1, target[:, None]).squeeze(1)[row]
    theirs = scores[row, user]
    above = counts[0].index_add(0, row, (theirs > own).long(), alpha=-1)
    same = counts[1].index_add(0, row, (theirs == own).long(), alpha=-1)
    return 1.0 + above.double() + same.double() / 2


def reciprocal_rank(ranks: np.ndarray) -> np.ndarray:
    """1 / rank."""
    return 1.0 / ranks


def ndcg_at_10(ranks: np.ndarray) -> np.ndarray:
    """1 / log2(1 + rank) where the rank is at most 10: NDCG with one relevant user."""
    return np.where(ranks <= 10, 1.0 / np.log2(1.0 + ranks), 0.0)


def ranking_metrics(ranks: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """MRR with its interval, Hits@1/10/50, NDCG@10 and mean rank.

    Args:
        ranks: [n] float64, at least one.
        group: [n], whose events they are; the interval resamples whole groups.
    """
    reciprocal = reciprocal_rank(ranks)
    low, high = bootstrap_interval(reciprocal, group)
    return {
        "mrr": float(reciprocal.mean()),
        "mrr_low": low,
        "mrr_high": high,
        **{f"hits@{k}": float((ranks <= k).mean()) for k in HITS_AT},
        "ndcg@10": float(ndcg_at_10(ranks).mean()),
        "mean_rank": float(ranks.mean()),
    }


def bootstrap_interval(values: np.ndarray, group: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the mean under resampling of whole groups, such as actors.

    The groups are drawn in the order of their contents, so that the interval does not depend on ids.

    Args:
        values: [n] float64.
        group: [n], any labels.
        level: the share of resampled means inside the interval.
    """
    _, code = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(code, weights=values), np.bincount(code)
    order = np.lexsort((sums, sizes))
    sums, sizes = sums[order], sizes[order]
    rng = np.random.default_rng(0)
    means = np.empty(NUM_RESAMPLES)
    chunk = max(1, 2**22 // len(sums))
    for start in range(0, NUM_RESAMPLES, chunk):
        drawn = rng.integers(len(sums), size=(min(chunk, NUM_RESAMPLES - start), len(sums)))
        means[start : start + chunk] = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def top_k_share(scores: Tensor, k: int, exclude: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """How much of each user is among the k best of a row: ties at the border share the places left.

    Args:
        scores: [B, N], finite.
        k: the length of the list.
        exclude: (row [M], user [M]) int64, never on the list.

    Returns:
        (row [L], user [L]) int64, rows ascending, and share [L] float64 in (0, 1]; the shares of a row sum to
        k, or to the number of users left.
    """
    scores = scores.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    scores[exclude] = -torch.inf
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
    """What was predicted and what happened, by equal ranges of the prediction.

    Args:
        probability: [n] float64 in [0, 1].
        outcome: [n] bool.
        num_bins: how many ranges.

    Returns:
        Mean prediction, share that happened and number, [K] each, of the ranges that have any.

    Raises:
        ValueError: a probability lies outside [0, 1].
    """
    outside = ~((probability >= 0) & (probability <= 1))
    if outside.any():
        raise ValueError(f"{probability[outside][0]} is no probability")
    place = np.minimum((probability * num_bins).astype(np.int64), num_bins - 1)
    number = np.bincount(place, minlength=num_bins)
    some = number > 0
    predicted, happened = (np.bincount(place, weights=x, minlength=num_bins) for x in (probability, outcome))
    return predicted[some] / number[some], happened[some] / number[some], number[some]


def calibration_error(probability: np.ndarray, outcome: np.ndarray, *, num_bins: int = 10) -> float:
    """Expected calibration error: the mean gap of `reliability`, by the numbers in its ranges.

    With few outcomes even true probabilities have one: about .03 for a thousand of them.
    """
    predicted, happened, number = reliability(probability, outcome, num_bins=num_bins)
    return float(np.average(np.abs(predicted - happened), weights=number)) if len(number) else 0.0


def gini(amounts: Sequence[float] | np.ndarray) -> float:
    """Inequality of non-negative amounts: 0 where all are equal, towards 1 where one has everything."""
    x = np.sort(np.asarray(amounts, dtype=np.float64))
    total = x.sum()
    if total == 0:
        return 0.0
    n = len(x)
    return float(2 * np.dot(np.arange(1, n + 1), x) / (n * total) - (n + 1) / n)
