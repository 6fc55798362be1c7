"""The rules that a `HeteroData` must meet to be a friend graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.compute as pc
import torch
from torch import Tensor
from torch_geometric.data.storage import EdgeStorage

from graphrec.data.columns import edge_columns, node_columns
from graphrec.data.errors import DataError
from graphrec.data.events import DERIVED_ACTION, forbid_reserved

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph


def validate_graph(graph: FriendGraph) -> None:
    """Raise DataError for the first rule of `FriendGraph` that a graph breaks."""
    if list(graph.node_types) != ["user"]:
        raise DataError(f"a friend graph has the one node type 'user', found {graph.node_types}")
    _check_users(graph)
    for (head, name, tail), edges in graph.edge_items():
        index = edges.get("edge_index")
        if (
            (head, tail) != ("user", "user")
            or index is None
            or index.shape[:-1] != (2,)
            or index.dtype != torch.int64
        ):
            raise DataError(f"edge type {name!r} must join users by an 'edge_index' [2, E] int64")
        if name != DERIVED_ACTION:
            forbid_reserved(name, "the graph")
        _check_edges(name, edges, graph.num_users)
    if not graph.actions:
        raise DataError("the graph has no action: no edge type carries 'event_id'")
    check_numbering(graph)
    for name in [name for (_, name, _), edges in graph.edge_items() if "time" in edges]:
        for key in ("time", "event_id"):
            if key in graph["user", name, "user"] and _falls(graph["user", name, "user"][key]):
                raise DataError(f"{key!r} of {name!r} is not ascending")
    graph.weights()
    if _falls(graph.events().time):
        raise DataError("'event_id' does not follow time across actions")


def check_numbering(graph: FriendGraph) -> None:
    """Raise DataError unless the events of all actions are numbered 0..E-1, each once."""
    stores = {name: graph["user", name, "user"] for name in graph.actions}
    ids, size = torch.cat([store.event_id for store in stores.values()]).cpu(), graph.num_events
    seen = torch.zeros(size, dtype=torch.bool)
    seen[ids[(ids >= 0) & (ids < size)]] = True
    if bool(seen.all()):
        return
    parts = [store.edge_index for store in stores.values()]
    if any(_runs_both_ways(part, graph.num_users) for part in [*parts, torch.cat(parts, dim=1)]):
        raise DataError(
            "events run in both directions, as after PyG's ToUndirected, but an event has one direction: "
            "leave that transform out (batches of the loaders have both)"
        )
    raise DataError(
        "the 'event_id's of all actions must be 0 .. E-1, each once; transforms that add, merge or drop "
        "edges break this, `FriendGraph.select_events` does not"
    )


def _check_users(graph: FriendGraph) -> None:
    store = graph["user"]
    num_users = store.num_nodes
    if "raw_id" not in store or len(graph.user_ids) != num_users:
        raise DataError(f"'raw_id' must name each of the {num_users} users")
    if pc.count_distinct(graph.user_ids.values).as_py() != num_users:
        raise DataError("'raw_id' names two users alike")
    for key in ("x", "join_time"):
        if key in store and store[key].size(0) != num_users:
            raise DataError(f"{key!r} has {store[key].size(0)} rows for {num_users} users")
    if "x" in store and not bool(torch.isfinite(store.x).all()):
        raise DataError("'x' holds values that are not finite")
    node_columns(store)


def _check_edges(name: str, edges: EdgeStorage, num_users: int) -> None:
    index = edges.edge_index
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_users:
        raise DataError(f"edge type {name!r} points outside the {num_users} users")
    for key in ("time", "event_id"):
        if key in edges and (edges[key].shape != (index.size(1),) or edges[key].dtype != torch.int64):
            raise DataError(f"{key!r} of {name!r} must be [{index.size(1)}] int64")
    weight = edges.get("weight", torch.zeros(index.size(1)))
    if weight.shape != (index.size(1),) or not bool(torch.isfinite(weight).all()):
        raise DataError(f"'weight' of {name!r} must be [{index.size(1)}] finite numbers")
    if "event_id" in edges and "time" not in edges:
        raise DataError(f"action {name!r} has no 'time'")
    edge_columns(edges)


def _falls(values: Tensor) -> bool:
    return bool((values.diff() < 0).any())


def _runs_both_ways(edge_index: Tensor, num_users: int) -> bool:
    """Tell whether there are edges, as many in one direction of each pair as in the other."""
    src, dst = edge_index
    if not src.numel():
        return False
    forward, back = (src * num_users + dst).sort().values, (dst * num_users + src).sort().values
    return torch.equal(forward, back)
