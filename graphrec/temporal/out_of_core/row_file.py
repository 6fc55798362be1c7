"""A temporary file of events, read back in order of time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROW = np.dtype([("time", "<i8"), ("src", "<i4"), ("dst", "<i4"), ("action", "<i4")])
"""An event of the file; src and dst are numbers of users (see `UserNumbers`)."""


class RowFile:
    """Events in the order of the files they come from, kept as runs that are in order of time.

    Args:
        path: the file to make.
        run_rows: events that are sorted in memory at once, at least; a log in order is one run.
    """

    def __init__(self, path: Path, *, run_rows: int) -> None:
        self.path = path
        self._run_rows = run_rows
        self._waiting: list[np.ndarray] = []
        self._runs: list[tuple[int, int]] = []
        self._last_time = 0

    def __len__(self) -> int:
        return self._runs[-1][1] if self._runs else 0

    @property
    def num_runs(self) -> int:
        """The number of runs, 1 for a log in order of time."""
        return len(self._runs)

    def append(self, rows: np.ndarray) -> None:
        """Add events [n] of type `ROW`."""
        if len(rows):
            self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= self._run_rows:
            self.flush()

    def flush(self) -> None:
        """Sort the events that wait in memory, and write them."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = []
        if np.any(np.diff(rows["time"]) < 0):
            rows = rows[np.argsort(rows["time"], kind="stable")]
        with self.path.open("ab") as file:
            file.write(rows.data)
        begin, end = len(self), len(self) + len(rows)
        if self._runs and rows["time"][0] >= self._last_time:
            self._runs[-1] = self._runs[-1][0], end
        else:
            self._runs.append((begin, end))
        self._last_time = int(rows["time"][-1])

    def in_order(self, rows: int) -> Iterator[np.ndarray]:
        """Read all events in order of time, those of one time as they were added; about so many at once."""
        heads = [_Run(self.path, begin, end, max(1, rows // len(self._runs))) for begin, end in self._runs]
        while heads:
            border = min((run.last_time for run in heads if run.is_partial), default=None)
            before = [run.take_before(border) for run in heads]
            found = [part for part in before if len(part)]
            if len(found) > 1:
                merged = np.concatenate(found)
                yield merged[np.argsort(merged["time"], kind="stable")]
            elif found:
                yield found[0]
            elif border is not None:  # all that is in memory has one time, and runs go on with it
                for run in heads:
                    while len(part := run.take_until(border)):
                        yield part
            for run in heads:
                run.refill()
            heads = [run for run in heads if len(run.rows)]


class _Run:
    """A run of a `RowFile`, of which the next rows are in memory."""

    def __init__(self, path: Path, begin: int, end: int, block: int) -> None:
        self._path, self._next, self._end, self._block = path, begin, end, block
        self.rows = np.empty(0, ROW)
        self.refill()

    @property
    def is_partial(self) -> bool:
        """Whether rows are left in the file."""
        return self._next < self._end

    @property
    def last_time(self) -> int:
        """The time of the last row in memory."""
        return int(self.rows["time"][-1])

    def refill(self) -> None:
        """Read more rows, if none are in memory."""
        if len(self.rows) or not self.is_partial:
            return
        size = min(self._block, self._end - self._next)
        self.rows = np.fromfile(self._path, ROW, size, offset=self._next * ROW.itemsize)
        self._next += size

    def take_before(self, time: int | None) -> np.ndarray:
        """Remove and return the rows in memory before a time, or all."""
        return self._take(len(self.rows) if time is None else np.searchsorted(self.rows["time"], time))

    def take_until(self, time: int) -> np.ndarray:
        """Remove and return rows in memory until and at a time, after reading more if there are none."""
        self.refill()
        return self._take(np.searchsorted(self.rows["time"], time, side="right"))

    def _take(self, size: int | np.intp) -> np.ndarray:
        out, self.rows = self.rows[:size], self.rows[size:]
        return out
