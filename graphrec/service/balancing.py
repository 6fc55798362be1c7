"""Lists for an export, chosen together from the candidates of all users."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from graphrec.data import UserIds
from graphrec.models import balanced_topk

CANDIDATES_PER_PLACE, MAX_CANDIDATES = 5, 100
"""Candidates for each place of a list, and for each user at most."""


def num_candidates(k: int) -> int:
    """Return from how many candidates a list of k people is chosen; from k = 100 on there is no choice."""
    return max(k, min(CANDIDATES_PER_PLACE * k, MAX_CANDIDATES))


def balanced_rows(
    files: list[Path], ids: UserIds, k: int, allowed: Callable[[pa.Table], np.ndarray] | None
) -> list[np.ndarray]:
    """Choose the rows of `balanced_topk` from the candidates of all users.

    At its peak it holds 13 bytes a candidate, which is 650 bytes a user for lists of 10 people, and one part.

    Args:
        files: the parts, with the columns user, rank, person and score, a log-probability; the rows of a user
            follow one another.
        ids: of users and people.
        k: length of a list, at most.
        allowed: from a part with M rows to those that may be chosen, [M] bool; by default all may.

    Returns:
        for each part, the chosen rows: [M] bool.
    """
    shape = len(ids), num_candidates(k)
    people, values = torch.full(shape, -1, dtype=torch.int32), torch.zeros(shape)
    end = [0]
    for file in files:
        part = pq.read_table(file)
        row, place = _positions(part)
        person = pc.index_in(part["person"], value_set=ids.values).to_numpy()
        if allowed is not None:
            person = np.where(allowed(part), person, -1)
        here = slice(end[-1], end[-1] + int(row[-1]) + 1 if len(row) else end[-1])
        people[here][row, place] = torch.from_numpy(person.astype(np.int32))
        values[here][row, place] = torch.from_numpy(np.exp(part["score"].to_numpy()).astype(np.float32))
        end.append(here.stop)
    lists = balanced_topk(people[: end[-1]], values[: end[-1]], k=k).to(torch.int32)
    out = []
    for file, first, last in zip(files, end, end[1:], strict=False):
        row, place = _positions(pq.read_table(file, columns=["user", "rank"]))
        own = people[first:last]
        listed = torch.zeros(own.shape, dtype=torch.bool)
        for column in lists[first:last].T:
            listed |= (own == column[:, None]) & (own >= 0)
        out.append(listed[row, place].numpy())
    return out


def first_rows(part: pa.Table) -> np.ndarray:
    """The first row of each user in a part with M rows: [U] int64."""
    if not part.num_rows:
        return np.empty(0, np.int64)
    user = part["user"].combine_chunks().dictionary_encode().indices.to_numpy()
    return np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))


def _positions(part: pa.Table) -> tuple[torch.Tensor, torch.Tensor]:
    """Which user of a part each of M rows is for, counted from 0, and its place: [M] int64 each, from 0."""
    first = first_rows(part)
    row = np.repeat(np.arange(len(first)), np.diff([*first, part.num_rows]))
    return torch.from_numpy(row), torch.from_numpy(part["rank"].to_numpy().astype(np.int64) - 1)
