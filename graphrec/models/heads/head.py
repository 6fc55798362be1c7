"""The interface between a mixture recommender and its distribution over all users.

A `Head` holds the configuration, and state fitted before the network is built (such as a tokenizer). Bound to
a graph and a network it becomes a `BoundHead`, which computes probabilities. docs/models.md has an example of
about thirty lines.

Shapes: B queries, N users, n of them, D the width of embeddings and query vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor, nn

from graphrec.models.mixture.encoded import EncodedQuery, GlobalLikelihood
from graphrec.models.mixture.view import GraphView
from graphrec.nn import EncoderConfig, MixtureNetwork
from graphrec.tokenizer import Tokenizer

Bound = TypeVar("Bound", bound="BoundHead")
Bound_co = TypeVar("Bound_co", bound="BoundHead", covariant=True)


class Head(Protocol[Bound_co]):
    """The configuration and fitted state of a distribution over all users, not yet bound to a graph."""

    kind: ClassVar[str]
    """Name of the head in saved models, and the first part of the default model name."""

    features: ClassVar[tuple[str, ...]]
    """The input features, out of `FEATURES`, that the head supports."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer whose STUs the head decodes; None if it decodes none."""

    def fit(self, view: GraphView) -> Self:
        """Fit what the head needs before its network is built.

        It reads events strictly before `view.period.until`.

        Returns:
            This head if there is nothing to fit, else a new head with the fitted state.
        """

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> nn.Module:
        """Build the head's module, with initial weights from torch's global generator.

        Args:
            view: the graph of training.
            encoder: its `embedding_dim` is D; its `dropout` applies to the head, too.
            features: the names, out of `FEATURES`, of the input features to use.
        """

    def with_rows(self, module: nn.Module, rows: Tensor) -> nn.Module:
        """Copy the head's module for fewer users.

        Args:
            module: made by `build`, and trained; it must not be changed.
            rows: [n] int64, the rows of users to keep, from 1 on (see `GraphView`), renumbered 1..n.
        """

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> Bound_co:
        """Bind the head to a graph and to a network whose `head` is the module of `build`.

        Args:
            view: the graph.
            network: the network; in training its weights still change.
            training: whether queries come from the training period; else all come after it.
        """

    def run_key(self) -> Mapping[str, Any]:
        """Return everything in the fitted head that training depends on, to identify an interrupted run.

        Returns:
            Plain values, tensors and mappings of them by name, for `graphrec.data.digest_value`.
        """

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the head's files, if it needs any, and return its settings for the JSON manifest."""

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Load the head that `save` wrote.

        Raises:
            DataError, ValueError: the settings or files are not what `save` wrote.
        """


class BoundHead(Protocol):
    """A head bound to a graph and a network. Results are on the network's device, indices on the CPU."""

    @property
    def head(self) -> Head[Self]:
        """The head with its fitted state, without graph and network, to save or to bind again."""

    @property
    def first_time(self) -> int:
        """Seconds; events from then on can be training targets."""

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of the queries' users [n] int64 before ticks [n] int64 (see `Timeline`): [n, D]."""

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of the other users [n] int64 of timeline events at ticks [n] int64: [n, D]."""

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> GlobalLikelihood:
        """In training, the likelihood of targets among all users.

        Args:
            encoded: B queries.
            target: [B] int64, users.
            draw: [] int64, the seed of random draws in the step, such as negatives.
        """

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """Log-probabilities of all users for B queries in order of time: [B, N] float32, rows sum to 1."""


@runtime_checkable
class Refreshes(Protocol):
    """A bound head that caches values computed from the weights, and recomputes them on demand."""

    def start_epoch(self, epoch: int, max_epochs: int) -> None:
        """Start an epoch, counted from 0; called before its first batch."""

    def refresh(self) -> None:
        """Recompute cached values from the current weights; called before each validation."""


@runtime_checkable
class Searches(Protocol):
    """A bound head that finds the likeliest users without scoring all."""

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """Group queries at ticks [B] int64 that can be searched together: rows [b] int64 of each group."""

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find candidates for the k best users, with their probabilities in the whole mixture.

        Args:
            encoded: B queries of one group.
            k: users wanted for each query.
            exclude: (row [M], user [M]) int64, users not to be found for a query.
            exclude_users: [O] int64, users not to be found for any.

        Returns:
            (row [V], user [V]) int64, distinct pairs, and log-probabilities [V]; excluded users may still be
            among them.
        """


@runtime_checkable
class ScoresPairs(Protocol):
    """A bound head that scores (query, user) pairs at a cost that grows with their number, not with N."""

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """As in `Searches`."""

    def log_probs_of_pairs(self, encoded: EncodedQuery, row: Tensor, user: Tensor) -> Tensor:
        """Log-probabilities, in the whole mixture, of V (query, user) pairs, `row`, `user` [V] int64: [V]."""


HEADS: dict[str, type[Head[Any]]] = {}
"""Classes of heads by `kind`, for loading; `register_head` adds to it."""


def register_head(kind: type[Head[Any]]) -> None:
    """Register a class of heads, so that saved models with it can be loaded."""
    HEADS[kind.kind] = kind
