"""Balanced lists: never below 99.8 % of the value, never more alike, and the same as a naive version."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphrec.metrics import gini
from graphrec.models import balanced_topk
from graphrec.models.rerank import balance, candidates
from graphrec.models.rerank.balance_kernels import choose_in_turn
from graphrec.retrieval.topk import tie_order


def drawn(seed: int, users: int, num_people: int, num_candidates: int) -> tuple[Tensor, Tensor]:
    """Candidates whom many share, with gaps; the values of users are of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    people = torch.stack([torch.randperm(num_people, generator=generator) for _ in range(users)])
    people = people[:, :num_candidates]
    appeal = torch.rand(num_people, generator=generator, dtype=torch.float64) ** 2
    taste = torch.rand(people.shape, generator=generator, dtype=torch.float64)
    activity = torch.rand(users, 1, generator=generator, dtype=torch.float64) ** 3
    gap = torch.rand(people.shape, generator=generator) < 0.1
    return people.masked_fill(gap, -1), activity * (appeal[people] + 0.3 * taste)


def top(people: Tensor, values: Tensor, k: int) -> Tensor:
    """The lists of the highest values."""
    worth = values.float().masked_fill(people < 0, -1.0)
    best = worth.argsort(dim=1, descending=True, stable=True)[:, :k]
    out = torch.full((len(people), k), -1)
    out[:, : best.size(1)] = people.gather(1, best)
    return out


def worth(lists: Tensor, people: Tensor, values: Tensor) -> Tensor:
    """The value of each list: [B] float64."""
    chosen = ((people[:, :, None] == lists[:, None, :]) & (lists >= 0)[:, None, :]).any(2)
    return (values.double() * chosen).sum(1)


def exposure(lists: Tensor, num_people: int) -> Tensor:
    return torch.bincount(lists[lists >= 0], minlength=num_people)


@checked
@given(st.integers(0, 9999), st.integers(1, 30), st.integers(1, 12), st.integers(1, 12), st.integers(1, 14))
def test_two_thousandths_of_the_value_at_most(
    seed: int, users: int, num_people: int, num_candidates: int, k: int
) -> None:
    people, values = drawn(seed, users, num_people, num_candidates)
    lists, plain = balanced_topk(people, values, k=k), top(people, values, k)
    assert lists.shape == (users, k)
    assert torch.equal((lists >= 0).sum(1), (people >= 0).sum(1).clamp(max=k))  # no place is left empty
    before, after = worth(plain, people, values), worth(lists, people, values)
    for row, own, kept in zip(lists, people.tolist(), values.tolist(), strict=True):
        filled = row[row >= 0].tolist()
        assert row.tolist() == filled + [-1] * (k - len(filled))
        assert len(set(filled)) == len(filled)
        assert set(filled) <= set(own)
        in_order = [kept[own.index(person)] for person in filled]
        assert all(one >= other * (1 - 1e-6) for one, other in pairwise(in_order))
    assert float(after.sum()) >= float(before.sum()) * (balance.KEPT_VALUE - 1e-6)
    one, other = exposure(plain, num_people), exposure(lists, num_people)
    assert gini(other.numpy()) <= gini(one.numpy()) + 1e-12
    assert int(other.square().sum()) <= int(one.square().sum())
    assert torch.equal(lists, balanced_topk(people, values, k=k))


def test_lists_become_less_alike() -> None:
    people, values = drawn(0, 300, 60, 40)
    values = 1.0 + 0.01 * values  # nearly indifferent: much can be spread for little
    plain = exposure(top(people, values, 5), 60).double()
    spread = exposure(balanced_topk(people, values, k=5), 60).double()
    assert spread.square().sum() < 0.7 * plain.square().sum()
    assert spread.max() < 0.5 * plain.max()
    assert gini(spread.numpy()) < 0.5 * gini(plain.numpy())


def test_who_acts_least_does_not_pay_for_all() -> None:
    """A tenth of the users have a hundredth of the others' values."""
    people, values = drawn(1, 400, 60, 40)
    values = 0.5 + values
    values[::10] /= 100
    choice = balance._Choice.of(people, values, 5)
    np.testing.assert_allclose(choice.scale, 1 / np.sqrt(choice.worth * choice.worth.mean()))
    lists, plain = balanced_topk(people, values, k=5), top(people, values, 5)
    kept = worth(lists, people, values) / worth(plain, people, values)
    # With the plain sum they would keep .83.
    assert float(kept[::10].mean()) > 0.95
    assert float(kept.min()) > 0.8


def test_nobody_would_choose_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "SETTLED_SHARE", 0.0)
    people, values = drawn(4, 60, 20, 12)
    choice, price = balance._Choice.of(people, values, 4), 0.01
    chosen = choice._lists_at(price)
    count = np.bincount(choice.people[chosen], minlength=20)
    for row, own, value, scale in zip(choice.people, chosen, choice.value, choice.scale, strict=True):
        net = np.where(row >= 0, scale * value - price * (count[row] - own), -np.inf)
        assert net[own].min() >= net[~own].max()
    assert count.max() < np.bincount(choice.people[choice.top], minlength=20).max()


def naive_round(
    people: np.ndarray, value: np.ndarray, scale: np.ndarray, k: int, price: float, lists: list[set[int]]
) -> int:
    """What `choose_in_turn` does, in the order of rows, on lists of columns."""
    changed = 0
    for user, row in enumerate(people.tolist()):
        others = [[people[other, j] for j in lists[other]] for other in range(len(lists)) if other != user]
        net = {
            j: scale[user] * value[user, j] - price * sum(person in one for one in others)
            for j, person in enumerate(row)
            if person >= 0
        }
        best = set(sorted(net, key=lambda j: (-net[j], j))[:k])
        changed += len(best - lists[user])
        lists[user] = best
    return changed


@checked
@given(st.integers(0, 9999), st.integers(1, 6), st.floats(0.0, 1.0))
def test_choices_are_those_of_a_naive_version(seed: int, k: int, price: float) -> None:
    people, values = drawn(seed, 8, 7, 6)
    person, value = people.to(torch.int32).numpy(), (values * 8).round().float().numpy()
    scale = np.random.default_rng(seed).integers(1, 3, 8).astype(np.float64)
    chosen, count = np.zeros(person.shape, np.bool_), np.zeros(7, np.int64)
    lists: list[set[int]] = [set() for _ in range(8)]
    for _ in range(3):
        changed = choose_in_turn(person, value, scale, np.arange(8), k, price, chosen, count)
        assert changed == naive_round(person, value, scale, k, price, lists)
        assert [set(np.flatnonzero(row).tolist()) for row in chosen] == lists
        assert np.array_equal(count, np.bincount(person[chosen], minlength=7))


def test_the_highest_price_within_the_cost_is_found() -> None:
    people, values = drawn(2, 200, 50, 30)
    choice = balance._Choice.of(people, 0.5 + values, 5)
    lost = 1 - (choice.value * choice.balanced()).sum() / choice.worth.sum()
    assert 0.0015 < lost <= 0.002
    assert np.array_equal(choice.turn, tie_order(200).numpy())


def test_rows_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    people, values = drawn(3, 40, 12, 10)
    whole = balanced_topk(people, values, k=4)
    for module in (balance, candidates):
        monkeypatch.setattr(module, "ROWS_PER_CHECK", 7)
    assert torch.equal(balanced_topk(people.int(), values.float(), k=4), whole)


def test_without_any_choice_lists_are_the_highest_values() -> None:
    people, values = (
        torch.tensor([[4, -1, 2], [-1, -1, -1]]),
        torch.tensor([[0.1, 9.0, 0.5], [1.0, 1.0, 1.0]]),
    )
    assert balanced_topk(people, values, k=4).tolist() == [[2, 4, -1, -1], [-1] * 4]
    assert balanced_topk(people[:0], values[:0], k=2).shape == (0, 2)
    assert balanced_topk(people[:, :0], values[:, :0], k=1).tolist() == [[-1], [-1]]


def test_users_without_value_spread_for_nothing() -> None:
    people = torch.tensor([[0, 1, 2, 3]] * 4)
    lists = balanced_topk(people, torch.zeros(4, 4), k=1)
    assert sorted(lists.flatten().tolist()) == [0, 1, 2, 3]


def test_wrong_input_is_named() -> None:
    people, values = drawn(0, 3, 5, 4)
    with pytest.raises(ValueError, match=r"people and values must both be \[B, C\], got \[3, 4\], \[3, 2\]"):
        balanced_topk(people, values[:, :2], k=1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        balanced_topk(people, values, k=0)
    with pytest.raises(ValueError, match="values must not be negative"):
        balanced_topk(people, -1.0 - values, k=1)
    with pytest.raises(ValueError, match="values must be finite"):
        balanced_topk(people, values / 0, k=1)
    with pytest.raises(ValueError, match="twice"):
        balanced_topk(torch.tensor([[1, 1]]), torch.ones(1, 2), k=1)
    with pytest.raises(TypeError, match="people must be a tensor of integers"):
        balanced_topk(people.double(), values, k=1)
    with pytest.raises(TypeError, match="values must be a tensor, got a list"):
        balanced_topk(people, values.tolist(), k=1)  # type: ignore[arg-type]
