"""The interface between a mixture recommender and its distribution over all users.

A `Head` holds the configuration, and state fitted before the network is built (such as a tokenizer). Bound to
a graph and a network it becomes a `BoundHead`, which computes probabilities. `graphrec.models.heads.optional`
defines the methods that are optional. docs/models.md has an example of about thirty lines, which uses
`FullSoftmax` as its bound head.

Shapes: B queries, N users, n of them, D the width of embeddings and query vectors.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar, Protocol, Self, TypeVar

from torch import Tensor, nn

from graphrec.models.mixture.encoded import EncodedQuery, GlobalLikelihood
from graphrec.models.mixture.view import GraphView
from graphrec.models.naming import add_name
from graphrec.nn import EncoderConfig, MixtureNetwork

Bound = TypeVar("Bound", bound="BoundHead")
Bound_co = TypeVar("Bound_co", bound="BoundHead", covariant=True)
HeadClass = TypeVar("HeadClass", bound="type[Head[Any]]")


class Head(Protocol[Bound_co]):
    """The configuration and fitted state of a distribution over all users, not yet bound to a graph.

    A head that is a frozen dataclass of plain values is saved and loaded by its fields. Other heads implement
    `Saves`; heads with state fitted before the network is built implement `Fits`, too; heads that decode STUs
    implement `HasTokenizer`. A module with a row for each user implements `graphrec.nn.HasUserRows`.
    """

    kind: ClassVar[str]
    """Name of the head in saved models, and the first part of the default model name."""

    features: ClassVar[tuple[str, ...]]
    """The input features, out of `FEATURES`, that the head supports."""

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> nn.Module:
        """Build the head's module, with initial weights from torch's global generator.

        Args:
            view: the graph of training.
            encoder: its `embedding_dim` is D; its `dropout` applies to the head, too.
            features: the names, out of `FEATURES`, of the input features to use.
        """

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> Bound_co:
        """Bind the head to a graph and to a network whose `head` is the module of `build`.

        Args:
            view: the graph.
            network: the network; in training its weights still change.
            training: whether queries come from the training period; else all come after it.
        """


class BoundHead(Protocol):
    """A head bound to a graph and a network. Results are on the network's device, indices on the CPU.

    A bound head may also implement `Refreshes`, `Searches` or `ScoresPairs`.
    """

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


HEADS: dict[str, type[Head[Any]]] = {}
"""Classes of heads by `kind`, for loading; `register_head` adds to it."""


def register_head(head: HeadClass) -> HeadClass:
    """Register a class of heads, so that saved models with it can be loaded; a class decorator.

    A class that is defined again in the same place, as in a notebook, replaces the earlier definition.

    Returns:
        The class itself.

    Raises:
        TypeError: the argument is not a class with the members of `Head`.
        ValueError: another class has this `kind`, or it is not a valid name.
    """
    if not isinstance(head, type):
        raise TypeError(f"register_head takes the class of a head, got {head!r}")
    missing = [name for name in ("kind", "features", "build", "bind") if not hasattr(head, name)]
    if missing:
        raise TypeError(f"{head.__name__} is not a head: it has no {', '.join(missing)}")
    add_name(HEADS, "head", head.kind, head)
    return head
