"""The table of STUs: both ways, prefixes, and places for everybody."""

from __future__ import annotations

import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from graphrec.nn import ResidualQuantizer
from graphrec.tokenizer import STUs

CODES = torch.tensor([[1, 0, 2], [0, 3, 3], [-1, -1, -1], [1, 0, 2], [1, 0, 0], [3, 3, 3], [1, 2, 0]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer_of(x: Tensor, size: int, num_codebooks: int = 3) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(x.size(1), num_codebooks=num_codebooks, codebook_size=size)
    quantizer.initialize(x, generator())
    return quantizer


def lists(found: tuple[Tensor, Tensor], rows: int) -> list[list[int]]:
    row, user = found
    return [user[row == b].tolist() for b in range(rows)]


# Both ways


def test_buckets_and_prefixes() -> None:
    stus = STUs(CODES, 4)
    assert len(stus) == 6
    assert stus.has().tolist() == [True, True, False, True, True, True, True]
    asked = torch.tensor([[1, 0, 2], [3, 3, 3], [2, 2, 2], [1, 0, 0]])
    assert lists(stus.users_of(asked), 4) == [[0, 3], [5], [], [4]]
    assert stus.count(asked).tolist() == [2, 1, 0, 1]
    assert lists(stus.users_of(torch.tensor([[1, 0], [1, 1], [0, 3]])), 3) == [[4, 0, 3], [], [1]]
    assert lists(stus.users_of(torch.tensor([[1]])), 1) == [[4, 0, 3, 6]]
    assert lists(stus.users_of(torch.empty(1, 0, dtype=torch.int64)), 1) == [[1, 4, 0, 3, 6, 5]]
    assert stus.children(torch.tensor([[1], [2]])).tolist() == [[3, 0, 1, 0], [0, 0, 0, 0]]
    assert stus.children(torch.empty(1, 0, dtype=torch.int64)).tolist() == [[1, 4, 0, 1]]
    assert [stus.buckets(length).tolist() for length in (1, 2, 3)] == [
        [1, 4, 1],
        [1, 3, 1, 1],
        [1, 1, 2, 1, 1],
    ]


def test_buckets_are_in_order_of_rank() -> None:
    rank = torch.tensor([0.9, 0.0, 0.0, 0.1, 0.5, 0.0, 0.0])
    stus = STUs(CODES, 4, rank)
    assert lists(stus.users_of(torch.tensor([[1, 0, 2], [1, 0, 0]])), 2) == [[3, 0], [4]]
    more = stus.append(torch.tensor([[1, 0, 2]]), torch.tensor([0.4]))
    assert lists(more.users_of(torch.tensor([[1, 0, 2]])), 1) == [[3, 7, 0]]
    with pytest.raises(ValueError, match="a rank for all users or for none"):
        stus.append(torch.tensor([[1, 0, 2]]))


def test_nobody_changes_when_somebody_comes() -> None:
    stus = STUs(CODES, 4)
    more = stus.append(torch.tensor([[2, 2, 2], [1, 0, 2]]))
    assert torch.equal(more.codes[:7], stus.codes)
    assert lists(more.users_of(torch.tensor([[2, 2, 2], [1, 0, 2]])), 2) == [[7], [0, 3, 8]]
    assert len(stus) == 6


@checked
@given(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=2), max_size=30), st.integers(0, 2))
def test_look_ups_equal_a_naive_search(rows: list[list[int]], length: int) -> None:
    codes = torch.tensor(rows, dtype=torch.int64).view(-1, 2)
    stus = STUs(codes, 3)
    prefixes = (
        torch.cartesian_prod(*[torch.arange(3)] * length).view(-1, length)
        if length
        else codes.new_empty(1, 0)
    )
    naive = [
        sorted((u for u, row in enumerate(rows) if row[:length] == prefix), key=lambda u: (rows[u], u))
        for prefix in prefixes.tolist()
    ]
    assert lists(stus.users_of(prefixes), len(prefixes)) == naive
    assert stus.count(prefixes).tolist() == [len(users) for users in naive]


# Places for everybody


@checked
@given(st.integers(1, 64), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 40))
def test_everybody_gets_a_place(n: int, seed: int, alike: float, taken: int) -> None:
    """As long as there are any: 4^3 in all, however many are alike, and however many are taken."""
    draws = generator(seed)
    x = torch.randn(n, 3, generator=draws)
    x[: int(alike * n)] = x[0]
    quantizer = quantizer_of(x, 4)
    places = torch.randperm(64, generator=draws)[:taken]
    table = STUs(torch.stack([places // 16, places // 4 % 4, places % 4], dim=1), 4)
    if n > 64 - taken:
        with pytest.raises(ValueError, match=rf"{n} users need .* {64 - taken} of 4\^3 are free"):
            table.place(x, quantizer)
        return
    for raw_codes in (None, quantizer.assign(x)):
        codes = table.place(x, quantizer, raw_codes, balanced=raw_codes is not None)
        both = torch.cat([codes, table.codes])
        assert len(both.unique(dim=0)) == len(both)
        assert (codes >= 0).all()
        assert (codes < 4).all()


def test_whoever_is_alone_keeps_the_wish() -> None:
    x = torch.randn(400, 6, generator=generator())
    x[200:240] = x[200]
    quantizer = quantizer_of(x, 16)
    raw_codes = quantizer.encode(x)
    codes = STUs(raw_codes[:0], 16).place(x, quantizer, raw_codes)
    _, bucket, size = raw_codes.unique(dim=0, return_inverse=True, return_counts=True)
    beside = (raw_codes[:, :2] == raw_codes[200, :2]).all(1)  # the forty, and whoever shares their prefix
    alone = (size[bucket] == 1) & ~beside
    assert alone.sum() > 100
    assert torch.equal(codes[alone], raw_codes[alone])
    prefix = (codes[:, :2] == raw_codes[:, :2]).all(1)
    assert prefix[~beside].all()  # there is room for 16 below each
    assert prefix[beside].sum() == 16
    assert (codes[:, 0] == raw_codes[:, 0]).all()


def test_the_last_code_is_near_the_best() -> None:
    """The distortion that uniqueness adds is within a tenth of what the Hungarian method would add."""
    x = torch.randn(300, 4, generator=generator())
    quantizer = quantizer_of(x, 8, num_codebooks=2)
    raw_codes = quantizer.encode(x)
    x, raw_codes = x[raw_codes[:, 0] == 0][:8], raw_codes[raw_codes[:, 0] == 0][:8]
    codes = STUs(raw_codes[:0], 8).place(x, quantizer, raw_codes)
    cost = torch.cdist(x - quantizer.codebooks[0, 0], quantizer.codebooks[1]).square()
    row, column = linear_sum_assignment(cost.numpy())
    best, found = float(cost[row, column].sum()), float(cost.gather(1, codes[:, 1:]).sum())
    assert len(codes) == 8
    assert best <= found <= 1.25 * best


def test_newcomers_take_the_nearest_that_is_free() -> None:
    x = torch.randn(200, 4, generator=generator())
    quantizer = quantizer_of(x, 8)
    table = STUs(quantizer.assign(x)[:0], 8)
    table = table.append(table.place(x, quantizer, balanced=True))
    new = torch.randn(5, 4, generator=generator(1))
    for vector in new:
        (code,) = table.place(vector[None], quantizer).unbind()
        raw_codes = quantizer.encode(vector[None])[0]
        assert torch.equal(code[:2], raw_codes[:2])
        free = table.children(raw_codes[None, :2])[0] == 0
        residual = vector - quantizer.decode(raw_codes[None, :2])[0]
        distance = (residual - quantizer.codebooks[2]).norm(dim=1).masked_fill(~free, torch.inf)
        assert distance[code[2]] == pytest.approx(float(distance.min()))
        table = table.append(code[None])


def test_resolution_keeps_the_balance() -> None:
    """Half of all are twins of one another, so that the nearest last codes would be the same for most."""
    x = torch.randn(600, 4, generator=generator()).repeat_interleave(2, dim=0)
    quantizer = quantizer_of(x, 24)
    raw_codes = quantizer.assign(x)
    codes = STUs(raw_codes[:0], 24).place(x, quantizer, raw_codes, balanced=True)
    assert len(codes.unique(dim=0)) == 1200
    for level in codes.unbind(1):
        assert int(torch.bincount(level).max()) <= 1.25 * 1200 / 24


# What is refused


@pytest.mark.parametrize(
    ("codes", "size", "why"),
    [
        (torch.zeros(3, dtype=torch.int64), 4, r"must be \[N, L\] int64"),
        (torch.zeros(3, 2), 4, "int64"),
        (torch.tensor([[0, 4]]), 4, r"codes lie outside 0..3: 4"),
        (torch.tensor([[0, -1]]), 4, "-1 throughout or nowhere"),
        (torch.zeros(1, 5, dtype=torch.int64), 10_000, "do not fit into one number"),
    ],
)
def test_tables_that_are_none(codes: Tensor, size: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        STUs(codes, size)


def test_look_ups_that_are_none() -> None:
    stus = STUs(CODES, 4)
    with pytest.raises(ValueError, match="l <= 3"):
        stus.users_of(torch.zeros(1, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"outside 0..3: 9"):
        stus.count(torch.tensor([[9]]))
    with pytest.raises(ValueError, match="no next code"):
        stus.children(CODES[:1])
    with pytest.raises(ValueError, match=r"rank must be \[7\]"):
        STUs(CODES, 4, torch.zeros(3))
