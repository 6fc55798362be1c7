"""Appending a log to a graph, with its index, in time that does not grow with the graph."""

from __future__ import annotations

from graphrec.data import EventLog, FriendGraph
from graphrec.data.growth import GrownGraph, Growth
from graphrec.temporal.timeline import Timeline


class GrowingGraph:
    """A graph that logs are appended to, with its index.

    Each append makes a new version, a graph that shares the arrays of the one before, and never changes. The
    index is that of the latest version alone: an older one, if it is still used, gets its own when it is
    asked for it.

    Args:
        graph: the first version; it is left as it is, and so is its index.
        owner: who appends; nobody else who has the graph may append to this index.

    Attributes:
        owner: as given.
        graph: the latest version.
        timeline: its index.
    """

    def __init__(self, graph: FriendGraph, owner: object = None) -> None:
        self.owner = owner
        self.graph, self._growth = graph, Growth(graph)
        self.timeline = Timeline.of(graph, follows=True).copy(appends=True)

    def append(self, log: EventLog) -> FriendGraph:
        """Append a log, and return the new version.

        Raises:
            DataError: as `Growth.read`; then nothing is appended.
        """
        time = self.timeline.events.time
        new = self._growth.read(log, int(time[-1]) if len(time) else None)
        if self.timeline.is_lent:
            self.timeline = self.timeline.copy(appends=True)
        self.timeline.append(new.events, num_users=new.num_users)
        self._growth.add(new)
        self.graph = GrownGraph.of(self._growth, self.timeline.events)
        self.graph.__dict__["_timeline"] = self.timeline
        return self.graph
