"""Digests of content, by which saved, cached and repeated data is recognized."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.checks import check_kind
from graphrec.data.events import EventLog
from graphrec.data.graph import USER, FriendGraph

CHUNK_BYTES = 2**24
"""Size of the parts in which a tensor is copied to contiguous memory."""


def digest_graph(graph: FriendGraph) -> str:
    """Return the SHA-256 of the content of a graph, 64 hexadecimal digits.

    It covers roles of actions other than those of their names; users' ids, features and their names, join
    times and any other attribute of a user; and every edge type, timed or not, with all its tensors (weights
    and `edge_attr` too). Equal content gives an equal digest, independent of memory layout and of the order
    of attributes. The order of actions counts, since it numbers them; the count of dropped self-loops does
    not.

    Raises:
        TypeError: an attribute of a user or an edge type is neither a tensor nor a plain value; it is named.
    """
    stores = {name: dict(store.items()) for (_, name, _), store in graph.edge_items()}
    content = {
        "actions": graph.actions,
        "feature_names": getattr(graph, "feature_names", None),
        "users": dict(graph[USER].items()),
        "edges": stores,
    }
    overrides = graph.roles.overrides()
    return digest_value(content | {"roles": overrides} if overrides else content)


def digest_log(log: EventLog) -> str:
    """Return the SHA-256 of an event log's events by raw id and name of action, 64 hexadecimal digits.

    It does not depend on indices, on ids and actions without an event, or on whether ids are integers or
    text. It depends on the order of events of one time.
    """
    check_kind("log", log, EventLog)
    users, ends = torch.unique(torch.cat([log.src, log.dst]), return_inverse=True)
    raw = log.user_ids.values.take(pa.array(users.numpy())).cast(pa.string())
    order = torch.from_numpy(pc.array_sort_indices(raw).to_numpy().astype(np.int64))
    codes, actions = torch.unique(log.action, return_inverse=True)
    names = [log.actions[code] for code in codes.tolist()]
    by_name = sorted(range(len(names)), key=names.__getitem__)
    return digest_value(
        {
            "ids": raw.take(pa.array(order.numpy())).to_pylist(),
            "actions": sorted(names),
            "ends": order.argsort()[ends],
            "time": log.time,
            "action": torch.tensor(by_name).argsort()[actions],
            "weight": log.weight,
        }
    )


def digest_value(value: Any) -> str:
    """Return the SHA-256 of plain values, tensors and arrays, and of mappings, sequences and sets of them.

    Every part counts with its type and length, so that parts cannot run into each other. Mappings and sets
    have no order. A list and a tuple of the same items are alike.

    Raises:
        TypeError: a value of another type is in it; the message has the path to it.
    """
    digest = hashlib.sha256()
    _feed(digest, value, "")
    return digest.hexdigest()


@cache
def digest_code() -> str:
    """Return the SHA-256 of graphrec's own source files, by path and content, 64 hexadecimal digits."""
    package = Path(__file__).parents[1]
    files = sorted(package.rglob("*.py"))
    return digest_value({str(path.relative_to(package)): path.read_bytes() for path in files})


def digest_source(definition: Callable[..., Any]) -> str:
    """Return the SHA-256 of the file that defines a class or function, 64 hexadecimal digits.

    Returns:
        The digest; '' for definitions in graphrec, which `digest_code` covers, and for those without a file,
        as in a notebook.
    """
    if definition.__module__.partition(".")[0] == __name__.partition(".")[0]:
        return ""
    try:
        return digest_value(Path(inspect.getfile(definition)).read_bytes())
    except (OSError, TypeError):
        return ""


def _feed(digest: Any, value: Any, path: str) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | complex):
        _tag(digest, type(value).__name__, repr(value).encode())
    elif isinstance(value, str):
        _tag(digest, "str", value.encode(errors="surrogatepass"))
    elif isinstance(value, bytes | bytearray):
        _tag(digest, "bytes", bytes(value))
    elif isinstance(value, os.PathLike):
        _tag(digest, "path", os.fsencode(value))
    elif isinstance(value, torch.dtype | torch.device):
        _tag(digest, "torch", str(value).encode())
    elif isinstance(value, Tensor):
        _feed_tensor(digest, value)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        _feed_tensor(digest, torch.from_numpy(np.ascontiguousarray(value)))
    elif isinstance(value, Mapping):
        keys = sorted(value, key=repr)
        _tag(digest, "mapping", str(len(keys)).encode())
        for key in keys:
            _feed(digest, key, path)
            _feed(digest, value[key], f"{path}[{key!r}]")
    elif isinstance(value, Set):
        parts = sorted(digest_value(item) for item in value)
        _tag(digest, "set", "".join(parts).encode())
    elif isinstance(value, Sequence):
        _tag(digest, "sequence", str(len(value)).encode())
        for position, item in enumerate(value):
            _feed(digest, item, f"{path}[{position}]")
    else:
        raise TypeError(f"{path or 'the value'} is a {type(value).__name__}, which has no content digest")


def _feed_tensor(digest: Any, tensor: Tensor) -> None:
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    tensor = tensor.detach()
    _tag(digest, "tensor", f"{tensor.dtype} {list(tensor.shape)}".encode())
    rows = tensor.reshape(1) if tensor.dim() == 0 else tensor
    if rows.numel() == 0:
        return
    step = max(1, CHUNK_BYTES // (rows[0].numel() * rows.element_size()))
    for part in rows.split(step):
        flat = part.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())


def _tag(digest: Any, kind: str, content: bytes) -> None:
    digest.update(f"{kind}:{len(content)}:".encode())
    digest.update(content)
