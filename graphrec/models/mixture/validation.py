"""Validation of a mixture recommender: ranks, scores, and the choice of the contact prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from graphrec.data import OUTCOMES, FriendGraph, Outcome, Query, wanted_events
from graphrec.evaluate import Scorer, StreamingRanks, rank_events
from graphrec.evaluate.mutual import ranks_without_contacts
from graphrec.models.mixture.contact_prior import PRIOR_GRID, ContactPrior, PriorScorer, ScoreCache
from graphrec.models.windows.grid import TrainingWindows
from graphrec.temporal import NeighborhoodConfig, Timeline

EPOCH_SLICES = ("all", "reply", "new")
"""Slices whose MRR chooses the epoch."""

VALIDATION_SCORES = 25_000_000
"""Approximate number of scores in the validation of an epoch, events times users."""

MIN_EVENTS, MAX_EVENTS = 500, 4000
"""Smallest and largest number of validation events."""

MAX_SCORES, FEWEST_EVENTS = 100_000_000, 100
"""Scores above which there are fewer events than `MIN_EVENTS`, down to the fewest."""


def validation_events(graph: FriendGraph, start: int, end: int, *, seed: int) -> Tensor:
    """Sample validation events from `start` to before `end` (s): [n] int64 positions, ascending."""
    first, last = torch.searchsorted(graph.events().time, torch.tensor([start, end])).tolist()
    events = wanted_events(graph, torch.arange(first, last))
    size = _num_events(graph.num_users)
    if len(events) <= size:
        return events
    chosen = torch.randperm(len(events), generator=torch.Generator().manual_seed(seed))[:size]
    return events[chosen.sort().values]


def _num_events(num_users: int) -> int:
    """The number of validation events in a network of so many users."""
    least = min(MIN_EVENTS, max(FEWEST_EVENTS, MAX_SCORES // num_users))
    return min(MAX_EVENTS, max(least, VALIDATION_SCORES // num_users))


def validation_ranks(scorer: Scorer, graph: FriendGraph, event_id: Tensor) -> StreamingRanks:
    """Ranks of the targets of events [n] int64 by a scorer that is still being fitted."""
    return rank_events(scorer, graph, event_id, part="val", trained_until=0, progress=False, in_sample=True)


def epoch_scores(
    scorer: Scorer,
    graph: FriendGraph,
    judged: Tensor | TrainingWindows,
    *,
    weight: Mapping[str, float],
    seed: int,
) -> dict[str, float]:
    """MRR after an epoch, on events or windows of validation, with 'val_score', which chooses the epoch.

    Args:
        scorer: that is being fitted.
        graph: the whole graph.
        judged: positions of events [n] int64, or windows.
        weight: of each slice of events.
        seed: of a sample.
    """
    if isinstance(judged, TrainingWindows):
        return window_scores(scorer, graph, judged, seed=seed)
    return validation_scores([validation_ranks(scorer, graph, judged)], EPOCH_SLICES, weight)


def window_scores(
    scorer: Scorer, graph: FriendGraph, windows: TrainingWindows, *, seed: int
) -> dict[str, float]:
    """MRR of initiations and ties at the starts of windows, among users without earlier contact.

    Args:
        scorer: that is still being fitted.
        graph: the whole graph.
        windows: of validation.
        seed: of a sample, where there are many.

    Returns:
        'val_all' and 'val_new', of initiations; 'val_tie'; and 'val_score', the geometric mean of both.
    """
    outcomes, size = windows.outcomes, _num_events(graph.num_users)
    found: dict[Outcome, float] = {}
    for outcome in OUTCOMES:
        key = torch.from_numpy(outcomes.key if outcome == "initiation" else outcomes.key[outcomes.replied])
        if len(key) > size:
            draw = torch.randperm(len(key), generator=torch.Generator().manual_seed(seed))
            key = key[draw[:size].sort().values]
        if not len(key):
            continue
        moment, user = (
            key // outcomes.num_users // outcomes.num_users,
            key // outcomes.num_users % outcomes.num_users,
        )
        time = windows.start[moment]
        query = Query(user, time, torch.zeros_like(user)).within(1, outcome)
        title = f"{scorer.name} {outcome}"
        ranks = ranks_without_contacts(
            scorer, graph, query, key % outcomes.num_users, title=title, progress=False
        )
        found[outcome] = float((1.0 / ranks).mean())
    score = float(np.exp(np.mean(np.log(list(found.values()))))) if found else 0.0
    every = found.get("initiation", 0.0)
    return {"val_all": every, "val_new": every, "val_tie": found.get("tie", 0.0), "val_score": score}


def validation_scores(
    ranks: Sequence[StreamingRanks], slices: Iterable[str], weight: Mapping[str, float]
) -> dict[str, float]:
    """MRR of slices, and their geometric mean.

    Args:
        ranks: of disjoint parts of the events, which are joined.
        slices: names of slices.
        weight: of each slice in the mean; slices without events are left out.

    Returns:
        'val_NAME' for each slice, and 'val_score', their weighted geometric mean.
    """
    inside = {name: np.concatenate([part.select(name)[0] for part in ranks]) for name in slices}
    scores = {f"val_{name}": float((1.0 / r).mean()) if len(r) else 0.0 for name, r in inside.items()}
    logs = np.log([score or 1.0 for score in scores.values()])
    weights = [len(rank) and weight[name] for name, rank in inside.items()]
    mean = np.average(logs, weights=weights) if any(weights) else -np.inf
    return scores | {"val_score": float(np.exp(mean))}


def choose_prior(
    name: str,
    graph: FriendGraph,
    event_id: Tensor,
    *,
    probabilities: Callable[[Query], Tensor],
    neighborhood: NeighborhoodConfig,
    weight: Mapping[str, float],
    batch_size: int,
) -> ContactPrior:
    """Choose the prior of `PRIOR_GRID` that is best on validation; users are scored once for all priors.

    It maximizes the weighted geometric mean of the MRR of all slices and of `all`, so that no slice is traded
    for another.

    Args:
        name: of the model, for messages.
        graph: the graph.
        event_id: [n] int64, events of validation.
        probabilities: from B queries to the probabilities of all users [B, N].
        neighborhood: limits the contacts.
        weight: of each slice.
        batch_size: events scored at once.
    """
    timeline = Timeline.of(graph)
    found: dict[ContactPrior, list[StreamingRanks]] = {prior: [] for prior in PRIOR_GRID}
    for ids in event_id.split(batch_size):
        cache = ScoreCache(probabilities)
        for prior, ranks in found.items():
            scorer = PriorScorer(name, prior, cache, timeline, neighborhood)
            ranks.append(validation_ranks(scorer, graph, ids))

    def score(prior: ContactPrior) -> float:
        return validation_scores(found[prior], weight, weight)["val_score"]

    return max(PRIOR_GRID, key=score)
