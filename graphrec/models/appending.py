"""Appending events to the graph of a fitted recommender, apart from the queries of other threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

from graphrec.data import EventLog, FriendGraph
from graphrec.temporal.follow import GrowingGraph

if TYPE_CHECKING:
    from graphrec.models.recommender import Recommender

Method = TypeVar("Method", bound=Callable[..., Any])


def reads_graph(method: Method) -> Method:
    """Keep a method, of an object with a `_graph`, apart from appends: it sees the state before, or after."""

    @wraps(method)
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        graph: FriendGraph | None = getattr(self, "_graph", None)
        if graph is None:
            return method(self, *args, **kwargs)
        with graph.guard.reading():
            return method(self, *args, **kwargs)

    return cast(Method, read)


def append_log(recommender: Recommender, log: EventLog) -> None:
    """Append a log to the graph of a recommender, and let it follow; see `Recommender.append`."""
    with recommender.graph.guard.writing():
        before, state = recommender.graph, recommender.__dict__.copy()
        known: GrowingGraph | None = state.get("_growing_graph")
        is_own = known is not None and known.graph is before and known.owner is recommender
        growing = known if known is not None and is_own else GrowingGraph(before, owner=recommender)
        old_index = growing.timeline
        after = growing.append(log)
        try:
            recommender.follow(after)
        except BaseException:
            # The state before is good as long as its index is; otherwise it gets another.
            recommender.__dict__.clear()
            recommender.__dict__.update(state)
            if is_own and growing.timeline is old_index:
                recommender.__dict__.update(recommender.on(before).__dict__)
            raise
        recommender.__dict__["_growing_graph"] = growing
