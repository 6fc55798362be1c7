"""The neighborhood by tensor operations, to read and to compare with."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.temporal import Neighborhood, NeighborhoodConfig, Timeline, run_starts


def readable_neighborhood(
    timeline: Timeline, user: Tensor, tick: Tensor, config: NeighborhoodConfig
) -> Neighborhood:
    """The neighbors of users [B] int64 from events strictly before ticks [B] int64."""
    num_users = timeline.num_users
    contacts = timeline.distinct_contacts(user, tick, k=config.max_contacts, window=config.contact_window)
    place = torch.arange(len(contacts)) - run_starts(contacts.row)
    bridge = (place < config.max_bridges).nonzero().squeeze(1)
    pair = timeline.distinct_contacts(
        contacts.user[bridge],
        tick[contacts.row[bridge]],
        k=config.max_per_bridge,
        window=config.bridge_window,
    )
    path_bridge = bridge[pair.row]
    path_row = contacts.row[path_bridge]
    onward = pair.user != user[path_row]
    path_bridge, path_row, pair = path_bridge[onward], path_row[onward], pair.select(onward)

    row, seen = timeline.recently_seen(tick, k=config.max_recent, window=config.recent_window)
    contact_key = contacts.row * num_users + contacts.user
    key = (row * num_users + seen)[seen != user[row]]
    key = key[~torch.isin(key, contact_key)]

    path_key = path_row * num_users + pair.user
    union, at = torch.unique(torch.cat([contact_key, path_key, key]), return_inverse=True)
    contact, end, recent = at.split([len(contact_key), len(path_key), len(key)])
    return Neighborhood(
        row=union // num_users,
        user=union % num_users,
        contacts=contacts,
        contact_position=contact,
        path_bridge=path_bridge,
        path_pair=pair,
        path_end=end,
        recent_position=recent,
    )
