"""Friend graphs from and to networkx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from graphrec.data.columns import edge_columns
from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, as_columns, read_rows, to_arrow
from graphrec.data.users import UserTable

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph

EDGE_ATTRIBUTES = ("time", "action", "weight", "edge_index", "event_id")
"""Attributes of networkx edges that do not become further columns."""


def to_networkx(graph: FriendGraph) -> nx.MultiDiGraph:
    """See `FriendGraph.to_networkx`."""
    out = nx.MultiDiGraph()
    raw = graph.user_ids.values.to_pylist()
    out.add_nodes_from(raw)
    people = graph["user"]
    for key in ("x", "join_time"):
        if key in people:
            nx.set_node_attributes(out, dict(zip(raw, people[key].tolist(), strict=True)), key)
    edges: list[tuple[Any, Any, dict[str, Any]]] = [(None, None, {})] * graph.num_events
    for name in graph.actions:
        columns = edge_columns(graph["user", name, "user"])
        src, dst = columns.pop("edge_index").tolist()
        event_id = columns.pop("event_id").tolist()
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        for u, v, event, row in zip(src, dst, event_id, values, strict=True):
            edges[event] = raw[u], raw[v], dict(zip(columns, row, strict=True)) | {"action": name}
    for name in graph.impressions:
        store = graph["user", name, "user"]
        for u, v, time in zip(*store.edge_index.tolist(), store.time.tolist(), strict=True):
            edges.append((raw[u], raw[v], {"time": time, "action": name}))
    out.add_edges_from(edges)
    return out


@dataclass(frozen=True)
class NetworkxContent:
    """The content of a networkx graph.

    Attributes:
        log: the events.
        users: all nodes.
        columns: by action, further attributes of its edges by name, [n, ...] in the order of its events.
    """

    log: EventLog
    users: UserTable
    columns: dict[str, dict[str, Tensor]]


def read_networkx(source: nx.Graph) -> NetworkxContent:
    """Read the events and users of a networkx graph; see `FriendGraph.from_networkx`."""
    if not source.is_directed():
        raise DataError("an undirected networkx graph does not tell the acting user; use a DiGraph")
    edges = list(source.edges(data=True))
    for u, v, attributes in edges:
        if "time" not in attributes:
            raise DataError(f"the edge from {u!r} to {v!r} has no attribute 'time'")
    optional: dict[str, Any] = {}
    for key in ("action", "weight"):
        present = [key in attributes for _, _, attributes in edges]
        if any(present):
            if not all(present):
                u, v, _ = edges[present.index(False)]
                raise DataError(f"the edge from {u!r} to {v!r} has no attribute {key!r}, others do")
            optional[key] = [attributes[key] for _, _, attributes in edges]
    ends = {"src": [u for u, _, _ in edges], "dst": [v for _, v, _ in edges]}
    times = [attributes["time"] for _, _, attributes in edges]
    given = "the events given"
    log, rows = read_rows(
        as_columns(ends | {"time": times} | optional, where=given), where=given, time="time"
    )
    extra = _edge_columns(log, [edges[row] for row in rows.tolist()])
    where, names = "the networkx nodes", list(source.nodes)
    columns: dict[str, Any] = {"user": to_arrow(names, where=where, column="user")}
    features = [source.nodes[name].get("x") for name in names]
    if all(value is not None for value in features):
        try:
            matrix = np.array(features, dtype=np.float64).reshape(len(names), -1)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the attributes 'x' are not vectors of one length ({error})") from None
        columns |= {f"x{i}": matrix[:, i] for i in range(matrix.shape[1])}
    joined = [source.nodes[name].get("join_time") for name in names]
    if all(value is not None for value in joined):
        columns["join_time"] = joined
    return NetworkxContent(log, UserTable.from_table(pa.table(columns), where=where), extra)


def _edge_columns(
    log: EventLog, edges: list[tuple[Any, Any, dict[str, Any]]]
) -> dict[str, dict[str, Tensor]]:
    """Further attributes of edges, which are given in the order of the log, by action and name."""
    out: dict[str, dict[str, Tensor]] = {}
    for code, action in enumerate(log.actions):
        own = [edges[event] for event in (log.action == code).nonzero().flatten().tolist()]
        names = dict.fromkeys(name for _, _, attributes in own for name in attributes)
        for name in [name for name in names if name not in EDGE_ATTRIBUTES]:
            lacking = [(u, v) for u, v, attributes in own if name not in attributes]
            if lacking:
                u, v = lacking[0]
                raise DataError(
                    f"the edge from {u!r} to {v!r} has no attribute {name!r}, others of {action!r} do"
                )
            try:
                column = torch.tensor([attributes[name] for _, _, attributes in own])
            except (TypeError, ValueError, OverflowError, RuntimeError):
                raise DataError(
                    f"the attribute {name!r} of the edges of {action!r} is not made of numbers, or of lists "
                    "of them of one length; remove it"
                ) from None
            out.setdefault(action, {})[name] = column
    return out
