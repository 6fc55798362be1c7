"""PyG loaders whose mini-batches cannot see the future of any of their seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils.data import Sampler
from torch_geometric.data import HeteroData
from torch_geometric.loader import LinkLoader, NodeLoader
from torch_geometric.sampler import HeteroSamplerOutput

from graphrec.data import USER, FriendGraph, Query
from graphrec.data.checks import check_count, check_index, check_query, check_time
from graphrec.data.draws import below, epoch_order, hashed
from graphrec.loader.temporal_sampler import EVENT_TYPE, TemporalSampler, message_graph

Strategy = Literal["last", "uniform"]

MAX_NEGATIVES = 2**20
"""Negatives of a seed."""

RUNNING = (
    "batch_sampler",
    "drop_last",
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)
"""Options that say how a loader runs, not what is in a batch: `rebuild` leaves them out."""


def _contents(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a loader that say what is in a batch; without its batch sampler, batches are of 256."""
    kept = {key: value for key, value in options.items() if key not in RUNNING}
    return kept | {"batch_size": 256} if "batch_sampler" in options else kept


class EpochShuffle(Sampler[int]):
    """A new order each epoch, fixed by (seed, epoch) alone: a resumed run goes on as it would have."""

    def __init__(self, size: int, *, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; training engines call this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        yield from epoch_order(self._size, seed=self._seed, epoch=self._epoch).tolist()


class Seeds:
    """What a batch says of its own seeds: ids, times, actions and negatives."""

    def __init__(
        self, graph: FriendGraph, query: Query, sampler: TemporalSampler, num_negatives: int
    ) -> None:
        check_query(graph, query)
        check_count("num_negatives", num_negatives, minimum=0, maximum=MAX_NEGATIVES)
        if not len(query):
            raise ValueError("a loader needs at least one seed, got none")
        if graph.num_users < 2 and num_negatives:
            raise ValueError("negatives need a second user, the graph has one")
        self.query = query
        self.sampler = sampler
        self._num_users = graph.num_users
        self._num_negatives = num_negatives

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch."""
        self.sampler.set_epoch(epoch)

    def mark(self, batch: HeteroData, input_id: Tensor, time: Tensor) -> None:
        """Write `input_id`, `seed_time`, `seed_action` and `negatives` into a batch."""
        batch.input_id = input_id
        batch.seed_time = time
        batch.seed_action = self.query.action[input_id]
        if self._num_negatives:
            salt = hashed(self.sampler.seed, self.sampler.epoch, input_id[:, None])
            number = torch.arange(self._num_negatives)
            drawn = below(hashed(salt, number, -1), self._num_users - 1)
            batch.negatives = drawn + (drawn >= self.query.user[input_id, None])


class QueryLoader(NodeLoader):
    """Batches of queries: each user's strictly-past neighbourhood at the query's own time.

    A batch is a `HeteroData` that any PyG layer takes: node type `user` with `n_id`, `batch` (which query)
    and `x` where there is one; for each action drawn an edge type and its reverse, `reverse_of(ACTION)`, with
    `edge_index`, `time`, `event_id` and what else the action's edges have, such as `edge_attr`. The first B
    nodes are the queries' users. The batch itself carries `input_id`, `seed_time` and `seed_action`, [B]
    int64 each, and, if asked for, `negatives` [B, num_negatives] int64, user indices.

    Args:
        graph: the whole graph.
        query: the seeds.
        num_neighbors: events drawn for each user, one number a hop; -1 takes the whole timeline.
        strategy: 'last' or 'uniform' (see `TemporalSampler`).
        actions: only these are drawn; all by default.
        num_negatives: users drawn for each seed, uniformly among all but the seed's own user.
        shuffle: a new order each epoch.
        seed: fixes order, draws and negatives, with the epoch; workers make no difference.
        transform: applied to each batch.
        **kwargs: for `torch.utils.data.DataLoader`, such as batch_size and num_workers.
    """

    def __init__(
        self,
        graph: FriendGraph,
        query: Query,
        num_neighbors: Sequence[int],
        *,
        strategy: Strategy = "last",
        actions: Sequence[str] | None = None,
        num_negatives: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        transform: Callable[[HeteroData], HeteroData] | None = None,
        **kwargs: Any,
    ) -> None:
        sampler = TemporalSampler(graph, num_neighbors, strategy=strategy, actions=actions, seed=seed)
        self.graph, self.query = graph, query
        self.seeds = Seeds(graph, query, sampler, num_negatives)
        self._options = {
            "num_neighbors": num_neighbors,
            "strategy": strategy,
            "actions": actions,
            "num_negatives": num_negatives,
            "seed": seed,
            "transform": transform,
            **_contents(kwargs),
        }
        super().__init__(
            message_graph(graph, sampler.actions),
            sampler,
            input_nodes=(USER, query.user),
            input_time=query.time,
            sampler=EpochShuffle(len(query), seed=seed) if shuffle else None,
            **kwargs,
        )
        del self.collate_fn  # of the instance: it held the loader, and so its graph, in a ring with itself
        self._finish = transform

    @classmethod
    def of_timelines(
        cls, graph: FriendGraph, *, until: int, users: Tensor | None = None, **kwargs: Any
    ) -> QueryLoader:
        """Whole timelines as they were at a time, for training on every prefix in one causal pass.

        Args:
            graph: the whole graph.
            until: seconds; the timelines hold what is strictly older.
            users: [n] int64 indices; by default everyone with an event before `until`.
            **kwargs: as for `QueryLoader`.
        """
        until = check_time("until", until)
        if users is None:
            past = graph.snapshot(until).events()
            users = torch.unique(torch.cat([past.src, past.dst]))
        return cls(graph, Query.of(graph, users, until), [-1], **kwargs)

    def rebuild(self, graph: FriendGraph, rows: Tensor, time: int) -> Self:
        """The same loader, in order and without workers, for some seeds asked at `time` on another graph."""
        return type(self)(graph, self.query[rows].at(time), **self._options)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: draws, negatives and order change."""
        self.seeds.set_epoch(epoch)
        for order in (self.sampler, self.batch_sampler):
            if hasattr(order, "set_epoch"):
                order.set_epoch(epoch)

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A sampler's output as a batch."""
        batch = super().filter_fn(out)
        store = batch[USER]
        self.seeds.mark(batch, store.pop("input_id"), store.pop("seed_time"))
        del store["batch_size"]
        return batch if self._finish is None else self._finish(batch)


class EventLoader(LinkLoader):
    """Batches of events: the strictly-past neighbourhoods of both ends, at the event's own time.

    Batches are as `QueryLoader`'s, but the first B nodes are the users who ask and the next B the targets,
    and both have the event's number in `batch`. A batch also carries `src_index` and `dst_index` [B], their
    places among the nodes. The event itself, tied events and everything later, in either direction, are not
    in it.

    Args:
        graph: the whole graph.
        query: the seeds' users, times and actions.
        target: [n] int64, the seeds' other ends.
        num_neighbors, strategy, actions, num_negatives, shuffle, seed, transform, **kwargs: as for
            `QueryLoader`.
    """

    def __init__(
        self,
        graph: FriendGraph,
        query: Query,
        target: Tensor,
        num_neighbors: Sequence[int],
        *,
        strategy: Strategy = "last",
        actions: Sequence[str] | None = None,
        num_negatives: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        transform: Callable[[HeteroData], HeteroData] | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(target, Tensor) or target.shape != query.user.shape:
            shape = list(target.shape) if isinstance(target, Tensor) else type(target).__name__
            raise ValueError(f"one target for each seed: {len(query)} seeds, targets {shape}")
        target = check_index("target", target, graph.num_users)
        sampler = TemporalSampler(graph, num_neighbors, strategy=strategy, actions=actions, seed=seed)
        self.graph, self.query = graph, query
        self.seeds = Seeds(graph, query, sampler, num_negatives)
        self.target = target
        self._options = {
            "num_neighbors": num_neighbors,
            "strategy": strategy,
            "actions": actions,
            "num_negatives": num_negatives,
            "seed": seed,
            "transform": transform,
            **_contents(kwargs),
        }
        super().__init__(
            message_graph(graph, sampler.actions),
            sampler,
            edge_label_index=(EVENT_TYPE, torch.stack([query.user, target])),
            edge_label_time=query.time,
            sampler=EpochShuffle(len(query), seed=seed) if shuffle else None,
            **kwargs,
        )
        del self.collate_fn  # of the instance: it held the loader, and so its graph, in a ring with itself
        self._finish = transform

    @classmethod
    def of_events(
        cls,
        graph: FriendGraph,
        num_neighbors: Sequence[int],
        *,
        event_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> EventLoader:
        """Seeds are events of the log, [n] int64 positions; all by default."""
        if event_ids is None:
            event_ids = torch.arange(graph.num_events)
        event_ids = check_index("event_ids", event_ids, graph.num_events)
        target = graph.events().dst[event_ids]
        return cls(graph, Query.of_events(graph, event_ids), target, num_neighbors, **kwargs)

    def rebuild(self, graph: FriendGraph, rows: Tensor, time: int) -> Self:
        """The same loader, in order and without workers, for some seeds asked at `time` on another graph."""
        return type(self)(graph, self.query[rows].at(time), self.target[rows], **self._options)

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch: draws, negatives and order change."""
        self.seeds.set_epoch(epoch)
        for order in (self.sampler, self.batch_sampler):
            if hasattr(order, "set_epoch"):
                order.set_epoch(epoch)

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A sampler's output as a batch, without the virtual edge type."""
        batch = super().filter_fn(out)
        store = batch[EVENT_TYPE]
        batch.src_index, batch.dst_index = store.edge_label_index
        self.seeds.mark(batch, store.input_id, store.edge_label_time)
        del batch[EVENT_TYPE]
        return batch if self._finish is None else self._finish(batch)
