"""A kernel that gathers the activity of the users who share a code prefix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from graphrec.features.gaps import seconds_since
from graphrec.jit import kernel
from graphrec.temporal import NEVER
from graphrec.temporal.columns import HalfEdges, end_before
from graphrec.temporal.group_activity import GroupColumns
from graphrec.temporal.popularity import DecayedColumns
from graphrec.temporal.sorting import stable_order


class NodeColumns(NamedTuple):
    """What is known of the nodes of a `Forest`.

    Attributes:
        group: [num_nodes] int64, the group of each node in `GroupActivity`, or -1 for a leaf.
        first_user: [num_nodes] int64, the first user below each node.
        log_size: [num_nodes] float32, log of the number of users below each node.
    """

    group: np.ndarray
    first_user: np.ndarray
    log_size: np.ndarray


class ActivityColumns(NamedTuple):
    """Activity of users and groups before any time, and the nodes that they belong to.

    Attributes:
        half: the timelines.
        instants: [T] int64 seconds, the distinct times.
        groups: acts of groups.
        of_groups: acts received by groups, decayed.
        of_users: acts received by users, decayed.
        nodes: of the forest.
    """

    half: HalfEdges
    instants: np.ndarray
    groups: GroupColumns
    of_groups: DecayedColumns
    of_users: DecayedColumns
    nodes: NodeColumns


@kernel
def gather_children(
    columns: ActivityColumns,
    node: np.ndarray,
    moment: np.ndarray,
    time: np.ndarray,
    tick: np.ndarray,
    log: np.ndarray,
    popularity: np.ndarray,
    out: np.ndarray,
) -> bool:
    """Fill what `prefix_features` is made of, for nodes before moments; of a leaf that of its first user.

    Args:
        columns: activity of users and groups.
        node: [n] int64.
        moment: [n] int64, the moment of each.
        time: [M] int64 seconds, of moments.
        tick: [M] int64, the same as ticks.
        log: [4, n] float32, filled with seconds since the last act and the last act received, or -1 if never,
            and numbers of acts and acts received.
        popularity: [n] float64, filled.
        out: [n, 7] float32, filled with the logarithm of the size and, for the cosine, 0.

    Returns:
        whether no tick is before the `since` of a group.
    """
    half, groups, nodes, instants = columns.half, columns.groups, columns.nodes, columns.instants
    of_groups, of_users = columns.of_groups, columns.of_users
    start, length, half_tick, code = half.start, half.length, half.tick, half.code
    half_acts, last_opposite = half.num_acts, half.last_opposite
    group_start, group_length, group_tick = groups.start, groups.length, groups.tick
    acts, latest_act, latest_received = groups.acts, groups.latest_act, groups.latest_received
    act_before, received_before = groups.act_before, groups.received_before
    acts_before, num_received_before = groups.acts_before, groups.num_received_before
    since, decayed, moment_before = groups.since, groups.decayed, groups.moment
    group_of, first_user, log_size = nodes.group, nodes.first_user, nodes.log_size
    listed_start, listed_log = of_groups.start, of_groups.log
    user_start, user_log = of_users.start, of_users.log
    half_life = of_users.half_life
    for i in range(len(node)):
        now, bound = time[moment[i]], tick[moment[i]]
        g = group_of[node[i]]
        out[i, 4], out[i, 5] = log_size[node[i]], np.float32(0)
        if g >= 0:
            if bound < since[g]:
                return False
            first = group_start[g]
            end = end_before(first, group_length[g], group_tick, bound)
            sent = acts[end - 1] if end > first else 0
            received = end - first - sent
            last_act = instants[latest_act[end - 1]] if sent > 0 else act_before[g]
            last_received = instants[latest_received[end - 1]] if received > 0 else received_before[g]
            log[2, i], log[3, i] = acts_before[g] + sent, num_received_before[g] + received
            popularity[i] = decayed[g] * np.exp2(-((now - moment_before[g]) / half_life))
            if received > 0:
                halvings = (now - of_groups.origin) / half_life
                popularity[i] += np.exp2(listed_log[listed_start[g] + received - 1] - halvings)
        else:
            user = first_user[node[i]]
            first = start[user]
            end = end_before(first, length[user], half_tick, bound)
            last_act, last_received, received = NEVER, NEVER, 0
            log[2, i] = log[3, i] = np.float32(0)
            popularity[i] = 0.0
            if end > first:
                received = end - first - half_acts[end - 1]
                log[2, i], log[3, i] = half_acts[end - 1], received
                last = instants[half_tick[end - 1]]
                opposite = NEVER
                if last_opposite[end - 1] >= 0:
                    opposite = instants[last_opposite[end - 1]]
                if code[end - 1] & 1:
                    last_act, last_received = last, opposite
                else:
                    last_act, last_received = opposite, last
            if received > 0:
                halvings = (now - of_users.origin) / half_life
                popularity[i] = np.exp2(user_log[user_start[user] + received - 1] - halvings)
        log[0, i], log[1, i] = seconds_since(now, last_act), seconds_since(now, last_received)
    return True


@kernel
def add_child_scores(
    first: np.ndarray,
    start: np.ndarray,
    count: np.ndarray,
    row: np.ndarray,
    child: np.ndarray,
    moment: np.ndarray,
    node_hidden: np.ndarray,
    table: np.ndarray,
    snapshot: np.ndarray,
    place: np.ndarray,
    query_hidden: np.ndarray,
    query_vector: np.ndarray,
    cosine_weight: np.ndarray,
    output_weight: np.ndarray,
    bias: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill the output of one hidden ReLU layer for the children of R prefixes.

    Args:
        first: [R] int64, the place of each prefix's first child in `child`.
        start: [R] int64, the place of this child in `out`.
        count: [R] int64, number of children.
        row: [R] int64, the query of each prefix.
        child: [n] int64, nodes.
        moment: [n] int64, the moment of each.
        node_hidden: [H, n] float32, the hidden layer's input from the features of children.
        table: [S, X, dim] float32, spectral embeddings.
        snapshot: [M] int64, of moments, the first index of `table`.
        place: [num_nodes] int64, the second index of each node.
        query_hidden: [B, H] float32, the hidden layer's input from queries.
        query_vector: [B, dim] float32, spectral embeddings of the queries' users.
        cosine_weight: [H] float32, of the cosine in the hidden layer.
        output_weight: [H] float32, of the output.
        bias: [1] float32, of the output.
        out: [T] float32, filled.
    """
    widest = 1
    for r in range(len(first)):
        widest = max(widest, count[r])
    dim, cosine = query_vector.shape[1], np.empty(widest, np.float32)
    tile = np.empty((dim, widest), np.float32)  # the children of one prefix, for vector instructions
    last = -1
    for r in stable_order(first):  # prefixes of several queries that are the same one after the other
        at, base, number, b = first[r], start[r], count[r], row[r]
        cosine[:number] = 0.0
        if dim and number and at != last:
            last = at
            for j in range(number):
                node, number_of_snapshot = place[child[at + j]], snapshot[moment[at + j]]
                for d in range(dim):
                    tile[d, j] = table[number_of_snapshot, node, d]
        for d in range(dim):
            own = query_vector[b, d]
            for j in range(number):
                cosine[j] += own * tile[d, j]
        for j in range(number):
            out[base + j] = bias[0]
        for h in range(len(output_weight)):
            own, near, weight = query_hidden[b, h], cosine_weight[h], output_weight[h]
            for j in range(number):
                hidden = node_hidden[h, at + j] + own + near * cosine[j]
                out[base + j] += weight * max(hidden, np.float32(0.0))
