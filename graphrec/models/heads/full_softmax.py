"""A bound head from embeddings and logits of all users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, Self, TypeVar

from torch import Tensor

from graphrec.models.heads.head import Head
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.nn import SampledSoftmax
from graphrec.temporal import NEVER


class UserScores(Protocol):
    """Computes embeddings and logits of the N users of a graph. Results are on the network's device."""

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of users [n] int64 from events before ticks [n] int64 (see `Timeline`): [n, D]."""

    def logits(self, encoded: EncodedQuery) -> Tensor:
        """Logits of all users for B queries in order of time: [B, N]."""


Scores = TypeVar("Scores", bound=UserScores)


@dataclass(frozen=True)
class FullSoftmax(Generic[Scores]):
    """A `BoundHead` with P(v) as the exact softmax over the logits of all users, in training, too.

    Memory and time of a training step grow with queries times users. For networks with more than some tens of
    thousands of users, write a `BoundHead` whose `likelihood` is a `SampledSoftmax` of drawn candidates.

    Attributes:
        head: the head that is bound.
        scores: computes embeddings and logits.
    """

    head: Head[Self]
    scores: Scores

    first_time: ClassVar[int] = NEVER

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`."""
        return self.scores.embed_users(user, tick)

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`: from events up to and including those of the tick."""
        return self.scores.embed_users(user, tick + 1)

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """See `BoundHead`."""
        return self.scores.logits(encoded).log_softmax(1)

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> SampledSoftmax:
        """See `BoundHead`: exact, without random draws."""
        order = encoded.tick.argsort(stable=True)
        in_order = self.scores.logits(encoded.select(order))
        logits = in_order[order.argsort().to(in_order.device)]
        return SampledSoftmax.of_all(logits, encoded.query.user, target)
