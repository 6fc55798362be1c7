"""Queries: which users will a user act on, at a time, by an action?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data.checks import check_index, check_time, check_times
from graphrec.data.graph import FriendGraph, as_indices
from graphrec.data.ids import Id
from graphrec.data.roles import commonest_action


@dataclass(frozen=True)
class Query:
    """B queries; each is answered only from events strictly before its own time.

    Attributes:
        user: [B] int64, index of the acting user.
        time: [B] int64, seconds.
        action: [B] int64, index into `FriendGraph.actions`.
    """

    user: Tensor
    time: Tensor
    action: Tensor

    def __post_init__(self) -> None:
        for value in (self.user, self.time, self.action):
            if not isinstance(value, Tensor):
                raise TypeError(f"user, time and action must be tensors, got a {type(value).__name__}")
        shapes = [tuple(value.shape) for value in (self.user, self.time, self.action)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1:
            raise ValueError(f"user, time and action must be 1-D tensors of the same length B, got {shapes}")
        types = [value.dtype for value in (self.user, self.time, self.action)]
        if set(types) != {torch.int64}:
            raise TypeError(f"user, time and action must be int64, got {types}")

    @classmethod
    def of(
        cls,
        graph: FriendGraph,
        users: Tensor | Sequence[Id],
        time: int | Tensor | None = None,
        action: str | None = None,
    ) -> Query:
        """Make queries of users given by raw id, or by a tensor of indices.

        Args:
            graph: the graph of the users.
            users: raw ids, or [B] int64 indices.
            time: seconds, one for all or [B]; by default one second after the last event.
            action: name of the action; by default the commonest ordinary one.

        Raises:
            KeyError: an unknown id or action, named.
            TypeError: a single id in place of a list, or a value that is not an id.
        """
        index = as_indices(graph, users)
        if time is None:
            time = int(graph.events().time[-1]) + 1
        if not isinstance(time, Tensor):
            time = torch.tensor(check_time("time", time))
        if time.dtype.is_floating_point or time.dtype.is_complex or time.dtype == torch.bool:
            raise TypeError(f"time is in whole seconds, got {time.dtype}")
        if time.shape not in ((), (1,), index.shape):
            raise ValueError(f"time must be one for all or [{len(index)}], got {list(time.shape)}")
        times = time.to("cpu", torch.int64).expand(index.size(0)).contiguous()
        check_times("time", times)
        names = graph.actions
        if action is None:
            code = commonest_action(graph.roles, graph.action_counts)
        elif action in names:
            code = names.index(action)
        else:
            raise KeyError(f"unknown action {action!r}; the graph's actions are {', '.join(names)}")
        return cls(index, times, torch.full_like(index, code))

    @classmethod
    def of_events(cls, graph: FriendGraph, event_ids: Tensor) -> Query:
        """Make the queries answered by events of the log, [B] int64 positions, at the events' times."""
        events = graph.events()
        event_ids = check_index("event_ids", event_ids, len(events))
        return cls(events.src[event_ids], events.time[event_ids], events.action[event_ids])

    def __len__(self) -> int:
        return self.user.size(0)

    def __getitem__(self, rows: Tensor | slice) -> Query:
        return Query(self.user[rows], self.time[rows], self.action[rows])

    def at(self, time: int) -> Query:
        """Return the same queries, all at one time (seconds)."""
        return Query(self.user, torch.full_like(self.time, check_time("time", time)), self.action)
