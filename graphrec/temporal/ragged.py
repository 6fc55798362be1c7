"""Ragged lists as flat tensors: the entries of one row are contiguous."""

from __future__ import annotations

import torch
from torch import Tensor


def ragged(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate the positions of B ranges start[b] .. end[b]-1, one range after the other.

    Args:
        start: [B] int64.
        end: [B] int64; the range is empty where it is not above `start`.

    Returns:
        (row [M], position [M]) int64, rows ascending.
    """
    length = (end - start).clamp(min=0)
    row = torch.repeat_interleave(length)
    offset = length.cumsum(0) - length
    return row, torch.arange(row.numel(), device=row.device) + (start - offset)[row]


def contains(people: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """Tell which of B ragged lists, (row [M], user [M]), hold the target [B] of their row: [B] bool."""
    row, user = people
    return torch.bincount(row[user == target[row]], minlength=len(target)) > 0


def run_starts(*keys: Tensor) -> Tensor:
    """Return for each entry the position where its run of equal keys begins: keys [M] each -> [M] int64."""
    opens = torch.ones_like(keys[0], dtype=torch.bool)
    opens[1:] = torch.stack([key[1:] != key[:-1] for key in keys]).any(0)
    return torch.where(opens, torch.arange(len(opens), device=opens.device), 0).cummax(0).values
