"""The people around a query: contacts, contacts of contacts, and whoever was seen lately."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data.checks import check_counts
from graphrec.temporal.contacts import Contacts
from graphrec.temporal.ragged import run_starts
from graphrec.temporal.timeline import Timeline


@dataclass(frozen=True)
class Reach:
    """How far a neighbourhood reaches.

    Attributes:
        contacts: people a query's user was last in touch with, at most so many.
        contact_window: half-edges looked back on for them.
        middles: how many of them lead on to others.
        ends: contacts of each of these.
        end_window: half-edges looked back on for them.
        recent: people last seen anywhere in the network.
        recent_window: ends of events looked back on for them.
    """

    contacts: int = 64
    contact_window: int = 256
    middles: int = 32
    ends: int = 24
    end_window: int = 48
    recent: int = 256
    recent_window: int = 1024

    def __post_init__(self) -> None:
        check_counts(contacts=self.contacts, contact_window=self.contact_window)
        check_counts(ends=self.ends, end_window=self.end_window, recent=self.recent)
        check_counts(minimum=0, middles=self.middles, recent_window=self.recent_window)


@dataclass(frozen=True)
class Neighborhood:
    """The distinct people around B queries, never the asking user, and how each was found.

    Attributes:
        row, user: [M] int64, the people of all rows, rows together.
        contacts: Mc contacts; `contact` [Mc] int64 is where they are among the M.
        first: [P] int64, for each two-hop path the contact it leads through.
        second: [P] the contact between its middle and its end; `Contacts.row` is not a query here.
        end: [P] int64, where a path's end is among the M.
        recent: [R] int64, where people seen lately who are no contacts are among the M.
    """

    row: Tensor
    user: Tensor
    contacts: Contacts
    contact: Tensor
    first: Tensor
    second: Contacts
    end: Tensor
    recent: Tensor

    @classmethod
    def of(cls, timeline: Timeline, user: Tensor, tick: Tensor, reach: Reach) -> Neighborhood:
        """Look around queries of users [B] at ticks [B], strictly before them."""
        num_users = timeline.num_users
        contacts = timeline.distinct_contacts(user, tick, k=reach.contacts, window=reach.contact_window)
        place = torch.arange(len(contacts)) - run_starts(contacts.row)
        middle = (place < reach.middles).nonzero().squeeze(1)
        second = timeline.distinct_contacts(
            contacts.user[middle], tick[contacts.row[middle]], k=reach.ends, window=reach.end_window
        )
        first = middle[second.row]
        path_row = contacts.row[first]
        onward = second.user != user[path_row]
        first, path_row, second = first[onward], path_row[onward], second.select(onward)

        row, seen = timeline.recently_seen(tick, k=reach.recent, window=reach.recent_window)
        contact_key = contacts.row * num_users + contacts.user
        key = (row * num_users + seen)[seen != user[row]]
        key = key[~torch.isin(key, contact_key)]

        path_key = path_row * num_users + second.user
        union, at = torch.unique(torch.cat([contact_key, path_key, key]), return_inverse=True)
        contact, end, recent = at.split([len(contact_key), len(path_key), len(key)])
        return cls(
            row=union // num_users,
            user=union % num_users,
            contacts=contacts,
            contact=contact,
            first=first,
            second=second,
            end=end,
            recent=recent,
        )

    def to(self, device: torch.device) -> Neighborhood:
        """The same people on a device."""
        return Neighborhood(**{name: value.to(device) for name, value in vars(self).items()})

    def __len__(self) -> int:
        return self.row.size(0)
