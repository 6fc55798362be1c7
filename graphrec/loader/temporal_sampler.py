"""Strictly-past neighborhoods of seeds, for PyG's loaders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import BaseSampler, EdgeSamplerInput, HeteroSamplerOutput, NodeSamplerInput

from graphrec.data import USER, FriendGraph, reverse_of
from graphrec.data.checks import check_count, check_graph, check_names, check_seed
from graphrec.data.columns import edge_columns
from graphrec.data.draws import distinct_below, hashed
from graphrec.temporal.timeline import Timeline

EVENT_TYPE = (USER, "event", USER)
"""The virtual edge type of the seeds of a `LinkLoader`, whatever their actions."""


def message_graph(graph: FriendGraph, actions: Sequence[str] | None = None) -> HeteroData:
    """Build the graph that batches are cut from: each action in both directions of message passing.

    An event (src, dst, action) is an edge src -> dst of type `action`, and an edge dst -> src of type
    `reverse_of(action)`, so that messages reach both users. Edges keep all their columns, such as `time`,
    `event_id`, `weight` and `edge_attr`. Derived and untimed edge types are left out, because a query must
    not read them.

    Args:
        graph: the whole graph.
        actions: names of the actions to keep; all by default.
    """
    out = HeteroData()
    out[USER].num_nodes = graph.num_users
    if "x" in graph[USER]:
        out[USER].x = graph[USER].x
    for name in graph.actions if actions is None else actions:
        columns = edge_columns(graph[USER, name, USER])
        for title, edge_index in (
            (name, columns["edge_index"]),
            (reverse_of(name), columns["edge_index"].flip(0)),
        ):
            out[USER, title, USER].update(columns | {"edge_index": edge_index})
    return out


class TemporalSampler(BaseSampler):
    """Samples, around each seed, events strictly before the seed's own time.

    Every seed has a tree of its own: a user in two trees is two nodes (disjoint sampling), and each edge at
    each hop is older than the seed at its root. Edges point toward the root, so messages flow to the seeds,
    whichever of both users acted (see `message_graph`).

    Args:
        graph: the whole graph.
        num_neighbors: events drawn for each user, one number a hop; -1 takes all.
        strategy: 'last' takes the latest events, 'uniform' draws without replacement.
        actions: actions whose events are drawn; all by default.
        seed: with the epoch and the seed's `input_id` it fixes every draw.

    Attributes:
        actions: the actions drawn.
        num_neighbors, strategy, seed: as given.

    Raises:
        TypeError: `num_neighbors` is not a sequence of whole numbers.
        ValueError: a number of neighbors is 0 or below -1, there is none, or the strategy is unknown.
        KeyError: an unknown action.
    """

    def __init__(
        self,
        graph: FriendGraph,
        num_neighbors: Sequence[int],
        *,
        strategy: Literal["last", "uniform"] = "last",
        actions: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        check_graph(graph)
        check_seed(seed)
        if strategy not in ("last", "uniform"):
            raise ValueError(f"strategy must be 'last' or 'uniform', got {strategy!r}")
        if isinstance(num_neighbors, (str, int)) or not isinstance(num_neighbors, Sequence):
            raise TypeError(f"num_neighbors is one number a hop, such as [10], got {num_neighbors!r}")
        num_neighbors = [check_count("num_neighbors", k, minimum=-1) for k in num_neighbors]
        if not num_neighbors or 0 in num_neighbors:
            raise ValueError(
                f"num_neighbors is one number a hop, positive or -1 for all; got {list(num_neighbors)}"
            )
        known = graph.actions  # a walk over all edge types, so done once
        self.actions = known if actions is None else check_names("actions", actions, known, empty=False)
        self.num_neighbors = list(num_neighbors)
        self.strategy = strategy
        self.seed = seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # seen by running workers too
        self._num_users = graph.num_users
        if self.actions == known:
            self._timeline = Timeline.of(graph)
        else:
            self._timeline = Timeline(graph.select_actions(self.actions))
        # For each half-edge: its edge type (2 x action + outgoing), and its place among the edges of it.
        half_edge = torch.arange(2 * len(self._timeline.events))
        action, event = self._timeline.events.action, self._timeline.event_of(half_edge)
        order = action.argsort(stable=True)
        sizes = torch.bincount(action, minlength=len(self.actions))
        place = torch.empty_like(action)
        place[order] = torch.arange(len(action)) - (sizes.cumsum(0) - sizes)[action[order]]
        self._place = place[event].int()
        self._kind = self._timeline.kind(half_edge).to(torch.int32)

    @property
    def edge_permutation(self) -> None:
        """None: sampled edges are positions in the graph's own order."""
        return None

    @property
    def epoch(self) -> int:
        """The epoch of the draws."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: 'uniform' draws other events."""
        self._epoch.fill_(epoch)

    def sample_from_nodes(self, inputs: NodeSamplerInput) -> HeteroSamplerOutput:
        """Sample the trees of B users at their times; the seeds are the first B nodes."""
        time = _require_time(inputs.time)
        out = self._sample(inputs.node, time, _require_ids(inputs))
        out.metadata = (inputs.input_id, inputs.time)
        return out

    def sample_from_edges(
        self, inputs: EdgeSamplerInput, neg_sampling: Any | None = None
    ) -> HeteroSamplerOutput:
        """Sample the trees of both users of B events; the first B nodes are the sources, then the targets.

        Both trees of an event have its position in the `batch` vector, and share no node.
        """
        if neg_sampling is not None:
            raise ValueError("negatives come from the loader's `num_negatives`; neg_sampling must be None")
        time, size = _require_time(inputs.time), inputs.row.numel()
        seeds = torch.cat([inputs.row, inputs.col])
        out = self._sample(seeds, time.repeat(2), _require_ids(inputs).repeat(2))
        assert out.batch is not None
        out.batch = {USER: out.batch[USER] % size}
        label_index = torch.arange(2 * size).view(2, size)
        out.metadata = (inputs.input_id, label_index, inputs.label, inputs.time)
        return out

    def _sample(self, seed: Tensor, time: Tensor, input_id: Tensor) -> HeteroSamplerOutput:
        timeline, n = self._timeline, self._num_users
        tick, size = timeline.tick(time), seed.numel()
        user, tree = (
            seed,
            torch.arange(size),
        )  # of the nodes of the last hop, which are numbered from `first` on
        first, known = 0, tree * n + seed
        nodes, trees = [user], [tree]
        half, row, col = [], [], []
        for hop, k in enumerate(self.num_neighbors):
            if k == -1 or self.strategy == "last":
                longest = 2 * len(timeline.events) if k == -1 else k
                drawn, edges = timeline.last_half_edges(user, tick[tree], longest)
            else:
                salt = hashed(self.seed, self.epoch, input_id)[tree]
                start = timeline.half_edges.start[user]
                length = timeline.half_edges.end(user, tick[tree]) - start
                drawn, edges = distinct_below(hashed(salt, user, hop), length, k)
                edges += start.index_select(0, drawn)
            # One node for each user of a tree, found again by (tree, user).
            base = tree.index_select(0, drawn) * n
            place, fresh = _number_keys(known, base + timeline.half_edges.other.index_select(0, edges))
            half.append(edges)
            row.append(place)
            col.append(first + drawn)
            first, known = known.numel(), torch.cat([known, fresh])
            tree = fresh // n
            user = fresh - tree * n
            nodes.append(user)
            trees.append(tree)
        return self._output(nodes, trees, half, row, col)

    def _output(
        self,
        nodes: list[Tensor],
        trees: list[Tensor],
        half: list[Tensor],
        row: list[Tensor],
        col: list[Tensor],
    ) -> HeteroSamplerOutput:
        edges, num_kinds, num_hops = torch.cat(half), 2 * len(self.actions), len(half)
        kind = self._kind.index_select(0, edges)
        hop = torch.repeat_interleave(torch.tensor([part.numel() for part in half]))
        # Edges of one type together, hop by hop, as trimming after each layer needs them.
        order = torch.from_numpy(np.argsort(kind.numpy(), kind="stable"))
        source, target = torch.cat(row).index_select(0, order), torch.cat(col).index_select(0, order)
        place = self._place.index_select(0, edges.index_select(0, order)).long()
        sizes = torch.bincount(hop + kind * num_hops, minlength=num_kinds * num_hops).view(
            num_kinds, num_hops
        )
        titles = [title for name in self.actions for title in (name, reverse_of(name))]
        parts = sizes.sum(1).tolist()
        rows, cols, ids, counts = {}, {}, {}, {}
        for number, (title, *ends) in enumerate(
            zip(titles, source.split(parts), target.split(parts), place.split(parts), strict=True)
        ):
            edge_type = (USER, title, USER)
            rows[edge_type], cols[edge_type], ids[edge_type] = ends
            counts[edge_type] = sizes[number].tolist()
        return HeteroSamplerOutput(
            node={USER: torch.cat(nodes)},
            row=rows,
            col=cols,
            edge=ids,
            batch={USER: torch.cat(trees)},
            num_sampled_nodes={USER: [part.numel() for part in nodes]},
            num_sampled_edges=counts,
        )


def _number_keys(known: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Number keys [M] by their place among distinct known keys [K], or behind them if they are new.

    Returns:
        (place [M] int64, new keys [F] int64 ascending, whose places are K .. K+F-1).
    """
    size, total = known.numel(), known.numel() + key.numel()
    both, bits = torch.cat([known, key]).numpy(), total.bit_length()
    if int(both.max(initial=0)) >> (63 - bits):
        order = both.argsort(kind="stable")
        both = both[order]
    else:  # key and position in one integer: NumPy sorts these several times faster than it finds an order
        both = np.sort(both << bits | np.arange(total))
        order = both & ((1 << bits) - 1)
        both >>= bits
    opens = np.ones(total, dtype=bool)
    np.not_equal(both[1:], both[:-1], out=opens[1:])
    starts = np.flatnonzero(opens)
    earliest = torch.from_numpy(order[starts])
    fresh = earliest >= size
    place = torch.where(fresh, size - 1 + fresh.cumsum(0), earliest)
    run = torch.from_numpy(opens).cumsum(0) - 1
    out = torch.empty(total, dtype=torch.int64)
    out[torch.from_numpy(order)] = place.index_select(0, run)
    return out[size:], torch.from_numpy(both[starts])[fresh]


def _require_time(time: Tensor | None) -> Tensor:
    if time is None:
        raise ValueError("every seed needs a time: pass edge_label_time or input_time")
    return time


def _require_ids(inputs: NodeSamplerInput | EdgeSamplerInput) -> Tensor:
    if inputs.input_id is None:
        raise ValueError("every seed needs an input_id")
    ids: Tensor = inputs.input_id
    return ids
