"""The neighborhood of a query: contacts, contacts of contacts, and recently active users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphrec.data.checks import check_count
from graphrec.temporal.contacts import Contacts
from graphrec.temporal.neighbor_lists import list_neighbors
from graphrec.temporal.timeline import Timeline


@dataclass(frozen=True)
class NeighborhoodConfig:
    """How far the neighborhood of a query reaches.

    Attributes:
        max_contacts: latest distinct contacts of the user.
        contact_window: half-edges of the user looked back on for them.
        max_bridges: latest of these contacts, the bridges, that lead to contacts of contacts.
        max_per_bridge: latest distinct contacts of each bridge.
        bridge_window: half-edges of a bridge looked back on for them.
        max_recent: users last active anywhere in the network.
        recent_window: half-edges of the network looked back on for them.

    Raises:
        TypeError: a value is not a whole number.
        ValueError: a value is less than 1, or less than 0 for `max_bridges` and `recent_window`.
    """

    max_contacts: int = 64
    contact_window: int = 256
    max_bridges: int = 32
    max_per_bridge: int = 24
    bridge_window: int = 48
    max_recent: int = 256
    recent_window: int = 1024

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            minimum = 0 if name in ("max_bridges", "recent_window") else 1
            object.__setattr__(self, name, check_count(name, value, minimum=minimum))


@dataclass(frozen=True)
class Neighborhood:
    """The M distinct neighbors of B queries, never the queries' own users, and the paths to them.

    Attributes:
        row: [M] int64, the query of each neighbor, ascending.
        user: [M] int64 user indices.
        contacts: the neighbors that are contacts, C of them.
        contact_position: [C] int64, their positions among the M neighbors.
        path_bridge: [P] int64, for each path of two hops the position of its bridge among the C contacts.
        path_pair: for each path the pair of its bridge and its end, [P]; its `row` is not a query.
        path_end: [P] int64, the positions of the paths' ends among the M neighbors.
        recent_position: [R] int64, the positions of the recently active users that are not contacts.
    """

    row: Tensor
    user: Tensor
    contacts: Contacts
    contact_position: Tensor
    path_bridge: Tensor
    path_pair: Contacts
    path_end: Tensor
    recent_position: Tensor

    @classmethod
    def of(cls, timeline: Timeline, user: Tensor, tick: Tensor, config: NeighborhoodConfig) -> Neighborhood:
        """Find the neighbors of users [B] int64 from events strictly before ticks [B] int64."""
        columns, events = timeline.columns, timeline.events
        contacts, num_contacts, paths, num_paths, recent, num_recent, union, size = list_neighbors(
            columns.half_edges,
            columns.pair,
            timeline.instants.numpy(),
            events.src.numpy(),
            events.dst.numpy(),
            timeline.event_tick.numpy(),
            timeline.following,
            timeline.removed,
            user.contiguous().numpy(),
            tick.contiguous().numpy(),
            np.array(tuple(vars(config).values()), np.int64),
        )
        row, people = torch.from_numpy(union)[:, :size]
        *contact, contact_position = torch.from_numpy(contacts)[:, :num_contacts]
        *pair, bridge, end = torch.from_numpy(paths)[:, :num_paths]
        return cls(
            row=row,
            user=people,
            contacts=Contacts(*contact),
            contact_position=contact_position,
            path_bridge=bridge,
            path_pair=Contacts(*pair),
            path_end=end,
            recent_position=torch.from_numpy(recent)[0, :num_recent],
        )

    def to(self, device: torch.device) -> Neighborhood:
        """Return the same neighborhoods on a device."""
        return Neighborhood(**{name: value.to(device) for name, value in vars(self).items()})

    def __len__(self) -> int:
        return self.row.size(0)
