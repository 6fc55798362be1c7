"""Features of the neighbors of a query, just before it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features.gaps import ACTIVITY_WINDOWS, query_pace, seconds_since, write_columns
from graphrec.jit import int64, kernel
from graphrec.temporal import Neighborhood, SpectralQuery, Timeline, UserActivity
from graphrec.temporal.columns import HalfEdges, end_before
from graphrec.temporal.removed import look_back, num_left
from graphrec.temporal.sorting import rank_latest

NUM_PERSON_FEATURES = 19
UNRANKED = 1024
"""The rank of people who are not in the list that is ranked."""

LOGS = np.array([0, 1, 5, 2, 3, 4, 6, 7, 8, 9, 10, 12, 14, 16, 17])
"""Features that are logarithms, in the order in which `gather_people` fills the numbers; first the gaps."""

NUM_GAPS = 3
FIRST_RANK, FIRST_SUM = 10, 13
"""Places in `LOGS`: of three ranks, of two sums over paths."""

COSINE = 18


def person_features(
    timeline: Timeline,
    query: Query,
    around: Neighborhood,
    now: UserActivity,
    spectral: SpectralQuery | None = None,
    pace: Tensor | None = None,
) -> Tensor:
    """Gaps, counts, age, recent activity, ranks among recently active people, common contacts.

    Args:
        timeline: the index.
        query: B queries.
        around: their neighborhoods, of M people.
        now: activity of the M people just before their queries.
        spectral: spectral embeddings of the users, for the cosine of user and person; 0 without.
        pace: [B], of `query_pace`; computed by default.

    Returns:
        [M, NUM_PERSON_FEATURES] float32.
    """
    out, log = torch.empty(len(around), NUM_PERSON_FEATURES), torch.empty(len(LOGS), len(around))
    time, row = query.time.contiguous(), around.row.numpy()
    last_act, last_received = now.last_act.contiguous().numpy(), now.last_received.contiguous().numpy()
    gather_people(
        timeline.columns.half_edges,
        timeline.instants.numpy(),
        timeline.event_tick.numpy(),
        timeline.removed,
        time.numpy(),
        timeline.tick(time).numpy(),
        row,
        around.user.numpy(),
        now.num_acts.contiguous().numpy(),
        now.num_received.contiguous().numpy(),
        now.degree.contiguous().numpy(),
        last_act,
        last_received,
        log.numpy(),
    )
    recent = around.recent_position.numpy()
    rank_recent(row, last_act, last_received, recent, log[FIRST_RANK:].numpy(), out.numpy())
    middle = now.degree[around.contact_position].float()
    weight = 1.0 / middle.clamp_(min=2.0).log_()
    sum_paths(weight.numpy(), around.path_bridge.numpy(), around.path_end.numpy(), log[FIRST_SUM:].numpy())
    pace = query_pace(timeline, query) if pace is None else pace
    write_columns(log.log1p_().numpy(), NUM_GAPS, row, pace.numpy(), LOGS, out.numpy())
    out[:, COSINE] = 0.0 if spectral is None else spectral.cosine(around.row, around.user)
    return out


@kernel
def gather_people(
    half: HalfEdges,
    instants: np.ndarray,
    event_tick: np.ndarray,
    removed: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    row: np.ndarray,
    user: np.ndarray,
    num_acts: np.ndarray,
    num_received: np.ndarray,
    degree: np.ndarray,
    last_act: np.ndarray,
    last_received: np.ndarray,
    log: np.ndarray,
) -> None:
    """Fill gaps, counts and counts since `ACTIVITY_WINDOWS` of events ago, of people before their queries.

    Args:
        half: the timelines.
        instants: [T] int64 seconds, the distinct times.
        event_tick: [E], of the events.
        removed: [R] int64, ascending positions of removed events.
        time: [B] int64 seconds, of the queries.
        tick: [B], of the queries.
        row: [M], the query of each person.
        user: [M].
        num_acts: of `UserActivity`, [M] like the next four.
        num_received: of `UserActivity`.
        degree: of `UserActivity`.
        last_act: of `UserActivity`.
        last_received: of `UserActivity`.
        log: [10 or more, M] float32, filled with numbers in the order of `LOGS`.
    """
    start, length, half_tick, half_acts = half.start, half.length, half.tick, half.num_acts
    since = np.zeros(2, np.int64)
    for m in range(len(row)):
        if m == 0 or row[m] != row[m - 1]:
            seen = end_before(int64(0), len(event_tick), event_tick, tick[row[m]])
            for i in range(2):
                since[i] = 0
                if num_left(removed, seen):
                    since[i] = event_tick[look_back(removed, seen, ACTIVITY_WINDOWS[i])]
        moment, begin = time[row[m]], start[user[m]]
        log[0, m], log[1, m] = seconds_since(moment, last_act[m]), seconds_since(moment, last_received[m])
        log[2, m] = np.float32(-1)
        log[3, m], log[4, m], log[5, m] = num_acts[m], num_received[m], degree[m]
        if length[user[m]] and half_tick[begin] < tick[row[m]]:
            log[2, m] = seconds_since(moment, instants[half_tick[begin]])
        # Few events are as late as so long ago: they are found from the last one back.
        high = begin + num_acts[m] + num_received[m]
        for i in range(2):
            low, step = begin, 1
            while high > begin:
                probe = max(begin, high - step)
                if half_tick[probe] < since[i]:
                    low = probe
                    break
                high, step = probe, 2 * step
            high = end_before(low, high - low, half_tick, since[i])
            acts_then = half_acts[high - 1] if high > begin else 0
            log[6 + i, m] = num_received[m] - (high - begin - acts_then)
            log[8 + i, m] = num_acts[m] - acts_then


@kernel
def rank_recent(
    row: np.ndarray,
    last_act: np.ndarray,
    last_received: np.ndarray,
    recent: np.ndarray,
    log: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the ranks of people among the recently active ones: by last event, act, and act received.

    Args:
        row: [M], the query of each person, ascending.
        last_act: of `UserActivity`, [M].
        last_received: of `UserActivity`, [M].
        recent: [R], positions of recently active people, those of a row together.
        log: [3 or more, M] float32, filled with ranks; `UNRANKED` where not recently active.
        out: [M, NUM_PERSON_FEATURES] float32; 1 / (1 + rank) is filled beside each logarithm.
    """
    one = np.float32(1)
    for i in range(3):
        for m in range(len(row)):
            log[i, m], out[m, 11 + 2 * i] = UNRANKED, one / np.float32(1 + UNRANKED)
    time, rank = np.empty((3, len(recent)), np.int64), np.empty((3, len(recent)), np.int64)
    first = 0
    for place in range(len(recent)):
        at = recent[place]
        time[0, place] = max(last_act[at], last_received[at])
        time[1, place], time[2, place] = last_act[at], last_received[at]
        if place + 1 < len(recent) and row[recent[place + 1]] == row[at]:
            continue
        for i in range(3):
            rank_latest(time[i, first : place + 1], rank[i, first : place + 1])
            for ranked in range(first, place + 1):
                m = recent[ranked]
                log[i, m], out[m, 11 + 2 * i] = rank[i, ranked], one / (one + np.float32(rank[i, ranked]))
        first = place + 1


@kernel
def sum_paths(weight: np.ndarray, bridge: np.ndarray, end: np.ndarray, log: np.ndarray) -> None:
    """Sum weights of bridges, and count bridges, over the paths to each person.

    Args:
        weight: [C] float32, of the contacts.
        bridge: [P], the contact of each path.
        end: [P], the person at each path's end.
        log: [2, M] float32, filled with sums and counts.
    """
    log[:] = np.float32(0)
    for p in range(len(bridge)):
        log[0, end[p]] += weight[bridge[p]]
        log[1, end[p]] += np.float32(1)
