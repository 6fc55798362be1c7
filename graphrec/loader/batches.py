"""Orders of seeds: shuffled epochs, and batches of timelines by their total length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from graphrec.data.checks import INT64, check_counts, check_index, check_seed
from graphrec.data.draws import epoch_order


class EpochShuffle(Sampler[int]):
    """A new order of seeds each epoch, fixed by (seed, epoch) alone: a resumed run has the same orders.

    Args:
        size: the number of seeds.
        seed: with the epoch it fixes the order.
    """

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


class TimelineBatches(Sampler[list[int]]):
    """Seeds in a new order each epoch, cut into batches of about equally many events, whatever the lengths.

    Args:
        lengths: [n] int64, events in each seed's timeline.
        events_per_batch: events of a batch; a longer timeline is a batch of its own.
        max_batches: batches of an epoch; where there are more, the next epoch draws others.
        seed: with the epoch it fixes the order.
    """

    def __init__(self, lengths: Tensor, *, events_per_batch: int, max_batches: int, seed: int = 0) -> None:
        check_counts(events_per_batch=events_per_batch, max_batches=max_batches)
        check_seed(seed)
        self._lengths = check_index("lengths", lengths, INT64.max)
        self._events_per_batch = events_per_batch
        self._max_batches = max_batches
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; training engines call this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches():
            yield batch.tolist()

    def _batches(self) -> list[Tensor]:
        order = epoch_order(len(self._lengths), seed=self._seed, epoch=self._epoch)
        number = self._lengths[order].cumsum(0) // self._events_per_batch
        sizes = torch.unique_consecutive(number, return_counts=True)[1]
        return list(order.split(sizes.tolist()))[: self._max_batches]
