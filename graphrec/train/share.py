"""Several processes under torchrun train one network: each takes a part of every batch."""

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
    """Processes that torchrun started for this job; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1


def is_first_process() -> bool:
    """Whether this is the process that validates and writes."""
    return num_processes() == 1 or int(os.environ["RANK"]) == 0


def placement() -> dict[str, Any]:
    """How the engine is to run here: on a GPU where there is one, with as many processes as torchrun started.

    gloo exchanges sparse gradients too, on either device. The others wait while the first process validates,
    so there is no limit of minutes; torchrun ends them when one fails.
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


class _Part(Sampler[list[int]]):
    """One process's part of every batch; a batch with fewer seeds than processes is everyone's."""

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


def shared(loader: Iterable[Any]) -> Iterable[Any]:
    """The loader with this process's part of every batch; all parts of a step make up the loader's batch.

    The order of the batches has to be the same in every process, by (seed, epoch).
    """
    if num_processes() == 1:
        return loader
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise ValueError("several processes can only share a DataLoader that has batches of seeds")
    part = copy.copy(loader)
    sampler = _Part(loader.batch_sampler, int(os.environ["RANK"]), num_processes())
    object.__setattr__(part, "batch_sampler", sampler)  # which DataLoader itself forbids
    return part
