"""Suggestions for many users at once, such that nobody is suggested to too many."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_list_length, check_number

NUM_STEPS = 200
"""Steps of the prices."""


@dataclass(frozen=True)
class FairLists:
    """Lists within the bounds, and how good they are.

    Attributes:
        people: [B, k] int64, best first, padded with -1.
        value: of all of them together.
        bound: no lists within the bounds have more value than this.
    """

    people: Tensor
    value: float
    bound: float


def fair_load(
    people: Tensor,
    values: Tensor,
    *,
    k: int,
    most: int,
    approaches: Tensor | None = None,
    most_approaches: float = float("inf"),
) -> FairLists:
    """Choose k of each user's candidates such that the sum of values is large and nobody's load too high.

        maximise    sum of x_uv values_uv                  over x_uv in {0, 1}
        subject to  sum over v of x_uv <= k                for each user u
                    sum over u of x_uv <= most             for each person v
                    sum over u of x_uv approaches_uv <= most_approaches

    Every person has a price for a suggestion and one for an approach; users choose those of most value after
    prices, and prices rise where the load is too high and fall where it is not (the subgradient method on the
    Lagrangian dual; Fisher 1981, https://doi.org/10.1287/mnsc.27.1.1). What is asked for at these prices is
    made to fit by deferred acceptance (Gale & Shapley 1962, https://doi.org/10.2307/2312726): a person keeps
    the best offers within the bounds, users who are refused ask the next. The best lists of all steps are
    kept, and the least dual value says how far from the optimum they can be at most.

    Args:
        people: [B, C] int64 candidates of each user, distinct, padded with -1.
        values: [B, C] what each suggestion is worth, finite, comparable between users; those without value
            are not suggested.
        k: the length of the lists.
        most: to how many users anybody may be suggested.
        approaches: [B, C] expected approaches of each suggestion, not negative.
        most_approaches: how many of them anybody may expect.

    Raises:
        TypeError: an argument of another kind.
        ValueError: a shape, value or bound is wrong, or somebody is twice among the candidates of a user.
    """
    for name, given in {"people": people, "values": values, "approaches": approaches}.items():
        if given is not None and not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a tensor, got a {type(given).__name__}")
    if people.is_floating_point() or people.is_complex() or people.dtype == torch.bool:
        raise TypeError(f"people must be a tensor of integers, got {people.dtype}")
    if people.dim() != 2 or values.shape != people.shape:
        shapes = f"{list(people.shape)}, {list(values.shape)}"
        raise ValueError(f"people and values must both be [B, C], got {shapes}")
    k, most = check_list_length(k, people.size(1)), check_count("most", most)
    if most_approaches != float("inf"):
        check_number("most_approaches", most_approaches, above=0.0)
    people = people.to(torch.int64)
    ordered = people.sort(dim=1).values
    if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
        raise ValueError("people: a candidate is there twice for one user")
    weight = torch.zeros_like(values) if approaches is None else approaches
    if weight.shape != people.shape:
        raise ValueError(f"approaches must be {list(people.shape)}, got {list(weight.shape)}")
    offered = people >= 0
    if (
        not torch.isfinite(values[offered]).all()
        or not (torch.isfinite(weight[offered]) & (weight[offered] >= 0)).all()
    ):
        raise ValueError("values must be finite, and approaches not negative")
    value = torch.where(offered, values.double(), 0.0)
    load = torch.where(offered, weight.double(), 0.0)
    names, place = people.clamp(min=0).unique(return_inverse=True)
    problem = _Problem(place, value, load, offered & (value > 0), len(names), k, most, most_approaches)
    chosen, total, bound = problem.solve()
    rank = torch.where(chosen, value, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
    out = torch.full((len(people), k), -1)
    out[:, : rank.size(1)] = torch.where(chosen, people, -1).gather(1, rank)
    return FairLists(out, total, bound)


@dataclass(frozen=True)
class _Problem:
    place: Tensor
    value: Tensor
    load: Tensor
    offered: Tensor
    size: int
    k: int
    most: int
    most_load: float

    def solve(self) -> tuple[Tensor, float, float]:
        """Who is chosen, [B, C] bool; the value of that; and a bound on that of any choice."""
        price = torch.zeros(self.size, dtype=torch.float64)
        toll = torch.zeros_like(price)  # for a unit of load
        best, total, bound = self.offered & False, 0.0, float("inf")
        scale = float(self.value.max()) if self.value.numel() else 0.0
        heaviest = max(float(self.load.max()), 1e-12) if self.load.numel() else 1.0
        limited = self.most_load < float("inf")
        for step in range(NUM_STEPS):
            net = self._net(price, toll)
            wanted = self._first(net)
            dual = float(torch.where(wanted, net, 0.0).sum()) + self.most * float(price.sum())
            if limited:
                dual += self.most_load * float(toll.sum())
            bound = min(bound, dual)
            if step % 10 == 0 or step == NUM_STEPS - 1:
                chosen = self._fitted(net)
                worth = float(self.value[chosen].sum())
                if worth > total:
                    best, total = chosen, worth
            number, load = self._loads(wanted)
            over = (number - self.most) / self.most
            if total >= bound * (1 - 1e-6) or (bool((over <= 0).all()) and not price.any() and not limited):
                break
            rate = scale * 0.1 / (1 + step) ** 0.7
            price = (price + rate * over.clamp(max=3.0)).clamp(min=0)
            if limited:
                excess = (load - self.most_load) / self.most_load
                toll = (toll + rate / heaviest * excess.clamp(max=3.0)).clamp(min=0)
        return best, total, bound

    def _net(self, price: Tensor, toll: Tensor) -> Tensor:
        """What each candidate is worth after prices, [B, C]; nothing less than nothing."""
        net = self.value - price[self.place] - toll[self.place] * self.load
        return torch.where(self.offered, net, -torch.inf)

    def _first(self, net: Tensor) -> Tensor:
        """The k of most worth of each row, those worth something: [B, C] bool."""
        top = net.topk(min(self.k, net.size(1)), dim=1)
        chosen = torch.zeros_like(self.offered)
        chosen.scatter_(1, top.indices, top.values > 0)
        return chosen

    def _loads(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """How often everybody is chosen, and with how much load: [size] float64 each."""
        at = self.place[chosen]
        number = torch.bincount(at, minlength=self.size).double()
        return number, torch.zeros_like(number).index_add_(0, at, self.load[chosen])

    def _fitted(self, net: Tensor) -> Tensor:
        """Deferred acceptance by worth after prices: [B, C] bool, within all bounds."""
        # Where the prices leave nobody, the values still decide.
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
            refused = (position >= self.most) | (total - before > self.most_load * (1 + 1e-12))
            if not refused.any():
                return asked
            left[row[best[refused]], column[best[refused]]] = -torch.inf
