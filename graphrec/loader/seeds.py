"""The seeds of a loader: their queries, sampler, order and negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_count, check_query
from graphrec.data.draws import below, hashed
from graphrec.loader.batches import EpochShuffle
from graphrec.loader.temporal_sampler import TemporalSampler

Strategy = Literal["last", "uniform"]
Transform = Callable[[HeteroData], HeteroData]

MAX_NEGATIVES = 2**20
"""Negatives of one seed, at most."""

BATCH_SIZE_WITHOUT_SAMPLER = 256
"""Seeds of a batch of a rebuilt loader whose original had a batch sampler."""

EXECUTION_OPTIONS = (
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
"""Options of `DataLoader` that do not change the content of batches; a rebuilt loader omits them."""


class LoaderOptions(TypedDict, total=False):
    """The keyword arguments of `QueryLoader` and `EventLoader`.

    Attributes:
        strategy: 'last', the default, or 'uniform' (see `TemporalSampler`).
        actions: actions whose events are drawn; all by default.
        num_negatives: users drawn for each seed, uniformly among all but the seed's own user; 0 by default.
        shuffle: a new order each epoch; no by default.
        seed: with the epoch it fixes order, draws and negatives; workers make no difference. 0 by default.
        transform: applied to each batch.

    All others are those of `torch.utils.data.DataLoader`.
    """

    strategy: Strategy
    actions: Sequence[str] | None
    num_negatives: int
    shuffle: bool
    seed: int
    transform: Transform | None
    batch_size: int | None
    batch_sampler: Any
    drop_last: bool
    generator: torch.Generator | None
    multiprocessing_context: Any
    num_workers: int
    persistent_workers: bool
    pin_memory: bool
    prefetch_factor: int | None
    timeout: float
    worker_init_fn: Callable[[int], None] | None


class Seeds:
    """The seeds of a loader, and how its batches are drawn around them.

    Args:
        graph: the whole graph.
        query: the seeds' users, times and actions.
        num_neighbors: as for `QueryLoader`.
        strategy, actions, num_negatives, shuffle, seed, transform: see `LoaderOptions`.
        **loader_options: options of `DataLoader`.

    Attributes:
        query: the seeds' users, times and actions.
        sampler: draws the neighborhoods.
        loader_options: options of `DataLoader`.
        options: keyword arguments of a loader with equal batches, in order and without workers.

    Raises:
        ValueError: there is no seed, or `num_negatives` is positive and there is no second user.
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
        transform: Transform | None = None,
        **loader_options: Any,
    ) -> None:
        self.sampler = TemporalSampler(graph, num_neighbors, strategy=strategy, actions=actions, seed=seed)
        check_query(graph, query)
        check_count("num_negatives", num_negatives, minimum=0, maximum=MAX_NEGATIVES)
        if not len(query):
            raise ValueError("a loader needs at least one seed, got none")
        if graph.num_users < 2 and num_negatives:
            raise ValueError("negatives need a second user, the graph has one")
        self.query, self.loader_options = query, loader_options
        self._num_users = graph.num_users
        self._num_negatives = num_negatives
        self._order = EpochShuffle(len(query), seed=seed) if shuffle else None
        self._transform = transform
        self.options: dict[str, Any] = {
            "num_neighbors": num_neighbors,
            "strategy": strategy,
            "actions": actions,
            "num_negatives": num_negatives,
            "seed": seed,
            "transform": transform,
            **{key: value for key, value in loader_options.items() if key not in EXECUTION_OPTIONS},
        }
        if "batch_sampler" in loader_options:
            self.options["batch_size"] = BATCH_SIZE_WITHOUT_SAMPLER

    @property
    def order(self) -> EpochShuffle | None:
        """The shuffled order of the seeds; None where they stay in order."""
        return self._order

    def set_epoch(self, epoch: int, batch_sampler: Any) -> None:
        """Start an epoch: draws, negatives and order change, also that of a loader's batch sampler."""
        self.sampler.set_epoch(epoch)
        if self._order is not None:
            self._order.set_epoch(epoch)
        if hasattr(batch_sampler, "set_epoch"):
            batch_sampler.set_epoch(epoch)

    def finish(self, batch: HeteroData, input_id: Tensor, time: Tensor) -> HeteroData:
        """Write `input_id`, `seed_time`, `seed_action` and `negatives` into a batch, and transform it.

        Args:
            batch: the batch.
            input_id: [B] int64, positions of its seeds.
            time: [B] int64 seconds.
        """
        batch.input_id = input_id
        batch.seed_time = time
        batch.seed_action = self.query.action[input_id]
        if self._num_negatives:
            salt = hashed(self.sampler.seed, self.sampler.epoch, input_id[:, None])
            number = torch.arange(self._num_negatives)
            drawn = below(hashed(salt, number, -1), self._num_users - 1)
            batch.negatives = drawn + (drawn >= self.query.user[input_id, None])
        return batch if self._transform is None else self._transform(batch)
