"""The contents of a bundle: description and log of its graph, digests of logs, STUs of newcomers."""

from __future__ import annotations

from typing import Any

import torch

from graphrec.data import USER, DataError, EventLog, FriendGraph, digest_log
from graphrec.tokenizer import Tokenizer


def graph_schema(graph: FriendGraph) -> dict[str, Any]:
    """Actions, attributes, sizes and times (seconds) of a graph, as plain values."""
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


def event_log_of(graph: FriendGraph) -> EventLog:
    """The event log of a graph, for its digest."""
    events, weight = graph.events(), None
    stores = [graph[USER, name, USER] for name in graph.actions]
    if all("weight" in store for store in stores):
        weight = torch.empty(len(events))
        for store in stores:
            weight[store.event_id] = store.weight
    return EventLog(events.src, events.dst, events.time, events.action, graph.actions, graph.user_ids, weight)


def append_log_digest(logs: tuple[str, ...], log: EventLog, *, again: bool) -> tuple[str, ...]:
    """Append the digest of a log to those of a bundle.

    Args:
        logs: digests of the logs of the bundle.
        log: to add.
        again: accept a log that was added before.

    Returns:
        the digests with the new one.

    Raises:
        DataError: the log was added before, and `again` is False.
    """
    found = digest_log(log)
    if found in logs and not again:
        raise DataError(
            f"these {len(log):,} events are in the bundle already, added or fitted before; again=True "
            "(--again) counts them once more"
        )
    return (*logs, found)


def encode_newcomers(tokenizer: Tokenizer, graph: FriendGraph) -> Tokenizer:
    """Give STUs to all newcomers of a graph with events or features, and return the tokenizer."""
    tokenizer.encode(graph, (~tokenizer.stus(graph).has()).nonzero().squeeze(1))
    return tokenizer
