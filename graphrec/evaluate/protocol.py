"""What the protocols share: who is judged, which events, in which batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from graphrec.data import Query
from graphrec.data.checks import check_flags
from graphrec.data.precision import single_precision
from graphrec.threads import num_workers

MAX_SCORES = 500_000_000
"""Where events x users exceed this, a fixed random sample of `SAMPLE_SIZE` events is judged."""

SAMPLE_SIZE = 6000
BATCH_SCORES = 2**20
"""Scores of one batch, in numbers; each thread works on one."""


T = TypeVar("T")
Row = dict[str, Any]
"""A row of the results file."""


class EvaluationError(ValueError):
    """A recommender gave scores that cannot be ranked."""


class Scorer(Protocol):
    """What evaluation needs of a recommender: a name, and finite scores of all N users, [B, N]."""

    name: str

    def score(self, query: Query) -> Tensor:
        """Scores seeing only what is strictly older than each query; called from several threads at once."""


def check_unseen(scorer: Scorer, time: Tensor, *, in_sample: bool) -> None:
    """Refuse to judge a recommender by events it was fitted on, but where that is asked for.

    Args:
        scorer: what it was fitted on is known where it has `fitted_until`, as a `Recommender` has.
        time: [n] int64 seconds, of the events judged.
        in_sample: whether it is asked for.

    Raises:
        EvaluationError: the first event is older than the end of the fit.
    """
    check_flags(in_sample=in_sample)
    fitted_until = getattr(scorer, "fitted_until", None)
    if in_sample or fitted_until is None or not len(time):
        return
    first = int(time.min())
    if fitted_until > first:
        raise EvaluationError(
            f"{scorer.name} was fitted on events before {fitted_until}, and would be judged by events from "
            f"{first} on, which it has seen: fit it until {first} at most, or pass in_sample=True"
        )


def sampled(ids: np.ndarray, num_users: int) -> np.ndarray:
    """All of them, or where that means more than `MAX_SCORES` scores a fixed sample of 6,000."""
    if len(ids) * num_users <= MAX_SCORES or len(ids) <= SAMPLE_SIZE:
        return ids
    return np.random.default_rng(0).choice(ids, SAMPLE_SIZE, replace=False)


def judged_batches(
    scorer: Scorer,
    query: Query,
    num_users: int,
    judge: Callable[[slice, Query, Tensor], T],
    *,
    title: str,
    progress: bool,
) -> Iterator[T]:
    """What `judge` makes of (rows, queries, scores [b, N]) of consecutive queries, in their order.

    The queries should be in order of time. As many batches are scored and judged at once as there are
    `num_workers`, each by one thread: many steps of a batch know no threads of their own.
    """
    size = max(1, BATCH_SCORES // num_users)
    starts = range(0, len(query), size)

    def work(start: int) -> T:
        part = query[start : start + size]
        with torch.no_grad(), single_precision():
            return judge(slice(start, start + len(part)), part, _scores(scorer, part, num_users))

    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_workers(), "judge", torch.set_num_threads, (1,)) as pool:
            bar = {"desc": title, "unit": "batch", "disable": None if progress else True, "leave": False}
            yield from tqdm(pool.map(work, starts), total=len(starts), **bar)
    finally:
        torch.set_num_threads(num_threads)  # what threads begin with that are started later


def _scores(scorer: Scorer, query: Query, num_users: int) -> Tensor:
    scores = scorer.score(query).detach()
    if scores.dtype is torch.bfloat16:  # which NumPy does not know
        scores = scores.float()
    if scores.shape != (len(query), num_users):
        raise EvaluationError(
            f"{scorer.name} gave scores of shape {list(scores.shape)} for {len(query)} queries "
            f"and {num_users} users"
        )
    # A sum is finite only where its terms are; where it is not, it may have overflown.
    if not torch.isfinite(scores.sum()) and not (finite := torch.isfinite(scores)).all():
        row, user = (~finite).nonzero()[0].tolist()
        raise EvaluationError(
            f"{scorer.name} gave the score {scores[row, user].item()} to user index {user} "
            f"for user index {int(query.user[row])} at time {int(query.time[row])}"
        )
    return scores


def and_self(query: Query, *people: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Pairs (row [M], user [M]) that are no candidates, of any number of lists, and each row's own user."""
    everybody = (torch.arange(len(query)), query.user), *people
    return torch.cat([row for row, _ in everybody]), torch.cat([user for _, user in everybody])
