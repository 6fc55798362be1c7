"""Top-k selection, with ties broken in one fixed order that is independent of user indices."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from graphrec.inference import lasting_tensors
from graphrec.temporal import run_starts


def tie_capacity(num_users: int) -> int:
    """Return how many users one shuffle serves, `num_users` or more: a power of two, or 1.5 times one."""
    power = 1 << max(1, num_users - 1).bit_length()
    return power * 3 // 4 if num_users <= power * 3 // 4 else power


@lru_cache(maxsize=8)
@lasting_tensors()
def tie_shuffle(capacity: int) -> Tensor:
    """The order in which users of equal scores are listed, and others who may join: [capacity] int64."""
    return torch.randperm(capacity, generator=torch.Generator().manual_seed(0))


@lru_cache(maxsize=8)
@lasting_tensors()
def _shuffle_rank(capacity: int) -> Tensor:
    return tie_shuffle(capacity).argsort()


def tie_rank(num_users: int) -> Tensor:
    """Each user's place in `tie_shuffle`: [N] int64, below the capacity; must not be written to.

    It stays the same when users join, up to the shuffle's capacity.
    """
    return _shuffle_rank(tie_capacity(num_users))[:num_users]


@lru_cache(maxsize=4)
@lasting_tensors()
def tie_order(num_users: int) -> Tensor:
    """The order in which users of equal scores are listed: [N] int64; must not be written to."""
    shuffle = tie_shuffle(tie_capacity(num_users))
    return shuffle[shuffle < num_users]


def stable_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, descending; unlike `torch.topk`, of equal ones the first.

    Args:
        values: [B, C].
        k: at most C.

    Returns:
        values [B, k] and their columns [B, k] int64.
    """
    best, column = values.topk(min(k + 1, values.size(1)), dim=1)
    if best.size(1) > k:
        tied = best[:, k - 1] == best[:, k]
        best, column = best[:, :k], column[:, :k]
        if bool(tied.any()):  # topk takes any of them
            again = values[tied].sort(dim=1, descending=True, stable=True)
            best[tied], column[tied] = again.values[:, :k], again.indices[:, :k]
    column, order = column.sort(dim=1)
    best, order = best.gather(1, order).sort(dim=1, descending=True, stable=True)
    return best, column.gather(1, order)


def padded_topk(
    row: Tensor, user: Tensor, score: Tensor, shape: tuple[int, int], num_users: int
) -> tuple[Tensor, Tensor]:
    """Select each query's k best users from a ragged list of scores.

    Args:
        row: [M] int64, the query of each entry.
        user: [M] int64, distinct for each query.
        score: [M].
        shape: (B, k).
        num_users: N.

    Returns:
        users [B, k] int64, best first, padded with -1; scores [B, k], padded with -inf.
    """
    order, place = segment_topk(row, user, score, shape[1], num_users)
    users = torch.full(shape, -1).index_put((row[order], place), user[order])
    scores = torch.full(shape, -torch.inf, dtype=score.dtype)
    return users, scores.index_put((row[order], place), score[order])


def segment_topk(row: Tensor, user: Tensor, score: Tensor, k: int, num_users: int) -> tuple[Tensor, Tensor]:
    """Find the positions of each query's k best users in a ragged list; ties in `tie_order`.

    Args:
        row: [M] int64, the query of each entry.
        user: [M] int64, distinct for each query.
        score: [M].
        k: number of users of a query, at most.
        num_users: N.

    Returns:
        positions [m] int64 among the M entries, queries ascending, and their ranks 0..k-1 [m] int64.
    """
    order = tie_rank(num_users)[user].argsort()
    order = order[score[order].argsort(descending=True, stable=True)]
    order = order[row[order].argsort(stable=True)]
    place = torch.arange(len(row)) - run_starts(row[order])
    return order[place < k], place[place < k]


def select_rows(row: Tensor, user: Tensor, rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Select the pairs (row [M], user [M]) of queries `rows` [b] int64, of `size`, renumbered 0..b-1."""
    at = torch.full((size,), -1).index_copy(0, rows, torch.arange(len(rows)))[row]
    return at[at >= 0], user[at >= 0]
