"""Columns of node and edge stores: tensors with a row for each node or edge."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch_geometric.data.storage import BaseStorage, EdgeStorage, NodeStorage

from graphrec.data.errors import DataError

EVENT_COLUMNS = ("edge_index", "time", "event_id", "weight")
"""Edge columns made by graphrec; `edge_attr` and all others come from the caller."""


def node_columns(store: NodeStorage) -> dict[str, Tensor]:
    """Return the tensors of a node store with a row for each node.

    Raises:
        DataError: an attribute has a row for each node but is not a tensor.
    """
    return _columns(store, int(store.num_nodes or 0), "node attribute")


def edge_columns(store: EdgeStorage) -> dict[str, Tensor]:
    """Return the tensors of an edge store with a row for each edge, and `edge_index`.

    Raises:
        DataError: an attribute has a row for each edge but is not a tensor, or `edge_attr` has another number
            of rows.
    """
    size = store.edge_index.size(1)
    columns = {"edge_index": store.edge_index} | _columns(
        store, size, f"edge attribute of {store._key[1]!r},"
    )
    if "edge_attr" in store and "edge_attr" not in columns:
        raise DataError(f"'edge_attr' of {store._key[1]!r} must have one row for each of its {size} edges")
    return columns


def plain_values(store: BaseStorage, columns: dict[str, Tensor]) -> dict[str, Any]:
    """Return the attributes of a store that are not among its columns."""
    return {key: value for key, value in store.items() if key not in columns}


def select_edges(store: EdgeStorage, rows: Tensor) -> dict[str, Any]:
    """Return all attributes of an edge store for some of its edges, [n] int64 positions or [E] bool."""
    columns = edge_columns(store)
    chosen = {key: value[:, rows] if key == "edge_index" else value[rows] for key, value in columns.items()}
    return plain_values(store, columns) | chosen


def _columns(store: BaseStorage, size: int, what: str) -> dict[str, Tensor]:
    out = {}
    for key, value in store.items():
        if key == "edge_index":
            continue
        if isinstance(value, Tensor) and value.dim() and value.size(0) == size:
            out[key] = value
        elif isinstance(value, (list, tuple, np.ndarray)) and len(value) == size and key != "raw_id":
            raise DataError(f"{what} {key!r} must be a tensor, got {type(value).__name__}")
    return out
