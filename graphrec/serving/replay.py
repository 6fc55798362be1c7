"""Writes applied to a bundle: in service, after a restart, and when they are saved, with the same outcome."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from graphrec.data import DataError, EventLog, FriendGraph, UserIds
from graphrec.data.ids import plain_ids
from graphrec.service import Bundle
from graphrec.service.appending import append_stream
from graphrec.serving.writes import EventsWrite, ForgetWrite, RulesDeletedWrite, Write

MAX_LATE = 3600
"""Seconds that an event may be older than the last one; it counts from the time of that one."""

log = logging.getLogger(__name__)


class Row(NamedTuple):
    """One event, with raw ids as text and seconds."""

    src: str
    dst: str
    time: int
    action: str


@dataclass(frozen=True)
class Applied:
    """The outcome of some writes.

    Attributes:
        bundle: with their events, and without forgotten users; the one given, unless a user was forgotten.
        num_events: that were appended.
        num_late: of these, events that were older than the one before and count from its time.
        others: feedback, and events that the bundle has no place for, such as those of an unknown action.
    """

    bundle: Bundle
    num_events: int
    num_late: int
    others: list[Row]


def apply_writes(bundle: Bundle, writes: Sequence[Write]) -> Applied:
    """Apply writes to a bundle, in order: events are appended in place; forgotten users are taken out before.

    A forgotten user's earlier events in the writes are left out; later ones are those of a newcomer.
    """
    events, others = joined(writes)
    named = {one.user for one in writes if isinstance(one, ForgetWrite)}
    forgotten = [user for user in sorted(named) if int(bundle.graph.user_ids.find([user])) >= 0]
    if forgotten:
        bundle = bundle.forget(*forgotten)
    num_events, num_late, left = append_events(bundle, events)
    return Applied(bundle, num_events, num_late, others + left)


def joined(writes: Sequence[Write]) -> tuple[EventsWrite, list[Row]]:
    """All events of some writes, and rows of feedback; without what users did before they were forgotten."""
    last = {one.user: place for place, one in enumerate(writes) if isinstance(one, ForgetWrite)}
    rows: list[Row] = []
    weights: list[float] = []
    others: list[Row] = []
    has_weight = any(isinstance(one, EventsWrite) and one.weight is not None for one in writes)
    for place, one in enumerate(writes):
        if isinstance(one, ForgetWrite | RulesDeletedWrite):
            continue
        if isinstance(one, EventsWrite):
            given, into = [*zip(one.src, one.dst, one.time, one.action, strict=True)], rows
            weight = one.weight or (1.0,) * len(one)
        else:
            given, into = [*zip(one.user, one.person, one.time, one.kind, strict=True)], others
            weight = ()
        kept = [all(place > last.get(name, -1) for name in row[:2]) for row in given]
        into.extend(Row(*row) for row in compress(given, kept))
        weights.extend(compress(weight, kept))
    return events_of_rows(rows, tuple(weights) if has_weight else None), others


def events_of_rows(rows: Iterable[Row], weight: tuple[float, ...] | None = None) -> EventsWrite:
    """The events of some rows."""
    src, dst, time, action = tuple(zip(*rows, strict=True)) or ((), (), (), ())
    return EventsWrite(src, dst, time, action, weight)


def append_events(bundle: Bundle, events: EventsWrite) -> tuple[int, int, list[Row]]:
    """Append events to a bundle in place; an event older than the one before counts from its time.

    Returns:
        the number of events appended, how many of them count from a later time than their own, and the rows
        of events that the bundle has no place for.
    """
    known = set(bundle.graph.actions) | set(bundle.graph.impressions)
    fits = [
        action in known and src != dst
        for src, dst, action in zip(events.src, events.dst, events.action, strict=True)
    ]
    if not any(fits):
        return 0, 0, [Row(*row) for row in _rows(events)]
    left = [row for row, fit in zip(_rows(events), fits, strict=True) if not fit]
    kept = events if all(fits) else events.kept(fits)
    time = np.maximum.accumulate(np.array([_last_time(bundle.graph), *kept.time], dtype=np.int64))[1:]
    num_late = int((time != np.array(kept.time)).sum())
    try:
        append_stream(bundle, event_log(bundle.graph, kept, time))
    except DataError as error:
        if len(kept) == 1:
            log.warning("an event could not be appended to the bundle: %s", error)
            return 0, 0, left + _rows(kept)
        weights = [None] * len(kept) if kept.weight is None else [(one,) for one in kept.weight]
        alone = [events_of_rows([row], one) for row, one in zip(_rows(kept), weights, strict=True)]
        found = [append_events(bundle, one) for one in alone]
        return sum(one[0] for one in found), num_late, left + [row for one in found for row in one[2]]
    return len(kept), num_late, left


def with_rules_left(writes: Iterable[Write]) -> frozenset[str]:
    """The forgotten users whose rules may not have been deleted yet."""
    found: set[str] = set()
    for one in writes:
        if isinstance(one, ForgetWrite):
            found.add(one.user)
        elif isinstance(one, RulesDeletedWrite):
            found.discard(one.user)
    return frozenset(found)


def append_nothing(bundle: Bundle) -> None:
    """Append a log without events: the copy of the index that grows is made, and the kernels are loaded."""
    append_stream(bundle, event_log(bundle.graph, EventsWrite((), (), (), ()), np.zeros(0, dtype=np.int64)))


def event_log(graph: FriendGraph, events: EventsWrite, time: np.ndarray) -> EventLog:
    """A log of events at ascending times [E] int64; ids are numbered in the order in which they appear.

    So newcomers get the same indices, whatever events are appended together.
    """
    index = {name: place for place, name in enumerate(dict.fromkeys(_interleaved(events)))}
    actions = tuple(sorted(set(events.action)))
    code = {name: place for place, name in enumerate(actions)}
    is_weighted = graph.weights() is not None
    return EventLog(
        src=torch.tensor([index[one] for one in events.src], dtype=torch.int64),
        dst=torch.tensor([index[one] for one in events.dst], dtype=torch.int64),
        time=torch.from_numpy(time),
        action=torch.tensor([code[one] for one in events.action], dtype=torch.int64),
        actions=actions,
        user_ids=UserIds.from_values(plain_ids(pa.array(index, pa.string()))),
        weight=torch.tensor(events.weight or [1.0] * len(events)) if is_weighted else None,
    )


def missing_events(graph: FriendGraph, events: EventsWrite) -> EventsWrite:
    """Those of some events that are as late as the graph's last event, or later, and are not in it.

    An event may stand in the graph at a time up to `MAX_LATE` earlier, its own; it counts as being there once
    for each time that the graph has it.
    """
    log_, end = graph.events(), _last_time(graph)
    begin = int(torch.searchsorted(log_.time, end - MAX_LATE))
    ends = [graph.user_ids.lookup(side[begin:]) for side in (log_.src, log_.dst)]
    names = [graph.actions[code] for code in log_.action[begin:].tolist()]
    there = Counter((str(src), str(dst), name) for src, dst, name in zip(*ends, names, strict=True))
    missing = []
    for row in _rows(events):  # the graph has the earlier ones
        is_there = row.time > end - MAX_LATE and there[row.src, row.dst, row.action] > 0
        there[row.src, row.dst, row.action] -= is_there
        missing.append(row.time >= end and not is_there)
    return events.kept(missing)


def late_events(graph: FriendGraph, time: int) -> EventsWrite:
    """The events of a graph after a time, in seconds."""
    events = graph.events()
    begin = int(torch.searchsorted(events.time, time, right=True))
    ends = [map(str, graph.user_ids.lookup(side[begin:])) for side in (events.src, events.dst)]
    names = [graph.actions[code] for code in events.action[begin:].tolist()]
    weight = graph.weights()
    return EventsWrite(
        tuple(ends[0]),
        tuple(ends[1]),
        tuple(events.time[begin:].tolist()),
        tuple(names),
        None if weight is None else tuple(weight[begin:].tolist()),
    )


def only_missing(graph: FriendGraph, writes: Sequence[Write]) -> list[Write]:
    """Writes without the events that a graph has, or that are older than its last event."""
    out: list[Write] = []
    events, _ = joined([one for one in writes if isinstance(one, EventsWrite)])
    missing = Counter(_rows(missing_events(graph, events)))
    for one in reversed(writes):  # the later ones are those that are missing
        if isinstance(one, EventsWrite):
            kept = []
            for row in reversed(_rows(one)):
                kept.append(missing[row] > 0)
                missing[row] -= kept[-1]
            out.append(one.kept(kept[::-1]))
        else:
            out.append(one)
    return out[::-1]


def at_position(bundle: Bundle, position: int) -> Bundle:
    """The bundle, as one that contains all writes before a position."""
    return replace(bundle, origin=replace(bundle.origin, log_position=position))


def _last_time(graph: FriendGraph) -> int:
    return int(graph.events().time[-1])


def _rows(events: EventsWrite) -> list[Row]:
    return [Row(*row) for row in zip(events.src, events.dst, events.time, events.action, strict=True)]


def _interleaved(events: EventsWrite) -> list[str]:
    return [one for pair in zip(events.src, events.dst, strict=True) for one in pair]
