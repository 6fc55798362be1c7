"""Impressions: rows of a log that say who was shown to whom, kept apart from its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphrec.data.events import DERIVED_ACTION, EventLog
from graphrec.data.roles import Roles

if TYPE_CHECKING:
    from graphrec.data.graph import FriendGraph


def split_impressions(log: EventLog, roles: Roles) -> tuple[EventLog, dict[str, EventLog]]:
    """Split a log into its events and the impressions of each action; users and their indices stay."""
    shown = roles.having("impression")
    if not bool(shown.any()):
        return log, {}
    codes = torch.arange(len(shown))
    own = {log.actions[code]: _of_actions(log, codes == code) for code in shown.nonzero().flatten().tolist()}
    return _of_actions(log, ~shown), own


def known_impressions(graph: FriendGraph, log: EventLog) -> tuple[EventLog, dict[str, EventLog]]:
    """Split a log into its events and those impressions that a graph has an edge type of, by name."""
    known = [name for name in graph.impressions if name in log.actions]
    roles = dict.fromkeys(log.actions, "ordinary") | dict.fromkeys(known, "impression")
    return split_impressions(log, Roles.of(log.actions, roles)) if known else (log, {})


def _of_actions(log: EventLog, kept: Tensor) -> EventLog:
    """The rows of the actions in a mask [A] bool, whose indices are numbered anew."""
    rows, number = kept[log.action], kept.cumsum(0) - 1
    return replace(
        log,
        src=log.src[rows],
        dst=log.dst[rows],
        time=log.time[rows],
        action=number[log.action[rows]],
        actions=tuple(name for name, keep in zip(log.actions, kept.tolist(), strict=True) if keep),
        weight=None if log.weight is None else log.weight[rows],
    )


def impression_names(graph: FriendGraph) -> tuple[str, ...]:
    """Names of the edge types of impressions: timed, without events, and not derived."""
    return tuple(
        name
        for (_, name, _), store in graph.edge_items()
        if "time" in store and "event_id" not in store and name != DERIVED_ACTION
    )


def impression_columns(log: EventLog, index: Tensor) -> dict[str, Tensor]:
    """Columns of the edge type of impressions, for users whose new indices are `index` [n] int64."""
    out = {"edge_index": torch.stack([index[log.src], index[log.dst]]), "time": log.time}
    return out if log.weight is None else out | {"weight": log.weight}


def joined_impressions(old: Mapping[str, Any], new: Mapping[str, Tensor]) -> dict[str, Any]:
    """Columns of impressions and later or earlier ones, in order of time."""
    order = torch.cat([old["time"], new["time"]]).argsort(stable=True)
    out = {key: value for key, value in old.items() if key not in new}
    for key, value in new.items():
        both = torch.cat([old[key], value], dim=-1)
        out[key] = both[..., order]
    return out
