"""What the protocols share: who is judged, which events, in which batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from graphrec.data import Query

MAX_SCORES = 500_000_000
"""Where events x users exceed this, a fixed random sample of `SAMPLE_SIZE` events is judged."""

SAMPLE_SIZE = 6000
BATCH_SCORES = 2**21
"""Scores held at once, in numbers."""


Row = dict[str, Any]
"""A row of the results file."""


class EvaluationError(ValueError):
    """A recommender gave scores that cannot be ranked."""


class Scorer(Protocol):
    """What evaluation needs of a recommender: a name, and finite scores of all N users, [B, N]."""

    name: str

    def score(self, query: Query) -> Tensor:
        """Scores seeing only what is strictly older than each query."""


def sampled(ids: np.ndarray, num_users: int) -> np.ndarray:
    """All of them, or where that means more than `MAX_SCORES` scores a fixed sample of 6,000."""
    if len(ids) * num_users <= MAX_SCORES or len(ids) <= SAMPLE_SIZE:
        return ids
    return np.random.default_rng(0).choice(ids, SAMPLE_SIZE, replace=False)


def scored_batches(
    scorer: Scorer, query: Query, num_users: int, *, title: str, progress: bool
) -> Iterator[tuple[slice, Query, Tensor]]:
    """Scores of consecutive queries, which should be in order of time: (rows, queries, [b, N])."""
    rows = max(1, BATCH_SCORES // num_users)
    starts = range(0, len(query), rows)
    for start in tqdm(starts, desc=title, unit="batch", disable=None if progress else True, leave=False):
        part = query[start : start + rows]
        with torch.no_grad():
            scores = scorer.score(part)
        if scores.shape != (len(part), num_users):
            raise EvaluationError(
                f"{scorer.name} gave scores of shape {list(scores.shape)} for {len(part)} queries "
                f"and {num_users} users"
            )
        low, high = scores.aminmax()
        if not (torch.isfinite(low) and torch.isfinite(high)):
            row, user = (~torch.isfinite(scores)).nonzero()[0].tolist()
            raise EvaluationError(
                f"{scorer.name} gave the score {scores[row, user].item()} to user index {user} "
                f"for user index {int(part.user[row])} at time {int(part.time[row])}"
            )
        yield slice(start, start + len(part)), part, scores


def and_self(query: Query, people: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pairs (row [M], user [M]) that are no candidates, and each row's own user."""
    row, user = people
    return torch.cat([torch.arange(len(query)), row]), torch.cat([query.user, user])
