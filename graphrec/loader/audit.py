"""A test that no batch of a loader depends on the future: the future is rewritten, the batches compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from graphrec.data import USER, EventLog, FriendGraph, Query
from graphrec.data.checks import check_count, check_seed
from graphrec.data.columns import EVENT_COLUMNS, edge_columns
from graphrec.data.draws import below, hashed


class LeakageError(AssertionError):
    """A batch changed although only events at or after its seeds' time were rewritten."""


class Auditable(Protocol):
    """A loader that can be audited: it has its graph, its seeds, and can be rebuilt on another graph.

    Attributes:
        graph: the graph that it reads.
        query: its seeds.
    """

    graph: FriendGraph
    query: Query

    def rebuild(self, graph: FriendGraph, rows: Tensor, time: int) -> Iterable[Any]:
        """Return the batches, in order, of the seeds at `rows` [n] int64, at `time` (s), of another graph.

        A batch is a PyG data object, or any nesting of mappings, tuples and lists of tensors and plain
        values.
        """


@dataclass(frozen=True)
class Audit:
    """The extent of an audit.

    Attributes:
        num_seeds: seeds whose batches were compared.
        num_moments: moments at which the future was rewritten.
        num_rewritten: events rewritten, over all moments.
    """

    num_seeds: int
    num_moments: int
    num_rewritten: int


def audit_leakage(
    loader: Auditable, *, num_moments: int = 20, seed: int = 0, progress: bool = False
) -> Audit:
    """Test that no batch of a loader depends on an event at or after the time of its seeds.

    The seeds are put in order of time and cut into `num_moments` groups. Each group is loaded at one moment
    T, the time of its earliest seed, from the graph as it is and from a copy in which every event at or after
    T has other users, another action and another time, T itself among them. Both must give identical batches:
    nodes, edges, times, features, negatives. A loader that reads events at T, a later one, the reverse of a
    held-out edge, a newer edge at a second hop, or negatives from the future fails.

    Any other loader can be wrapped in an object with `graph`, `query` and `rebuild` (see `Auditable`).

    Args:
        loader: `QueryLoader`, `EventLoader`, or anything with these three members.
        num_moments: the number of groups, and so of rewritten futures.
        seed: fixes the rewritten events.
        progress: show a progress bar, where there is a terminal.

    Raises:
        LeakageError: a batch differs; the message names the place in the batch and the moment.
        ValueError: the loader cannot be audited: it yields no batch, or other batches each time.
    """
    num_moments = check_count("num_moments", num_moments)
    check_seed(seed)
    graph, query = loader.graph, loader.query
    time = graph.events().time
    groups = query.time.argsort(stable=True).chunk(num_moments)
    num_rewritten = 0
    for number, rows in enumerate(tqdm(groups, desc="audit", disable=None if progress else True)):
        moment = int(query.time[rows].min())
        if number == 0:
            again = next(_differences(*(loader.rebuild(graph, rows, moment) for _ in range(2))), None)
            if again is not None:
                raise ValueError(f"{again} differs between two runs on one graph: fix the loader's seed")
        other = rewrite_future(graph, moment, near=query.user[rows], seed=seed + number)
        num_rewritten += int((time >= moment).sum())
        batches = (loader.rebuild(either, rows, moment) for either in (graph, other))
        for place in _differences(*batches):
            raise LeakageError(f"{place} depends on events at or after the seeds' time {moment}")
    return Audit(num_seeds=len(query), num_moments=len(groups), num_rewritten=num_rewritten)


def rewrite_future(graph: FriendGraph, time: int, *, near: Tensor, seed: int) -> FriendGraph:
    """Copy a graph with the same past and another future.

    Args:
        graph: the graph.
        time: seconds; events strictly before it stay.
        near: [n] int64 user indices; one of these users takes part in every second new event.
        seed: fixes the new events.
    """
    events, n = graph.events(), graph.num_users
    past = int(torch.searchsorted(events.time, time))
    number = torch.arange(len(events) - past + 64)
    draws = [hashed(seed, number, column) for column in range(8)]
    src = torch.where(draws[0] % 2 == 0, near[below(draws[1], near.numel())], below(draws[2], n))
    dst = (src + 1 + below(draws[3], n - 1)) % n
    src, dst = torch.where(draws[0] % 4 < 2, torch.stack([src, dst]), torch.stack([dst, src]))
    span = max(int(events.time[-1]) - time, 1)
    when = torch.where(draws[4] % 4 == 0, time, time + below(draws[5], span + 1))
    order = when.argsort(stable=True)
    weight = graph.weights()
    if weight is not None:
        weight = torch.cat([weight[:past], below(draws[7], 1000)[order].float()])
    log = EventLog(
        src=torch.cat([events.src[:past], src[order]]),
        dst=torch.cat([events.dst[:past], dst[order]]),
        time=torch.cat([events.time[:past], when[order]]),
        action=torch.cat([events.action[:past], below(draws[6], len(graph.actions))[order]]),
        actions=graph.actions,
        user_ids=graph.user_ids,
        weight=weight,
    )
    out = FriendGraph.from_events(log, roles=graph.roles.overrides())
    out[USER].update(graph[USER])
    if "join_time" in out[USER]:
        joined = out[USER].join_time
        out[USER].join_time = torch.where(
            joined < time, joined, time + (joined - time + seed + 1) % (span + 1)
        )
    for edge_type, store in graph.edge_items():
        if "time" not in store:
            out[edge_type].update(store)
        elif "event_id" in store:
            edges = out[edge_type]
            for column, (key, value) in enumerate(edge_columns(store).items()):
                if key not in EVENT_COLUMNS:
                    edges[key] = _rewritten(value, store.event_id < past, edges.event_id, seed, column)
    return out


def _rewritten(column: Tensor, is_past: Tensor, event_id: Tensor, seed: int, number: int) -> Tensor:
    """A column of edges [E, ...] with the same past, and other values for the new events."""
    past = column[is_past]
    added = event_id.numel() - past.size(0)
    rows = torch.cat([column, column.new_zeros(1, *column.shape[1:])])
    drawn = rows[below(hashed(seed, torch.arange(added), 8 + number), len(rows))]
    return torch.cat([past, ~drawn if drawn.dtype == torch.bool else drawn + 1])


def _differences(one: Iterable[Any], other: Iterable[Any]) -> Iterator[str]:
    """Yield the name of each place where two sequences of batches differ."""
    is_empty = True
    for a, b in zip_longest(one, other):
        is_empty = False
        if a is None or b is None:
            yield "the number of batches"
            return
        yield from _unequal(a, b, "the batch")
    if is_empty:
        raise ValueError("the loader yields no batch for its own seeds")


def _unequal(a: Any, b: Any, place: str) -> Iterator[str]:
    """Yield the name of each place where two values differ."""
    a, b = (value.to_dict() if hasattr(value, "to_dict") else value for value in (a, b))
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            if key in a and key in b:
                yield from _unequal(a[key], b[key], f"{key!r} of {place}")
            else:
                yield f"{key!r} of {place}"
    elif isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype
        if not (same and bool(((a == b) | ((a != a) & (b != b))).all())):  # NaN is equal to NaN
            yield place
    elif type(a) is not type(b) or a != b:
        yield place
