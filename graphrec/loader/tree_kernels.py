"""Kernels of the temporal sampler: draw events around the nodes of trees, number nodes, group edges."""

from __future__ import annotations

import numpy as np

from graphrec.jit import inlined, int64, kernel
from graphrec.temporal.columns import HalfEdges, end_before

MAX_RANKED_BY_COUNTING = 64
"""Users of a list that are ranked by comparing all pairs; longer lists are sorted by their digits."""

DIGIT_BITS = 8
"""Bits of a user's index that are sorted by at a time, at most."""


INSTANTS_APART = 64
"""Distinct times from one that begins a search to the next."""

READ_AT_ONCE = 2048
"""Half-edges that are read from the index together, or as many more as are drawn of one timeline."""


@kernel
def locate_half_edges(action: np.ndarray, bits: int, code: np.ndarray, spot: np.ndarray) -> None:
    """Fill what an edge type and the place in it are read from, for each half-edge.

    This is (place of the event among those of its action << bits | action) << 1 | whether the owner acted.

    Args:
        action: [E] int64, below 2 ** bits.
        bits: bits of an action.
        code: [2E] int32, of `HalfEdges`.
        spot: [2E] int32 or, where that is too small, int64.
    """
    counts = np.zeros(1 << bits, np.int64)
    located = np.empty(len(action), spot.dtype)
    for event in range(len(action)):
        kind = action[event]
        located[event] = counts[kind] << bits | kind
        counts[kind] += 1
    for at in range(len(code)):
        spot[at] = np.int64(located[code[at] >> 1]) << 1 | (code[at] & 1)


@kernel
def find_ticks(instants: np.ndarray, some: np.ndarray, time: np.ndarray, tick: np.ndarray) -> None:
    """Fill the number of distinct times before each time, as `Timeline.tick` counts them.

    Args:
        instants: [T] int64 seconds, ascending.
        some: every `INSTANTS_APART`th of these: few enough to stay in the cache, where the search begins.
        time: [B] int64 seconds.
        tick: [B] int64, filled.
    """
    for i in range(len(time)):
        block = end_before(int64(0), len(some), some, time[i])
        begin = max(block - 1, 0) * INSTANTS_APART
        tick[i] = end_before(begin, min(len(instants) - begin, INSTANTS_APART), instants, time[i])


@kernel
def find_pasts(
    half: HalfEdges, node: np.ndarray, tree: np.ndarray, bound: np.ndarray, k: int, past: np.ndarray
) -> int:
    """Fill begins and ends of the timelines of nodes before the ticks of their trees; count what is drawn.

    Args:
        half: the timelines.
        node: [F] int64, users.
        tree: [F] int64, the tree of each.
        bound: [B] int64, the tick of each tree.
        k: half-edges drawn of each timeline, at most.
        past: [2, F] int64, filled.

    Returns:
        The number of half-edges drawn.
    """
    start, length, tick = half.start, half.length, half.tick
    total = 0
    for i in range(len(node)):
        begin, end, left, before = start[node[i]], start[node[i]], int64(length[node[i]]), bound[tree[i]]
        while left > 0:  # without a branch that cannot be foreseen, so that searches overlap
            part = (left + 1) >> 1
            end += part if tick[end + part - 1] < before else int64(0)
            left -= part
        past[0, i], past[1, i] = begin, end
        total += min(k, end - begin)
    return total


@inlined
def mix_number(x: np.int64) -> np.int64:
    """Hash a number: `draws.mix` of one value."""
    x = (x ^ ((x >> np.int64(30)) & np.int64((1 << 34) - 1))) * np.int64(-0x40A7B892E31B1A47)
    x = (x ^ ((x >> np.int64(27)) & np.int64((1 << 37) - 1))) * np.int64(-0x6B2FB644ECCEEE15)
    return x ^ ((x >> np.int64(31)) & np.int64((1 << 33) - 1))


@inlined
def hash_next(salt: np.int64, part: np.int64) -> np.int64:
    """Combine a hash with one more part, as `draws.hashed` does."""
    return mix_number(salt + part + np.int64(0x1E3779B97F4A7C15))


@kernel
def fill_distinct(salt: int, size: int, k: int, first: int, out: np.ndarray) -> None:
    """Fill k distinct numbers below a size, which is larger than k: one row of `draws.distinct_below`.

    Args:
        salt: int64, a hash that fixes the draw.
        size: the number of numbers.
        k: the number of draws.
        first: place of the first draw.
        out: [at least first + k] int64, filled from there on.
    """
    start = hash_next(np.int64(0), np.int64(salt))
    for j in range(k):
        top = size - k + j
        mixed = np.uint64(hash_next(start, np.int64(j)) & np.int64((1 << 62) - 1))
        drawn = np.int64(mixed % np.uint64(top + 1))
        again = 0
        for i in range(first, first + j):  # without a way out, so that it is compiled to vector instructions
            again |= out[i] == drawn
        out[first + j] = top if again else drawn


@kernel
def read_edges(
    other: np.ndarray,
    spot: np.ndarray,
    action_bits: int,
    node: np.ndarray,
    tree: np.ndarray,
    past: np.ndarray,
    k: int,
    uniform: bool,
    salt: int,
    input_id: np.ndarray,
    hop: int,
    first: int,
    counts: np.ndarray,
    edges: np.ndarray,
) -> None:
    """Draw half-edges of the nodes of a hop, and read them from the index.

    Args:
        other: of `HalfEdges`.
        spot: of `locate_half_edges`.
        action_bits: of `locate_half_edges`.
        node: [V] int64, users; those of the hop are the last F.
        tree: [V] int64, the tree of each.
        past: [2, F], of `find_pasts`.
        k: half-edges drawn of each timeline, at most.
        uniform: whether they are drawn without replacement; else they are the last k.
        salt: int64, a hash that fixes the draws, with
        input_id: [B] int64, of each tree, and
        hop: the number of the hop.
        first: number of the hop's first node.
        counts: [kinds] int64, zeros, filled with the number of edges of each kind, 2 x action + outgoing.
        edges: [4, M] int64, filled: the other user, the node drawn for, the kind, and the place among the
            events of the action.
    """
    users, nodes, kinds, places, begins, ends = edges[0], edges[1], edges[2], edges[3], past[0], past[1]
    kind_bits, kind_mask = action_bits + 1, (2 << action_bits) - 1
    longest = 0
    for i in range(len(begins)):
        longest = max(longest, min(k, ends[i] - begins[i]))
    position = np.empty(READ_AT_ONCE + longest, np.int64)
    done = size = int64(0)
    for i in range(len(begins)):
        begin, length = begins[i], ends[i] - begins[i]
        drawn = min(k, length)
        if not uniform:
            for j in range(drawn):
                position[size + j] = begin + length - 1 - j
        elif length > k:
            own = hash_next(np.int64(0), hash_next(np.int64(salt), input_id[tree[first + i]]))
            own = hash_next(hash_next(own, node[first + i]), np.int64(hop))
            fill_distinct(int(own), length, k, size, position)
            for j in range(size, size + drawn):
                position[j] += begin
        else:
            for j in range(drawn):
                position[size + j] = begin + j
        for j in range(done + size, done + size + drawn):
            nodes[j] = first + i
        size += drawn
        if size >= READ_AT_ONCE or i == len(begins) - 1:
            # Bare loops, so that many reads are under way at once.
            for j in range(size):
                users[done + j] = other[position[j]]
            for j in range(size):
                place = spot[position[j]]
                kinds[done + j], places[done + j] = place & kind_mask, place >> kind_bits
            for j in range(done, done + size):
                kind = kinds[j]
                counts[kind] += 1
            done, size = done + size, 0


@kernel
def sort_users(fresh: np.ndarray, spare: np.ndarray, size: int, bits: int) -> None:
    """Sort keys of distinct users.

    Args:
        fresh: [at least size] int64, user << 32 | anything; sorted.
        spare: as long, overwritten.
        size: number of keys.
        bits: bits of the largest user.
    """
    if size <= MAX_RANKED_BY_COUNTING:
        for i in range(size):
            rank, key = 0, fresh[i]
            for j in range(size):
                rank += fresh[j] < key
            spare[rank] = key
        for i in range(size):
            fresh[i] = spare[i]
        return
    passes = (bits + DIGIT_BITS - 1) // DIGIT_BITS
    width = (bits + passes - 1) // passes
    mask = (np.int64(1) << width) - 1
    place = np.empty(1 << width, np.int64)
    for number in range(passes):
        shift = 32 + number * width
        for digit in range(1 << width):
            place[digit] = 0
        for i in range(size):
            place[(fresh[i] >> shift) & mask] += 1
        total = np.int64(0)
        for digit in range(1 << width):
            count = place[digit]
            place[digit] = total
            total += count
        for i in range(size):
            digit = (fresh[i] >> shift) & mask
            spare[place[digit]] = fresh[i]
            place[digit] += 1
        for i in range(size):
            fresh[i] = spare[i]


@kernel
def number_nodes(
    past: np.ndarray,
    k: int,
    hop: int,
    num_users: int,
    node: np.ndarray,
    tree: np.ndarray,
    span: np.ndarray,
    edges: np.ndarray,
) -> int:
    """Replace the other users of a hop's edges by their nodes, of which each user has one in a tree.

    Users who are new to a tree become nodes behind all others, by tree, and those of a tree by user.

    Args:
        past: [2, F], of `find_pasts`.
        k: half-edges drawn of each timeline, at most.
        hop: number of the hop.
        num_users: N.
        node: [all that there can be] int64, users; the new ones are filled.
        tree: as long, the tree of each node; filled likewise.
        span: [hops + 1, B + 1] int64, position of the first node of each tree in each level, and after the
            last; level 0 holds the seeds, and level `hop` + 1 is filled.
        edges: [4, M], of `read_edges`, by tree; the first row is replaced.

    Returns:
        The number of nodes.
    """
    row, begins, ends = edges[0], past[0], past[1]
    num_trees, first = span.shape[1] - 1, span[hop, 0]
    user_bits = slot_bits = 1
    while num_users >> user_bits:
        user_bits += 1
    drawn = np.zeros(num_trees, np.int64)
    most_users = np.int64(0)
    for t in range(num_trees):
        for i in range(span[hop, t] - first, span[hop, t + 1] - first):
            drawn[t] += min(k, ends[i] - begins[i])
        users = drawn[t]
        for level in range(hop + 1):
            users += span[level, t + 1] - span[level, t]
        most_users = max(most_users, users)
    while 1 << slot_bits < 3 * most_users:
        slot_bits += 1
    # A table of each tree's users: keys are tree << 32 | user, so that those of earlier trees count as free.
    keys, node_of = np.full(1 << slot_bits, -1, np.int64), np.empty(1 << slot_bits, np.int64)
    shift, last_slot = 32 - slot_bits, (1 << slot_bits) - 1
    fresh, spare = np.empty(most_users + 1, np.int64), np.empty(most_users + 1, np.int64)
    begin, num_nodes = np.int64(0), span[hop, num_trees]
    for t in range(num_trees):
        span[hop + 1, t] = num_nodes
        if not drawn[t]:
            continue
        base, end = np.int64(t) << 32, begin + drawn[t]
        for level in range(hop + 1):
            for i in range(span[level, t], span[level, t + 1]):
                slot = first_slot(node[i], shift)
                while keys[slot] >= base:
                    slot = (slot + 1) & last_slot
                keys[slot], node_of[slot] = base | node[i], i
        num_fresh = int64(0)
        for e in range(begin, end):
            user = row[e]
            slot, key = first_slot(user, shift), base | user
            while keys[slot] != key and keys[slot] >= base:
                slot = (slot + 1) & last_slot
            fresh[num_fresh] = user << 32 | slot  # kept if the user is new: no branch that cannot be foreseen
            num_fresh += keys[slot] != key
            keys[slot], row[e] = key, slot
        sort_users(fresh, spare, num_fresh, user_bits)
        for i in range(num_fresh):
            node[num_nodes], tree[num_nodes] = fresh[i] >> 32, t
            node_of[fresh[i] & 0xFFFFFFFF] = num_nodes
            num_nodes += 1
        for e in range(begin, end):
            row[e] = node_of[row[e]]
        begin = end
    span[hop + 1, num_trees] = num_nodes
    return int(num_nodes)


@inlined
def first_slot(user: int, shift: int) -> int:
    """Return where the search for a user begins in a table of 2 ** (32 - shift) slots."""
    return ((user * 0x9E3779B1) & 0xFFFFFFFF) >> shift


@kernel
def group_edges(edges: np.ndarray, place: np.ndarray, out: np.ndarray) -> None:
    """Move the edges of a hop to their places among all, kind by kind and in order.

    Args:
        edges: [4, M], of `read_edges`.
        place: [kinds] int64, the place of the first edge of each kind; advanced.
        out: [3, all] int64, filled: both nodes, and the place among the events of the action.
    """
    for e in range(edges.shape[1]):
        kind = edges[2, e]
        at = place[kind]
        place[kind] = at + 1
        out[0, at], out[1, at], out[2, at] = edges[0, e], edges[1, e], edges[3, e]
