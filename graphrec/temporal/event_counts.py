"""The number of events before each tick, a clock that runs at a network's own pace."""

from __future__ import annotations

import numpy as np
import torch

from graphrec.temporal.act_lists import enlarged
from graphrec.temporal.timeline import Timeline


class EventCounts:
    """The number of events of a log before each tick, removed ones counted, which follows an index."""

    def __init__(self) -> None:
        self._table, self._num_ticks = np.zeros(1, np.int64), 0

    def of(self, timeline: Timeline) -> np.ndarray:
        """Return the numbers, the last one of all events: [T + 1] int64."""
        done, num_ticks = self._num_ticks, len(timeline.instants)
        table = enlarged(self._table, num_ticks + 1)
        # The last tick that was known may have grown.
        table[done : num_ticks + 1] = timeline.end_of_log(torch.arange(done, num_ticks + 1)).numpy()
        self._table, self._num_ticks = table, num_ticks
        return table[: num_ticks + 1]
