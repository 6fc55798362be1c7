"""Batches of timelines by how long they are together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from graphrec.data.checks import INT64, check_counts, check_index, check_seed
from graphrec.data.draws import epoch_order


class TimelineBatches(Sampler[list[int]]):
    """Seeds in a new order each epoch, cut into batches of about `budget` acts, whatever the lengths.

    Args:
        lengths: [n] int64, acts in each seed's timeline.
        budget: acts in a batch; a longer timeline is a batch of its own.
        most: batches of an epoch; where there are more, the next epoch draws others.
        seed: with the epoch it fixes the order.
    """

    def __init__(self, lengths: Tensor, *, budget: int, most: int, seed: int = 0) -> None:
        check_counts(budget=budget, most=most)
        check_seed(seed)
        self._lengths = check_index("lengths", lengths, INT64.max)
        self._budget = budget
        self._most = most
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
        number = self._lengths[order].cumsum(0) // self._budget
        sizes = torch.unique_consecutive(number, return_counts=True)[1]
        return list(order.split(sizes.tolist()))[: self._most]
