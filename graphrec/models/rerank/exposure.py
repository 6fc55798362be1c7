"""Suggestions for many users at once, with a limit on how often each person is suggested."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_list_length, check_number
from graphrec.models.rerank.candidates import check_candidates

NUM_STEPS = 200
"""Number of updates of the prices."""


@dataclass(frozen=True)
class FairLists:
    """Lists that meet the limits of `exposure_capped_topk`.

    Attributes:
        people: [B, k] int64, best first, padded with -1.
        value: sum of the values of all suggestions.
        bound: an upper bound on the `value` of any lists that meet the limits.
    """

    people: Tensor
    value: float
    bound: float


def exposure_capped_topk(
    people: Tensor,
    values: Tensor,
    *,
    k: int,
    max_exposure: int,
    initiations: Tensor | None = None,
    max_initiations: float = float("inf"),
) -> FairLists:
    """Choose up to k candidates for each user, with a limit on how often each person is suggested.

        maximize    sum of x_uv values_uv                     over x_uv in {0, 1}
        subject to  sum over v of x_uv <= k                   for each user u
                    sum over u of x_uv <= max_exposure        for each person v
                    sum over u of x_uv initiations_uv <= max_initiations

    Each person v has one price for a suggestion and one for an initiation (the dual variables). Users choose
    the candidates of largest value minus price; prices rise for persons above a limit and fall for others
    (the subgradient method on the Lagrangian dual; Fisher 1981, https://doi.org/10.1287/mnsc.27.1.1). The
    lists chosen at these prices are made feasible by deferred acceptance (Gale & Shapley 1962,
    https://doi.org/10.2307/2312726): a person keeps the best offers within the limits, and users who are
    refused propose to their next candidate. The best lists of all steps are returned; the smallest dual value
    bounds their distance from the optimum.

    Args:
        people: [B, C] int64 candidates of each user, distinct, padded with -1.
        values: [B, C] value of each suggestion, finite, comparable between users; candidates with a value of
            0 or less are not suggested.
        k: length of a list, at most.
        max_exposure: number of lists that a person may be on, at most.
        initiations: [B, C] expected number of initiations from each suggestion, not negative; by default 0.
        max_initiations: expected number of initiations to a person, at most.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a shape, value or limit is wrong, or a candidate is there twice for one user.
    """
    check_candidates(people, values)
    if initiations is not None and not isinstance(initiations, Tensor):
        raise TypeError(f"initiations must be a tensor, got a {type(initiations).__name__}")
    k, max_exposure = check_list_length(k, people.size(1)), check_count("max_exposure", max_exposure)
    if max_initiations != float("inf"):
        check_number("max_initiations", max_initiations, above=0.0)
    people = people.to(torch.int64)
    weight = torch.zeros_like(values) if initiations is None else initiations
    if weight.shape != people.shape:
        raise ValueError(f"initiations must be {list(people.shape)}, got {list(weight.shape)}")
    offered = people >= 0
    if not (torch.isfinite(weight[offered]) & (weight[offered] >= 0)).all():
        raise ValueError("initiations must be finite and not negative")
    value = torch.where(offered, values.double(), 0.0)
    load = torch.where(offered, weight.double(), 0.0)
    names, place = people.clamp(min=0).unique(return_inverse=True)
    problem = _Problem(
        place, value, load, offered & (value > 0), len(names), k, max_exposure, max_initiations
    )
    chosen, total, bound = problem.solve()
    rank = torch.where(chosen, value, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
    out = torch.full((len(people), k), -1)
    out[:, : rank.size(1)] = torch.where(chosen, people, -1).gather(1, rank)
    return FairLists(out, total, bound)


@dataclass(frozen=True)
class _Problem:
    """The assignment problem of `exposure_capped_topk`, for S = `size` distinct people."""

    place: Tensor
    value: Tensor
    load: Tensor
    offered: Tensor
    size: int
    k: int
    max_exposure: int
    max_load: float

    def solve(self) -> tuple[Tensor, float, float]:
        """The chosen candidates [B, C] bool, their value, and an upper bound on any choice's value."""
        price = torch.zeros(self.size, dtype=torch.float64)
        toll = torch.zeros_like(price)  # for a unit of load
        best, total, bound = self.offered & False, 0.0, float("inf")
        scale = float(self.value.max()) if self.value.numel() else 0.0
        heaviest = max(float(self.load.max()), 1e-12) if self.load.numel() else 1.0
        limited = self.max_load < float("inf")
        for step in range(NUM_STEPS):
            net = self._net(price, toll)
            wanted = self._first(net)
            dual = float(torch.where(wanted, net, 0.0).sum()) + self.max_exposure * float(price.sum())
            if limited:
                dual += self.max_load * float(toll.sum())
            bound = min(bound, dual)
            if step % 10 == 0 or step == NUM_STEPS - 1:
                chosen = self._fitted(net)
                worth = float(self.value[chosen].sum())
                if worth > total:
                    best, total = chosen, worth
            number, load = self._loads(wanted)
            over = (number - self.max_exposure) / self.max_exposure
            if total >= bound * (1 - 1e-6) or (bool((over <= 0).all()) and not price.any() and not limited):
                break
            rate = scale * 0.1 / (1 + step) ** 0.7
            price = (price + rate * over.clamp(max=3.0)).clamp(min=0)
            if limited:
                excess = (load - self.max_load) / self.max_load
                toll = (toll + rate / heaviest * excess.clamp(max=3.0)).clamp(min=0)
        return best, total, bound

    def _net(self, price: Tensor, toll: Tensor) -> Tensor:
        """Value minus price of each candidate, [B, C] float64; -inf for padding.

        Args:
            price: [S] float64, for a suggestion.
            toll: [S] float64, for an expected initiation.
        """
        net = self.value - price[self.place] - toll[self.place] * self.load
        return torch.where(self.offered, net, -torch.inf)

    def _first(self, net: Tensor) -> Tensor:
        """Mask of the k highest positive values of each row: [B, C] bool."""
        top = net.topk(min(self.k, net.size(1)), dim=1)
        chosen = torch.zeros_like(self.offered)
        chosen.scatter_(1, top.indices, top.values > 0)
        return chosen

    def _loads(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Number of suggestions of each person, and their expected initiations: [S] float64 each."""
        at = self.place[chosen]
        number = torch.bincount(at, minlength=self.size).double()
        return number, torch.zeros_like(number).index_add_(0, at, self.load[chosen])

    def _fitted(self, net: Tensor) -> Tensor:
        """Choose candidates within all limits by deferred acceptance on values minus prices: [B, C] bool."""
        # Shift all to positive values: candidates with a negative net value still compete for places.
        order = net - net[self.offered].min() + 1e-9 if self.offered.any() else net
        left = torch.where(self.offered, order, -torch.inf)
        while True:
            asked = self._first(left)
            row, column = asked.nonzero(as_tuple=True)
            person, worth, load = (x[row, column] for x in (self.place, left, self.load))
            best = worth.argsort(descending=True, stable=True)
            best = best[person[best].argsort(stable=True)]
            person, load = person[best], load[best]
            start = torch.searchsorted(person, person)
            position = torch.arange(len(person)) - start
            total = load.cumsum(0)
            before = torch.cat([total.new_zeros(1), total])[start]
            refused = (position >= self.max_exposure) | (total - before > self.max_load * (1 + 1e-12))
            if not refused.any():
                return asked
            left[row[best[refused]], column[best[refused]]] = -torch.inf
