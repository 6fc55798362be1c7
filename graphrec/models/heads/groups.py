"""Groups of queries that are searched together."""

from __future__ import annotations

import torch
from torch import Tensor


def groups_of(number: Tensor, size: int) -> list[Tensor]:
    """Group B queries by their numbers [B] int64: rows [b] int64 of each group, ascending, at most `size`."""
    if not len(number):
        return []
    first, last = number.aminmax()
    if first == last:
        return list(torch.arange(len(number)).split(size))
    return [rows for one in number.unique() for rows in (number == one).nonzero().squeeze(1).split(size)]
