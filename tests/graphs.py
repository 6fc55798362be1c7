"""Small graphs for the tests: a log is a list of rows (src, dst, time, action) whose ids are 0..N-1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from graphrec.data import EventLog, FriendGraph, UserTable

ACTIONS = ("call", "poke", "text")

checked = settings(max_examples=40, deadline=None, derandomize=True, database=None)
"""For properties: the same examples in every run."""


class Row(NamedTuple):
    """One event."""

    src: int
    dst: int
    time: int
    action: str = "contact"


def graph_of(rows: Sequence[tuple[int, int, int] | Row], num_users: int | None = None) -> FriendGraph:
    """The graph of rows (src, dst, time[, action]); with `num_users`, also of users without events.

    Where every id below N has an event, or `num_users` is given, ids and indices are the same.
    """
    src, dst, time, action = zip(*(Row(*row) for row in rows), strict=True)
    log = EventLog.from_arrays(src, dst, time, action=action)
    if num_users is None:
        return FriendGraph.from_events(log)
    table = pa.table({"user": list(range(num_users))})
    return FriendGraph.from_events(log, UserTable.from_table(table, where="the users"))


def random_rows(
    seed: int,
    *,
    users: int = 10,
    events: int = 80,
    times: int = 25,
    scale: int = 1,
    actions: Sequence[str] = ACTIONS,
) -> list[Row]:
    """Events between random people at few distinct times, in order of time; many ties."""
    rng = np.random.default_rng(seed)
    src = rng.integers(users, size=events)
    dst = (src + rng.integers(1, users, size=events)) % users
    time = np.sort(rng.integers(times, size=events)) * scale
    action = rng.choice(list(actions), size=events)
    columns = (src.tolist(), dst.tolist(), time.tolist(), action.tolist())
    return [Row(*row) for row in zip(*columns, strict=True)]


def planted_rows(
    seed: int, *, groups: int = 4, size: int = 8, events: int = 600, scale: int = 3600
) -> list[Row]:
    """Circles of friends: nine acts of ten stay inside a circle, and half are answered at the next moment."""
    rng = np.random.default_rng(seed)
    users = groups * size
    rows: list[Row] = []
    while len(rows) < events:
        src, time = int(rng.integers(users)), len(rows) * scale
        circle = src // size if rng.random() < 0.9 else int(rng.integers(groups))
        dst = circle * size + int(rng.integers(size))
        if src != dst:
            rows.append(Row(src, dst, time))
            if rng.random() < 0.5:
                rows.append(Row(dst, src, time + scale))
    return rows


def logs(
    *, users: int = 5, events: int = 30, times: tuple[int, int] = (-3, 6)
) -> st.SearchStrategy[list[Row]]:
    """Logs of a property test: negative times and time 0, ties, several actions, both directions."""
    row = st.builds(
        lambda src, step, time, action: Row(src, (src + step) % users, time, action),
        st.integers(0, users - 1),
        st.integers(1, users - 1),
        st.integers(*times),
        st.sampled_from(ACTIONS),
    )
    return st.lists(row, min_size=1, max_size=events)


def permuted(rows: Sequence[Row], new_id: Sequence[int]) -> list[Row]:
    """The same events between renamed people."""
    return [row._replace(src=int(new_id[row.src]), dst=int(new_id[row.dst])) for row in rows]


def shuffled_in_ties(rows: Sequence[Row], seed: int) -> list[Row]:
    """The same events in order of time, tied rows in another order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return sorted((rows[i] for i in order), key=lambda row: row.time)


def rewritten(rows: Sequence[Row], time: int, *, num_users: int, seed: int) -> list[Row]:
    """Another future: every event at or after `time` goes, and others come, some at `time` itself.

    The past and the names of the actions stay.
    """
    rng = np.random.default_rng(seed)
    past = [row for row in rows if row.time < time]
    actions = sorted({row.action for row in rows})
    last = max(time, *(row.time for row in rows))
    times = [time, time, *rng.integers(time, last + 10, size=len(rows) - len(past) + 3).tolist()]
    future = []
    for number, moment in enumerate(sorted(times)):
        src = int(rng.integers(num_users))
        dst = (src + int(rng.integers(1, num_users))) % num_users
        action = actions[number] if number < len(actions) else str(rng.choice(actions))
        future.append(Row(src, dst, moment, action))
    return past + future
