"""Training examples: the candidates of lists at regular moments, and what followed in each window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.evaluate.list_questions import ListOutcomes, seen_between
from graphrec.features.window import NUM_WINDOW_FEATURES, WindowCandidates, WindowFeatures
from graphrec.models.windows.grid import TrainingWindows
from graphrec.temporal import Timeline, ordinary_graph

MAX_RECIPIENTS, MAX_EXAMPLES = 1500, 12_000
"""Recipients of a moment, and examples other than initiations."""


@dataclass(frozen=True)
class WindowExamples:
    """Candidates of training lists, with labels.

    Attributes:
        x: [n, NUM_WINDOW_FEATURES] float32.
        label: [n, 2] float32, 1 for an initiation and for a tie.
        weight: [n, 2] float32: candidates that each stands for; 0 where the outcome is not decided yet.
    """

    x: Tensor
    label: Tensor
    weight: Tensor


def collect_examples(
    graph: FriendGraph, features: WindowFeatures, *, until: int, generator: torch.Generator
) -> WindowExamples:
    """Ask for lists at the starts of windows, for users seen in the two windows before.

    Windows end at `until` at the latest, and no event from then on decides an outcome: an initiation that may
    still be answered is no example of a tie, either way.

    Args:
        graph: the whole graph.
        features: finds candidates.
        until: seconds; there is an event before it.
        generator: draws recipients and examples.
    """
    timeline, windows = Timeline.of(ordinary_graph(graph)), TrainingWindows.of(graph, until)
    nothing = WindowExamples(torch.empty(0, NUM_WINDOW_FEATURES), torch.empty(0, 2), torch.empty(0, 2))
    parts = [nothing]
    for moment, (low, high) in enumerate(zip(windows.since.tolist(), windows.start.tolist(), strict=True)):
        user = seen_between(timeline, low, high)
        user = user[features.tie_rank[user].argsort()]  # what is drawn must not depend on user indices
        if len(user) > MAX_RECIPIENTS:
            user = user[torch.randperm(len(user), generator=generator)[:MAX_RECIPIENTS].sort().values]
        found = features.candidates(user, int(timeline.tick(torch.tensor(high))))
        parts.append(_examples(features.tie_rank, moment, user, found, windows.outcomes, generator))
    return WindowExamples(
        torch.cat([part.x for part in parts]),
        torch.cat([part.label for part in parts]),
        torch.cat([part.weight for part in parts]),
    )


def _examples(
    tie_rank: Tensor,
    moment: int,
    user: Tensor,
    found: WindowCandidates,
    outcomes: ListOutcomes,
    generator: torch.Generator,
) -> WindowExamples:
    """The examples of one moment: all initiations among the candidates, and a sample of the others.

    Args:
        tie_rank: [N] int64, a place for each user.
        moment: number of the window among those of the outcomes.
        user: [B] int64, the recipients.
        found: the candidates of their lists.
        outcomes: of all windows.
        generator: draws the sample.
    """
    size = outcomes.num_users
    key = (moment * size + user[found.row]) * size + found.user
    place, initiated = outcomes.find(key.numpy())
    initiation = torch.from_numpy(initiated)
    tie, undecided = (
        torch.from_numpy(column[place]) & initiation if len(column) else torch.zeros_like(initiation)
        for column in (outcomes.replied, outcomes.undecided)
    )
    order = tie_rank[found.user].argsort()
    order = order[found.row[order].argsort(stable=True)]
    others = order[~initiation[order]]
    share = min(1.0, MAX_EXAMPLES / max(1, len(others)))
    drawn = others[torch.rand(len(others), generator=generator) < share]
    kept = torch.cat([order[initiation[order]], drawn])
    weight = torch.where(initiation[kept], 1.0, 1.0 / share)
    return WindowExamples(
        found.x[kept],
        torch.stack([initiation[kept], tie[kept]], 1).float(),
        torch.stack([weight, torch.where(undecided[kept], 0.0, weight)], 1),
    )
