"""Data passed from the query encoder to a head, and from a head to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from graphrec.data import Query
from graphrec.nn import CandidateScores
from graphrec.temporal import Contacts, SpectralQuery, UserActivity


@dataclass(frozen=True)
class EncodedQuery:
    """B queries, encoded by the network.

    Attributes:
        query: the queries; in order of time if all users will be scored.
        tick: [B] int64, the queries' times as ticks (see `Timeline`).
        vector: [B, D], output of the user tower.
        features: [B, NUM_QUERY_FEATURES], standardized.
        profile: [B, K + 1], the query's weighted factors of the affinity of profiles (see `ProfileNet`); None
            without profiles.
        spectral: spectral embeddings of the queries' users; None if they are not used.
        neighbors: scores of the neighborhood by each component; None without components.
        contacts: the contacts in it, C of them; None without components.
        received: [C] int64, acts on each contact before the query; None without components.
        activity: of the neighbors before the query; None without components.
    """

    query: Query
    tick: Tensor
    vector: Tensor
    features: Tensor
    profile: Tensor | None
    spectral: SpectralQuery | None
    neighbors: CandidateScores | None
    contacts: Contacts | None = None
    received: Tensor | None = None
    activity: UserActivity | None = None

    def __len__(self) -> int:
        return len(self.query)

    def select(self, rows: Tensor) -> EncodedQuery:
        """The queries at positions `rows` [n] int64, without their neighborhoods."""
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
            contacts=None,
            received=None,
            activity=None,
        )


class GlobalLikelihood(Protocol):
    """A head's log-probabilities of the B targets of a training step among all users."""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights with which terms of `metrics` are added to the loss, by name; empty if none is."""

    def log_p(self, rows: Tensor, excluded: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-probabilities of the targets of some queries.

        Args:
            rows: [n] int64, positions of these queries among the B.
            excluded: (row [M], user [M]) int64, users who are not candidates of a query; rows count all B.

        Returns:
            [n] float32.
        """

    def metrics(self) -> dict[str, Tensor]:
        """Values to log, means over the step: [] each."""
