"""The residual quantiser: nearest codes, balance, codebooks on all data, gradients, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import checked
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from graphrec.nn import ResidualQuantizer, capacitated_nearest
from graphrec.nn.quantizer import BALANCE_FACTOR, Gradient
from graphrec.nn.quantizer_kernels import find_two_nearest
from graphrec.tokenizer.quality.report import perplexity


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(n: int = 2000, *, dim: int = 8, alike: float = 0.0, seed: int = 0) -> Tensor:
    """Vectors around forty centers; a share of them all at one place."""
    draws = generator(seed)
    centers = torch.randn(40, dim, generator=draws)
    x = centers[torch.randint(40, (n,), generator=draws)] + 0.3 * torch.randn(n, dim, generator=draws)
    x[: int(alike * n)] = centers[0]
    return x


def fitted(x: Tensor, *, balanced: bool = True, size: int = 16, seed: int = 0) -> ResidualQuantizer:
    quantizer = ResidualQuantizer(x.size(1), codebook_size=size)
    quantizer.initialize(x, generator(seed), balanced=balanced)
    return quantizer.eval()


def distortion(quantizer: ResidualQuantizer, x: Tensor, codes: Tensor) -> float:
    return float((x - quantizer.decode(codes)).square().sum(1).mean())


# Codes and vectors


def test_each_code_is_the_nearest_to_what_is_left() -> None:
    x, quantizer = clusters(60), fitted(clusters())
    codes = quantizer.encode(x)
    for row, vector in enumerate(x):
        for level in range(3):
            distance = (vector - quantizer.codebooks[level]).norm(dim=1)
            assert distance[codes[row, level]] == pytest.approx(float(distance.min()), abs=1e-5)
            vector = vector - quantizer.codebooks[level, codes[row, level]]


def test_a_vector_is_the_sum_of_its_codewords() -> None:
    quantizer, codes = fitted(clusters()), torch.tensor([[3, 0, 15], [0, 0, 1]])
    naive = [sum(quantizer.codebooks[level, int(code)] for level, code in enumerate(row)) for row in codes]
    torch.testing.assert_close(quantizer.decode(codes), torch.stack(naive))
    torch.testing.assert_close(quantizer.decode(codes[:, :1]), quantizer.codebooks[0, codes[:, 0]])


@pytest.mark.parametrize("balanced", [False, True])
def test_every_level_explains_more(balanced: bool) -> None:
    x = clusters()
    quantizer = fitted(x, balanced=balanced)
    codes = quantizer.assign(x, balanced=balanced)
    left = [distortion(quantizer, x, codes[:, :length]) for length in (1, 2, 3)]
    assert x.var(0).sum() > 2 * left[0] > 3 * left[1] > 4 * left[2]


def test_codebooks_are_made_from_all_vectors() -> None:
    """A batch of the first would not know the last cluster."""
    x = clusters()
    x[-50:] = 9.0
    quantizer = fitted(x)
    assert distortion(quantizer, x[-50:], quantizer.encode(x[-50:])) < 1.0


@pytest.mark.parametrize("balanced", [False, True])
def test_one_seed_one_result(balanced: bool) -> None:
    x = clusters(alike=0.3)
    one, same, other = (fitted(x, balanced=balanced, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.codebooks, same.codebooks)
    assert not torch.equal(one.codebooks, other.codebooks)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17])
def test_few_vectors(n: int) -> None:
    x = clusters(n)
    quantizer = fitted(x)
    assert torch.isfinite(quantizer.codebooks).all()
    assert distortion(quantizer, x, quantizer.encode(x)) < (1e-10 if n <= 16 else 0.2)


# Balance


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("n", [160, 2000])
def test_balance_whatever_the_vectors(alike: float, n: int) -> None:
    x = clusters(n, alike=alike)
    quantizer = ResidualQuantizer(8, codebook_size=16)
    codes = quantizer.initialize(x, generator())
    assert torch.equal(quantizer.assign(x), codes)
    for level in codes.unbind(1):
        assert int(torch.bincount(level).max()) <= BALANCE_FACTOR * n / 16
        assert perplexity(level, 16) >= 0.8


def test_plain_codes_are_not_balanced() -> None:
    """So that the test above can fail."""
    x = clusters(alike=0.5)
    quantizer = fitted(x, balanced=False)
    assert min(perplexity(level, 16) for level in quantizer.encode(x).unbind(1)) < 0.6


def test_balance_costs_little() -> None:
    x = clusters()
    plain, balanced = (fitted(x, balanced=b) for b in (False, True))
    lost = distortion(balanced, x, balanced.assign(x)) / distortion(plain, x, plain.encode(x))
    assert lost < 1.15


@checked
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(0, 999), st.booleans())
def test_no_code_takes_more_than_it_has_room_for(n: int, k: int, groups: int, seed: int, alike: bool) -> None:
    draws = generator(seed)
    x = torch.zeros(n, 2) if alike else torch.randn(n, 2, generator=draws)
    codebook, group = torch.randn(k, 2, generator=draws), torch.randint(groups, (n,), generator=draws)
    room = torch.randint(4, (groups, k), generator=draws)
    fits = bool((torch.bincount(group, minlength=groups) <= room.sum(1)).all())
    if not fits:
        with pytest.raises(ValueError, match="there is no room for"):
            capacitated_nearest(x, codebook, room, group)
        return
    code = capacitated_nearest(x, codebook, room, group)
    taken = torch.bincount(group * k + code, minlength=groups * k).view(groups, k)
    assert (taken <= room).all()
    wide = capacitated_nearest(x, codebook, torch.full((groups, k), n), group)
    assert torch.equal(wide, torch.cdist(x, codebook).argmin(1)) or alike


def test_few_move_and_not_far() -> None:
    """Within some percent of the best assignment there is (the Hungarian method)."""
    for seed in range(5):
        x = clusters(400, seed=seed)
        codebook = fitted(x, size=20, balanced=False).codebooks[0]
        cost = torch.cdist(x, codebook).square()
        code = capacitated_nearest(x, codebook, torch.full((1, 20), 25))
        row, column = linear_sum_assignment(cost.repeat_interleave(25, dim=1).numpy())
        best = float(cost.repeat_interleave(25, dim=1)[row, column].sum())
        assert best > 1.01 * cost.amin(1).sum()
        assert best <= float(cost.gather(1, code[:, None]).sum()) <= 1.15 * best


def test_a_limit_over_all_groups() -> None:
    """Forty pairs of twins, each pair a group; without a limit all would share the two nearest codes."""
    x, codebook = torch.zeros(80, 2), torch.randn(8, 2, generator=generator())
    group, room = torch.arange(80) // 2, torch.ones(40, 8, dtype=torch.int64)
    free = torch.bincount(capacitated_nearest(x, codebook, room, group), minlength=8)
    even = torch.bincount(capacitated_nearest(x, codebook, room, group, torch.full((8,), 11)), minlength=8)
    assert free.sort().values.tolist() == [0] * 6 + [40] * 2
    assert int(even.max()) <= 11
    none = capacitated_nearest(x, codebook, room, group, torch.zeros(8, dtype=torch.int64))
    assert len(none) == 80
    assert (none >= 0).all()


# Starting from what was


def test_codes_are_kept_where_little_changes() -> None:
    x = clusters()
    quantizer = ResidualQuantizer(8, codebook_size=16)
    codes = quantizer.initialize(x, generator())
    moved = x + 0.05 * torch.randn(x.shape, generator=generator(1))
    warm = ResidualQuantizer(8, codebook_size=16)
    warm.codebooks.copy_(quantizer.codebooks)
    kept = warm.initialize(moved, generator(), keep=codes)
    cold = quantizer.assign(moved)
    assert (kept == codes).all(1).float().mean() > 0.95
    assert (cold == codes).all(1).float().mean() < 0.9
    assert torch.equal(warm.assign(moved, keep=codes), kept)
    assert distortion(warm, moved, kept) < 1.05 * distortion(quantizer, moved, cold)


def test_codes_are_given_up_where_much_changes() -> None:
    x = clusters()
    quantizer = ResidualQuantizer(8, codebook_size=16)
    codes = quantizer.initialize(x, generator())
    swapped = x.roll(1, 0)
    kept = quantizer.assign(swapped, keep=codes)
    assert (kept == codes).all(1).float().mean() < 0.2
    assert distortion(quantizer, swapped, kept) < 1.3 * distortion(quantizer, x, codes)


# Training


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_forward_quantises_and_lets_gradients_pass(gradient: Gradient) -> None:
    quantizer = ResidualQuantizer(8, codebook_size=16, gradient=gradient)
    quantizer.initialize(clusters(), generator())
    quantizer.eval()
    x = clusters(50, seed=1)
    towards_codes = quantizer.decode(quantizer.encode(x)) - x
    x.requires_grad_()
    quantised, codes, commitment = quantizer(x)
    assert torch.equal(codes, quantizer.encode(x))
    torch.testing.assert_close(quantised, quantizer.decode(codes))
    goal = torch.randn(50, 8, generator=generator(2))
    (gradient_x,) = torch.autograd.grad((quantised * goal).sum(), x, retain_graph=True)
    if gradient == "straight_through":
        torch.testing.assert_close(gradient_x, goal)
    else:  # angle and ratio of lengths between gradient and output are those between gradient and input
        one = torch.nn.functional.cosine_similarity(goal, quantised.detach())
        other = torch.nn.functional.cosine_similarity(gradient_x, x.detach())
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    (uphill,) = torch.autograd.grad(commitment, x)
    assert float((uphill * towards_codes).sum()) < 0


def test_training_follows_what_is_served() -> None:
    x = clusters()
    quantizer = ResidualQuantizer(8, codebook_size=16, decay=0.9)
    quantizer.initialize(x, generator())
    x = x + 1.0
    before = distortion(quantizer, x, quantizer.encode(x))
    quantizer.train()
    for _ in range(50):
        quantizer(x)
    assert distortion(quantizer, x, quantizer.encode(x)) < 0.7 * before
    frozen = quantizer.eval().codebooks.clone()
    quantizer(x)
    assert torch.equal(quantizer.codebooks, frozen)


def test_dead_codes_are_revived() -> None:
    x = clusters()
    used = []
    for revive in (False, True):
        quantizer = ResidualQuantizer(8, codebook_size=16, decay=0.8).train()
        quantizer.initialize(x, generator())
        quantizer.codebooks[:, 2:] += 1_000.0
        quantizer.total.copy_(quantizer.weight[:, :, None] * quantizer.codebooks)
        draws = generator()
        for _ in range(60):
            quantizer(x, draws if revive else None)
        used.append(len(quantizer.encode(x)[:, 0].unique()))
    assert used[0] < 4
    assert used[1] > 12


# What is refused


@pytest.mark.parametrize("sizes", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_no_quantiser_of_nothing(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ResidualQuantizer(sizes[0], num_codebooks=sizes[1], codebook_size=sizes[2])


@pytest.mark.parametrize(
    ("x", "why"),
    [
        (torch.zeros(3, 2), r"must be \[n, 8\], got \[3, 2\]"),
        (torch.zeros(8), r"got \[8\]"),
        (torch.full((2, 8), torch.inf), "finite"),
    ],
)
def test_vectors_that_are_none(x: Tensor, why: str) -> None:
    quantizer = ResidualQuantizer(8, codebook_size=4)
    for call in (quantizer.encode, quantizer.assign, lambda v: quantizer.initialize(v, generator())):
        with pytest.raises(ValueError, match=why):
            call(x)


def test_codes_that_are_too_many() -> None:
    with pytest.raises(ValueError, match=r"l <= 3, got \[2, 4\]"):
        ResidualQuantizer(8, codebook_size=4).decode(torch.zeros(2, 4, dtype=torch.int64))


def test_perplexity_counts() -> None:
    assert perplexity(torch.arange(8), 8) == pytest.approx(1.0)
    assert perplexity(torch.zeros(9, dtype=torch.int64), 8) == pytest.approx(1 / 8)
    share = np.array([0.5, 0.25, 0.25])
    assert perplexity(torch.tensor([0, 0, 1, 2]), 4) == pytest.approx(
        np.exp(-(share * np.log(share)).sum()) / 4
    )


def test_more_vectors_had_a_code_than_it_may_serve() -> None:
    """As where many newcomers came to one circle: the nearest keep the code, the others get another."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    quantizer = ResidualQuantizer(4, num_codebooks=1, codebook_size=4)
    quantizer.initialize(x, generator)
    crowd = quantizer.codebooks[0, 0] + 0.01 * torch.randn(64, 4, generator=generator)
    keep = torch.cat([quantizer.assign(x), torch.zeros(64, 1, dtype=torch.int64)])
    codes = quantizer.assign(torch.cat([x, crowd]), keep=keep)
    assert int(torch.bincount(codes[:, 0]).max()) <= 1.25 * 128 / 4
    assert bool((codes[64:, 0] == 0).any())


@checked
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 3), st.integers(0, 999))
def test_the_two_nearest_with_room(n: int, k: int, groups: int, seed: int) -> None:
    """Codes over their limit count only where no other has room."""
    draws = generator(seed)
    distance = torch.rand(n, k, generator=draws)
    group = torch.randint(groups, (n,), generator=draws)
    room = torch.randint(2, (groups, k), generator=draws)
    limit = torch.randint(2, (k,), generator=draws)
    code, margin = torch.empty(n, dtype=torch.int64), torch.empty(n)
    find_two_nearest(*(x.numpy() for x in (distance, group, room, limit, code, margin)))
    for i in range(n):
        free = [j for j in range(k) if room[group[i], j] > 0]
        open_codes = [j for j in free if limit[j] > 0] or free
        ranked = sorted(open_codes, key=lambda j: float(distance[i, j]))
        if not ranked:
            assert k == 1 or margin[i].isnan()
            continue
        assert int(code[i]) == ranked[0]
        further = distance[i, ranked[1]] if len(ranked) > 1 else torch.tensor(torch.inf)
        assert margin[i] == (further - distance[i, ranked[0]] if k > 1 else 0.0)
