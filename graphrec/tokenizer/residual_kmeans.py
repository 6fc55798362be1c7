"""The strong simple baseline: residual k-means over spectral embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.data.checks import check_count
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.tokenizer.tokenizer import Tokenizer

MAX_DIM = 2**14

ITERATIONS = 16
"""Of the embedding; with a quarter as many, AUC on Deezer Hungary is .80 instead of .87."""


class ResidualKMeans(Tokenizer):
    """Residual k-means over spectral embeddings (`graphrec.temporal.SpectralEmbeddings`).

    A newcomer stands at the normalised mean of the people in contact with them who have a place; of those who
    come together, first those who know somebody from before.

    Args:
        dim: D, of the embeddings; fewer where there are fewer users.
        num_codebooks, codebook_size, unique, balanced, seed: as in `Tokenizer`; plain k-means by default.
    """

    def __init__(
        self,
        *,
        dim: int = 32,
        num_codebooks: int = 3,
        codebook_size: int | None = None,
        unique: bool = True,
        balanced: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
            unique=unique,
            balanced=balanced,
            seed=seed,
        )
        self.dim = check_count("dim", dim, maximum=MAX_DIM)
        self._places = torch.empty(0, dim, dtype=torch.float32)

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Embed the graph as it is."""
        start = torch.randn(graph.num_users, min(self.dim, graph.num_users))
        if self.before is not None and self._places.size(1) == start.size(1):
            had = (self.before >= 0) & (self.before < len(self._places))
            start = torch.where(had[:, None], self._places[self.before * had], 0.01 * start)
        structure = SpectralEmbeddings(
            Timeline.of(graph), start, every=graph.num_events, iterations=ITERATIONS
        )
        self._places = structure.embedding[-1].clone()

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Own place, or that of the contacts who have one: [n, D]."""
        size, width = self._places.shape
        places = torch.zeros(graph.num_users, width)
        places[:size] = self._places
        events = graph.events()
        one, other = torch.cat([events.src, events.dst]), torch.cat([events.dst, events.src])
        user, contact = torch.stack([one, other])[:, one >= size].unique(dim=1)
        placed = torch.arange(graph.num_users) < size
        while len(user):  # people who came, then those who know only them, and so on
            near = placed[contact]
            mean = torch.zeros_like(places).index_add_(0, user[near], places[contact[near]])
            new = user[near].unique()
            if not len(new):
                break  # the rest know nobody who has a place
            places[new] = F.normalize(mean[new], dim=1)
            placed[new] = True
            user, contact = user[~placed[user]], contact[~placed[user]]
        return places[users]

    def drop(self, stays: Tensor) -> None:
        """The places of whoever goes."""
        self._places = self._places[stays[: len(self._places)]]

    def get_extra_state(self) -> Any:
        """What is saved beside parameters."""
        return self._places

    def set_extra_state(self, state: Any) -> None:
        """What was saved beside parameters."""
        self._places = state
