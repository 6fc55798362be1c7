"""Features of the history of a pair, just before a query."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import gap, query_pace, rank_forms, recency_rank
from graphrec.temporal import Contacts, Timeline, run_starts

NUM_PAIR_FEATURES = 15


def pair_features(timeline: Timeline, query: Query, contacts: Contacts) -> Tensor:
    """Gaps, counts, ranks, direction, pending replies, ages and rate of events of user and contact.

    Args:
        timeline: the index.
        query: B queries.
        contacts: M contacts of their users.

    Returns:
        [M, NUM_PAIR_FEATURES] float32.
    """
    time, pace = query.time[contacts.row], query_pace(timeline, query)[contacts.row]
    age = gap(time, timeline.first_contact_time(contacts.half_edge), pace)
    since = timeline.first_event_time(contacts.user, timeline.tick(time))
    pending = contacts.last_in > contacts.last_out  # the contact acted last
    turn = _chosen_before(pending, contacts.row).float()
    return torch.stack(
        [
            gap(time, contacts.last_out, pace),
            gap(time, contacts.last_in, pace),
            contacts.num_out.float().log1p(),
            contacts.num_in.float().log1p(),
            *rank_forms(contacts.rank),
            (contacts.last_out >= contacts.last_in).float(),
            (contacts.num_out > 0).float(),
            turn.log1p(),
            pending / (1.0 + turn),
            *rank_forms(recency_rank(contacts.last_out, contacts.row)),
            age,
            (contacts.num_out + contacts.num_in).float().log1p() / 10.0 - age,
            gap(time, since, pace),
        ],
        dim=1,
    )


def _chosen_before(chosen: Tensor, row: Tensor) -> Tensor:
    """How many chosen entries of the same row come before each entry: [M] int64."""
    before = chosen.long().cumsum(0) - chosen.long()
    return before - before[run_starts(row)]
