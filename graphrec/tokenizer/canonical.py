"""A canonical form of a graph for tokenizers: the strict past alone, without information in numbers or order.

Fitting depends on the numbers of users and the order of rows, if only through random draws and the order of
sums. So users are numbered by a hash of their events and features, and events of equal time are ordered by a
hash of their content: renaming users or shuffling events of equal time changes nothing, except among users
whose events and features are the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.data.draws import hashed, mix
from graphrec.tokenizer.hash_kernels import add_event_hashes

HASH_ROUNDS = 4
"""Weisfeiler-Lehman rounds of hashing: how many steps away events of contacts count."""


def user_hashes(graph: FriendGraph) -> Tensor:
    """Hash each user's events, those of contacts (Weisfeiler-Lehman), and features: [N] int64."""
    events = graph.events()
    out = hashed(_feature_hashes(graph))
    names = torch.tensor([_text_hash(name) for name in graph.actions])
    src, dst, time, action = (
        x.contiguous().numpy() for x in (events.src, events.dst, events.time, events.action)
    )
    for _ in range(HASH_ROUNDS):
        around = torch.zeros_like(out)
        add_event_hashes(src, dst, time, action, names.numpy(), out.numpy(), around.numpy())
        out = hashed(out, around)
    return out


def renumber_users(graph: FriendGraph, users: Tensor) -> FriendGraph:
    """The graph of some users, in a given order; events of equal time are ordered by their content.

    Args:
        graph: only these users have events in it.
        users: [M] int64, distinct; -1 makes a user without events, whose attributes are 0.

    Returns:
        a new graph whose user i is `users[i]`.
    """
    known = users >= 0
    new = torch.full((graph.num_users,), -1)
    new[users[known]] = torch.arange(len(users))[known]
    out = FriendGraph()
    out.__dict__["_global_store"].update(graph._global_store)
    for key, value in graph[USER].items():
        if graph[USER].is_node_attr(key):
            rows = value.new_zeros(len(users), *value.shape[1:])
            rows[known] = value[users[known]]
            value = rows
        out[USER][key] = value
    out[USER].num_nodes = len(users)
    events = graph.events()
    rank = torch.empty(len(events), dtype=torch.int64)
    rank[_event_order(new[events.src], new[events.dst], events.time, events.action)] = torch.arange(
        len(events)
    )
    shown = graph.impressions
    for edge_type, store in graph.edge_items():
        if edge_type[1] in shown:  # of users without events, too
            continue
        src, dst = new[store.edge_index]
        order = rank[store.event_id].argsort() if "event_id" in store else _event_order(src, dst, store.time)
        for key, value in store.items():
            if store.is_edge_attr(key) and key not in ("edge_index", "event_id"):
                value = value[order]
            out[edge_type][key] = value
        out[edge_type].edge_index = torch.stack([src[order], dst[order]])
        if "event_id" in store:
            out[edge_type].event_id = rank[store.event_id][order]
    return out


def _event_order(src: Tensor, dst: Tensor, time: Tensor, *more: Tensor) -> Tensor:
    """The order of events [E] by time, then by a hash of their content: [E] int64."""
    order = hashed(src, dst, *more).argsort(stable=True)
    return order[time[order].argsort(stable=True)]


def _feature_hashes(graph: FriendGraph) -> Tensor:
    """Hash each user's features and join time: [N] int64; 0 if the graph has neither."""
    out = torch.zeros(graph.num_users, dtype=torch.int64)
    if "x" in graph[USER]:
        x = graph[USER].x.float().contiguous().view(torch.int32).long()
        row, column = x.nonzero(as_tuple=True)
        out.index_add_(0, row, hashed(column, x[row, column]))
    if "join_time" in graph[USER]:
        out += mix(graph[USER].join_time)
    return out


def _text_hash(text: str) -> int:
    values = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    return int(hashed(*torch.from_numpy(values)))
