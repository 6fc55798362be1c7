"""Training examples: the candidates of lists at regular moments, and what followed in each window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.evaluate.initiations import WEEK_SECONDS
from graphrec.evaluate.list_questions import RECIPIENT_WINDOWS, ListOutcomes, ListQuestions
from graphrec.features.window import WindowFeatures
from graphrec.temporal import Timeline, ordinary_graph

NUM_WINDOWS = 64
"""Windows of equal numbers of events that the training period is cut into."""

FIRST_WINDOW = 16
"""The first window that is asked about: earlier ones have too short a past."""

MAX_RECIPIENTS, MAX_EXAMPLES = 1500, 12_000
"""Recipients of a moment, and examples other than initiations."""


@dataclass(frozen=True)
class WindowExamples:
    """Candidates of training lists.

    Attributes:
        x: [n, NUM_WINDOW_FEATURES] float32.
        happened: [n, 2] float32, 1 for an initiation and for a tie.
        weight: [n, 2] float32: candidates that each stands for; 0 where the outcome is not decided yet.
    """

    x: Tensor
    happened: Tensor
    weight: Tensor


def collect_examples(
    graph: FriendGraph, features: WindowFeatures, lot: Tensor, *, until: int, generator: torch.Generator
) -> WindowExamples:
    """Ask for lists at the starts of windows, for users seen in the two windows before.

    Windows end at `until` at the latest, and no event from then on decides an outcome: an initiation that may
    still be answered is no example of a tie, either way.

    Args:
        graph: the whole graph.
        features: finds candidates.
        lot: [N] int64, breaks ties.
        until: seconds; there is an event before it.
        generator: draws recipients and examples.
    """
    timeline = Timeline.of(ordinary_graph(graph))
    events = timeline.events
    num_events = int(torch.searchsorted(events.time, until))
    place = torch.arange(NUM_WINDOWS) * num_events // NUM_WINDOWS
    border = torch.cat([events.time[place], torch.tensor([until])])
    reply_window = max(1, min(WEEK_SECONDS, (until - int(events.time[num_events * 7 // 8])) // 4))
    parts = []
    for number in range(FIRST_WINDOW, NUM_WINDOWS):
        start, end = int(border[number]), int(border[number + 1])
        since = int(border[number - RECIPIENT_WINDOWS])
        if since < start < end:
            questions = _questions(timeline, lot, since, start, end, until, reply_window, generator)
            if len(questions):
                parts.append(_examples(graph, features, lot, questions, generator))
    if not parts:
        return WindowExamples(torch.empty(0, 0), torch.empty(0, 2), torch.empty(0, 2))
    return WindowExamples(
        torch.cat([part.x for part in parts]),
        torch.cat([part.happened for part in parts]),
        torch.cat([part.weight for part in parts]),
    )


def _questions(
    timeline: Timeline,
    lot: Tensor,
    since: int,
    start: int,
    end: int,
    until: int,
    reply_window: int,
    generator: torch.Generator,
) -> ListQuestions:
    """The questions at one moment, `start` (s), to some of the users seen from `since` (s) on."""
    low, high = timeline.end_of_log(timeline.tick(torch.tensor([since, start]))).tolist()
    user = torch.cat([timeline.events.src[low:high], timeline.events.dst[low:high]])
    user = user[user >= 0].unique()
    user = user[lot[user].argsort()]  # what is drawn must not depend on user indices
    if len(user) > MAX_RECIPIENTS:
        user = user[torch.randperm(len(user), generator=generator)[:MAX_RECIPIENTS].sort().values]
    time = torch.full_like(user, start)
    return ListQuestions(
        query=Query(user, time, torch.zeros_like(user)),
        moment=torch.zeros_like(user),
        start=torch.tensor([start]),
        end=torch.tensor([end]),
        since=torch.tensor([since]),
        part="val",
        decided_until=until,
        reply_window=reply_window,
    )


def _examples(
    graph: FriendGraph,
    features: WindowFeatures,
    lot: Tensor,
    questions: ListQuestions,
    generator: torch.Generator,
) -> WindowExamples:
    """The examples of one moment: all initiations among the candidates, and a sample of the others."""
    timeline, size = Timeline.of(ordinary_graph(graph)), graph.num_users
    user, tick = questions.query.user, int(timeline.tick(questions.start)[0])
    found = features.candidates(user, tick, lot)
    outcomes = ListOutcomes.of(graph, questions)
    place, initiated = outcomes.find((user[found.row] * size + found.user).numpy())
    happened = torch.from_numpy(initiated)
    tie, open_ = (
        torch.from_numpy(column[place]) & happened if len(column) else torch.zeros_like(happened)
        for column in (outcomes.replied, outcomes.undecided)
    )
    order = lot[found.user].argsort()
    order = order[found.row[order].argsort(stable=True)]
    others = order[~happened[order]]
    share = min(1.0, MAX_EXAMPLES / max(1, len(others)))
    drawn = others[torch.rand(len(others), generator=generator) < share]
    kept = torch.cat([order[happened[order]], drawn])
    weight = torch.where(happened[kept], 1.0, 1.0 / share)
    return WindowExamples(
        found.x[kept],
        torch.stack([happened[kept], tie[kept]], 1).float(),
        torch.stack([weight, torch.where(open_[kept], 0.0, weight)], 1),
    )
