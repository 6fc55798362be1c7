"""Random draws as hashes of their subjects (query, user, epoch), the same in any batch and worker."""

from __future__ import annotations

import torch
from torch import Tensor


def mix(x: Tensor) -> Tensor:
    """Hash int64 values of any shape by SplitMix64 (Steele et al. 2014)."""
    x = (x ^ _shifted(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shifted(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A right shift that brings in zeros: with `>>`, x and ~x would have the same hash."""
    return (x >> bits) & (1 << 64 - bits) - 1


def hashed(*parts: Tensor | int) -> Tensor:
    """Combine several int64 values, broadcast, into one hash (int64, of either sign)."""
    out = torch.zeros((), dtype=torch.int64)
    for part in parts:
        out = mix(out + part + 0x1E3779B97F4A7C15)
    return out


def below(salt: Tensor, size: Tensor | int) -> Tensor:
    """Map hashes to numbers from 0 to size-1, uniform up to size / 2^62 (int64, broadcast)."""
    return (salt & (2**62 - 1)) % size


def distinct_below(salt: Tensor, size: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Draw min(k, size) distinct numbers from 0 to size-1 for each row, every subset equally likely.

    Floyd's algorithm (Bentley & Floyd 1987), all rows at once: the j-th draw is uniform below size-k+1+j, and
    one that was drawn before becomes size-k+j, which cannot have been. Time grows with k^2 for each row.

    Args:
        salt: [F] int64, a hash that fixes the draw of each row.
        size: [F] int64.
        k: numbers of a row, at most.

    Returns:
        (row [M], number [M]) int64, rows ascending.
    """
    taken = size.clamp(max=k)
    row = torch.repeat_interleave(taken)
    number = torch.arange(row.numel()) - (taken.cumsum(0) - taken).index_select(0, row)
    chosen = size > k
    top = size[chosen] - k + torch.arange(k)[:, None]  # [k, rows with more than k]
    drawn = below(hashed(salt[chosen], torch.arange(k)[:, None]), top + 1).numpy()
    for j in range(1, k):
        again = (drawn[:j] == drawn[j]).any(0)
        drawn[j][again] = top[j].numpy()[again]
    number[chosen.index_select(0, row)] = torch.from_numpy(drawn).t().reshape(-1)
    return row, number


def epoch_order(size: int, *, seed: int, epoch: int) -> Tensor:
    """Return a permutation of 0..size-1, fixed by (seed, epoch) alone: [size] int64."""
    key = int(hashed(torch.tensor(seed), epoch))
    return torch.randperm(size, generator=torch.Generator().manual_seed(key))
