"""What codes say of ties: who shares a prefix, and how well codes alone tell ties from other pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.metrics import bootstrap_interval

MIN_TIES, MAX_TIES = 30, 200_000
"""Fewer ties are not judged, of more so many are drawn."""

PAIRS, MIN_PAIRS, MAX_PAIRS = 20, 10_000, 200_000
"""Pairs drawn to hold a tie against, and how many in all."""

EXPECTED = 1.0
"""Ties expected by chance that are added to those counted and to those expected, in each cell."""

SURER = 1.43
"""From half of a 95 % interval to half of one of 99.5 %, by the normal law: what two figures have to exceed
before one of them counts as more than chance."""

Against = Literal["uniform", "matched"]
AGAINST: tuple[Against, ...] = ("uniform", "matched")
"""Pairs that ties are held against: of anybody with anybody, and of people drawn as often as they are at an
end of the ties judged. Never of two who have a tie, before or after."""


class Estimate(NamedTuple):
    """A value and its 95 % interval, by bootstrap over those who acted first."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ties:
    """The pairs who were ever in contact, by their first contact.

    Attributes:
        src, dst: [P] int64, who acted first and upon whom.
        time: [P] int64 seconds, ascending.
    """

    src: Tensor
    dst: Tensor
    time: Tensor

    @classmethod
    def of(cls, graph: FriendGraph) -> Ties:
        """The pairs of a graph."""
        events = graph.events()
        key = _pair_key(events.src, events.dst, graph.num_users)
        _, first = np.unique(key.numpy(), return_index=True)
        kept = torch.from_numpy(first).sort().values
        return cls(events.src[kept], events.dst[kept], events.time[kept])

    def __len__(self) -> int:
        return len(self.src)

    def select(self, kept: Tensor) -> Ties:
        """Some of them."""
        return Ties(self.src[kept], self.dst[kept], self.time[kept])

    def between(self, start: int | None, end: int | None) -> Tensor:
        """Which have their first contact from `start` to before `end`, [P] bool."""
        out = torch.ones(len(self), dtype=torch.bool)
        if start is not None:
            out &= self.time >= start
        if end is not None:
            out &= self.time < end
        return out


@dataclass(frozen=True)
class Verdict:
    """What codes say of ties.

    Attributes:
        num_ties: how many were judged.
        homophily: by the pairs they are held against and the length of the prefix, 1..L: how many times as
            often ties share it. None where chance never does, or there are too few ties.
        auc: by the pairs: how often a tie scores higher than a pair. None as above.
    """

    num_ties: int
    homophily: dict[Against, list[Estimate | None]]
    auc: dict[Against, Estimate | None]

    @property
    def finds_structure(self) -> bool:
        """Whether, at equal activity, ties are told from other pairs by more than chance, either way."""
        found = [self.homophily["matched"][0], self.auc["matched"]]
        return any(
            one is not None and one.value - SURER * (one.value - one.low) > chance
            for one, chance in zip(found, (1, 0.5), strict=True)
        )


def judge(codes: Tensor, ties: Ties, *, past: Tensor, judged: Tensor, generator: torch.Generator) -> Verdict:
    """Judge codes by ties.

    Homophily at length l is the share of the judged ties whose ends share a prefix of length l over that of
    the pairs they are held against, which is not sampled but counted.

    The score of a pair, from codes alone, is how many times as often as by chance the past tied people of
    these first codes, times, where these are equal, how many times as often again it tied people who share a
    prefix of just this length:

        log (T(a, b) + 1) / (E(a, b) + 1) + log (T(l) + 1) / (E(l) + 1) - log (T(>0) + 1) / (E(>0) + 1)

    where T counts past ties, and E those expected if they fell on the pairs they are held against.

    Args:
        codes: [N, L] int64; -1 in the row of whoever has none, whose ties are left out.
        ties: all of the graph.
        past: [P] bool, the ties that the codes may know of.
        judged: [P] bool.
        generator: draws pairs.
    """
    coded = codes[:, 0] >= 0
    kept = coded[ties.src] & coded[ties.dst]
    ties, past, judged = ties.select(kept), past[kept], judged[kept]
    rows = judged.nonzero().squeeze(1)
    if len(rows) > MAX_TIES:
        rows = rows[torch.randperm(len(rows), generator=generator)[:MAX_TIES]]
    length = codes.size(1)
    if len(rows) < MIN_TIES:
        none: list[Estimate | None] = [None] * length
        return Verdict(len(rows), dict.fromkeys(AGAINST, none), dict.fromkeys(AGAINST))
    shared = shared_length(codes, ties.src, ties.dst)
    actor = ties.src[rows].numpy()
    shares = [_estimate((shared[rows] >= size).double(), actor) for size in range(1, length + 1)]
    before, now = ties.select(past), ties.select(rows)
    homophily: dict[Against, list[Estimate | None]] = {}
    auc: dict[Against, Estimate | None] = {}
    for kind in AGAINST:
        chance = _Chance(codes, _weight(now, coded, kind)).without(ties, shared)
        homophily[kind] = [
            Estimate(*(float(x) / expected for x in share)) if expected > 0 else None
            for share, expected in zip(shares, chance, strict=True)
        ]
        score = _Scores(codes, before, _weight(before, coded, kind))
        size = min(max(PAIRS * len(rows), MIN_PAIRS), MAX_PAIRS)
        one, other = _pairs(now if kind == "matched" else None, coded, ties, size, generator)
        auc[kind] = None
        if len(one):
            pairs = score(one, other).sort().values
            own = score(now.src, now.dst)
            below, upto = torch.searchsorted(pairs, own), torch.searchsorted(pairs, own, right=True)
            auc[kind] = _estimate((below + upto).double() / (2 * len(pairs)), actor)
    return Verdict(len(rows), homophily, auc)


def shared_length(codes: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """How many codes the STUs of pairs [n] begin with in common, [n] int64."""
    return (codes[one] == codes[other]).long().cumprod(1).sum(1)


class _Chance:
    """How likely two people who are drawn by weight share prefixes.

    Attributes:
        total: the weight of all pairs.
        sharing: [L] float64, that of pairs who share a prefix of length 1..L.
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
        """Probabilities of sharing a prefix of length 1..L, where nobody has a tie."""
        weight = self._weight[ties.src] * self._weight[ties.dst]
        total = self.total - float(weight.sum())
        lengths = range(1, len(self.sharing) + 1)
        free = [float(self.sharing[size - 1] - weight[shared >= size].sum()) for size in lengths]
        return [max(value, 0.0) / total if total > 0 else 0.0 for value in free]


class _Scores:
    """Scores of pairs from their codes and the ties of the past; see `judge`."""

    def __init__(self, codes: Tensor, past: Ties, weight: Tensor) -> None:
        self._codes, self._size = codes, int(codes[:, 0].max()) + 1
        first = codes[:, 0].clamp(min=0)
        by_code = torch.zeros(self._size, dtype=torch.float64).index_add_(0, first, weight)
        squares = torch.zeros(self._size, dtype=torch.float64).index_add_(0, first, weight.square())
        chance = _Chance(codes, weight)
        scale = len(past) / max(chance.total, 1e-300)
        self._by_code, self._squares, self._scale = by_code, squares, scale
        key = self._cell(past.src, past.dst)
        self._key, self._ties = key.unique(return_counts=True)
        shared = shared_length(codes, past.src, past.dst)
        expected = torch.cat([chance.sharing, torch.zeros(1, dtype=torch.float64)]) * scale
        lengths = torch.arange(1, codes.size(1) + 1)
        exactly = -expected.diff()
        found = (shared == lengths[:, None]).sum(1).double()
        refined = _log_ratio(found, exactly) - _log_ratio(found.sum(), exactly.sum())
        self._refined = torch.cat([torch.zeros(1, dtype=torch.float64), refined])

    def _cell(self, one: Tensor, other: Tensor) -> Tensor:
        a, b = self._codes[one, 0], self._codes[other, 0]
        return torch.minimum(a, b) * self._size + torch.maximum(a, b)

    def __call__(self, one: Tensor, other: Tensor) -> Tensor:
        a, b = self._codes[one, 0], self._codes[other, 0]
        weight = self._by_code[a] * self._by_code[b]
        weight = torch.where(a == b, (weight - self._squares[a]) / 2, weight)
        key = self._cell(one, other)
        found = torch.zeros(len(key), dtype=torch.float64)
        if len(self._key):
            place = torch.searchsorted(self._key, key).clamp(max=len(self._key) - 1)
            found = torch.where(self._key[place] == key, self._ties[place], 0).double()
        return _log_ratio(found, weight * self._scale) + self._refined[shared_length(self._codes, one, other)]


def _log_ratio(found: Tensor, expected: Tensor) -> Tensor:
    return ((found + EXPECTED) / (expected.clamp(min=0) + EXPECTED)).log()


def _weight(ties: Ties, coded: Tensor, against: Against) -> Tensor:
    """How often everybody is drawn, [N] float64."""
    if against == "uniform":
        return coded.double()
    return torch.bincount(torch.cat([ties.src, ties.dst]), minlength=len(coded)).double()


def _pairs(
    ends: Ties | None, coded: Tensor, ties: Ties, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """About so many random pairs without a tie, of the coded or of the ends of ties."""
    people = coded.nonzero().squeeze(1) if ends is None else torch.cat([ends.src, ends.dst])
    one, other = people[torch.randint(len(people), (2, size), generator=generator)]
    known = _pair_key(ties.src, ties.dst, len(coded)).sort().values
    key = _pair_key(one, other, len(coded))
    place = torch.searchsorted(known, key).clamp(max=max(len(known) - 1, 0))
    free = (known[place] != key) & (one != other)
    return one[free], other[free]


def _pair_key(one: Tensor, other: Tensor, num_users: int) -> Tensor:
    return torch.minimum(one, other) * num_users + torch.maximum(one, other)


def _estimate(values: Tensor, group: np.ndarray) -> Estimate:
    array = values.numpy()
    return Estimate(float(array.mean()), *bootstrap_interval(array, group))
