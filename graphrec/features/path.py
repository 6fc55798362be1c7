"""Features of the two-hop paths of a query, just before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import query_pace, scaled_gap, seconds_since
from graphrec.jit import kernel
from graphrec.temporal import Contacts, Neighborhood, Timeline, UserActivity

NUM_PATH_FEATURES = 14
HOP_FEATURES = 5
"""Features of each of the two hops, of which the first two are gaps."""


def path_features(
    timeline: Timeline, query: Query, around: Neighborhood, now: UserActivity, pace: Tensor | None = None
) -> Tensor:
    """Gaps, counts and recency ranks of both hops, degrees of bridge and end, gaps of the end.

    Args:
        timeline: the index.
        query: B queries.
        around: their neighborhoods, of M people on P paths.
        now: activity of the M people just before their queries.
        pace: [B], of `query_pace`; computed by default.

    Returns:
        [P, NUM_PATH_FEATURES] float32.
    """
    shapes = [(HOP_FEATURES, len(around.contacts)), (HOP_FEATURES, len(around.path_pair)), (3, len(around))]
    sizes = [height * width for height, width in shapes]
    log = torch.empty(sum(sizes))  # of each part once, though it may belong to many paths
    first, second, person = (part.view(shape) for part, shape in zip(log.split(sizes), shapes, strict=True))
    time, row, bridge = (
        query.time.contiguous().numpy(),
        around.contacts.row.numpy(),
        around.path_bridge.numpy(),
    )
    _gather(time, row, around.contacts, first)
    _gather(time, row[bridge], around.path_pair, second)
    gather_people(
        time,
        around.row.numpy(),
        now.last_received.contiguous().numpy(),
        now.last_act.contiguous().numpy(),
        now.degree.contiguous().numpy(),
        person.numpy(),
    )
    log.log1p_()
    out = torch.empty(len(around.path_pair), NUM_PATH_FEATURES)
    write_paths(
        first.numpy(),
        second.numpy(),
        person.numpy(),
        (query_pace(timeline, query) if pace is None else pace).numpy(),
        row,
        bridge,
        around.contact_position.numpy(),
        around.path_end.numpy(),
        out.numpy(),
    )
    return out


def _gather(time: np.ndarray, row: np.ndarray, hops: Contacts, log: Tensor) -> None:
    """Call `gather_hops` with the columns of pairs."""
    gather_hops(
        time,
        row,
        hops.last_out.contiguous().numpy(),
        hops.last_in.contiguous().numpy(),
        hops.num_out.contiguous().numpy(),
        hops.num_in.contiguous().numpy(),
        hops.rank.contiguous().numpy(),
        log.numpy(),
    )


@kernel
def gather_hops(
    time: np.ndarray,
    row: np.ndarray,
    last_out: np.ndarray,
    last_in: np.ndarray,
    num_out: np.ndarray,
    num_in: np.ndarray,
    rank: np.ndarray,
    log: np.ndarray,
) -> None:
    """Fill the numbers of M hops whose logarithms are features: seconds, counts, rank.

    Args:
        time: [B] int64 seconds, of the queries.
        row: [M], the query of each hop.
        last_out: of `Contacts`, [M] like the next four.
        last_in: of `Contacts`.
        num_out: of `Contacts`.
        num_in: of `Contacts`.
        rank: of `Contacts`.
        log: [HOP_FEATURES, M] float32, filled.
    """
    for m in range(len(row)):
        moment = time[row[m]]
        log[0, m], log[1, m] = seconds_since(moment, last_out[m]), seconds_since(moment, last_in[m])
        log[2, m], log[3, m], log[4, m] = num_out[m], num_in[m], rank[m]


@kernel
def gather_people(
    time: np.ndarray,
    row: np.ndarray,
    last_received: np.ndarray,
    last_act: np.ndarray,
    degree: np.ndarray,
    log: np.ndarray,
) -> None:
    """Fill the numbers of M people whose logarithms are features: seconds, degree.

    Args:
        time: [B] int64 seconds, of the queries.
        row: [M], the query of each person.
        last_received: of `UserActivity`, [M] like the next two.
        last_act: of `UserActivity`.
        degree: of `UserActivity`.
        log: [3, M] float32, filled.
    """
    for m in range(len(row)):
        moment = time[row[m]]
        log[0, m], log[1, m] = seconds_since(moment, last_received[m]), seconds_since(moment, last_act[m])
        log[2, m] = degree[m]


@kernel
def write_paths(
    first: np.ndarray,
    second: np.ndarray,
    person: np.ndarray,
    pace: np.ndarray,
    row: np.ndarray,
    bridge: np.ndarray,
    contact_position: np.ndarray,
    end: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the features of paths from logarithms of their parts.

    Args:
        first: [HOP_FEATURES, C], log1p of the numbers of `gather_hops`, of the contacts.
        second: [HOP_FEATURES, P], the same of the paths' second hops.
        person: [3, M], log1p of the numbers of `gather_people`.
        pace: [B] float32, of `query_pace`.
        row: [C], the query of each contact.
        bridge: [P], the contact of each path.
        contact_position: [C], the position of each contact among the people.
        end: [P], the position of each path's end among the people.
        out: [P, NUM_PATH_FEATURES] float32, filled.
    """
    for p in range(len(bridge)):
        contact, own_pace = bridge[p], pace[row[bridge[p]]]
        for i in range(2):
            out[p, i] = scaled_gap(first[i, contact], own_pace)
            out[p, HOP_FEATURES + i] = scaled_gap(second[i, p], own_pace)
        for i in range(2, HOP_FEATURES):
            out[p, i], out[p, HOP_FEATURES + i] = first[i, contact], second[i, p]
        out[p, 10], out[p, 11] = person[2, contact_position[contact]], person[2, end[p]]
        out[p, 12], out[p, 13] = (
            scaled_gap(person[0, end[p]], own_pace),
            scaled_gap(person[1, end[p]], own_pace),
        )
