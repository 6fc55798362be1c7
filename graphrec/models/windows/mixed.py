"""Lists whose order two models share: the probability moves within a list, its sum stays."""

from __future__ import annotations

import torch
from torch import Tensor

MIXTURE_WEIGHT = 0.4
"""Exponent of the second model's probabilities; .2 to .5 are near level on validation."""


def mix(score: Tensor, log_q: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Move probability within each list towards a second model, as a weighted geometric mean.

        P'(v) is proportional to P(v) Q(v)^w, with the sum of P over the list

    so the expected number of outcomes of a list, which the second model does not know, is that of the first.

    Args:
        score: [M], log P of each candidate.
        log_q: [M], log Q.
        row: [M] int64, the list of each.
        num_rows: number of lists.

    Returns:
        [M] float64, log P', at most 0.
    """
    moved = score.double() + MIXTURE_WEIGHT * log_q.double()
    change = _log_sum(score.double(), row, num_rows) - _log_sum(moved, row, num_rows)
    return (moved + change[row]).clamp(max=0.0)


def _log_sum(value: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Log of the sum of exp(value [M]) over the entries of each row: [num_rows]; 0 for an empty row."""
    top = value.new_zeros(num_rows).scatter_reduce(0, row, value, "amax", include_self=False)
    total = value.new_zeros(num_rows).index_add(0, row, (value - top[row]).exp())
    return torch.where(total > 0, total.clamp(min=1e-300).log() + top, 0.0)
