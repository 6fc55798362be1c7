"""Edited copies of a graph: fewer or more events, fewer or more users."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import torch
from torch import Tensor

from graphrec.data.checks import check_kind
from graphrec.data.columns import EVENT_COLUMNS, edge_columns, node_columns, plain_values, select_edges
from graphrec.data.errors import DataError
from graphrec.data.events import EventLog
from graphrec.data.ids import UserIds, plain_ids
from graphrec.data.impressions import impression_columns, joined_impressions, known_impressions
from graphrec.data.known_features import encode_as
from graphrec.data.roles import Roles
from graphrec.data.users import CATEGORY_SEPARATOR, UserTable, forget_category, unknown_features

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph


_FRIEND = ("user", "friend", "user")


def before(graph: FriendGraph, time: int) -> FriendGraph:
    """See `FriendGraph.snapshot`."""
    past = _with_users_of(graph)
    people = past["user"]
    if "join_time" in people:
        people.join_time = torch.where(people.join_time < time, people.join_time, -1)
    for edge_type, store in graph.edge_items():
        if "time" in store:
            size = int(torch.searchsorted(store.time, time))
            for key, value in edge_columns(store).items():
                past[edge_type][key] = value.narrow(1 if key == "edge_index" else 0, 0, size)
            past[edge_type].update(plain_values(store, edge_columns(store)))
    if graph.roles.ends_ties and (_FRIEND in past.edge_types):
        forbid_tie_columns(past)
        past.add_mutual_ties()  # also those that end later
    return past


def with_roles(graph: FriendGraph, roles: Mapping[str, str]) -> FriendGraph:
    """See `FriendGraph.with_roles`."""
    found = Roles.of(graph.actions, {**graph.roles.overrides(), **roles})
    out = copy.copy(graph)
    out.action_roles = found.overrides()
    forbid_tie_columns(out)
    out.add_mutual_ties()
    return impressions_apart(out)


def impressions_apart(graph: FriendGraph) -> FriendGraph:
    """Return a graph without impressions among its events: they become edge types of their own."""
    shown = graph.roles.having("impression")
    if not bool(shown.any()):
        return graph
    kept = ~shown[graph.events().action]
    if not bool(kept.any()):
        raise DataError("every event is an impression; a graph needs acts too")
    out = select_events(graph, kept)
    for edge_type, store in graph.edge_items():
        name = edge_type[1]
        if "event_id" not in store and edge_type != _FRIEND:
            out[edge_type].update(dict(store.items()))
        elif name in graph.actions and bool(shown[graph.actions.index(name)]):
            del out[edge_type]
            out[edge_type].update({key: value for key, value in store.items() if key != "event_id"})
    return out


def select_actions(graph: FriendGraph, actions: Sequence[str]) -> FriendGraph:
    """See `FriendGraph.select_actions`."""
    if not len(actions) or isinstance(actions, str):
        raise ValueError(f"actions must be a list of at least one action, got {actions!r}")
    known = graph.actions
    for name in actions:
        if name not in known:
            raise KeyError(f"unknown action {name!r}; the graph's actions are {', '.join(known)}")
    out = _with_users_of(graph)
    kept = torch.cat([graph["user", name, "user"].event_id for name in dict.fromkeys(actions)]).sort().values
    for name in dict.fromkeys(actions):
        store = graph["user", name, "user"]
        out["user", name, "user"].update(plain_values(store, {}))
        out["user", name, "user"].event_id = torch.searchsorted(kept, store.event_id)
    forbid_tie_columns(graph)
    out.add_mutual_ties()
    return out


def select_events(graph: FriendGraph, kept: Tensor) -> FriendGraph:
    """See `FriendGraph.select_events`."""
    if kept.shape != (graph.num_events,) or kept.dtype != torch.bool:
        raise ValueError(f"kept must be [{graph.num_events}] bool, got {list(kept.shape)} {kept.dtype}")
    out = _with_users_of(graph)
    _copy_events(graph, out, kept)
    forbid_tie_columns(graph)
    out.add_mutual_ties()
    return out


def with_events(graph: FriendGraph, log: EventLog) -> FriendGraph:
    """See `FriendGraph.with_events`."""
    check_kind("log", log, EventLog)
    log, shown = known_impressions(graph, log)
    added = torch.bincount(log.action, minlength=len(log.actions)).tolist()
    code_of = {name: code for code, name in enumerate(graph.actions)}
    for name, size in zip(log.actions, added, strict=True):
        if name not in code_of:
            known = ", ".join(code_of)
            raise DataError(f"the new events have an action {name!r}; the graph's actions are {known}")
        extra = [key for key in edge_columns(graph["user", name, "user"]) if key not in EVENT_COLUMNS]
        if size and extra:
            raise DataError(
                f"the action {name!r} has {extra[0]!r} for each event, the new ones none: build the graph "
                f"anew from all events, or remove it: del graph['user', {name!r}, 'user'].{extra[0]}"
            )
    forbid_tie_columns(graph)
    old, weight = graph.events(), graph.weights()
    if (weight is None) != (log.weight is None):
        raise DataError("either both the graph's events and the new ones have weights, or neither")
    ids = union(graph.user_ids.values, log.user_ids.values)
    ours, theirs = ids.find(graph.user_ids.values), ids.find(log.user_ids.values)
    code = torch.tensor([code_of[name] for name in log.actions], dtype=torch.int64)
    time = torch.cat([old.time, log.time])
    order = time.argsort(stable=True)
    joined = EventLog(
        src=torch.cat([ours[old.src], theirs[log.src]])[order],
        dst=torch.cat([ours[old.dst], theirs[log.dst]])[order],
        time=time[order],
        action=torch.cat([old.action, code[log.action]])[order],
        actions=graph.actions,
        user_ids=ids,
        weight=None if weight is None or log.weight is None else torch.cat([weight, log.weight])[order],
        num_self_loops=graph._global_store.get("num_self_loops", 0) + log.num_self_loops,
    )
    out = graph.from_events(joined, roles=graph.roles.overrides())
    out.__dict__["_global_store"].update(graph._global_store)
    out.num_self_loops = joined.num_self_loops
    _copy_people(graph, out, ours)
    for edge_type, store in graph.edge_items():
        columns = edge_columns(store)
        if "event_id" not in store and edge_type != _FRIEND:
            columns = columns | {"edge_index": ours[store.edge_index]}
            out[edge_type].update(columns)
        else:
            out[edge_type].update({key: value for key, value in columns.items() if key not in EVENT_COLUMNS})
        out[edge_type].update(plain_values(store, columns))
    for name, more in shown.items():
        store = out["user", name, "user"]
        store.update(joined_impressions(dict(store.items()), impression_columns(more, theirs)))
    return out


def with_users(graph: FriendGraph, users: UserTable) -> FriendGraph:
    """See `FriendGraph.with_users`."""
    check_kind("users", users, UserTable)
    forbid_strangers(graph.user_ids, users, "graph")
    people = graph["user"]
    if users.join_time is not None and "join_time" not in people:
        raise DataError(f"{users.where}: has join times, the graph has none; fit anew to use them")
    x = _features_of(graph, users)
    ids = union(graph.user_ids.values, users.ids)
    ours, theirs = ids.find(graph.user_ids.values), ids.find(users.ids)
    out = type(graph)()
    out.__dict__["_global_store"].update(graph._global_store)
    out["user"].num_nodes, out["user"].raw_id = len(ids), ids.raw
    _copy_people(graph, out, ours)
    if x is not None:
        out["user"].x[theirs] = x.to(out["user"].x)
    if users.join_time is not None:
        known = users.join_time >= 0
        out["user"].join_time[theirs[known]] = users.join_time[known]
    for edge_type, store in graph.edge_items():
        out[edge_type].update(dict(store.items()) | {"edge_index": ours[store.edge_index]})
    return out


def without(graph: FriendGraph, gone: Tensor) -> FriendGraph:
    """See `FriendGraph.without`; [n] int64 indices."""
    stays = torch.ones(graph.num_users, dtype=torch.bool)
    stays[gone] = False
    old = graph.events()
    kept = stays[old.src] & stays[old.dst]
    if not bool(kept.any()):
        raise DataError(f"without these {int((~stays).sum()):,} users no event would be left")
    out = type(graph)()
    out.__dict__["_global_store"].update(graph._global_store)
    out.num_self_loops = 0  # their users are not known
    people, columns = graph["user"], node_columns(graph["user"])
    out["user"].update(plain_values(people, columns))
    out["user"].update({key: value[stays] for key, value in columns.items()})
    out["user"].num_nodes = int(stays.sum())
    out["user"].raw_id = UserIds(people.raw_id[stays]).narrowed().raw
    if "x" in people and "feature_names" in graph._global_store:
        held = people.x[~stays].any(0) & ~out["user"].x.any(0)
        out.feature_names = [
            forget_category(name, column) if lost and CATEGORY_SEPARATOR in name else name
            for column, (name, lost) in enumerate(zip(graph.feature_names, held.tolist(), strict=True))
        ]
    _copy_events(graph, out, kept)
    for edge_type, store in graph.edge_items():
        if "event_id" not in store:
            edges = select_edges(store, stays[store.edge_index].all(0))
            out[edge_type].update(edges)
    number = stays.cumsum(0) - 1
    for store in out.edge_stores:
        store.edge_index = number[store.edge_index]
    return out


def forbid_strangers(ids: UserIds, users: UserTable, what: str) -> None:
    """Raise DataError if no user of a table is known: the ids are then written differently."""
    if len(users.ids) and not bool((ids.find(users.ids) >= 0).any()):
        raise DataError(
            f"none of the {len(users.ids):,} users given is in the {what}: these have ids such as "
            f"{ids.values[0].as_py()!r}, the users {users.ids[0].as_py()!r}; ids must be written alike"
        )


def union(ours: pa.Array, theirs: pa.Array) -> UserIds:
    """Return the sorted union of two arrays of ids."""
    if ours.type != theirs.type:
        ours, theirs = ours.cast(pa.string()), theirs.cast(pa.string())
    return UserIds.from_values(plain_ids(pa.chunked_array([ours, theirs]).unique()).sort())


def _features_of(graph: FriendGraph, users: UserTable) -> Tensor | None:
    """Features [n, F] of a table's users in the columns of a graph; None if the table has no feature."""
    names = tuple(graph._global_store.get("feature_names", ()))
    if users.columns is not None:
        return encode_as(users.columns, names, users.where) if users.columns.num_columns else None
    if users.x.size(1) == 0 or users.feature_names == names:
        return users.x if users.x.size(1) else None
    raise DataError(
        f"{users.where}: the features are not those of the graph, {', '.join(names) or 'which has none'}"
    )


def _with_users_of(graph: FriendGraph) -> FriendGraph:
    """A graph with the same users and no edges."""
    out = type(graph)()
    out.__dict__["_global_store"].update(graph._global_store)
    out["user"].update(graph["user"])
    return out


def _copy_events(graph: FriendGraph, out: FriendGraph, kept: Tensor) -> None:
    """Copy the events in a mask [E] bool, with all their columns, to `out`, and renumber them."""
    number = kept.cumsum(0) - 1
    for name in graph.actions:
        store = graph["user", name, "user"]
        out["user", name, "user"].update(select_edges(store, kept[store.event_id]))
        out["user", name, "user"].event_id = number[out["user", name, "user"].event_id]


def _copy_people(graph: FriendGraph, out: FriendGraph, place: Tensor) -> None:
    """Copy the attributes of the users of `graph` to `out`, where their indices are `place` [N] int64."""
    people, size = graph["user"], out.num_users
    columns = node_columns(people)
    for key, value in columns.items():
        if key == "raw_id":
            continue
        rows = value.new_zeros(size, *value.shape[1:])
        if key == "x" and "feature_names" in graph._global_store:
            rows += unknown_features(graph.feature_names).to(rows)
        elif key == "join_time":
            rows -= 1
        elif key != "x" and size > len(place):
            raise DataError(f"the new users have no {key!r}, which the graph has for each user")
        rows[place] = value
        out["user"][key] = rows
    out["user"].update({k: v for k, v in plain_values(people, columns).items() if k != "num_nodes"})


def forbid_tie_columns(graph: FriendGraph) -> None:
    """Raise DataError if mutual ties have columns of their own: ties are derived again, without them."""
    if ("user", "friend", "user") in graph.edge_types:
        extra = [key for key in graph["user", "friend", "user"] if key not in ("edge_index", "time")]
        if extra:
            raise DataError(
                f"the derived edge type 'friend' has {extra[0]!r}, which would be lost: keep it on an "
                "action, or on untimed friendships (`add_untimed`)"
            )
