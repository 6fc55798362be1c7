"""How well codes separate ties from other pairs: homophily of prefixes, and AUC of a score from codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphrec.metrics import bootstrap_interval
from graphrec.tokenizer.quality.ties import Ties, pair_key, shared_prefix_length

MIN_SCORED_TIES, MAX_TIES = 30, 200_000
"""Number of ties to score: fewer give no figures, of more a random sample is taken."""

PAIRS_PER_TIE, MIN_PAIRS, MAX_PAIRS = 20, 10_000, 200_000
"""Number of comparison pairs to sample: for each tie, and least and most in all."""

PSEUDOCOUNT = 1.0
"""Ties added to both the observed and the expected number in each cell of the score."""

INTERVAL_SCALE = 1.43
"""Ratio of the half-widths of a 99.5 % and a 95 % interval under a normal law. Structure has to exceed chance
by the wider one, since either of two figures may show it."""

Baseline = Literal["uniform", "matched"]
BASELINES: tuple[Baseline, ...] = ("uniform", "matched")
"""Comparison pairs, none of which has a tie at any time: of uniformly drawn users, or of users drawn in
proportion to their number of scored ties."""


class Estimate(NamedTuple):
    """A value and its 95 % interval, by bootstrap over the actors of first events."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TieReport:
    """How well codes separate ties from other pairs; a tie is here any pair with an event (see `Ties`).

    Attributes:
        num_ties: number of ties scored.
        homophily: for each baseline and each prefix length 1..L, the ratio of the shares of ties and of
            comparison pairs with a common prefix. None where no comparison pair has one, or with fewer than
            `MIN_SCORED_TIES` ties.
        auc: for each baseline, the probability that a tie scores higher than a comparison pair. None with
            fewer than `MIN_SCORED_TIES` ties, or without comparison pairs.
    """

    num_ties: int
    homophily: dict[Baseline, list[Estimate | None]]
    auc: dict[Baseline, Estimate | None]

    @property
    def finds_structure(self) -> bool:
        """Whether homophily at length 1 or AUC, against matched pairs, is significantly above chance."""
        found = [self.homophily["matched"][0], self.auc["matched"]]
        return any(
            one is not None and one.value - INTERVAL_SCALE * (one.value - one.low) > chance
            for one, chance in zip(found, (1, 0.5), strict=True)
        )


def score_ties(
    codes: Tensor, ties: Ties, *, past: Tensor, scored: Tensor, generator: torch.Generator
) -> TieReport:
    """Measure how well codes separate ties from other pairs.

    Homophily at length l is the share of the scored ties whose ends share a prefix of length l, divided by
    that share among all comparison pairs, which is counted exactly and not sampled.

    The score of a pair is computed from codes and past ties alone: how many times as often as by chance past
    ties join these two first codes; and, if the first codes are equal, how many times as often again past
    ties join users who share a prefix of exactly this length:

        log (T(a, b) + 1) / (E(a, b) + 1) + log (T(l) + 1) / (E(l) + 1) - log (T(>0) + 1) / (E(>0) + 1)

    where T is the number of past ties, and E the number expected if they fell on comparison pairs.

    Args:
        codes: [N, L] int64; -1 in the whole row of users without an STU, whose ties are left out.
        ties: all P ties of the graph.
        past: [P] bool, the ties that the score may use.
        scored: [P] bool, the ties to score.
        generator: samples comparison pairs.

    Returns:
        homophily and AUC against both baselines.
    """
    coded = codes[:, 0] >= 0
    kept = coded[ties.src] & coded[ties.dst]
    ties, past, scored = ties.select(kept), past[kept], scored[kept]
    rows = scored.nonzero().squeeze(1)
    if len(rows) > MAX_TIES:
        rows = rows[torch.randperm(len(rows), generator=generator)[:MAX_TIES]]
    length = codes.size(1)
    if len(rows) < MIN_SCORED_TIES:
        none: list[Estimate | None] = [None] * length
        return TieReport(len(rows), dict.fromkeys(BASELINES, none), dict.fromkeys(BASELINES))
    shared = shared_prefix_length(codes, ties.src, ties.dst)
    actor = ties.src[rows].numpy()
    shares = [_estimate((shared[rows] >= size).double(), actor) for size in range(1, length + 1)]
    before, now = ties.select(past), ties.select(rows)
    homophily: dict[Baseline, list[Estimate | None]] = {}
    auc: dict[Baseline, Estimate | None] = {}
    for baseline in BASELINES:
        chance = _PrefixSharing(codes, _draw_weight(now, coded, baseline)).without(ties, shared)
        homophily[baseline] = [
            Estimate(*(float(x) / expected for x in share)) if expected > 0 else None
            for share, expected in zip(shares, chance, strict=True)
        ]
        score = _PairScorer(codes, before, _draw_weight(before, coded, baseline))
        size = min(max(PAIRS_PER_TIE * len(rows), MIN_PAIRS), MAX_PAIRS)
        one, other = _sample_pairs(now if baseline == "matched" else None, coded, ties, size, generator)
        auc[baseline] = None
        if len(one):
            pairs = score(one, other).sort().values
            own = score(now.src, now.dst)
            below, upto = torch.searchsorted(pairs, own), torch.searchsorted(pairs, own, right=True)
            auc[baseline] = _estimate((below + upto).double() / (2 * len(pairs)), actor)
    return TieReport(len(rows), homophily, auc)


class _PrefixSharing:
    """The weight of pairs of users who share prefixes, where a pair weighs the product of its users' weights.

    Attributes:
        total: weight of all pairs.
        sharing: [L] float64, weight of the pairs who share a prefix of length 1..L.
    """

    def __init__(self, codes: Tensor, weight: Tensor) -> None:
        self._weight = weight
        itself = weight.square().sum()
        self.total = float((weight.sum().square() - itself) / 2)
        self.sharing = torch.empty(codes.size(1), dtype=torch.float64)
        key = torch.zeros(len(codes), dtype=torch.int64)
        for level, code in enumerate(codes.unbind(1)):
            pair = key * (int(codes.max()) + 2) + code + 1
            size, key = pair.unique(return_inverse=True)
            bucket = torch.zeros(len(size), dtype=torch.float64).index_add_(0, key, weight)
            self.sharing[level] = (bucket.square().sum() - itself) / 2

    def without(self, ties: Ties, shared: Tensor) -> list[float]:
        """Probabilities, for length 1..L, that a random pair without a tie shares a prefix.

        Args:
            ties: P ties to exclude.
            shared: [P] int64, length of the common prefix of each.
        """
        weight = self._weight[ties.src] * self._weight[ties.dst]
        total = self.total - float(weight.sum())
        lengths = range(1, len(self.sharing) + 1)
        free = [float(self.sharing[size - 1] - weight[shared >= size].sum()) for size in lengths]
        return [max(value, 0.0) / total if total > 0 else 0.0 for value in free]


class _PairScorer:
    """Scores of pairs from their codes and past ties; see `score_ties`."""

    def __init__(self, codes: Tensor, past: Ties, weight: Tensor) -> None:
        self._codes, self._size = codes, int(codes[:, 0].max()) + 1
        first = codes[:, 0].clamp(min=0)
        by_code = torch.zeros(self._size, dtype=torch.float64).index_add_(0, first, weight)
        squares = torch.zeros(self._size, dtype=torch.float64).index_add_(0, first, weight.square())
        chance = _PrefixSharing(codes, weight)
        scale = len(past) / max(chance.total, 1e-300)
        self._by_code, self._squares, self._scale = by_code, squares, scale
        key = self._cell(past.src, past.dst)
        self._key, self._ties = key.unique(return_counts=True)
        shared = shared_prefix_length(codes, past.src, past.dst)
        expected = torch.cat([chance.sharing, torch.zeros(1, dtype=torch.float64)]) * scale
        lengths = torch.arange(1, codes.size(1) + 1)
        exactly = -expected.diff()
        found = (shared == lengths[:, None]).sum(1).double()
        refined = _log_ratio(found, exactly) - _log_ratio(found.sum(), exactly.sum())
        self._refined = torch.cat([torch.zeros(1, dtype=torch.float64), refined])

    def _cell(self, one: Tensor, other: Tensor) -> Tensor:
        """The index of each unordered pair of the users' first codes: users [n], [n] int64 -> [n] int64."""
        a, b = self._codes[one, 0], self._codes[other, 0]
        return torch.minimum(a, b) * self._size + torch.maximum(a, b)

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        """Scores [n] float64 of pairs of users [n]."""
        a, b = self._codes[one, 0], self._codes[other, 0]
        weight = self._by_code[a] * self._by_code[b]
        weight = torch.where(a == b, (weight - self._squares[a]) / 2, weight)
        key = self._cell(one, other)
        found = torch.zeros(len(key), dtype=torch.float64)
        if len(self._key):
            place = torch.searchsorted(self._key, key).clamp(max=len(self._key) - 1)
            found = torch.where(self._key[place] == key, self._ties[place], 0).double()
        refined = self._refined[shared_prefix_length(self._codes, one, other)]
        return _log_ratio(found, weight * self._scale) + refined


def _log_ratio(found: Tensor, expected: Tensor) -> Tensor:
    return ((found + PSEUDOCOUNT) / (expected.clamp(min=0) + PSEUDOCOUNT)).log()


def _draw_weight(ties: Ties, coded: Tensor, baseline: Baseline) -> Tensor:
    """Weights [N] float64 in proportion to which a baseline draws users."""
    if baseline == "uniform":
        return coded.double()
    return torch.bincount(torch.cat([ties.src, ties.dst]), minlength=len(coded)).double()


def _sample_pairs(
    ends: Ties | None, coded: Tensor, ties: Ties, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sample about `size` pairs without a tie: (one [n], other [n]) int64.

    Args:
        ends: draw among the ends of these ties; None draws among users with an STU.
        coded: [N] bool, users with an STU.
        ties: pairs to leave out.
        size: pairs drawn, before those with a tie are left out.
        generator: source of randomness.
    """
    people = coded.nonzero().squeeze(1) if ends is None else torch.cat([ends.src, ends.dst])
    one, other = people[torch.randint(len(people), (2, size), generator=generator)]
    known = pair_key(ties.src, ties.dst, len(coded)).sort().values
    key = pair_key(one, other, len(coded))
    place = torch.searchsorted(known, key).clamp(max=max(len(known) - 1, 0))
    free = (known[place] != key) & (one != other)
    return one[free], other[free]


def _estimate(values: Tensor, group: np.ndarray) -> Estimate:
    array = values.numpy()
    return Estimate(float(array.mean()), *bootstrap_interval(array, group))
