"""What a manifest says of a graph."""

from __future__ import annotations

from typing import Any

import torch

from graphrec.data import USER, DataError, EventLog, FriendGraph, digest_log


def schema_of(graph: FriendGraph) -> dict[str, Any]:
    """What the manifest says of a graph."""
    events, people = graph.events(), graph[USER]
    return {
        "actions": list(graph.actions),
        "weighted": all("weight" in graph[USER, name, USER] for name in graph.actions),
        "features": int(people.x.size(1)) if "x" in people else 0,
        "join_time": "join_time" in people,
        "ids": "integer" if people.raw_id.dim() == 1 else "string",
        "num_users": graph.num_users,
        "num_events": graph.num_events,
        "start": int(events.time[0]),
        "end": int(events.time[-1]),
    }


def log_of(graph: FriendGraph) -> EventLog:
    """The log that a graph was made from, for its digest."""
    events, weight = graph.events(), None
    stores = [graph[USER, name, USER] for name in graph.actions]
    if all("weight" in store for store in stores):
        weight = torch.empty(len(events))
        for store in stores:
            weight[store.event_id] = store.weight
    return EventLog(events.src, events.dst, events.time, events.action, graph.actions, graph.user_ids, weight)


def with_log(logs: tuple[str, ...], log: EventLog, *, again: bool) -> tuple[str, ...]:
    """The digests of the logs that a bundle has taken, and that of one more.

    Raises:
        DataError: it has taken that one before, and `again` does not insist.
    """
    found = digest_log(log)
    if found in logs and not again:
        raise DataError(
            f"these {len(log):,} events are in the bundle already, added or fitted before; again=True "
            "(--again) counts them once more"
        )
    return (*logs, found)
