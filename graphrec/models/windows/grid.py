"""The windows that a training period is cut into, and what followed in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.evaluate.initiations import reply_window_of
from graphrec.evaluate.list_questions import RECIPIENT_WINDOWS, ListOutcomes
from graphrec.temporal import Timeline, ordinary_graph

NUM_WINDOWS = 64
"""Windows of equal numbers of events that the training period is cut into."""

FIRST_WINDOW = 16
"""The first window that is asked about: earlier ones have too short a past."""

NUM_VALIDATION_WINDOWS = 4


@dataclass(frozen=True)
class TrainingWindows:
    """Windows of a training period whose starts are moments of lists.

    Attributes:
        since: [S] int64 seconds; users with an event from then until the start are recipients.
        start, end: [S] int64 seconds, ascending.
        outcomes: of the windows, as the events before the end of training tell: an initiation that may still
            be answered is undecided.
    """

    since: Tensor
    start: Tensor
    end: Tensor
    outcomes: ListOutcomes

    @classmethod
    def of(cls, graph: FriendGraph, until: int) -> Self:
        """Cut the events before `until` (s); there is one. Fewer windows where many events have one time."""
        time = Timeline.of(ordinary_graph(graph)).events.time
        num_events = int(torch.searchsorted(time, until))
        place = torch.arange(NUM_WINDOWS) * num_events // NUM_WINDOWS
        border = torch.cat([time[place], torch.tensor([until])])
        start, end = border[FIRST_WINDOW:-1], border[FIRST_WINDOW + 1 :]
        since = border[FIRST_WINDOW - RECIPIENT_WINDOWS : -1 - RECIPIENT_WINDOWS]
        asked = (since < start) & (start < end)
        start, end, since = start[asked], end[asked], since[asked]
        window = training_reply_window(time[:num_events], until)
        outcomes = ListOutcomes.of_windows(graph, start, end, decided_until=until, reply_window=window)
        return cls(since, start, end, outcomes)

    @classmethod
    def between(cls, graph: FriendGraph, since: int, until: int) -> Self:
        """Cut the events of validation, from one time until before another (s), into a few windows."""
        time = Timeline.of(ordinary_graph(graph)).events.time
        first, last = torch.searchsorted(time, torch.tensor([since, until])).tolist()
        place = first + torch.arange(NUM_VALIDATION_WINDOWS) * (last - first) // NUM_VALIDATION_WINDOWS
        inside = time[place[1:].clamp(max=len(time) - 1)].clamp(since, until - 1)
        start = torch.cat([torch.tensor([since]), inside]).unique()
        end = torch.cat([start[1:], torch.tensor([until])])
        window = reply_window_of(since, until)
        outcomes = ListOutcomes.of_windows(graph, start, end, decided_until=until, reply_window=window)
        return cls(start, start, end, outcomes)

    def __len__(self) -> int:
        return len(self.start)


def training_reply_window(time: Tensor, until: int) -> int:
    """Return the reply window of a training period, in seconds: that of its last eighth of events.

    Args:
        time: [n] int64 seconds, ascending, of the events before `until`.
        until: seconds.
    """
    return reply_window_of(int(time[len(time) * 7 // 8]), until)
