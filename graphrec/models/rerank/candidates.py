"""Checks of the candidates of many users, from which lists are chosen for all at once."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_PER_CHECK = 65_536
"""Rows that are sorted at once, which takes 16 bytes a candidate."""


def check_candidates(people: Tensor, values: Tensor) -> None:
    """Check candidates of B users.

    Args:
        people: [B, C] integers, distinct in each row, padded with negative numbers.
        values: [B, C] value of each, finite; those of the padding are not read.

    Raises:
        TypeError: an argument is no tensor, or people are no integers.
        ValueError: the shapes differ, a value is not finite, or a candidate is there twice for one user.
    """
    for name, given in {"people": people, "values": values}.items():
        if not isinstance(given, Tensor):
            raise TypeError(f"{name} must be a tensor, got a {type(given).__name__}")
    if people.is_floating_point() or people.is_complex() or people.dtype == torch.bool:
        raise TypeError(f"people must be a tensor of integers, got {people.dtype}")
    if people.dim() != 2 or values.shape != people.shape:
        shapes = f"{list(people.shape)}, {list(values.shape)}"
        raise ValueError(f"people and values must both be [B, C], got {shapes}")
    for some, worth in zip(people.split(ROWS_PER_CHECK), values.split(ROWS_PER_CHECK), strict=True):
        ordered = some.sort(dim=1).values
        if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
            raise ValueError("people: a candidate is there twice for one user")
        if not bool(torch.isfinite(worth[some >= 0]).all()):
            raise ValueError("values must be finite")
