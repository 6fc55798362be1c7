"""The interface between a mixture recommender and its distribution over all users.

A `Head` is what is configured, and what is learned before there is a network. Bound to a graph and a network
it becomes a `BoundHead`, which answers. docs/models.md writes one in about thirty lines.

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
    """Gives every user a probability; not bound to a graph yet."""

    kind: ClassVar[str]
    """Its name in saved models, and the first part of the names of its models."""

    features: ClassVar[tuple[str, ...]]
    """Those of `FEATURES` that it knows."""

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer whose STUs it decodes, if any."""

    def fit(self, view: GraphView) -> Self:
        """Fit what the head needs before its network is built.

        It reads events strictly before `view.period.until`.

        Returns:
            This head if there is nothing to fit, else a new head with the fitted state.
        """

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> nn.Module:
        """Its part of the network, with initial values drawn from torch's global generator.

        Args:
            view: the graph of training.
            encoder: whose `embedding_dim` is D, and whose `dropout` it should use.
            features: those of `FEATURES` that are used.
        """

    def with_rows(self, module: nn.Module, rows: Tensor) -> nn.Module:
        """Its part of the network for fewer users.

        Args:
            module: of `build`, trained; it must not be changed.
            rows: [n] int64 from 1 on, the rows of users (see `GraphView`) that are left, renumbered 1..n.
        """

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> Bound_co:
        """Bind the head to a graph and to a network whose `head` is the module of `build`.

        Args:
            view: the graph.
            network: the network; in training its weights are yet to change.
            training: whether queries come from the training period; else all come after it.
        """

    def run_key(self) -> Mapping[str, Any]:
        """Return everything in the fitted head that training depends on, to identify an interrupted run.

        Returns:
            Plain values, tensors and mappings of them by name, for `graphrec.data.digest_value`.
        """

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write files beside the weights, if it needs any, and return its settings for the JSON manifest."""

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """The head that `save` wrote.

        Raises:
            DataError, ValueError: the settings or files are not what `save` wrote.
        """


class BoundHead(Protocol):
    """A head on a graph, with a network. Results are on the network's device, indices on the CPU."""

    @property
    def head(self) -> Head[Self]:
        """The head without graph and network, with all it has learned since: what is saved and bound anew."""

    @property
    def first_time(self) -> int:
        """Seconds: it can be trained on events from then on."""

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of asking users [n] before ticks [n] (int64 both): [n, D]."""

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings of the other sides [n] of events at ticks [n] (int64 both): [n, D]."""

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> GlobalLikelihood:
        """In training: how likely targets are among all users.

        Args:
            encoded: B queries.
            target: [B] int64, users.
            draw: [] int64, fixes whatever is drawn in the step.
        """

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """Log-probabilities of all users for B queries in order of time: [B, N] float32, rows sum to 1."""


@runtime_checkable
class Refreshes(Protocol):
    """A bound head that keeps something computed from the weights, to be computed anew as these change."""

    def start_epoch(self, epoch: int, max_epochs: int) -> None:
        """Called before the first batch of each epoch, counted from 0."""

    def refresh(self) -> None:
        """Called when the weights have changed: before each validation."""


@runtime_checkable
class Searches(Protocol):
    """A bound head that finds the likeliest users without scoring all."""

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """Queries at ticks [B] int64 that may be searched for together: rows [b] int64 of each group."""

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Users among whom the best k are looked for, with their probabilities in the whole mixture.

        Args:
            encoded: B queries of one group.
            k: users wanted for each query.
            exclude: (row [M], user [M]) int64, users not to be found for a query.
            exclude_users: [O] int64, users not to be found for any.

        Returns:
            (row [V], user [V]) int64, distinct pairs, and log-probabilities [V]; excluded ones may be among
            them.
        """


@runtime_checkable
class ScoresPairs(Protocol):
    """A bound head that scores single pairs of query and user at a cost that grows with the pairs."""

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """As in `Searches`."""

    def log_probs_of_pairs(self, encoded: EncodedQuery, row: Tensor, user: Tensor) -> Tensor:
        """Log-probabilities in the whole mixture of users [V] for queries `row` [V] (int64 both): [V]."""


HEADS: dict[str, type[Head[Any]]] = {}
"""Heads by their kind, for loading: `register_head` adds to it."""


def register_head(kind: type[Head[Any]]) -> None:
    """Let saved models with this head be loaded."""
    HEADS[kind.kind] = kind
