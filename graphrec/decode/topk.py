"""The best candidates of each query, and lists padded to equal length."""

from __future__ import annotations

import math

import torch
from torch import Tensor

IMPOSSIBLE_LOG_PROB = -1e30
"""Log-probability of an impossible code in a search, so that users below it come last instead of being
lost."""


def top_positions(values: Tensor, row: Tensor, width: int, num_rows: int) -> Tensor:
    """Flat positions of the `width` largest finite values of each query; of equal ones, the lowest positions.

    Args:
        values: [R, C], -inf for padding.
        row: [R] int64, ascending, the query of each row.
        width: number of values for each query.
        num_rows: B.

    Returns:
        [n] int64, ascending positions in the flattened values.
    """
    columns = values.size(1)
    count = torch.bincount(row, minlength=num_rows)
    first, most = count.cumsum(0) - count, int(count.max())
    if most * num_rows == len(row):
        dense = values.reshape(num_rows, -1)
    else:
        dense = values.new_full((num_rows, most, columns), -torch.inf)
        dense[row, torch.arange(len(row), device=row.device) - first[row]] = values
        dense = dense.flatten(1)
    best, at = _topk(dense, min(width + 1, dense.size(1)))
    if best.size(1) > width:
        tied = (best[:, width - 1] == best[:, width]) & (best[:, width] > -torch.inf)
        if bool(tied.any()):
            at[tied] = dense[tied].sort(dim=1, descending=True, stable=True).indices[:, : width + 1]
        best, at = best[:, :width], at[:, :width]
    flat = first[:, None] * columns + at
    return flat[best > -torch.inf].sort().values


def _topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row [B, n], descending, and their columns: as `topk`, faster if n is far above k.

    Each of them lies in one of the k groups, of n / c groups of c values, with the largest maxima.
    """
    group = math.isqrt(values.size(1) // k)
    if group < 2:
        return values.topk(k)
    groups = values.size(1) // group
    whole = group * groups
    among = values[:, :whole].unflatten(1, (group, groups))  # strided, so that its maximum is one pass
    chosen = among.amax(1).topk(k, sorted=False).indices
    few = among.gather(2, chosen[:, None].expand(-1, group, -1)).flatten(1)
    best, at = torch.cat([few, values[:, whole:]], dim=1).topk(k)
    place, number = at % k, at // k
    inside = at < k * group
    return best, torch.where(inside, chosen.gather(1, place) + groups * number, at - k * group + whole)


def padded_lists(
    row: Tensor, user: Tensor, order_by: Tensor, log_prob: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Sort the users of each query into a list.

    Args:
        row: [n] int64, query of each user.
        user: [n] int64.
        order_by: [n], largest first.
        log_prob: [n].
        shape: (B, k).

    Returns:
        users [B, k] int64, padded with -1, and log-probabilities [B, k], padded with -inf.
    """
    order = order_by.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    row = row[order]
    count = torch.bincount(row, minlength=shape[0])
    place = row, torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    users = user.new_full(shape, -1).index_put(place, user[order])
    log_probs = log_prob.new_full(shape, -torch.inf).index_put(place, log_prob[order])
    return users, hide_impossible(log_probs)


def hide_impossible(log_prob: Tensor) -> Tensor:
    """Replace log-probabilities of users below an impossible code by -inf (same shape)."""
    return log_prob.masked_fill(log_prob <= IMPOSSIBLE_LOG_PROB / 2, -torch.inf)
