"""PyG loaders whose mini-batches cannot see the future of any of their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, Unpack

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import HeteroSamplerOutput

from graphrec.data import USER, FriendGraph, Query
from graphrec.data.checks import check_index, check_time
from graphrec.loader.seeds import LoaderOptions, Seeds
from graphrec.loader.temporal_sampler import EVENT_TYPE, message_graph


class QueryLoader(NodeLoader):
    """Batches of queries: each user's strictly-past neighborhood at the query's own time.

    A batch is a `HeteroData` that any PyG layer takes: node type `user` with `n_id`, `batch` (the position of
    the query in the batch) and, if the graph has it, `x`; for each sampled action an edge type and its
    reverse, `reverse_of(ACTION)`, with `edge_index`, `time`, `event_id` and the other columns of the action's
    edges, such as `edge_attr`. The first B nodes are the queries' users. The batch itself has `input_id`,
    `seed_time` and `seed_action`, [B] int64 each, and, if asked for, `negatives` [B, num_negatives] int64,
    user indices.

    Args:
        graph: the whole graph.
        query: the seeds.
        num_neighbors: events drawn for each user, one number a hop; -1 takes the whole timeline.
        **options: `LoaderOptions`, among them those of `torch.utils.data.DataLoader`.

    Attributes:
        graph: the whole graph.
        query: the seeds.
        seeds: the seeds with their sampler.
    """

    def __init__(
        self,
        graph: FriendGraph,
        query: Query,
        num_neighbors: Sequence[int],
        **options: Unpack[LoaderOptions],
    ) -> None:
        self.graph, self.query = graph, query
        self.seeds = Seeds(graph, query, num_neighbors, **options)
        super().__init__(
            message_graph(graph, self.seeds.sampler.actions),
            self.seeds.sampler,
            input_nodes=(USER, query.user),
            input_time=query.time,
            sampler=self.seeds.order,
            **self.seeds.loader_options,
        )
        del self.collate_fn  # of the instance: a reference cycle that keeps the loader and its graph alive

    @classmethod
    def of_timelines(
        cls, graph: FriendGraph, *, until: int, users: Tensor | None = None, **options: Unpack[LoaderOptions]
    ) -> QueryLoader:
        """Load whole timelines as they were at a time, for training on every prefix in one causal pass.

        Args:
            graph: the whole graph.
            until: seconds; the timelines hold all events strictly before it.
            users: [n] int64 indices; by default all users with an event before `until`.
            **options: as for `QueryLoader`.
        """
        until = check_time("until", until)
        if users is None:
            past = graph.snapshot(until).events()
            users = torch.unique(torch.cat([past.src, past.dst]))
        return cls(graph, Query.of(graph, users, until), [-1], **options)

    def rebuild(self, graph: FriendGraph, rows: Tensor, time: int) -> Self:
        """Return such a loader of another graph, for the seeds at `rows` [n] int64, all at `time` (s).

        It keeps the seeds in order and has no workers.
        """
        return type(self)(graph, self.query[rows].at(time), **self.seeds.options)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: draws, negatives and order change."""
        self.seeds.set_epoch(epoch, self.batch_sampler)

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """Turn a sampler's output into a batch."""
        batch = super().filter_fn(out)
        store = batch[USER]
        del store["batch_size"]
        return self.seeds.finish(batch, store.pop("input_id"), store.pop("seed_time"))


class EventLoader(LinkLoader):
    """Batches of events: the strictly-past neighborhoods of both users, at the event's own time.

    Batches are as `QueryLoader`'s, but the first B nodes are the queries' users and the next B the targets,
    and both have the event's position in `batch`. A batch also has `src_index` and `dst_index` [B] int64,
    their positions among the nodes. The event itself, tied events and all later ones, in either direction,
    are not in it.

    Args:
        graph: the whole graph.
        query: the seeds' users, times and actions.
        target: [n] int64, the other users of the seeds.
        num_neighbors, **options: as for `QueryLoader`.

    Attributes:
        graph: the whole graph.
        query: the seeds' users, times and actions.
        target: [n] int64.
        seeds: the seeds with their sampler.
    """

    def __init__(
        self,
        graph: FriendGraph,
        query: Query,
        target: Tensor,
        num_neighbors: Sequence[int],
        **options: Unpack[LoaderOptions],
    ) -> None:
        if not isinstance(target, Tensor) or target.shape != query.user.shape:
            shape = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise ValueError(f"one target for each seed: {len(query)} seeds, targets {shape}")
        self.graph, self.query = graph, query
        self.target = check_index("target", target, graph.num_users)
        self.seeds = Seeds(graph, query, num_neighbors, **options)
        super().__init__(
            message_graph(graph, self.seeds.sampler.actions),
            self.seeds.sampler,
            edge_label_index=(EVENT_TYPE, torch.stack([query.user, self.target])),
            edge_label_time=query.time,
            sampler=self.seeds.order,
            **self.seeds.loader_options,
        )
        del self.collate_fn  # of the instance: a reference cycle that keeps the loader and its graph alive

    @classmethod
    def of_events(
        cls,
        graph: FriendGraph,
        num_neighbors: Sequence[int],
        *,
        event_ids: Tensor | None = None,
        **options: Unpack[LoaderOptions],
    ) -> EventLoader:
        """Load events of the log as seeds.

        Args:
            graph: the whole graph.
            num_neighbors: as for `QueryLoader`.
            event_ids: [n] int64 positions in the log; all by default.
            **options: as for `QueryLoader`.
        """
        if event_ids is None:
            event_ids = torch.arange(graph.num_events)
        event_ids = check_index("event_ids", event_ids, graph.num_events)
        target = graph.events().dst[event_ids]
        return cls(graph, Query.of_events(graph, event_ids), target, num_neighbors, **options)

    def rebuild(self, graph: FriendGraph, rows: Tensor, time: int) -> Self:
        """Return such a loader of another graph, for the seeds at `rows` [n] int64, all at `time` (s).

        It keeps the seeds in order and has no workers.
        """
        return type(self)(graph, self.query[rows].at(time), self.target[rows], **self.seeds.options)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: draws, negatives and order change."""
        self.seeds.set_epoch(epoch, self.batch_sampler)

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """Turn a sampler's output into a batch, without the virtual edge type."""
        batch = super().filter_fn(out)
        store = batch[EVENT_TYPE]
        batch.src_index, batch.dst_index = store.edge_label_index
        del batch[EVENT_TYPE]
        return self.seeds.finish(batch, store.input_id, store.edge_label_time)
