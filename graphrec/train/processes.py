"""Training in several processes under torchrun: each takes a part of every batch."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import torch
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader, Sampler


def num_processes() -> int:
    """Number of processes that torchrun started for this job; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def is_first_process() -> bool:
    """Whether this process validates and writes files."""
    return num_processes() == 1 or int(os.environ["RANK"]) == 0


def trainer_placement() -> dict[str, Any]:
    """Arguments of `pl.Trainer` for this machine: a GPU if there is one, and the processes of torchrun.

    The backend is gloo, which exchanges sparse gradients on either device. The time limit is long, since
    other processes wait while the first one validates; torchrun ends them if one fails.
    """
    accelerator = "gpu" if torch.cuda.is_available() else "cpu"
    if num_processes() == 1:
        return {"accelerator": accelerator, "devices": 1}
    return {
        "accelerator": accelerator,
        "devices": int(os.environ["LOCAL_WORLD_SIZE"]),
        "num_nodes": int(os.environ["GROUP_WORLD_SIZE"]),
        "strategy": DDPStrategy(
            process_group_backend="gloo", find_unused_parameters=True, timeout=timedelta(days=7)
        ),
        "use_distributed_sampler": False,
    }


class _PartSampler(Sampler[list[int]]):
    """One process's part of every batch; all processes take batches with fewer seeds than processes."""

    def __init__(self, batches: Any, rank: int, size: int) -> None:
        self._batches, self._rank, self._size = batches, rank, size

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self._batches, "set_epoch"):
            self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches:
            yield batch[self._rank :: self._size] if len(batch) >= self._size else batch


def share_batches(loader: Iterable[Any]) -> Iterable[Any]:
    """A loader of this process's part of every batch.

    Args:
        loader: its order of batches has to follow from (seed, epoch) alone, so that processes agree on it.

    Returns:
        the loader itself if there is one process.

    Raises:
        ValueError: several processes, and not a `DataLoader` with a batch sampler.
    """
    if num_processes() == 1:
        return loader
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise ValueError("several processes can only share a DataLoader with a batch sampler")
    part = copy.copy(loader)
    sampler = _PartSampler(loader.batch_sampler, int(os.environ["RANK"]), num_processes())
    object.__setattr__(part, "batch_sampler", sampler)  # which DataLoader itself forbids
    return part
