"""The friend graph: a PyG `HeteroData` whose edges carry time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_undirected

from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, forbid_reserved, to_arrow
from graphrec.data.ids import Id, UserIds, id_list, plain_ids
from graphrec.data.users import UserTable

USER = "user"
FRIEND = "friend"
FORMAT = "graphrec.FriendGraph/1"

EdgeType = tuple[str, str, str]


@dataclass(frozen=True)
class Events:
    """All actions of a graph in one time-sorted sequence, file order inside ties.

    Attributes:
        src, dst: [E] int64 user indices.
        time: [E] int64 seconds, ascending.
        action: [E] int64 index into `FriendGraph.actions`.
    """

    src: Tensor
    dst: Tensor
    time: Tensor
    action: Tensor

    def __len__(self) -> int:
        return self.time.size(0)


class FriendGraph(HeteroData):
    """Users and what they did to each other.

    Node type `user` with `num_nodes`, `raw_id` (see `UserIds`), and where known `x` [N, F] float32 and
    `join_time` [N] int64 seconds (-1 where unknown).

    An edge type ('user', ACTION, 'user') for each action, with `edge_index` [2, E] int64, `time` [E] int64
    seconds, ascending, `event_id` [E] int64, the position in the whole log, and where known `weight` [E]
    float32. Derived from them, ('user', 'friend', 'user'): both directions of every mutual pair, `time` the
    later of the two first acts, that is when the tie became mutual. Untimed friendships are edge types with
    an `edge_index` alone: nothing that answers a query reads them.

    The tensors are not meant to be changed in place; `snapshot` and PyG transforms give new graphs.
    """

    @classmethod
    def from_events(cls, log: EventLog, users: UserTable | None = None) -> FriendGraph:
        """Build the graph of an event log, and of users who may have no event at all."""
        graph = cls()
        ids, position = _join_ids(log.user_ids, users)
        store = graph[USER]
        store.num_nodes = len(ids)
        store.raw_id = ids.raw
        if users is not None:
            row = ids.index(users.ids.to_pylist())
            if users.x.size(1):
                # Whoever the table does not list has every value missing.
                store.x = _absent(users.feature_names).repeat(len(ids), 1).index_copy_(0, row, users.x)
                graph.feature_names = list(users.feature_names)
            if users.join_time is not None:
                store.join_time = torch.full((len(ids),), -1).index_copy_(0, row, users.join_time)
        src, dst = (log.src, log.dst) if position is None else (position[log.src], position[log.dst])
        for code, name in enumerate(log.actions):
            event_id = (log.action == code).nonzero().squeeze(1)
            edges = graph[USER, name, USER]
            edges.edge_index = torch.stack([src[event_id], dst[event_id]])
            edges.time = log.time[event_id]
            edges.event_id = event_id
            if log.weight is not None:
                edges.weight = log.weight[event_id]
        graph.num_self_loops = log.num_self_loops
        _add_friends(graph, src, dst, log.time)
        return graph

    @property
    def num_users(self) -> int:
        """How many users there are, with or without events."""
        return int(self[USER].num_nodes)

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions, in the order of their index."""
        return tuple(name for (_, name, _), store in self.edge_items() if "event_id" in store)

    @property
    def num_events(self) -> int:
        """How many events there are, over all actions."""
        return sum(store.event_id.numel() for _, store in self.edge_items() if "event_id" in store)

    @property
    def user_ids(self) -> UserIds:
        """The map between raw ids and indices."""
        raw = self[USER].raw_id
        cached: UserIds | None = self.__dict__.get("_user_ids")
        if cached is None or cached.raw is not raw:
            cached = self.__dict__["_user_ids"] = UserIds(raw)
        return cached

    def events(self) -> Events:
        """The events of all actions in one sequence; the same object while the event tensors are the same."""
        stores = [self[USER, name, USER] for name in self.actions]
        tensors = [store[key] for store in stores for key in ("edge_index", "time", "event_id")]
        known, cached = self.__dict__.get("_events", ([], None))
        if len(known) == len(tensors) and all(a is b for a, b in zip(known, tensors, strict=True)):
            return cast(Events, cached)
        size = self.num_events
        src, dst, time, action = (torch.empty(size, dtype=torch.int64) for _ in range(4))
        for code, store in enumerate(stores):
            where = store.event_id.cpu()
            src[where], dst[where] = store.edge_index.cpu()
            time[where] = store.time.cpu()
            action[where] = code
        events = Events(src, dst, time, action)
        self.__dict__["_events"] = tensors, events
        return events

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: not what can be derived."""
        derived = ("_user_ids", "_events", "_timeline")
        return {key: value for key, value in self.__dict__.items() if key not in derived}

    def snapshot(self, time: int) -> FriendGraph:
        """The graph as it was just before `time`: all users, only what is strictly older.

        Untimed edge types are left out, since nobody knows whether they existed then. Edge tensors are views.
        """
        past = FriendGraph()
        past.__dict__["_global_store"].update(self._global_store)
        past[USER].update(self[USER])
        if "join_time" in past[USER]:
            joined = past[USER].join_time
            past[USER].join_time = torch.where(joined < time, joined, -1)
        for edge_type, store in self.edge_items():
            if "time" in store:
                size = int(torch.searchsorted(store.time, time))
                for key, value in store.items():
                    if store.is_edge_attr(key):
                        value = value.narrow(self.__cat_dim__(key, value, store), 0, size)
                    past[edge_type][key] = value
        return past

    def select_actions(self, actions: Sequence[str]) -> FriendGraph:
        """The graph with these actions alone; events are numbered anew, in the order they had."""
        past = FriendGraph()
        past.__dict__["_global_store"].update(self._global_store)
        past[USER].update(self[USER])
        kept = torch.cat([self[USER, name, USER].event_id for name in actions]).sort().values
        for name in actions:
            past[USER, name, USER].update(self[USER, name, USER])
            past[USER, name, USER].event_id = torch.searchsorted(kept, self[USER, name, USER].event_id)
        events = past.events()
        _add_friends(past, events.src, events.dst, events.time)
        return past

    def select_events(self, kept: Tensor) -> FriendGraph:
        """The graph with these events alone, and all users and actions; events are numbered anew.

        Args:
            kept: [E] bool, in the order of `events()`.
        """
        if kept.shape != (self.num_events,) or kept.dtype != torch.bool:
            raise ValueError(f"kept must be [{self.num_events}] bool, got {list(kept.shape)} {kept.dtype}")
        out = FriendGraph()
        out.__dict__["_global_store"].update(self._global_store)
        out[USER].update(self[USER])
        number = kept.cumsum(0) - 1
        for name in self.actions:
            store = self[USER, name, USER]
            here = kept[store.event_id]
            for key, value in store.items():
                if store.is_edge_attr(key):
                    value = value[:, here] if key == "edge_index" else value[here]
                out[USER, name, USER][key] = value
            out[USER, name, USER].event_id = number[store.event_id[here]]
        events = out.events()
        _add_friends(out, events.src, events.dst, events.time)
        return out

    def with_events(self, log: EventLog) -> FriendGraph:
        """The graph with more events, and with the people in them; among events of one time, old ones first.

        Indices follow the sorted ids anew. Of whoever is new, features are missing.

        Raises:
            DataError: an action that the graph does not know, or weights on one side alone.
        """
        for name in log.actions:
            if name not in self.actions:
                known = ", ".join(self.actions)
                raise DataError(f"the new events have an action {name!r}; the graph's actions are {known}")
        old, weight = self.events(), self._weights()
        if (weight is None) != (log.weight is None):
            raise DataError("either both the graph's events and the new ones have weights, or neither")
        ids = _union(self.user_ids.values, log.user_ids.values)
        ours, theirs = ids.find(self.user_ids.values.to_pylist()), ids.find(log.user_ids.values.to_pylist())
        code = torch.tensor([self.actions.index(name) for name in log.actions])
        time = torch.cat([old.time, log.time])
        order = time.argsort(stable=True)
        joined = EventLog(
            src=torch.cat([ours[old.src], theirs[log.src]])[order],
            dst=torch.cat([ours[old.dst], theirs[log.dst]])[order],
            time=time[order],
            action=torch.cat([old.action, code[log.action]])[order],
            actions=self.actions,
            user_ids=ids,
            weight=None if weight is None or log.weight is None else torch.cat([weight, log.weight])[order],
            num_self_loops=self._global_store.get("num_self_loops", 0) + log.num_self_loops,
        )
        origin = torch.full((len(ids),), -1).index_copy_(0, ours, torch.arange(self.num_users))
        return self._rebuilt(joined, origin)

    def without(self, users: Tensor | Sequence[Id]) -> FriendGraph:
        """The graph as if some people, raw ids or [n] int64 indices, had never been in it.

        They, their events and their friendships are gone; everybody else is numbered on without gaps.

        Raises:
            KeyError, IndexError: an unknown user, named.
            DataError: no event would be left.
        """
        stays = torch.ones(self.num_users, dtype=torch.bool)
        stays[as_indices(self, users)] = False
        old, weight = self.events(), self._weights()
        kept = stays[old.src] & stays[old.dst]
        if not bool(kept.any()):
            raise DataError(f"without these {int((~stays).sum()):,} users no event would be left")
        number, origin = stays.cumsum(0) - 1, stays.nonzero().squeeze(1)
        left = EventLog(
            src=number[old.src[kept]],
            dst=number[old.dst[kept]],
            time=old.time[kept],
            action=old.action[kept],
            actions=self.actions,
            user_ids=UserIds(self[USER].raw_id[origin]),
            weight=None if weight is None else weight[kept],
            num_self_loops=self._global_store.get("num_self_loops", 0),
        )
        return self._rebuilt(left, origin)

    def _rebuilt(self, log: EventLog, origin: Tensor) -> FriendGraph:
        """The graph of a log whose users had the indices `origin` [N] here, -1 for the new."""
        out = FriendGraph.from_events(log)
        out.__dict__["_global_store"].update(self._global_store)
        out.num_self_loops = log.num_self_loops
        here = origin >= 0
        for key, value in self[USER].items():
            if self[USER].is_node_attr(key) and key != "raw_id":
                rows = value.new_zeros(len(origin), *value.shape[1:])
                if key == "x" and "feature_names" in self._global_store:
                    rows += _absent(self._global_store["feature_names"]).to(rows)
                elif key == "join_time":
                    rows -= 1
                rows[here] = value[origin[here]]
                out[USER][key] = rows
        number = torch.full((self.num_users,), -1)
        number[origin[here]] = here.nonzero().squeeze(1)
        for edge_type, store in self.edge_items():
            if "time" not in store:
                edge = number[store.edge_index]
                out[edge_type].edge_index = edge[:, (edge >= 0).all(0)]
        return out

    def validate(self, raise_on_error: bool = True) -> bool:
        """Check PyG's rules and the graph's own; with `raise_on_error=False`, answer instead of raising."""
        try:
            _check(self)
            super().validate(raise_on_error=True)
        except (DataError, ValueError):
            if raise_on_error:
                raise
            return False
        return True

    def add_untimed(self, name: str, src: Iterable[Id], dst: Iterable[Id]) -> None:
        """Add untimed, undirected friendships between raw ids as an edge type of their own.

        Each pair is kept once in either direction; self-loops are dropped.
        """
        forbid_reserved(name, "untimed friendships")
        if (USER, name, USER) in self.edge_types:
            raise DataError(f"the graph already has an edge type {name!r}")
        u, v = self.user_ids.index(id_list(src, "src")), self.user_ids.index(id_list(dst, "dst"))
        if len(u) != len(v):
            raise DataError(
                f"untimed friendships {name!r}: {len(u)} users on one side, {len(v)} on the other"
            )
        edge = torch.stack([u, v])[:, u != v]
        self[USER, name, USER].edge_index = to_undirected(edge, num_nodes=self.num_users)

    def to_networkx(self) -> nx.MultiDiGraph:
        """A multigraph of raw ids whose edges carry `time`, `action` and, where known, `weight`.

        Edges are added in the order of the log. Mutual ties follow from the events and are not added.
        """
        out = nx.MultiDiGraph()
        raw = self.user_ids.values.to_pylist()
        out.add_nodes_from(raw)
        for key in ("x", "join_time"):
            if key in self[USER]:
                nx.set_node_attributes(out, dict(zip(raw, self[USER][key].tolist(), strict=True)), key)
        events, actions = self.events(), self.actions
        weight = self._weights()
        for row, (u, v, t, a) in enumerate(
            zip(
                events.src.tolist(),
                events.dst.tolist(),
                events.time.tolist(),
                events.action.tolist(),
                strict=True,
            )
        ):
            attributes: dict[str, Any] = {"time": t, "action": actions[a]}
            if weight is not None:
                attributes["weight"] = weight[row].item()
            out.add_edge(raw[u], raw[v], **attributes)
        return out

    @classmethod
    def from_networkx(cls, source: nx.Graph) -> FriendGraph:
        """The graph of a directed (multi)graph whose edges have `time` and, optionally, `action`, `weight`.

        Raises:
            DataError: the graph is undirected (who acted is then unknown), or an edge has no time.
        """
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
                raise DataError(
                    f"{where}: the attributes 'x' are not vectors of one length ({error})"
                ) from None
            columns |= {f"x{i}": matrix[:, i] for i in range(matrix.shape[1])}
        joined = [source.nodes[name].get("join_time") for name in names]
        if all(value is not None for value in joined):
            columns["join_time"] = joined
        return cls.from_events(log, UserTable.from_table(pa.table(columns), where=where))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph as a dict of tensors and plain values."""
        torch.save({"format": FORMAT, "graph": _compact(self.to_dict())}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FriendGraph:
        """Read a graph that `save` wrote. Nothing in the file is executed (`weights_only=True`)."""
        if not os.path.exists(path):
            raise FileNotFoundError(f"no such file: {path}")
        try:
            content = torch.load(path, weights_only=True)
            if content["format"] != FORMAT:
                raise DataError(f"its format is not {FORMAT}")
            graph: FriendGraph = cls.from_dict(content["graph"])
            graph.validate()
        except Exception as error:  # there is no end to the ways in which a damaged file fails
            raise DataError(f"{path}: not a graph that graphrec saved, or damaged ({error})") from None
        return graph

    def _weights(self) -> Tensor | None:
        stores = [self[USER, name, USER] for name in self.actions]
        if not all("weight" in store for store in stores):
            return None
        weight = torch.empty(self.num_events)
        for store in stores:
            weight[store.event_id] = store.weight
        return weight


def _join_ids(event_ids: UserIds, users: UserTable | None) -> tuple[UserIds, Tensor | None]:
    """Sorted ids of both inputs, and where each id of the log went (None: it stayed)."""
    if users is None:
        return event_ids, None
    ids = _union(event_ids.values, users.ids)
    return ids, ids.index(event_ids.values.to_pylist())


def _union(ours: pa.Array, theirs: pa.Array) -> UserIds:
    """Sorted ids of both."""
    if ours.type != theirs.type:
        ours, theirs = ours.cast(pa.string()), theirs.cast(pa.string())
    return UserIds.from_values(plain_ids(pa.chunked_array([ours, theirs]).unique()).sort())


def _absent(feature_names: Sequence[str]) -> Tensor:
    """The features [F] of somebody of whom none is known."""
    return torch.tensor([float(name.endswith("_missing")) for name in feature_names])


def _add_friends(graph: FriendGraph, src: Tensor, dst: Tensor, time: Tensor) -> None:
    """Both directions of every pair whose two sides have acted, at the time the second did."""
    num_users = graph.num_users
    pair, first = np.unique((src * num_users + dst).numpy(), return_index=True)  # first act, events in order
    u, v = np.divmod(pair, num_users)
    back = v * num_users + u
    where = np.minimum(np.searchsorted(pair, back), max(len(pair) - 1, 0))
    mutual = pair[where] == back if len(pair) else np.zeros(0, dtype=bool)
    moment = time.numpy()
    became = np.maximum(moment[first], moment[first[where]])[mutual] if len(pair) else moment
    u, v = u[mutual], v[mutual]
    order = np.argsort(became, kind="stable")
    edges = graph[USER, FRIEND, USER]
    edges.edge_index = torch.from_numpy(np.stack([u[order], v[order]]))
    edges.time = torch.from_numpy(became[order])


def _check(graph: FriendGraph) -> None:
    if list(graph.node_types) != [USER]:
        raise DataError(f"a friend graph has the one node type 'user', found {graph.node_types}")
    store = graph[USER]
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
    for (head, name, tail), edges in graph.edge_items():
        index = edges.get("edge_index")
        if (
            (head, tail) != (USER, USER)
            or index is None
            or index.shape[:-1] != (2,)
            or index.dtype != torch.int64
        ):
            raise DataError(f"edge type {name!r} must join users by an 'edge_index' [2, E] int64")
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < num_users:
            raise DataError(f"edge type {name!r} points outside the {num_users} users")
        for key in ("time", "event_id"):
            if key in edges:
                if edges[key].shape != (index.size(1),) or edges[key].dtype != torch.int64:
                    raise DataError(f"{key!r} of {name!r} must be [{index.size(1)}] int64")
                if bool((edges[key].diff() < 0).any()):
                    raise DataError(f"{key!r} of {name!r} is not ascending")
        weight = edges.get("weight", torch.zeros(index.size(1)))
        if weight.shape != (index.size(1),) or not bool(torch.isfinite(weight).all()):
            raise DataError(f"'weight' of {name!r} must be [{index.size(1)}] finite numbers")
        if "event_id" in edges and "time" not in edges:
            raise DataError(f"action {name!r} has no 'time'")
    if not graph.actions:
        raise DataError("the graph has no action: no edge type carries 'event_id'")
    ids = torch.cat([graph[USER, name, USER].event_id for name in graph.actions])
    if not torch.equal(ids.sort().values.cpu(), torch.arange(graph.num_events)):
        raise DataError("the 'event_id's of all actions must be 0 .. E-1, each once")
    if bool((graph.events().time.diff() < 0).any()):
        raise DataError("'event_id' does not follow time across actions")


def _compact(value: Any) -> Any:
    """Tensors that are views into larger storage are copied, so that a snapshot does not save its future."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def as_indices(graph: FriendGraph, users: Tensor | Sequence[Id]) -> Tensor:
    """User indices [n] int64: a tensor is taken as indices and checked, any other list as raw ids.

    Raises:
        KeyError, IndexError: an unknown user, named.
        TypeError: a single id in place of a list, or something that is no id.
    """
    if not isinstance(users, Tensor):
        return graph.user_ids.index(users)
    if users.dtype.is_floating_point or users.dtype == torch.bool:
        raise TypeError(f"user indices are integers, got a tensor of {users.dtype}")
    index = users.reshape(-1).to(torch.int64)
    if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < graph.num_users:
        outside = index[(index < 0) | (index >= graph.num_users)][0]
        raise IndexError(f"user index {int(outside)} lies outside 0..{graph.num_users - 1}")
    return index
