"""A batch taken apart into the trees of its seeds, and each tree held against a loop over the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, reverse_of
from graphrec.loader import message_graph


class Edge(NamedTuple):
    """One sampled edge, by positions of nodes in the batch."""

    action: str
    outgoing: bool  # whether the person asked about acted
    event: int
    time: int
    hop: int
    row: int
    col: int
    place: int


def edges_of(batch: HeteroData) -> list[Edge]:
    """All edges; inside an edge type they stand hop by hop."""
    out = []
    titles = [title for _, title, _ in batch.edge_types]
    assert titles[1::2] == [reverse_of(name) for name in titles[::2]]
    for number, edge_type in enumerate(batch.edge_types):
        store, name, outgoing = batch[edge_type], titles[number - number % 2], number % 2 == 1
        hops = [hop for hop, size in enumerate(store.num_sampled_edges) for _ in range(size)]
        columns = (store.event_id, store.time, *store.edge_index, store.e_id)
        for hop, event, time, row, col, place in zip(hops, *(c.tolist() for c in columns), strict=True):
            out.append(Edge(name, outgoing, event, time, hop, row, col, place))
    return out


def roots_of(batch: HeteroData, edges: Sequence[Edge]) -> list[int]:
    """For each node the seed whose tree it is in: who is met belongs to who asks."""
    sizes = batch[USER].num_sampled_nodes
    roots = {seed: seed for seed in range(sizes[0])}
    for edge in sorted(edges, key=lambda edge: edge.hop):
        assert roots.setdefault(edge.row, roots[edge.col]) == roots[edge.col]
    assert sorted(roots) == list(range(sum(sizes))) == list(range(batch[USER].num_nodes))
    return [roots[node] for node in range(len(roots))]


def check_batch(
    graph: FriendGraph,
    batch: HeteroData,
    num_neighbors: Sequence[int],
    *,
    strategy: str = "last",
    actions: Sequence[str] | None = None,
) -> None:
    """Everything a batch promises, by loops over the log. A batch has its own seeds' times."""
    batch.validate()
    events, whole = graph.events(), message_graph(graph)
    log = list(zip(*(c.tolist() for c in (events.src, events.dst, events.time, events.action)), strict=True))
    actions = graph.actions if actions is None else actions
    n_id, sizes = batch[USER].n_id.tolist(), batch[USER].num_sampled_nodes
    edges = edges_of(batch)
    roots = roots_of(batch, edges)
    size = len(batch.seed_time)
    times = [int(batch.seed_time[root % size]) for root in roots]
    assert batch[USER].batch.tolist() == [root % size for root in roots]
    assert len(set(zip(roots, n_id, strict=True))) == len(roots)  # one node for each user of a tree
    assert len(sizes) == len(num_neighbors) + 1

    for edge in edges:
        owner, other = n_id[edge.col], n_id[edge.row]
        src, dst, time, action = log[edge.event]
        assert (src, dst) == ((owner, other) if edge.outgoing else (other, owner))
        assert time == edge.time < times[edge.col]
        assert graph.actions[action] == edge.action
        assert edge.action in actions
        store = whole[USER, reverse_of(edge.action) if edge.outgoing else edge.action, USER]
        assert store.edge_index[:, edge.place].tolist() == [other, owner]
        assert int(store.event_id[edge.place]) == edge.event

    # The nodes of one hop are asked once, at the next, and get as many of their past as they should.
    names = {code for code, name in enumerate(graph.actions) if name in actions}
    first = 0
    for hop, k in enumerate(num_neighbors):
        asked = range(first, first + sizes[hop])
        first += sizes[hop]
        drawn = {node: [e for e in edges if e.hop == hop and e.col == node] for node in asked}
        assert sum(map(len, drawn.values())) == sum(edge.hop == hop for edge in edges)
        for node, own in drawn.items():
            known = [
                (time, event, acted)
                for event, (src, dst, time, action) in enumerate(log)
                if time < times[node] and action in names
                for acted, user in ((True, src), (False, dst))
                if user == n_id[node]
            ]
            found = [(edge.time, edge.event, edge.outgoing) for edge in own]
            assert len(set(found)) == len(found) == (len(known) if k == -1 else min(k, len(known)))
            assert set(found) <= set(known)
            if strategy == "last":
                latest = sorted((time for time, _, _ in known), reverse=True)[: len(found)]
                assert Counter(time for time, _, _ in found) == Counter(latest)


def by_seed(batch: HeteroData, *, events: bool = True) -> dict[int, tuple[object, ...]]:
    """What each seed got, by its `input_id`, in a form that knows neither the batch nor the order of nodes.

    Without `events`, the numbers of events, which depend on the order of the log, are left out.
    """
    n_id, size = batch[USER].n_id.tolist(), len(batch.input_id)
    edges = edges_of(batch)
    roots = roots_of(batch, edges)
    trees: list[tuple[list[object], list[object]]] = [
        ([], []) for _ in range(batch[USER].num_sampled_nodes[0])
    ]
    for node, root in enumerate(roots):
        trees[root][0].append(n_id[node])
    for e in edges:
        event = e.event if events else -1
        trees[roots[e.col]][1].append((e.hop, e.action, e.outgoing, e.time, event, n_id[e.row], n_id[e.col]))
    found = [(n_id[root], sorted(nodes), sorted(own)) for root, (nodes, own) in enumerate(trees)]
    extra = batch.negatives.tolist() if "negatives" in batch else [[]] * size
    times, actions = batch.seed_time.tolist(), batch.seed_action.tolist()
    return {
        seed: (times[i], actions[i], extra[i], *found[i::size])
        for i, seed in enumerate(batch.input_id.tolist())
    }
