"""The data that pass from the encoder of queries to a head, and from a head to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from graphrec.data import Query
from graphrec.nn import CandidateScores
from graphrec.temporal import SpectralQuery


@dataclass(frozen=True)
class EncodedQuery:
    """B queries as the network has read them.

    Attributes:
        query: in order of time where all users are to be scored.
        tick: [B] int64.
        vector: [B, D], of the user tower.
        features: [B, NUM_QUERY_FEATURES], standardized.
        profile: [B, R], the asking users' part in the similarity of profiles; None without profiles.
        spectral: spectral embeddings of the asking users; None where they are not used.
        neighbors: scores of the neighborhood; None without components.
    """

    query: Query
    tick: Tensor
    vector: Tensor
    features: Tensor
    profile: Tensor | None
    spectral: SpectralQuery | None
    neighbors: CandidateScores | None

    def __len__(self) -> int:
        return len(self.query)

    def select(self, rows: Tensor) -> EncodedQuery:
        """Some of the queries [n] int64, without their neighborhoods."""
        where = rows.to(self.vector.device)
        return replace(
            self,
            query=self.query[rows],
            tick=self.tick[rows],
            vector=self.vector[where],
            features=self.features[where],
            profile=None if self.profile is None else self.profile[where],
            spectral=None if self.spectral is None else self.spectral[rows],
            neighbors=None,
        )


class GlobalLikelihood(Protocol):
    """How likely the B targets of a training step are among all users, according to a head."""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights with which terms of `metrics` are added to the loss; empty where there are none."""

    def log_p(self, rows: Tensor, excluded: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-probabilities of the targets of some queries.

        Args:
            rows: [n] int64, the queries.
            excluded: (row [M], user [M]) int64 of all B queries: users who are no candidates.

        Returns:
            [n] float32.
        """

    def metrics(self) -> dict[str, Tensor]:
        """Means over the step to log, [] each."""
