"""The first acts of every pair of users in both directions: initiations and replies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphrec.data import FriendGraph, Part, TemporalSplit
from graphrec.data.ties import FirstActs

WEEK_SECONDS = 7 * 86_400


@dataclass(frozen=True)
class Initiations:
    """All unordered pairs of users with any contact, one row each, by the first act in either direction.

    Acts are those of ordinary actions (see `graphrec.data.Roles`): a decline is no reply, and a pair whose
    first event is of another role has no initiation.

    Attributes:
        initiator, recipient: [P] int64 user indices. The initiator acted first; where both first acts have
            the same time, the initiator has the lower action index, or else the lower user index.
        initiation_time: [P] int64 seconds of the initiator's first act.
        reply_time: [P] int64 seconds of the recipient's first act, or -1.
        initiation_action: [P] int64, action index of the initiation.
        reply_action: [P] int64, action index of the reply, or -1.
    """

    initiator: np.ndarray
    recipient: np.ndarray
    initiation_time: np.ndarray
    reply_time: np.ndarray
    initiation_action: np.ndarray
    reply_action: np.ndarray

    @classmethod
    def of(cls, graph: FriendGraph) -> Initiations:
        """Collect the pairs of a graph."""
        events, n = graph.events(), graph.num_users
        src, dst, time, action = (x.numpy() for x in (events.src, events.dst, events.time, events.action))
        unwanted = np.empty(0, np.int64), np.empty(0, np.int64)
        if not graph.roles.all_ordinary:
            wanted = graph.roles.wanted.numpy()[action]
            unwanted = _first_times(src[~wanted], dst[~wanted], time[~wanted], n)
            src, dst, time, action = (x[wanted] for x in (src, dst, time, action))
        # Of tied acts of one pair the lowest action comes first, whatever the order of rows.
        order = np.lexsort((action, time))
        acts = FirstActs.of(src[order], dst[order], n)
        first, replied = order[acts.event], acts.back >= 0
        reply = np.where(replied, first[acts.back], -1)
        own, theirs = (np.stack([time[i], action[i]]) for i in (first, reply))
        earlier = (own[0] < theirs[0]) | ((own[0] == theirs[0]) & (own[1] < theirs[1]))
        opens = ~replied | earlier | ((own == theirs).all(0) & (src[first] < dst[first]))
        if len(unwanted[0]):
            opens &= ~_was_before(unwanted, src[first], dst[first], own[0], n)
        first, reply, replied = first[opens], reply[opens], replied[opens]
        return cls(
            initiator=src[first],
            recipient=dst[first],
            initiation_time=time[first],
            reply_time=np.where(replied, time[reply], -1),
            initiation_action=action[first],
            reply_action=np.where(replied, action[reply], -1),
        )

    def reply_labels(self, *, until: int, reply_window: int) -> np.ndarray:
        """Label each initiation by the replies that were known just before a time.

        Args:
            until: seconds; only events strictly before it are known.
            reply_window: seconds after the initiation within which a reply counts.

        Returns:
            [P] int8: 1 replied within the window; 0 not; -1 undecided, because a reply in time may still come
            or because the initiation itself is not before `until`.
        """
        known = (self.reply_time >= 0) & (self.reply_time < until)
        in_time = known & (self.reply_time - self.initiation_time <= reply_window)
        undecided = (self.initiation_time >= until) | (
            ~known & (self.initiation_time + reply_window >= until)
        )
        return np.where(undecided, -1, in_time).astype(np.int8)


def _first_times(
    src: np.ndarray, dst: np.ndarray, time: np.ndarray, num_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """The unordered pairs of events in order of time, and their first times: keys ascending, seconds."""
    key, first = np.unique(np.minimum(src, dst) * num_users + np.maximum(src, dst), return_index=True)
    return key, time[first]


def _was_before(
    unwanted: tuple[np.ndarray, np.ndarray],
    src: np.ndarray,
    dst: np.ndarray,
    time: np.ndarray,
    num_users: int,
) -> np.ndarray:
    """Tell which acts [P] have an event of their pair of `_first_times` strictly before them: [P] bool."""
    known, first = unwanted
    key = np.minimum(src, dst) * num_users + np.maximum(src, dst)
    place = np.minimum(np.searchsorted(known, key), len(known) - 1)
    return np.asarray((known[place] == key) & (first[place] < time))


def default_reply_window(split: TemporalSplit, part: Part) -> int:
    """Return the reply window of a part, in seconds: min(7 days, a quarter of the part's window)."""
    return reply_window_of(*split.window(part))


def reply_window_of(start: int, end: int) -> int:
    """Return the reply window for events between two times, in seconds: min(7 days, a quarter of that)."""
    return max(1, min(WEEK_SECONDS, (end - start) // 4))
