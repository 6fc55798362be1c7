"""A graph as a tokenizer sees it: the strict past alone, under names that tell nothing.

Whoever learns from a graph learns from the numbers of its users and the order of its rows too, if only by
where a draw falls or in which order a sum is taken. So people are numbered by a hash of what they did, with
whom and when, and tied rows put in the order of a hash of theirs: to rename people, or to shuffle tied rows,
changes nothing, up to people whom nothing tells apart.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.data.draws import hashed, mix

ROUNDS = 4
"""Two people of equal marks have done the same at the same times with people of equal marks, so many times
over."""


def marks(graph: FriendGraph) -> Tensor:
    """A hash of what is known of each user, [N] int64: of events (Weisfeiler-Lehman) and features."""
    events = graph.events()
    mark = hashed(_features(graph))
    names = torch.tensor([_hash_of_text(name) for name in graph.actions])
    act = hashed(events.time, names[events.action])
    for _ in range(ROUNDS):
        met = torch.zeros_like(mark)
        met.index_add_(0, events.src, mix(act + mark[events.dst]))
        met.index_add_(0, events.dst, mix(~act + mark[events.src]))
        mark = hashed(mark, met)
    return mark


def renumbered(graph: FriendGraph, users: Tensor) -> FriendGraph:
    """The graph of these users alone, numbered in the order given; tied rows in an order of their content.

    Args:
        graph: nobody else has an event in it.
        users: [M] int64, distinct; -1 for somebody whom the graph does not know, all of whose values are 0.
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
    rank[_order(new[events.src], new[events.dst], events.time, events.action)] = torch.arange(len(events))
    for edge_type, store in graph.edge_items():
        src, dst = new[store.edge_index]
        order = rank[store.event_id].argsort() if "event_id" in store else _order(src, dst, store.time)
        for key, value in store.items():
            if store.is_edge_attr(key) and key not in ("edge_index", "event_id"):
                value = value[order]
            out[edge_type][key] = value
        out[edge_type].edge_index = torch.stack([src[order], dst[order]])
        if "event_id" in store:
            out[edge_type].event_id = rank[store.event_id][order]
    return out


def _order(src: Tensor, dst: Tensor, time: Tensor, *more: Tensor) -> Tensor:
    """By time, then by content."""
    order = hashed(src, dst, *more).argsort(stable=True)
    return order[time[order].argsort(stable=True)]


def _features(graph: FriendGraph) -> Tensor:
    """A hash of each user's features and join time, [N] int64; 0 where there are none."""
    out = torch.zeros(graph.num_users, dtype=torch.int64)
    if "x" in graph[USER]:
        x = graph[USER].x.float().contiguous().view(torch.int32).long()
        row, column = x.nonzero(as_tuple=True)
        out.index_add_(0, row, hashed(column, x[row, column]))
    if "join_time" in graph[USER]:
        out += mix(graph[USER].join_time)
    return out


def _hash_of_text(text: str) -> int:
    values = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)
    return int(hashed(*torch.from_numpy(values)))
