"""Checks of events before they are appended to the index."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Events


def check_new_events(events: Events, last_time: Tensor, *, num_users: int, num_actions: int) -> None:
    """Check events that are to be appended to a log.

    Args:
        events: the events.
        last_time: [1] int64 seconds, of the log's last event; [0] where there is none.
        num_users: users there are.
        num_actions: actions there are.

    Raises:
        ValueError: a column is of another type or length, an event is older than one before it, has an
            unknown user or action, or joins a user with themselves.
    """
    for name, column in vars(events).items():
        if column.dtype != torch.int64 or column.shape != (len(events),):
            found = f"{list(column.shape)} {column.dtype}"
            raise ValueError(f"{name} must be [{len(events)}] int64, got {found}")
    if _are_right(events, last_time, num_users, num_actions):
        return
    steps = torch.cat([last_time, events.time]).diff()
    for step in (steps < 0).nonzero()[:1].flatten().tolist():
        place, early = step + 1 - len(last_time), -int(steps[step])
        raise ValueError(f"appended events must be in order of time: event {place} is {early} s too early")
    for name, column, limit in (
        ("src", events.src, num_users),
        ("dst", events.dst, num_users),
        ("action", events.action, num_actions),
    ):
        for place in ((column < 0) | (column >= limit)).nonzero()[:1].flatten().tolist():
            raise ValueError(
                f"event {place}: {name} must be below {limit} and not negative, got {int(column[place])}"
            )
    for place in (events.src == events.dst).nonzero()[:1].flatten().tolist():
        raise ValueError(f"event {place} joins user {int(events.src[place])} with themselves")


def _are_right(events: Events, last_time: Tensor, num_users: int, num_actions: int) -> bool:
    """Tell whether no event is wrong, in a few passes, without naming one."""
    src, dst, time, action = (column.numpy() for column in vars(events).values())
    return not len(src) or bool(
        (time[1:] >= time[:-1]).all()
        and (not len(last_time) or time[0] >= last_time.numpy()[0])
        and (src != dst).all()
        and min(src.min(), dst.min(), action.min()) >= 0
        and max(src.max(), dst.max()) < num_users
        and action.max() < num_actions
    )
