"""The heuristic that knows nothing: what chance finds."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.data.draws import hashed, mix
from graphrec.models.heuristics.base import Heuristic, cache_blocks


class Random(Heuristic):
    """A uniform random score for each (query, candidate), a hash of both: the same in any batch.

    Args:
        generator: fixes the draw; by default seed 0.
    """

    name = "random"
    numbers = (*Heuristic.numbers, "salt")

    def __init__(self, generator: torch.Generator | None = None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got a {type(generator).__name__}")
        generator = generator or torch.Generator().manual_seed(0)
        self.salt = int(torch.randint(2**62, (1,), generator=generator))

    def _score_in_order(self, query: Query) -> Tensor:
        row = hashed(self.salt, query.user, query.time, query.action)
        column = mix(self.salt + torch.arange(self.graph.num_users))
        scores = torch.empty(len(query), self.graph.num_users, dtype=torch.float64)
        blocks = cache_blocks(scores)
        for drawn, salts in zip(blocks, row.split(len(blocks[0])), strict=True):
            drawn.copy_(mix(salts[:, None] + column) & (2**53 - 1)).div_(2.0**53)
        return scores
