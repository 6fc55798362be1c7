"""Fair load: within the bounds always, and near the best that an exact solver finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import checked
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, linear_sum_assignment, milp
from scipy.sparse import csr_array
from torch import Tensor

from graphrec.models import exposure_capped_topk


def drawn(seed: int, users: int, num_people: int, candidates: int) -> tuple[Tensor, Tensor]:
    """Candidates whom many share: some people are worth much to everybody."""
    generator = torch.Generator().manual_seed(seed)
    appeal = torch.rand(num_people, generator=generator, dtype=torch.float64) ** 2
    people = torch.stack([torch.randperm(num_people, generator=generator)[:candidates] for _ in range(users)])
    taste = torch.rand(users, candidates, generator=generator, dtype=torch.float64)
    return people, appeal[people] * (1 + 0.2 * taste) + 0.01


def exact(people: Tensor, values: Tensor, k: int, most: int) -> float:
    """The most value there can be, by scipy's integer programme."""
    size, num_people = values.numel(), int(people.max()) + 1
    row = np.repeat(np.arange(len(people)), people.size(1))
    ones, column = np.ones(size), np.arange(size)
    each = csr_array((ones, (row, column)), shape=(len(people), size))
    anybody = csr_array((ones, (people.flatten().numpy(), column)), shape=(num_people, size))
    limits = [LinearConstraint(each, -np.inf, k), LinearConstraint(anybody, -np.inf, most)]
    found = milp(-values.flatten().numpy(), constraints=limits, integrality=ones, bounds=Bounds(0, 1))
    return float(-found.fun)


def worth(lists: Tensor, people: Tensor, values: Tensor) -> float:
    chosen = (people[:, :, None] == lists[:, None, :]) & (lists >= 0)[:, None, :]
    return float((values[:, :, None] * chosen).sum())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("users", "candidates", "k", "most"), [(30, 20, 3, 4), (40, 30, 10, 15)])
def test_near_the_exact_optimum(seed: int, users: int, candidates: int, k: int, most: int) -> None:
    people, values = drawn(seed, users, users, candidates)
    fair = exposure_capped_topk(people, values, k=k, max_exposure=most)
    best = exact(people, values, k, most)
    assert 0.98 * best <= fair.value <= best + 1e-9 <= fair.bound + 1e-6
    assert fair.value == pytest.approx(worth(fair.people, people, values))
    greedy = torch.bincount(people.gather(1, values.topk(k).indices).flatten())
    assert greedy.max() > 1.5 * most  # the bound did something


@pytest.mark.parametrize("seed", range(3))
def test_one_each_is_the_assignment(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(25, 25, generator=generator, dtype=torch.float64)
    people = torch.arange(25).expand(25, 25)
    fair = exposure_capped_topk(people, values, k=1, max_exposure=1)
    row, column = linear_sum_assignment(values.numpy(), maximize=True)
    best = float(values.numpy()[row, column].sum())
    assert 0.97 * best <= fair.value <= best + 1e-9
    assert fair.bound >= best - 1e-9


@settings(checked, max_examples=15)
@given(
    st.integers(0, 99),
    st.integers(1, 12),
    st.integers(1, 8),
    st.integers(1, 4),
    st.floats(0.05, 3.0),
    st.data(),
)
def test_the_bounds_hold(
    seed: int, users: int, candidates: int, k: int, most_approaches: float, data: st.DataObject
) -> None:
    people, values = drawn(seed, users, 9, candidates)
    most = data.draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(seed + 1)
    people = torch.where(torch.rand(people.shape, generator=generator) < 0.1, -1, people)
    approaches = torch.rand(people.shape, generator=generator, dtype=torch.float64)
    fair = exposure_capped_topk(
        people, values, k=k, max_exposure=most, initiations=approaches, max_initiations=most_approaches
    )
    assert fair.people.shape == (users, k)
    listed = fair.people >= 0
    assert (torch.bincount(fair.people[listed], minlength=9) <= most).all()
    load = torch.zeros(9, dtype=torch.float64)
    for row in range(users):
        mine = fair.people[row][listed[row]].tolist()
        assert len(set(mine)) == len(mine)
        assert set(mine) <= set(people[row].tolist())
        for person in mine:
            load[person] += approaches[row, people[row].tolist().index(person)]
    assert (load <= most_approaches + 1e-9).all()
    assert fair.value == pytest.approx(worth(fair.people, people, values))
    assert fair.value <= fair.bound + 1e-9


def test_what_fits_is_left_alone() -> None:
    people, values = drawn(0, 20, 30, 12)
    fair = exposure_capped_topk(people, values, k=4, max_exposure=20)
    assert torch.equal(fair.people, people.gather(1, values.topk(4).indices))
    assert fair.value == pytest.approx(fair.bound)


def test_nobody_without_value_is_suggested() -> None:
    people = torch.tensor([[3, 1, 2], [-1, -1, -1]])
    values = torch.tensor([[0.0, 0.5, -1.0], [1.0, 1.0, 1.0]])
    assert exposure_capped_topk(people, values, k=2, max_exposure=1).people.tolist() == [[1, -1], [-1, -1]]


def test_wrong_input_is_named() -> None:
    people, values = drawn(0, 3, 5, 4)
    with pytest.raises(ValueError, match=r"people and values must both be \[B, C\], got \[3, 4\], \[3, 2\]"):
        exposure_capped_topk(people, values[:, :2], k=1, max_exposure=1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        exposure_capped_topk(people, values, k=0, max_exposure=1)
    with pytest.raises(TypeError, match=r"k must be a whole number, got 2\.5"):
        exposure_capped_topk(people, values, k=2.5, max_exposure=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_exposure must be at least 1, got 0"):
        exposure_capped_topk(people, values, k=1, max_exposure=0)
    with pytest.raises(ValueError, match="max_initiations must be above 0, got nan"):
        exposure_capped_topk(people, values, k=1, max_exposure=1, max_initiations=float("nan"))
    with pytest.raises(ValueError, match="initiations must be finite and not negative"):
        exposure_capped_topk(people, values, k=1, max_exposure=1, initiations=values * torch.inf)
    with pytest.raises(ValueError, match="twice"):
        exposure_capped_topk(people[:, [0, 0]], values[:, :2], k=1, max_exposure=1)
    with pytest.raises(TypeError, match="float"):
        exposure_capped_topk(people.float(), values, k=1, max_exposure=1)
    with pytest.raises(ValueError, match="values must be finite"):
        exposure_capped_topk(people, values / 0, k=1, max_exposure=1)
    with pytest.raises(ValueError, match=r"initiations must be \[3, 4\], got \[3\]"):
        exposure_capped_topk(people, values, k=1, max_exposure=1, initiations=torch.ones(3))
