"""Friendships without a time, split into parts so that held-out pairs come later."""

from __future__ import annotations

import numpy as np
import torch

from graphrec.data import DataError, EventLog, FriendGraph, UserTable
from graphrec.data.events import Column

BEFRIEND = "befriend"
"""Name of the only action."""

MIN_PAIRS = 10
"""Distinct pairs without which there is nothing to split."""


def static_split(one: Column, other: Column, *, users: UserTable | None = None, seed: int = 0) -> FriendGraph:
    """Build a graph of untimed, undirected friendships that the temporal protocol splits by pairs.

    Of P distinct pairs, floor(0.8 P) drawn at random are events at time 0, those up to floor(0.9 P) at time
    1, the rest at time 2, each pair in both directions at once. `TemporalSplit.of` then finds `t_val` = 1 and
    `t_test` = 2: a query of validation sees the pairs of training alone, one of test those of training and
    validation, and no query sees its own part, the other direction included.

    Args:
        one: raw ids of one end of each friendship.
        other: raw ids of the other end. Repeated pairs count once, in either direction; self-loops are
            dropped.
        users: features of users, who may be without friends.
        seed: fixes the split, together with the set of pairs but not their order.

    Returns:
        A graph whose events all have the action `befriend`.

    Raises:
        DataError: an id is missing or of another type, or there are fewer than 10 pairs.
    """
    if len(one) != len(other):
        raise DataError(f"the friendships given: {len(one)} users on one side, {len(other)} on the other")
    log = EventLog.from_arrays(one, other, np.zeros(len(one), dtype=np.int64))
    pair = torch.stack([torch.minimum(log.src, log.dst), torch.maximum(log.src, log.dst)]).unique(dim=1)
    size = pair.size(1)
    if size < MIN_PAIRS:
        raise DataError(
            f"the friendships given: {size} distinct pairs, fewer than the {MIN_PAIRS} that can be split"
        )
    drawn = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    time = torch.zeros(size, dtype=torch.int64)
    time[drawn[size * 8 // 10 :]] = 1
    time[drawn[size * 9 // 10 :]] = 2
    order = time.repeat(2).argsort(stable=True)
    split = EventLog(
        src=torch.cat([pair[0], pair[1]])[order],
        dst=torch.cat([pair[1], pair[0]])[order],
        time=time.repeat(2)[order],
        action=torch.zeros(2 * size, dtype=torch.int64),
        actions=(BEFRIEND,),
        user_ids=log.user_ids,
        num_self_loops=log.num_self_loops,
    )
    return FriendGraph.from_events(split, users)
