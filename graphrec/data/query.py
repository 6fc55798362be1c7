"""Queries: which users will a user act on, at a time, by an action?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from graphrec.data.checks import (
    MAX_TIME,
    check_choice,
    check_count,
    check_index,
    check_time,
    check_times,
)
from graphrec.data.graph import FriendGraph, as_indices
from graphrec.data.ids import Id
from graphrec.data.roles import commonest_action

Outcome = Literal["initiation", "tie"]
"""What may follow a suggestion: the user acts on the person first, or that is also answered."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Query:
    """B queries; each is answered only from events strictly before its own time.

    There are two questions. Without a horizon: whom does the user act on, given that they act at this time?
    With one: with whom does an outcome begin between this time and the horizon? Recommenders that are trained
    on the next act alone answer both by that.

    Attributes:
        user: [B] int64, index of the acting user.
        time: [B] int64, seconds.
        action: [B] int64, index into `FriendGraph.actions`.
        horizon: [B] int64, seconds after `time`; None asks for the next act.
        outcome: 'initiation', a first act on the person, or 'tie', one that is answered within the reply
            window (either side may begin); None without a horizon.
    """

    user: Tensor
    time: Tensor
    action: Tensor
    horizon: Tensor | None = None
    outcome: Outcome | None = None

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
        if (self.horizon is None) != (self.outcome is None):
            raise ValueError(
                f"horizon and outcome belong together, got {self.horizon!r} and {self.outcome!r}"
            )
        if self.horizon is not None:
            check_choice("outcome", self.outcome, OUTCOMES)
            horizon = check_index("horizon", self.horizon, MAX_TIME, shape=(len(self),))
            if bool((horizon < 1).any()):
                raise ValueError(f"a horizon is at least 1 s, got {int(horizon.min())}")
            object.__setattr__(self, "horizon", horizon)

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

    def __getitem__(self, rows: Tensor | slice) -> Self:
        horizon = None if self.horizon is None else self.horizon[rows]
        return type(self)(self.user[rows], self.time[rows], self.action[rows], horizon, self.outcome)

    def at(self, time: int) -> Self:
        """Return the same queries, all at one time (seconds)."""
        return replace(self, time=torch.full_like(self.time, check_time("time", time)))

    def within(self, horizon: int | Tensor, outcome: Outcome) -> Self:
        """Return the same queries about an outcome within a horizon.

        Args:
            horizon: seconds, one for all or [B] int64.
            outcome: 'initiation' or 'tie'.

        Raises:
            TypeError, ValueError: the horizon is not a positive whole number, or there is no such outcome.
        """
        if not isinstance(horizon, Tensor):
            horizon = torch.full_like(self.time, check_count("horizon", horizon, maximum=MAX_TIME))
        return replace(self, horizon=horizon, outcome=outcome)
