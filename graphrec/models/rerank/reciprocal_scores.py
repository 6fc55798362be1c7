"""The score of a reciprocal reranker: joining its factors, and reordering candidates by it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def joined_score(weights: tuple[float, float], forth: Tensor, reply: Tensor, back: Tensor) -> Tensor:
    """Log-scores of M candidates from the logs of the three factors; see `ReciprocalReranker`.

    Args:
        weights: (a, q).
        forth: [M] log P(u -> v).
        reply: [M] log P(v replies).
        back: [M] log P(v -> u).

    Returns:
        [M].
    """
    a, q = weights
    return (torch.logaddexp(q * forth, q * back) - math.log(2.0)) / q + a * reply


def mean_ranks(ascending: Tensor, row: Tensor, own: Tensor) -> Tensor:
    """Rank values among the scores of a row: 1 is best, ties get their mean rank.

    Args:
        ascending: [B, K], scores, each row sorted.
        row: [M] int64, the row of each value.
        own: [M], the values.

    Returns:
        [M] float64.
    """
    ends = []
    for tied_too in (False, True):  # how many are below, and how many not above
        low, high = torch.zeros_like(row), torch.full_like(row, ascending.size(1))
        for _ in range(ascending.size(1).bit_length()):
            middle = (low + high) // 2
            value = ascending[row, middle.clamp(max=ascending.size(1) - 1)]
            below = ((value <= own) if tied_too else (value < own)) & (low < high)
            low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
        ends.append(low)
    return ascending.size(1) - (ends[0] + ends[1]).double() / 2 + 0.5


def redistribute_scores(scores: Tensor, row: Tensor, person: Tensor, value: Tensor) -> Tensor:
    """Permute the scores of each row's candidates so that they follow another order.

    Args:
        scores: [B, N].
        row: [M] int64, ascending, the query of each candidate.
        person: [M] int64.
        value: [M], highest first; candidates of equal value all get the best score among theirs.

    Returns:
        [B, N].
    """
    old = scores[row, person]
    best = old.argsort(descending=True, stable=True)
    best = best[row[best].argsort(stable=True)]
    new = value.argsort(descending=True, stable=True)
    new = new[row[new].argsort(stable=True)]
    opens = torch.ones_like(row, dtype=torch.bool)
    opens[1:] = (value[new].diff() != 0) | (row.diff() != 0)
    place = torch.where(opens, torch.arange(len(row)), 0).cummax(0).values
    out = scores.clone()
    out[row[new], person[new]] = old[best[place]]
    return out


@dataclass(frozen=True)
class RatedCandidates:
    """Candidates of B queries with the factors of their scores.

    Attributes:
        num_queries: B.
        row: [M] int64, ascending, the query of each candidate.
        person: [M] int64.
        logs: [3, M] float64, log P(u -> v), log P(v replies), log P(v -> u).
        target: int64, positions among the M of the candidates that are targets; None without targets.
    """

    num_queries: int
    row: Tensor
    person: Tensor
    logs: Tensor
    target: Tensor | None

    def ranks(self, weights: tuple[float, float] | None) -> Tensor:
        """Ranks of all candidates, [M] float64; by the recommender alone if `weights` is None."""
        joined = self.logs[0] if weights is None else joined_score(weights, *self.logs)
        order = joined.argsort(descending=True, stable=True)
        order = order[self.row[order].argsort(stable=True)]
        place = torch.arange(len(order)) - torch.searchsorted(self.row, self.row)
        rank = torch.empty(len(order), dtype=torch.float64)
        rank[order] = 1.0 + place.double()
        return rank

    def rank(self, weights: tuple[float, float] | None) -> Tensor:
        """Ranks of the targets, [B] float64; inf if the target is not a candidate."""
        assert self.target is not None
        out = torch.full((self.num_queries,), torch.inf, dtype=torch.float64)
        out[self.row[self.target]] = self.ranks(weights)[self.target]
        return out
