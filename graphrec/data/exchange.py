"""Friend graphs from and to networkx."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np
import pyarrow as pa

from graphrec.data.columns import edge_columns
from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, to_arrow
from graphrec.data.users import UserTable

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph


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
    out.add_edges_from(edges)
    return out


def read_networkx(source: nx.Graph) -> tuple[EventLog, UserTable]:
    """The events and users of a networkx graph; see `FriendGraph.from_networkx`."""
    if not source.is_directed():
        raise DataError("an undirected networkx graph does not say who acted; use a DiGraph")
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
    log = EventLog.from_arrays(
        [u for u, _, _ in edges],
        [v for _, v, _ in edges],
        [attributes["time"] for _, _, attributes in edges],
        **optional,
    )
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
    return log, UserTable.from_table(pa.table(columns), where=where)
