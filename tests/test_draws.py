"""Draws: distinct, uniform, and a function of their salt alone."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graphrec.data.draws import below, distinct_below, hashed

SAMPLES = 20_000


def salts(size: int, seed: int = 0) -> Tensor:
    return hashed(seed, torch.arange(size))


def rows(salt: Tensor, size: Tensor, k: int) -> list[list[int]]:
    row, number = distinct_below(salt, size, k)
    assert row.tolist() == sorted(row.tolist())
    return [number[row == index].tolist() for index in range(len(size))]


def surprise(counts: list[int]) -> float:
    """How many standard deviations chi-square lies above what equal chances give."""
    expected, freedom = sum(counts) / len(counts), len(counts) - 1
    return (sum((c - expected) ** 2 / expected for c in counts) - freedom) / (2 * freedom) ** 0.5


@checked
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 12), st.integers(-5, 5))
def test_distinct_numbers_in_range_and_as_many_as_there_are(sizes: list[int], k: int, seed: int) -> None:
    for size, drawn in zip(sizes, rows(salts(len(sizes), seed), torch.tensor(sizes), k), strict=True):
        assert len(set(drawn)) == len(drawn) == min(k, size)
        assert all(0 <= number < size for number in drawn)


@checked
@given(st.lists(st.integers(0, 40), min_size=2, max_size=20), st.integers(1, 12))
def test_a_row_depends_on_its_own_salt_and_size_alone(sizes: list[int], k: int) -> None:
    salt, size = salts(len(sizes)), torch.tensor(sizes)
    together = rows(salt, size, k)
    assert rows(salt, size, k) == together
    assert rows(salt.flip(0), size.flip(0), k)[::-1] == together
    for index, drawn in enumerate(together):
        assert rows(salt[index : index + 1], size[index : index + 1], k) == [drawn]


def test_other_salts_draw_otherwise() -> None:
    size = torch.full((200,), 1000)
    one, other = rows(salts(200), size, 5), rows(salts(200, seed=1), size, 5)
    assert sum(a == b for a, b in zip(one, other, strict=True)) == 0
    assert len({tuple(drawn) for drawn in one}) == 200


@pytest.mark.parametrize(("size", "k"), [(2, 1), (5, 2), (6, 3), (7, 6)])
def test_every_subset_is_equally_likely(size: int, k: int) -> None:
    _, number = distinct_below(salts(SAMPLES), torch.full((SAMPLES,), size), k)
    found = Counter(tuple(sorted(drawn)) for drawn in number.view(SAMPLES, k).tolist())
    subsets = list(combinations(range(size), k))
    assert set(found) <= set(subsets)
    assert abs(surprise([found[subset] for subset in subsets])) < 4


def test_every_number_is_equally_likely_to_be_in() -> None:
    size, k = 300, 20
    _, number = distinct_below(salts(SAMPLES), torch.full((SAMPLES,), size), k)
    # Without replacement the counts spread less than chi-square: by a factor 1 - k / size.
    assert abs(surprise(torch.bincount(number, minlength=size).tolist())) < 4


def test_long_timelines() -> None:
    size = 2**40
    (drawn,) = rows(salts(1), torch.tensor([size]), 64)
    assert len(set(drawn)) == 64
    assert max(drawn) > size // 2
    assert rows(salts(1), torch.tensor([0]), 3) == [[]]
    assert [part.tolist() for part in distinct_below(salts(0), torch.zeros(0, dtype=torch.int64), 3)] == [
        [],
        [],
    ]


def test_below() -> None:
    drawn = below(salts(SAMPLES), 10)
    assert abs(surprise(torch.bincount(drawn, minlength=10).tolist())) < 4
    sizes = torch.arange(1, SAMPLES + 1)
    drawn = below(salts(SAMPLES) * -1, sizes)
    assert bool(((drawn >= 0) & (drawn < sizes)).all())
    assert below(salts(3)[:, None], torch.tensor([1, 2])).shape == (3, 2)
    assert below(salts(50), 1).tolist() == [0] * 50


def test_hashed_depends_on_every_part_and_their_order() -> None:
    number = torch.arange(1000)
    both = hashed(number[:, None], number)
    assert both.shape == (1000, 1000)
    assert both.unique().numel() == 10**6
    assert int(hashed(1, 2)) == int(both[1, 2]) != int(both[2, 1])
    assert (
        hashed(7, number).tolist() == hashed(torch.tensor(7), number).tolist() != hashed(8, number).tolist()
    )
    assert int(hashed(5)) == int(hashed(torch.tensor(5)))
    start = 0x1E3779B97F4A7C15  # what `hashed` adds: the numbers around its negative meet zero
    around = torch.arange(-1000, 1000) - start
    assert hashed(around).unique().numel() == 2000
    # Each bit is as often set as not.
    bits = (both.view(-1, 1)[: 10**5] >> torch.arange(64)) & 1
    assert bool(((bits.double().mean(0) - 0.5).abs() < 0.01).all())
