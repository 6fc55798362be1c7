"""Users who blocked each other before a moment."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.temporal.ragged import ragged
from graphrec.temporal.timeline import Timeline


def blocked_users(graph: FriendGraph, query: Query) -> tuple[Tensor, Tensor]:
    """List the users who blocked a query's user, or whom that user blocked, strictly before its time.

    It looks through the timelines of the queries' users, and costs nothing where no action is a block.

    Returns:
        (row [M] of the query, ascending, user [M]) int64; a user may be listed twice.
    """
    is_block = graph.roles.having("block")
    if not bool(is_block.any()):
        none = torch.empty(0, dtype=torch.int64)
        return none, none
    timeline = Timeline.of(graph, follows=True)
    half_edges = timeline.half_edges
    row, at = ragged(half_edges.start[query.user], half_edges.end(query.user, timeline.tick(query.time)))
    blocked = is_block[timeline.kind(at) // 2]
    return row[blocked], timeline.other_of(at[blocked])


def with_blocked(graph: FriendGraph, query: Query, pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Add the blocked users of each query to pairs (row [M], user [M]) int64."""
    row, user = blocked_users(graph, query)
    return (torch.cat([pairs[0], row]), torch.cat([pairs[1], user])) if len(row) else pairs
