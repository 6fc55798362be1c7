"""Shared by all protocols: samples of events, batches of scores, checks."""

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
"""Where events x users exceed this, a fixed random sample of `SAMPLE_SIZE` events is evaluated."""

SAMPLE_SIZE = 6000
"""Events, or users of a snapshot."""

SCORES_PER_BATCH = 2**20
"""Queries x users of one batch; each thread works on one."""


T = TypeVar("T")
Row = dict[str, Any]
"""A row of the results file."""


class EvaluationError(ValueError):
    """A recommender gave scores that cannot be ranked."""


class Scorer(Protocol):
    """The part of a recommender that evaluation uses: a name, and finite scores of all N users, [B, N]."""

    name: str

    def score(self, query: Query) -> Tensor:
        """Score all users for each query from earlier events; called from several threads at once."""


def check_not_fitted_on(scorer: Scorer, time: Tensor, *, in_sample: bool) -> None:
    """Refuse to evaluate a recommender on events that it was fitted on.

    Args:
        scorer: checked if it has `fitted_until`, as a `Recommender` has.
        time: [n] int64 seconds of the events.
        in_sample: skip the check.

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
            f"{scorer.name} was fitted on events before {fitted_until}, and would be evaluated on events "
            f"from {first} on, which it has seen: fit it until {first} at most, or pass in_sample=True"
        )


def sample_rows(ids: np.ndarray, num_users: int) -> np.ndarray:
    """Return all ids [n], or a fixed sample of `SAMPLE_SIZE` where n x users exceed `MAX_SCORES`."""
    if len(ids) * num_users <= MAX_SCORES or len(ids) <= SAMPLE_SIZE:
        return ids
    return np.random.default_rng(0).choice(ids, SAMPLE_SIZE, replace=False)


def evaluate_batches(
    scorer: Scorer,
    query: Query,
    num_users: int,
    evaluate: Callable[[slice, Query, Tensor], T],
    *,
    title: str,
    progress: bool,
) -> Iterator[T]:
    """Score queries in batches and yield `evaluate(rows, queries, scores [b, N])` of each, in order.

    The queries should be in order of time. `num_workers` batches are scored and evaluated at once, each by
    one thread: many steps of a batch are single-threaded.
    """
    size = max(1, SCORES_PER_BATCH // num_users)
    starts = range(0, len(query), size)

    def work(start: int) -> T:
        part = query[start : start + size]
        with torch.no_grad(), single_precision():
            return evaluate(slice(start, start + len(part)), part, _scores(scorer, part, num_users))

    num_threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_workers(), "evaluate", torch.set_num_threads, (1,)) as pool:
            bar = {"desc": title, "unit": "batch", "disable": None if progress else True, "leave": False}
            yield from tqdm(pool.map(work, starts), total=len(starts), **bar)
    finally:
        torch.set_num_threads(num_threads)  # the default of threads started later


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


def exclude_self(query: Query, *excluded: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Join lists of excluded pairs (row [M], user [M]) int64, and add each query's own user."""
    lists = (torch.arange(len(query)), query.user), *excluded
    return torch.cat([row for row, _ in lists]), torch.cat([user for _, user in lists])
