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
from graphrec.data.checks import check_count, check_graph, check_index, check_names, check_seed
from graphrec.data.columns import edge_columns
from graphrec.data.draws import hashed
from graphrec.loader.tree_kernels import (
    INSTANTS_APART,
    find_pasts,
    find_ticks,
    group_edges,
    locate_half_edges,
    number_nodes,
    read_edges,
)
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
        # The columns of now: an append to the index makes others, and leaves these as the graph is.
        self._half_edges = self._timeline.columns.half_edges
        self._instants = self._timeline.instants.numpy()
        self._some_instants = self._instants[::INSTANTS_APART].copy()
        action, code = self._timeline.events.action.numpy(), self._half_edges.code
        self._action_bits, self._spot = (len(self.actions) - 1).bit_length(), code
        if self._action_bits:
            fits = len(action) << self._action_bits + 1 <= np.iinfo(np.int32).max
            self._spot = np.empty(len(code), np.int32 if fits else np.int64)
            locate_half_edges(action, self._action_bits, code, self._spot)

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
        tree = out.batch[USER]
        out.batch = {USER: torch.where(tree < size, tree, tree - size)}
        label_index = torch.arange(2 * size).view(2, size)
        out.metadata = (inputs.input_id, label_index, inputs.label, inputs.time)
        return out

    def _sample(self, seed: Tensor, time: Tensor, input_id: Tensor) -> HeteroSamplerOutput:
        if not seed.shape == time.shape == input_id.shape:
            shapes = ", ".join(str(list(x.shape)) for x in (seed, time, input_id))
            raise ValueError(f"users, times and input_ids of seeds must be [n] each, got {shapes}")
        half = self._half_edges
        size, num_hops, num_kinds = seed.numel(), len(self.num_neighbors), 2 * len(self.actions)
        bound, ids, times = (
            np.empty(size, np.int64),
            *(x.long().contiguous().numpy() for x in (input_id, time)),
        )
        find_ticks(self._instants, self._some_instants, times, bound)
        salt = int(hashed(self.seed, self.epoch)) if self.strategy == "uniform" else 0
        node, tree = check_index("users", seed, self._num_users).contiguous().numpy(), np.arange(size)
        span = np.empty((num_hops + 1, size + 1), np.int64)
        span[0] = np.arange(size + 1)
        counts, hops = np.zeros((num_hops, num_kinds), np.int64), []
        for hop, k in enumerate(self.num_neighbors):
            longest, uniform = (half.tick.size, False) if k == -1 else (k, self.strategy == "uniform")
            first = int(span[hop, 0])
            past = np.empty((2, len(node) - first), np.int64)
            total = find_pasts(half, node[first:], tree[first:], bound, longest, past)
            edges = np.empty((4, total), np.int64)
            read_edges(
                half.other,
                self._spot,
                self._action_bits,
                node,
                tree,
                past,
                longest,
                uniform,
                salt,
                ids,
                hop,
                first,
                counts[hop],
                edges,
            )
            more = np.empty((2, len(node) + total), np.int64)  # as many nodes as there can be
            more[0, : len(node)], more[1, : len(node)] = node, tree
            node, tree = more
            num_nodes = number_nodes(past, longest, hop, self._num_users, node, tree, span, edges)
            node, tree = node[:num_nodes], tree[:num_nodes]
            hops.append(edges)
        # Edges of one type together, hop by hop, as trimming after each layer needs them.
        flat = counts.T.ravel()
        place = np.ascontiguousarray((flat.cumsum() - flat).reshape(num_kinds, num_hops).T)
        grouped = np.empty((3, int(flat.sum())), np.int64)
        for edges, begins in zip(hops, place, strict=True):
            group_edges(edges, begins, grouped)
        return self._output(node, tree, np.diff(span[:, [0, -1]]).ravel(), grouped, counts)

    def _output(
        self, node: np.ndarray, tree: np.ndarray, num_nodes: np.ndarray, edges: np.ndarray, counts: np.ndarray
    ) -> HeteroSamplerOutput:
        """Name edge types: of nodes and trees [V], nodes and edges [3, M] and [hops, kinds] of each hop."""
        source, target, place = torch.from_numpy(edges).split(1)
        parts = counts.sum(0).tolist()
        columns = (column.squeeze(0).split(parts) for column in (source, target, place))
        titles = [(USER, title, USER) for name in self.actions for title in (name, reverse_of(name))]
        rows, cols, ids = (dict(zip(titles, column, strict=True)) for column in columns)
        return HeteroSamplerOutput(
            node={USER: torch.from_numpy(node)},
            row=rows,
            col=cols,
            edge=ids,
            batch={USER: torch.from_numpy(tree)},
            num_sampled_nodes={USER: num_nodes.tolist()},
            num_sampled_edges=dict(zip(titles, counts.T.tolist(), strict=True)),
        )


def _require_time(time: Tensor | None) -> Tensor:
    if time is None:
        raise ValueError("every seed needs a time: pass edge_label_time or input_time")
    return time


def _require_ids(inputs: NodeSamplerInput | EdgeSamplerInput) -> Tensor:
    if inputs.input_id is None:
        raise ValueError("every seed needs an input_id")
    ids: Tensor = inputs.input_id
    return ids
