"""The friend graph: a PyG `HeteroData` whose edges carry time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.utils import to_undirected

from graphrec.data import edits
from graphrec.data.checks import check_kind
from graphrec.data.errors import DataError
from graphrec.data.events import EventLog, forbid_reserved
from graphrec.data.exchange import read_networkx, to_networkx
from graphrec.data.guard import ReadWriteGuard
from graphrec.data.ids import Id, UserIds, id_list
from graphrec.data.impressions import impression_columns, impression_names, split_impressions
from graphrec.data.roles import Roles
from graphrec.data.ties import standing_ties
from graphrec.data.users import UserTable, unknown_features
from graphrec.data.validation import check_numbering, validate_graph

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
    """Users and their events, as a PyG graph.

    Node type `user` with `num_nodes`, `raw_id` (see `UserIds`), and optionally `x` [N, F] float32
    and `join_time` [N] int64 seconds (-1 where unknown).

    An edge type ('user', ACTION, 'user') for each action, with `edge_index` [2, E] int64, `time` [E] int64
    seconds, ascending, `event_id` [E] int64, the position in the whole log, and optionally `weight` [E]
    float32. Derived from them, ('user', 'friend', 'user'): both directions of every mutual pair, `time` the
    later of the two first acts, when the tie became mutual; what roles of actions end is no tie (see
    `Roles`). Untimed friendships are edge types with an `edge_index` alone, and impressions (who was shown to
    whom) edge types with a `time` and no `event_id`; no query reads them.

    An edge type may have more columns, such as `edge_attr` [E, ...]: they stay with their edges in every
    change, and reach the batches of loaders. No rule or model reads them, or `weight`.

    The tensors are not meant to be changed in place; `snapshot` and PyG transforms give new graphs.
    """

    @classmethod
    def from_events(
        cls, log: EventLog, users: UserTable | None = None, *, roles: Mapping[str, str] | None = None
    ) -> FriendGraph:
        """Build the graph of an event log, and of a table of users with or without events.

        Args:
            log: the events.
            users: features, and users without events.
            roles: of actions, such as {'decline': 'negative'}; by default those of their names (see `Roles`).

        Raises:
            DataError: none of the users is in the log; an action or role in `roles` is unknown; or every row
                is an impression.
        """
        check_kind("log", log, EventLog)
        if users is not None:
            check_kind("users", users, UserTable)
        for name in log.actions:
            forbid_reserved(name, "the events")
        given = Roles.of(log.actions, roles)
        log, impressions = split_impressions(log, given)
        if not len(log):
            raise DataError(
                f"every event is an impression ({', '.join(impressions)}); a graph needs acts too"
            )
        graph = cls()
        ids, position = _join_ids(log.user_ids, users)
        store = graph[USER]
        store.num_nodes = len(ids)
        store.raw_id = ids.raw
        if users is not None:
            row = ids.index(users.ids)
            if users.x.size(1):
                # Users that are not in the table have no value of any feature.
                unknown = unknown_features(users.feature_names)
                store.x = unknown.repeat(len(ids), 1).index_copy_(0, row, users.x)
                graph.feature_names = list(users.feature_names)
            if users.join_time is not None:
                store.join_time = torch.full((len(ids),), -1).index_copy_(0, row, users.join_time)
        src, dst = (log.src, log.dst) if position is None else (position[log.src], position[log.dst])
        # Rows of one action together; one sort, however many actions there are.
        order = log.action.argsort(stable=True)
        sizes = torch.bincount(log.action, minlength=len(log.actions)).tolist()
        for name, event_id in zip(log.actions, order.split(sizes), strict=True):
            edges = graph[USER, name, USER]
            edges.edge_index = torch.stack([src[event_id], dst[event_id]])
            edges.time = log.time[event_id]
            edges.event_id = event_id.clone()
            if log.weight is not None:
                edges.weight = log.weight[event_id]
        for name, shown in impressions.items():
            place = torch.arange(len(ids)) if position is None else position
            graph[USER, name, USER].update(impression_columns(shown, place))
        graph.num_self_loops = log.num_self_loops
        if given.overrides():
            graph.action_roles = given.overrides()
        graph.add_mutual_ties()
        return graph

    @property
    def num_users(self) -> int:
        """The number of users, with or without events."""
        return int(self[USER].num_nodes)

    @property
    def actions(self) -> tuple[str, ...]:
        """Names of the actions, in the order of their index."""
        return tuple(name for (_, name, _), store in self.edge_items() if "event_id" in store)

    @property
    def num_events(self) -> int:
        """The number of events of all actions."""
        return sum(store.event_id.numel() for _, store in self.edge_items() if "event_id" in store)

    @property
    def roles(self) -> Roles:
        """The roles of the actions, in the order of their index."""
        given = self._global_store.get("action_roles", {})
        actions = self.actions
        return Roles.of(actions, {name: given[name] for name in actions if name in given})

    @property
    def impressions(self) -> tuple[str, ...]:
        """Names of the edge types of impressions."""
        return impression_names(self)

    @property
    def user_ids(self) -> UserIds:
        """The map between raw ids and indices."""
        raw = self[USER].raw_id
        cached: UserIds | None = self.__dict__.get("_user_ids")
        if cached is None or cached.raw is not raw:
            cached = self.__dict__["_user_ids"] = UserIds(raw)
        return cached

    @property
    def action_counts(self) -> list[int]:
        """The number of events of each action."""
        return [self[USER, name, USER].event_id.numel() for name in self.actions]

    @property
    def guard(self) -> ReadWriteGuard:
        """Keeps queries apart from appends; a graph and those grown from it have one."""
        guard: ReadWriteGuard = self.__dict__.setdefault("_guard", ReadWriteGuard())
        return guard

    def events(self) -> Events:
        """Return the events of all actions in one sequence; the same object while the tensors are the same.

        Raises:
            DataError: an event is there twice or not at all, as after some transforms of PyG.
        """
        stores = [self[USER, name, USER] for name in self.actions]
        tensors = [store[key] for store in stores for key in ("edge_index", "time", "event_id")]
        known, cached = self.__dict__.get("_events", ([], None))
        if len(known) == len(tensors) and all(a is b for a, b in zip(known, tensors, strict=True)):
            return cast(Events, cached)
        check_numbering(self)
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
        """Return the state to copy and pickle, without derived values."""
        derived = ("_user_ids", "_events", "_timeline", "_guard", "_ordinary")
        return {key: value for key, value in self.__dict__.items() if key not in derived}

    def snapshot(self, time: int) -> FriendGraph:
        """Return the graph just before `time` (s): all users, and only events and ties strictly before it.

        Untimed edge types are left out, because their times are unknown. Edge tensors are views.
        """
        return edits.before(self, time)

    def select_actions(self, actions: Sequence[str]) -> FriendGraph:
        """Return the graph with only these actions, renumbered in the same order, without other edges."""
        return edits.select_actions(self, actions)

    def with_roles(self, roles: Mapping[str, str]) -> FriendGraph:
        """Return the graph with other roles of some actions; see `Roles`.

        Raises:
            DataError: an action or role is unknown, or every event would be an impression.
        """
        return edits.with_roles(self, roles)

    def select_events(self, kept: Tensor) -> FriendGraph:
        """Return the graph with only these events, and all users and actions; events are renumbered.

        Args:
            kept: [E] bool, in the order of `events()`.
        """
        return edits.select_events(self, kept)

    def with_events(self, log: EventLog) -> FriendGraph:
        """Return the graph with more events and their users; among events of one time, old ones come first.

        Users are renumbered in the order of the sorted ids. Features of new users are missing (0, where they
        have no names).

        Raises:
            DataError: an action that the graph does not know, weights on one side alone, or a column of an
                action's edges (`edge_attr`) or of users that the new ones lack.
        """
        return edits.with_events(self, log)

    def with_users(self, users: UserTable) -> FriendGraph:
        """Return the graph with the users of a table: new features of known users, and new users.

        The table's columns become the features that the graph has. A category that the graph has no
        column for is encoded as all 0, like a missing value, with a warning. A table without any column of
        features leaves them as they are; a join time that is missing leaves the one that was known.

        Raises:
            DataError: a column of features is missing or too many, or a value has no feature; join times on a
                graph without them; or no user of the table is in the graph.
        """
        return edits.with_users(self, users)

    def without(self, users: Tensor | Sequence[Id]) -> FriendGraph:
        """Return the graph without some users, raw ids or [n] int64 indices, their events and friendships.

        The others are renumbered in the same order. Categories that only the removed users had stay as
        features, all 0, under another name; `num_self_loops` is 0.

        Raises:
            KeyError, IndexError: an unknown user, named.
            DataError: no event would be left.
        """
        return edits.without(self, as_indices(self, users))

    def validate(self, raise_on_error: bool = True) -> bool:
        """Check PyG's rules and those of friend graphs; with `raise_on_error=False`, return the result."""
        try:
            validate_graph(self)
            super().validate(raise_on_error=True)
        except (DataError, ValueError):
            if raise_on_error:
                raise
            return False
        return True

    def add_untimed(self, name: str, src: Iterable[Id], dst: Iterable[Id]) -> None:
        """Add untimed, undirected friendships between raw ids as an edge type of their own.

        Both directions of each pair are stored, without duplicates; self-loops are dropped.
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
        """Return a multigraph of raw ids whose edges have `time`, `action` and their other columns.

        Edges are added in the order of the log. Mutual ties follow from the events and are not added.
        """
        return to_networkx(self)

    @classmethod
    def from_networkx(cls, source: nx.Graph, *, roles: Mapping[str, str] | None = None) -> FriendGraph:
        """Build a graph from a directed (multi)graph with the edge attribute `time`.

        `action` and `weight` are optional.

        Further attributes of edges, numbers or lists of numbers such as `edge_attr`, become columns of their
        action. `roles` are those of `from_events`.

        Raises:
            DataError: the graph is undirected (its edges have no acting user), an edge has no time, or a
                further attribute is not made of numbers or not on all edges of an action.
        """
        content = read_networkx(source)
        graph = cls.from_events(content.log, content.users, roles=roles)
        for action, columns in content.columns.items():
            graph[USER, action, USER].update(columns)
        return graph

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
            graph = edits.impressions_apart(graph)
        except Exception as error:  # there is no end to the ways in which a damaged file fails
            raise DataError(f"{path}: not a graph that graphrec saved, or damaged ({error})") from None
        return graph

    def weights(self) -> Tensor | None:
        """Return the weights [E] float32 of all events, in the order of `events()`; None if there are none.

        Raises:
            DataError: some actions have weights, others none.
        """
        stores = [self[USER, name, USER] for name in self.actions]
        weighted = ["weight" in store for store in stores]
        if not any(weighted):
            return None
        if not all(weighted):
            raise DataError(f"the action {self.actions[weighted.index(False)]!r} has no 'weight', others do")
        weight = torch.empty(self.num_events)
        for store in stores:
            weight[store.event_id] = store.weight
        return weight

    def add_mutual_ties(self) -> None:
        """Derive the edge type ('user', 'friend', 'user') from the events, and replace any earlier one."""
        ties = standing_ties(self.events(), self.roles, self.num_users)
        self[USER, FRIEND, USER].update(dict(zip(("edge_index", "time"), ties, strict=True)))


def _join_ids(event_ids: UserIds, users: UserTable | None) -> tuple[UserIds, Tensor | None]:
    """The sorted ids of both inputs, and the new index of each id of the log; None if all are the same."""
    if users is None:
        return event_ids, None
    edits.forbid_strangers(event_ids, users, "events")
    ids = edits.union(event_ids.values, users.ids)
    return ids, ids.index(event_ids.values)


def _compact(value: Any) -> Any:
    """A copy whose tensors are not views into larger storage: a saved snapshot must not hold its future."""
    if isinstance(value, dict):
        return {key: _compact(item) for key, item in value.items()}
    return value.clone() if isinstance(value, Tensor) else value


def as_indices(graph: FriendGraph, users: Tensor | Sequence[Id]) -> Tensor:
    """Return user indices [n] int64: a tensor is taken as indices and checked, any other list as raw ids.

    Raises:
        KeyError, IndexError: an unknown user, named.
        TypeError: a single id in place of a list, or a value that is not an id.
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
