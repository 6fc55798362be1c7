"""Lists for all users at once that suggest many different people, at a bounded cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data.checks import check_list_length
from graphrec.metrics import gini
from graphrec.models.rerank.balance_kernels import choose_in_turn, sum_listed
from graphrec.models.rerank.candidates import ROWS_PER_CHECK, check_candidates
from graphrec.retrieval.topk import tie_order

KEPT_VALUE = 0.998
"""What balanced lists are worth at least, as a share of the lists of the highest values. Ties found fall more
than what the values tell: by .4 % on validation, and by 2 to 3 % at .99 (see docs/log.md)."""

NUM_PRICES, MAX_ROUNDS, SETTLED_SHARE = 12, 10, 1 / 500
"""Prices that are tried; times that each user chooses at one price, fewer if at most this share of all places
still changes."""


def balanced_topk(people: Tensor, values: Tensor, *, k: int) -> Tensor:
    """Choose k candidates for each user, such that lists have few people in common, for .2 % of their value.

        maximize  sum over u of V_u(x) / sqrt(V_u(top))  -  price x (pairs of lists with a person in common)

    V_u(x) is the sum of the values on the list of user u, and V_u(top) that of the k highest. The number of
    pairs, summed over all persons, is what `ListResult.spread` reports as sameness. The price is the highest
    one at which the lists of all users together keep 99.8 % of the value. Dividing by the square root (which
    maximizes the sum of sqrt(V_u), to first order) spares users who act little: with the plain sum they bear
    nearly all of the cost, since their values are the lowest.

    Lists at one price are an equilibrium: in turn, each user chooses the best list given all others (a
    congestion game, Rosenthal 1973, https://doi.org/10.1007/BF01737559). The price is found by bisection.
    People as int32 and values as float32 are not copied: with three masks they take 11 bytes a candidate.

    Args:
        people: [B, C] integers, the candidates of each user, distinct, padded with -1.
        values: [B, C] value of each candidate, such as the probability of a tie, not negative; comparable
            between users. Those of the padding are not read.
        k: length of a list, at most.

    Returns:
        [B, k] int64, the highest value first, padded with -1 where a user has fewer candidates. The lists of
        the k highest values, if none are better spread (by the Gini coefficient of exposure) within the cost.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: a shape, value or k is wrong, or a candidate is there twice for one user.
    """
    check_candidates(people, values)
    k = check_list_length(k, people.size(1))
    if bool(((values < 0) & (people >= 0)).any()):
        raise ValueError("values must not be negative")
    out, columns = torch.full((len(people), k), -1), min(k, people.size(1))
    if not columns or not len(people):
        return out
    chosen = _Choice.of(people, values, columns).balanced()
    for start in range(0, len(people), ROWS_PER_CHECK):
        rows = slice(start, start + ROWS_PER_CHECK)
        listed = torch.from_numpy(chosen[rows])
        worth = torch.where(listed, values[rows].double(), -1.0)
        best = worth.argsort(dim=1, descending=True, stable=True)[:, :columns]
        out[rows, :columns] = torch.where(listed, people[rows].long(), -1).gather(1, best)
    return out


@dataclass(frozen=True)
class _Choice:
    """The candidates of `balanced_topk`, and the lists of the highest values.

    Attributes:
        people: [B, C] int32, padded with -1.
        value: [B, C] float32.
        turn: [B] int64, the order in which users choose: a fixed shuffle, since it must not matter whom a log
            names first.
        k: length of a list, from 1 to C.
        size: S, above the largest index of a person.
        top: [B, C] bool, the k highest values of each user.
        worth: [B] float64, their sums.
        scale: [B] float64, 1 / sqrt(worth x mean worth), so that prices do not depend on the size of values.
    """

    people: np.ndarray
    value: np.ndarray
    turn: np.ndarray
    k: int
    size: int
    top: np.ndarray
    worth: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, people: Tensor, values: Tensor, k: int) -> Self:
        """Find the lists of the highest values."""
        person, value = people.to(torch.int32).numpy(), values.to(torch.float32).numpy()
        turn, size = tie_order(len(people)).numpy(), max(1, int(person.max()) + 1)
        top, worth = np.zeros(person.shape, np.bool_), np.empty(len(person))
        choose_in_turn(person, value, np.ones(len(person)), turn, k, 0.0, top, np.zeros(size, np.int64))
        sum_listed(value, top, worth)
        scale = np.zeros_like(worth)
        np.divide(1.0, np.sqrt(worth * worth.mean()), out=scale, where=worth > 0)
        return cls(person, value, turn, k, size, top, worth, scale)

    def balanced(self) -> np.ndarray:
        """The lists at the highest price within the cost: [B, C] bool."""
        best = self.top
        low, high = float(np.log(1e-4 / len(self.top))), float(np.log(1.0 + (self.scale * self.worth).max()))
        for _ in range(NUM_PRICES):
            middle = (low + high) / 2
            lists = self._lists_at(float(np.exp(middle)))
            if self._is_within_cost(lists):
                low, best = middle, lists
            else:
                high = middle
        return self.top if gini(self._exposure(best)) > gini(self._exposure(self.top)) else best

    def _lists_at(self, price: float) -> np.ndarray:
        """The lists at one price for each pair of lists with a person in common: [B, C] bool."""
        chosen, count = self.top.copy(), self._exposure(self.top)
        for _ in range(MAX_ROUNDS):
            changed = choose_in_turn(
                self.people, self.value, self.scale, self.turn, self.k, price, chosen, count
            )
            if changed <= SETTLED_SHARE * self.k * len(chosen):
                break
        return chosen

    def _is_within_cost(self, chosen: np.ndarray) -> bool:
        """Whether lists keep `KEPT_VALUE` of the value."""
        worth = np.empty_like(self.worth)
        sum_listed(self.value, chosen, worth)
        return bool(worth.sum() >= KEPT_VALUE * self.worth.sum())

    def _exposure(self, chosen: np.ndarray) -> np.ndarray:
        """The number of lists that each person is on: [S] int64."""
        count = np.zeros(self.size, np.int64)
        for start in range(0, len(chosen), ROWS_PER_CHECK):
            rows = slice(start, start + ROWS_PER_CHECK)
            count += np.bincount(self.people[rows][chosen[rows]], minlength=self.size)
        return count
