"""STUs packed into numbers whose digits are the codes: the STUs of a prefix are a range of numbers."""

from __future__ import annotations

from torch import Tensor

MAX_KEYS = 2**62
"""Largest number of possible STUs, so that one fits into int64."""


def check_packable(num_codebooks: int, codebook_size: int) -> None:
    """Raise ValueError if K^L STUs do not fit into int64."""
    if codebook_size**num_codebooks > MAX_KEYS:
        raise ValueError(f"{num_codebooks} codes below {codebook_size} do not fit into one number")


def check_rank(rank: Tensor | None, num_users: int) -> None:
    """Raise ValueError if a rank is not [N]."""
    if rank is not None and rank.shape != (num_users,):
        raise ValueError(f"rank must be [{num_users}], got {list(rank.shape)}")


def check_codes(codes: Tensor, codebook_size: int) -> None:
    """Raise ValueError, naming one, if codes lie outside 0..K-1."""
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebook_size:
        wrong = codes[(codes < 0) | (codes >= codebook_size)]
        raise ValueError(f"codes lie outside 0..{codebook_size - 1}: {int(wrong[0])}")


def pack_codes(codes: Tensor, codebook_size: int) -> Tensor:
    """Pack prefixes [n, l] int64 below K into numbers of base K: [n] int64."""
    key = codes.new_zeros(len(codes))
    for column in codes.unbind(1):
        key = key * codebook_size + column
    return key


def sort_users(
    codes: Tensor, users: Tensor, codebook_size: int, rank: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sort users by STU, and those of equal STUs by rank.

    Args:
        codes: [N, L] int64.
        users: [M] int64, ascending, those with an STU.
        codebook_size: K.
        rank: [N], lowest first; None keeps users of equal STUs in ascending order.

    Returns:
        (key [M] int64 ascending, user [M] int64).
    """
    if rank is not None:
        users = users[rank[users].argsort(stable=True)]
    key, order = pack_codes(codes[users], codebook_size).sort(stable=True)
    return key, users[order]
