"""Graphs that grow: the events of a graph and later ones, in arrays that are shared and never rebuilt."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch_geometric.data.storage import EdgeStorage

from graphrec.data.checks import check_kind
from graphrec.data.columns import EVENT_COLUMNS, edge_columns, node_columns, plain_values
from graphrec.data.edits import forbid_tie_columns
from graphrec.data.errors import DataError
from graphrec.data.events import EventLog
from graphrec.data.graph import FRIEND, USER, Events, FriendGraph
from graphrec.data.growing_column import GrowingColumn
from graphrec.data.growing_ids import GrowingIds
from graphrec.data.impressions import impression_columns, joined_impressions, known_impressions
from graphrec.data.ties import standing_ties
from graphrec.data.users import unknown_features


class GrownGraph(FriendGraph):
    """A graph with events appended to it, one version of a growing log; it never changes.

    Users keep their indices, and newcomers have the next ones. Users, events and their index are views of
    arrays shared with other versions. The edge types are made when they are first asked for, at a cost that
    grows with the log; a copy of the graph is a `FriendGraph`.
    """

    @classmethod
    def of(cls, growth: Growth, events: Events) -> GrownGraph:
        """The latest version of a growing log."""
        out = cls()
        out.__dict__["_global_store"].update(growth.graph_values)
        people = out[USER]
        people.update(growth.people_values | {key: part.view for key, part in growth.people.items()})
        people.num_nodes, people.raw_id = len(growth.ids), growth.ids.view.raw
        weight = None if growth.weight is None else growth.weight.view
        out.__dict__["_user_ids"], out.__dict__["_guard"] = growth.ids.view, growth.first.guard
        out.__dict__["_unmade"] = _Edges(
            growth.first,
            events,
            weight,
            tuple(growth.action_counts),
            growth.impressions,
            len(growth.impressions),
        )
        return out

    @property
    def _unmade_edges(self) -> _Edges | None:
        edges: _Edges | None = self.__dict__.get("_unmade")
        return edges

    @property
    def _edge_store_dict(self) -> dict[tuple[str, str, str], EdgeStorage]:
        """PyG's stores of edge types, made at the first access."""
        edges = self._unmade_edges
        if edges is not None:
            stores = edges.stores(self)
            self.__dict__["_edge_store_dict"] = stores
            names = edges.first.actions
            tensors = [stores[USER, name, USER][key] for name in names for key in EVENT_COLUMNS[:3]]
            self.__dict__["_events"] = tensors, edges.events
            self.__dict__["_unmade"] = None
        made: dict[tuple[str, str, str], EdgeStorage] = self.__dict__["_edge_store_dict"]
        return made

    @property
    def actions(self) -> tuple[str, ...]:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().actions if edges is None else edges.first.actions

    @property
    def num_events(self) -> int:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().num_events if edges is None else len(edges.events)

    @property
    def action_counts(self) -> list[int]:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().action_counts if edges is None else list(edges.action_counts)

    @property
    def impressions(self) -> tuple[str, ...]:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().impressions if edges is None else edges.first.impressions

    def weights(self) -> Tensor | None:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().weights() if edges is None else edges.weight

    def events(self) -> Events:
        """See `FriendGraph`."""
        edges = self._unmade_edges
        return super().events() if edges is None else edges.events

    def __copy__(self) -> FriendGraph:
        out = FriendGraph()
        for name, stores in (
            ("_node_store_dict", self._node_store_dict),
            ("_edge_store_dict", self._edge_store_dict),
        ):
            for key, store in stores.items():
                out.__dict__[name][key] = copy.copy(store)
                out.__dict__[name][key]._parent = out
        out.__dict__["_global_store"].update(self._global_store)
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> FriendGraph:
        return copy.deepcopy(copy.copy(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (copy.copy(self),)


@dataclass(frozen=True)
class NewEvents:
    """Events of a log that can be appended to a growing log.

    Attributes:
        events: with the indices that their users will have, and the graph's actions.
        ids: raw ids of the newcomers, in the order of their indices.
        num_users: users there will be.
        weight: [M] float32, or None.
        num_self_loops: rows of the log that were dropped.
        impressions: columns of these, by name of their edge type.
    """

    events: Events
    ids: pa.Array
    num_users: int
    weight: Tensor | None
    num_self_loops: int
    impressions: dict[str, dict[str, Tensor]]


class Growth:
    """A growing log: the columns of users and events that its versions share, but for the events themselves.

    Args:
        graph: the first version.

    Attributes:
        first: as given.
        ids: of the users.
        people: columns of the users.
        weight: of the events; None without weights.
        action_counts: number of events of each action.
        impressions: columns of appended ones with the name of their edge type, in order.
    """

    def __init__(self, graph: FriendGraph) -> None:
        forbid_tie_columns(graph)
        self.first, self.ids = graph, GrowingIds(graph.user_ids)
        columns = node_columns(graph[USER])
        self.people = {key: GrowingColumn(column) for key, column in columns.items() if key != "raw_id"}
        self.people_values = plain_values(graph[USER], columns)
        self.graph_values = dict(graph._global_store.items())
        weight = graph.weights()
        self.weight = None if weight is None else GrowingColumn(weight)
        self.action_counts = graph.action_counts
        self.impressions: list[tuple[str, dict[str, Tensor]]] = []
        self._code = {name: code for code, name in enumerate(graph.actions)}
        self._other_columns = {name: self._other_column(name) for name in graph.actions}

    def read(self, log: EventLog, last_time: int | None) -> NewEvents:
        """Check a log, and give its users their indices; nothing is appended yet.

        Args:
            log: the log.
            last_time: seconds, of the last event so far; None where there is none.

        Raises:
            DataError: the log begins before the last event; it has an action that the graph does not know, or
                weights on one side alone; or a column of an action's edges or of users lacks its values.
        """
        check_kind("log", log, EventLog)
        log, shown = known_impressions(self.first, log)
        if last_time is not None and len(log) and int(log.time[0]) < last_time:
            raise DataError(
                f"the log begins at {int(log.time[0])} s, before the last event of the graph at "
                f"{last_time} s: only later events are appended; with_events adds older ones"
            )
        for name, size in zip(
            log.actions, torch.bincount(log.action, minlength=len(log.actions)), strict=True
        ):
            if name not in self._code:
                known = ", ".join(self._code)
                raise DataError(f"the new events have an action {name!r}; the graph's actions are {known}")
            if int(size) and self._other_columns[name]:
                extra = self._other_columns[name]
                raise DataError(
                    f"the action {name!r} has {extra!r} for each event, the new ones none: remove it: "
                    f"del graph['user', {name!r}, 'user'].{extra}"
                )
        if (self.weight is None) != (log.weight is None):
            raise DataError("either both the graph's events and the new ones have weights, or neither")
        found = self.ids.view.find(log.user_ids.values)
        new = (found < 0).nonzero().squeeze(1)
        for key in self.people:
            if len(new) and key not in ("x", "join_time"):
                raise DataError(f"the new users have no {key!r}, which the graph has for each user")
        size = len(self.ids)
        found[new] = torch.arange(size, size + len(new))
        code = torch.tensor([self._code[name] for name in log.actions], dtype=torch.int64)
        return NewEvents(
            Events(found[log.src], found[log.dst], log.time, code[log.action]),
            log.user_ids.values.take(pa.array(new.numpy())),
            size + len(new),
            log.weight,
            log.num_self_loops,
            {name: impression_columns(part, found) for name, part in shown.items()},
        )

    def add(self, new: NewEvents) -> None:
        """Append the columns of events that `read` returned."""
        self.ids.append(new.ids)
        self.impressions.extend(new.impressions.items())
        size = len(new.ids)
        for key, column in self.people.items():
            row = column.view.new_full((1, *column.view.shape[1:]), -1 if key == "join_time" else 0)
            if key == "x" and "feature_names" in self.graph_values:
                row += unknown_features(self.graph_values["feature_names"]).to(row)
            column.append(row.expand(size, *row.shape[1:]))
        if self.weight is not None and new.weight is not None:
            self.weight.append(new.weight)
        counts = torch.bincount(new.events.action, minlength=len(self._code)).tolist()
        self.action_counts = [old + more for old, more in zip(self.action_counts, counts, strict=True)]
        loops = self.graph_values.get("num_self_loops", 0) + new.num_self_loops
        self.graph_values = self.graph_values | {"num_self_loops": loops}

    def _other_column(self, action: str) -> str:
        """The first column of an action's edges that no log has, or an empty string."""
        columns = edge_columns(self.first[USER, action, USER])
        return next((key for key in columns if key not in EVENT_COLUMNS), "")


@dataclass(frozen=True)
class _Edges:
    """What the edge types of a version are made from.

    Attributes:
        first: the first version.
        events: of this version.
        weight: of these events [E]; None without weights.
        action_counts: number of events of each action.
        impressions: appended ones, as in `Growth`; later versions append to the list.
        num_impressions: entries of the list that are of this version.
    """

    first: FriendGraph
    events: Events
    weight: Tensor | None
    action_counts: tuple[int, ...]
    impressions: list[tuple[str, dict[str, Tensor]]]
    num_impressions: int

    def stores(self, graph: FriendGraph) -> dict[tuple[str, str, str], EdgeStorage]:
        """All edge types, in the order of the first version."""
        actions = {name: code for code, name in enumerate(self.first.actions)}
        return {
            kind: EdgeStorage(_parent=graph, _key=kind, **self._columns(kind[1], store, actions.get(kind[1])))
            for kind, store in self.first.edge_items()
        }

    def _columns(self, name: str, store: EdgeStorage, code: int | None) -> dict[str, Any]:
        events = self.events
        if name == FRIEND:
            num_users = 1 + int(torch.cat([events.src, events.dst]).max())
            edge_index, time = standing_ties(events, self.first.roles, num_users)
            return dict(store.items()) | {"edge_index": edge_index, "time": time}
        if code is None:
            columns = dict(store.items())
            for own, more in self.impressions[: self.num_impressions]:
                columns = joined_impressions(columns, more) if own == name else columns
            return columns
        event = (events.action == code).nonzero().squeeze(1)
        columns = {
            "edge_index": torch.stack([events.src[event], events.dst[event]]),
            "time": events.time[event],
            "event_id": event,
        }
        if self.weight is not None:
            columns["weight"] = self.weight[event]
        return dict(store.items()) | columns
