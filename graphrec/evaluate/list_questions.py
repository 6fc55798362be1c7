"""The questions of the list protocol: who gets a list at which moment, and what follows in the days after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Outcome, Part, Query, TemporalSplit, commonest_action
from graphrec.data.checks import check_count, check_graph
from graphrec.evaluate.initiations import Initiations, default_reply_window
from graphrec.evaluate.protocol import sample_rows
from graphrec.temporal import Timeline

NUM_MOMENTS = 8
RECIPIENT_WINDOWS = 2
"""Users seen in so many windows before a moment get a list."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
"""Seconds of the units of `every`."""


@dataclass(frozen=True)
class ListQuestions:
    """The B lists that are asked for at S moments of one part, each followed by a window.

    Attributes:
        query: B queries, in order of time: recipients, the moment of each, and the action suggested.
        moment: [B] int64, the number of each query's moment, 0..S-1.
        start, end: [S] int64 seconds: the moments, and the ends of their windows.
        since: [S] int64 seconds; users with an event from then until the moment get a list.
        part: 'val' or 'test'.
        decided_until: seconds; later events decide no outcome.
        reply_window: seconds.
    """

    query: Query
    moment: Tensor
    start: Tensor
    end: Tensor
    since: Tensor
    part: Part
    decided_until: int
    reply_window: int

    @classmethod
    def of(
        cls,
        graph: FriendGraph,
        *,
        part: Part = "test",
        split: TemporalSplit | None = None,
        num_moments: int = NUM_MOMENTS,
        every: str | None = None,
        action: str | None = None,
    ) -> Self:
        """Choose moments and recipients.

        Args:
            graph: the whole graph.
            part: 'val' or 'test'.
            split: by default the graph's `TemporalSplit`.
            num_moments: S, windows of equal numbers of events; fewer where many events have one time.
            every: length of the windows instead, such as '7d', '12h' or '90m'; only whole windows count.
            action: name of the action suggested; by default the commonest of training.

        Raises:
            ValueError: there is no such part; `every` is not a length, or longer than the part.
            KeyError: there is no such action.
        """
        check_graph(graph)
        split = split or TemporalSplit.of(graph)
        timeline, (first, last) = Timeline.of(graph), split.window(part)
        border = _by_events(timeline, split, part, num_moments) if every is None else None
        if border is None:
            border = _by_length(first, last, parse_length(str(every)), part)
        start, end = border[RECIPIENT_WINDOWS:-1], border[RECIPIENT_WINDOWS + 1 :]
        since = border[: len(start)]
        rows, users = [], []
        for number, (low, high) in enumerate(zip(since.tolist(), start.tolist(), strict=True)):
            seen = seen_between(timeline, low, high)
            rows.append(torch.full_like(seen, number))
            users.append(seen)
        moment, user = torch.cat(rows), torch.cat(users)
        kept = torch.from_numpy(np.sort(sample_rows(np.arange(len(moment)), graph.num_users)))
        moment, user = moment[kept], user[kept]
        if action is None:
            seen = timeline.events.action[: split.num_train]
            counts = torch.bincount(seen, minlength=len(graph.actions)).tolist()
            action = graph.actions[commonest_action(graph.roles, counts)]
        query = Query.of(graph, user, start[moment], action)
        return cls(query, moment, start, end, since, part, last, default_reply_window(split, part))

    def __len__(self) -> int:
        return len(self.query)

    def about(self, outcome: Outcome) -> Query:
        """Return the B queries about an outcome within the window of each."""
        return self.query.within((self.end - self.start)[self.moment], outcome)


def parse_length(text: str, name: str = "every") -> int:
    """Return the seconds of a length such as '7d', '12h', '90m' or '3600s'.

    Args:
        text: the length.
        name: of the argument, for the error.

    Raises:
        ValueError: it is not a positive whole number and a unit.
    """
    match = re.fullmatch(r"([1-9]\d{0,9})([smhdw])", text.strip())
    if match is None:
        raise ValueError(f"{name} must be a number and a unit, such as '7d', '12h' or '90m', got {text!r}")
    return int(match[1]) * UNITS[match[2]]


def _by_events(timeline: Timeline, split: TemporalSplit, part: Part, num_moments: int) -> Tensor:
    """Borders of windows of equal numbers of events, and of as many as recipients are taken from: int64 s."""
    num_moments = check_count("num_moments", num_moments)
    first, last = split.window(part)
    low, high = (int(timeline.num_events_before(timeline.tick(torch.tensor(t)))) for t in (first, last))
    size = (high - low) / num_moments
    place = torch.arange(-RECIPIENT_WINDOWS, num_moments).double() * size + low
    border: Tensor = timeline.events.time[place.long().clamp(min=0)]
    border[RECIPIENT_WINDOWS] = first
    before, inside = border[:RECIPIENT_WINDOWS], border[RECIPIENT_WINDOWS:].unique()
    return torch.cat([before, inside, torch.tensor([last])])


def _by_length(first: int, last: int, length: int, part: Part) -> Tensor:
    """Borders of windows of one length: int64 s."""
    number = (last - first) // length
    if not number:
        raise ValueError(f"{part} is {last - first} s long, shorter than one window of {length} s")
    return first + length * torch.arange(-RECIPIENT_WINDOWS, number + 1)


def seen_between(timeline: Timeline, low: int, high: int) -> Tensor:
    """Users with an event from one time until strictly before another (s): [n] int64, ascending."""
    ticks = timeline.tick(torch.tensor([low, high]))
    begin, end = timeline.num_events_before(ticks).tolist()
    seen: Tensor = torch.cat([timeline.events.src[begin:end], timeline.events.dst[begin:end]]).unique()
    return seen


@dataclass(frozen=True)
class ListOutcomes:
    """Whom the recipients of lists turn to in the windows, as both sides' first acts tell.

    A user *initiates* contact with a person by a first act on them in the window, with no contact before the
    window. It is a *tie* if the other acts too, either act within the reply window of the other. An
    initiation that is younger than the reply window when the part ends, and has no reply yet, is undecided.

    Attributes:
        key: [A] int64, ascending, distinct: (moment x N + user) x N + person.
        replied, undecided: [A] bool.
        num_users: N.
    """

    key: np.ndarray
    replied: np.ndarray
    undecided: np.ndarray
    num_users: int

    @classmethod
    def of(cls, graph: FriendGraph, questions: ListQuestions) -> Self:
        """Collect the outcomes of the windows of all moments, for all users."""
        return cls.of_windows(
            graph,
            questions.start,
            questions.end,
            decided_until=questions.decided_until,
            reply_window=questions.reply_window,
        )

    @classmethod
    def of_windows(
        cls, graph: FriendGraph, start: Tensor, end: Tensor, *, decided_until: int, reply_window: int
    ) -> Self:
        """Collect the outcomes of S windows for all users; see `ListQuestions` for the arguments.

        Args:
            graph: the whole graph.
            start: [S] int64 seconds, ascending, distinct.
            end: [S] int64 seconds, each at most the next start.
            decided_until: seconds.
            reply_window: seconds.
        """
        pairs, size = Initiations.of(graph), graph.num_users
        if not len(start):
            return cls(np.empty(0, np.int64), np.empty(0, bool), np.empty(0, bool), size)
        label = pairs.reply_labels(until=decided_until, reply_window=reply_window)
        until = end.numpy()
        moment = np.searchsorted(start.numpy(), pairs.initiation_time, side="right") - 1
        inside = (moment >= 0) & (pairs.initiation_time < until[moment])
        back = inside & (pairs.reply_time >= 0) & (pairs.reply_time < until[moment])
        forward = (moment * size + pairs.initiator) * size + pairs.recipient
        backward = (moment * size + pairs.recipient) * size + pairs.initiator
        key = np.concatenate([forward[inside], backward[back]])
        label = np.concatenate([label[inside], label[back]])
        order = np.argsort(key)
        return cls(key[order], label[order] == 1, label[order] == -1, size)

    def find(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up keys [M]: (position [M], whether it is there [M] bool)."""
        place = np.searchsorted(self.key, key)
        found = place < len(self.key)
        found[found] = self.key[place[found]] == key[found]
        return np.where(found, place, 0), found
