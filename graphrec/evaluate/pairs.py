"""Who acted on whom first, and when the other side answered; answers that may still come are unknown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphrec.data import FriendGraph, Part, TemporalSplit

WEEK = 7 * 86_400


@dataclass(frozen=True)
class Pairs:
    """Unordered pairs of people, one row each, by what each side first did to the other.

    Attributes:
        u, v: [P] int64; u acted first; at the same time, by the lower action; else the lower index.
        first: [P] int64 seconds of the first act.
        answer: [P] int64 seconds of the first act the other way, or -1.
        action: [P] int64, by which the first act was done.
        answer_action: [P] int64, by which the answer was given, or -1.
    """

    u: np.ndarray
    v: np.ndarray
    first: np.ndarray
    answer: np.ndarray
    action: np.ndarray
    answer_action: np.ndarray

    @classmethod
    def of(cls, graph: FriendGraph) -> Pairs:
        """All pairs of a graph that ever had contact."""
        events, n = graph.events(), graph.num_users
        src, dst, time, action = (x.numpy() for x in (events.src, events.dst, events.time, events.action))
        order = np.lexsort(
            (action, time, src * n + dst)
        )  # tied acts of one pair: the lowest action, not the row
        directed, first = np.unique((src * n + dst)[order], return_index=True)
        first = order[first]
        back = dst[first] * n + src[first]
        where = np.minimum(np.searchsorted(directed, back), len(directed) - 1)
        answered = directed[where] == back
        reply = np.where(answered, first[where], -1)
        mine, theirs = (np.stack([time[i], action[i]]) for i in (first, reply))
        earlier = (mine[0] < theirs[0]) | ((mine[0] == theirs[0]) & (mine[1] < theirs[1]))
        opens = ~answered | earlier | ((mine == theirs).all(0) & (src[first] < dst[first]))
        first, reply, answered = first[opens], reply[opens], answered[opens]
        return cls(
            u=src[first],
            v=dst[first],
            first=time[first],
            answer=np.where(answered, time[reply], -1),
            action=action[first],
            answer_action=np.where(answered, action[reply], -1),
        )

    def answered(self, *, until: int, wait: int) -> np.ndarray:
        """What was known just before `until` of answers within `wait` seconds of the first act.

        Returns:
            [P] int8: 1 answered in time; 0 not; -1 unknown, where an answer in time could still come, or
            where the first act itself was not before `until`. Silence is a no only once the time is over.
        """
        known = (self.answer >= 0) & (self.answer < until)
        in_time = known & (self.answer - self.first <= wait)
        unknown = (self.first >= until) | (~known & (self.first + wait >= until))
        return np.where(unknown, -1, in_time).astype(np.int8)


def horizon(split: TemporalSplit, part: Part) -> int:
    """How long an answer is waited for, seconds: min(7 days, a quarter of the part's window)."""
    start, end = split.window(part)
    return max(1, min(WEEK, (end - start) // 4))
