"""The optional protocols of heads, and functions that apply each one or its default.

Shapes: B queries, N users, V pairs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from torch import Tensor

from graphrec.models.heads.head import Bound, Head
from graphrec.models.manifest import read_config
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.view import GraphView
from graphrec.nn import MixtureNetwork
from graphrec.tokenizer import Tokenizer


@runtime_checkable
class Fits(Protocol):
    """A head with state fitted before its network is built. It also implements `Saves`."""

    def fit(self, view: GraphView) -> Self:
        """Return a new head with the fitted state, from events strictly before `view.period.until`."""

    def run_key(self) -> Mapping[str, Any]:
        """Return everything in the fitted head that training depends on, to identify an interrupted run.

        Returns:
            Plain values, tensors and mappings of them by name, for `graphrec.data.digest_value`.
        """


@runtime_checkable
class Saves(Protocol):
    """A head whose fields are not all plain values, or that has files."""

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the head's files, if it needs any, and return its settings for the JSON manifest."""

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """Load the head that `save` wrote.

        Raises:
            DataError, ValueError: the settings or files are not what `save` wrote.
        """


@runtime_checkable
class HasTokenizer(Protocol):
    """A head that decodes STUs."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of these STUs."""


@runtime_checkable
class Refreshes(Protocol):
    """A bound head that caches values computed from the weights, and recomputes them on demand."""

    def start_epoch(self, epoch: int, max_epochs: int) -> None:
        """Start an epoch, counted from 0; called before its first batch."""

    def refresh(self) -> None:
        """Recompute cached values from the current weights; called before each validation."""


@runtime_checkable
class Follows(Protocol):
    """A bound head that follows appended events at a cost that grows with them, not with the whole log."""

    def follow(self, view: GraphView) -> Self:
        """Return the bound head on the view of a graph that has grown; see `GraphView.follow`."""


@runtime_checkable
class Searches(Protocol):
    """A bound head that finds the likeliest users without scoring all."""

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """Group queries at ticks [B] int64 that can be searched together: rows [b] int64 of each group."""

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find candidates for the k best users, with their probabilities in the whole mixture.

        It is called in inference mode: what it keeps for later calls is made in `lasting_tensors`.

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


@runtime_checkable
class ReadsIndex(Protocol):
    """A bound head that can read an index that has lost events, without being bound to another graph."""

    def reading(self, view: GraphView, changed: Tensor) -> Self:
        """Return the head on the same graph and network, reading the index of a view.

        What is renewed at regular moments stays as it is.

        Args:
            view: the view of the head's graph with an index that has lost events.
            changed: [U] int64, ascending, the users of these events.
        """


def check_head(head: Head[Any]) -> None:
    """Raise TypeError if a head could not be saved once its model is fitted."""
    name = type(head).__name__
    if isinstance(head, Saves):
        return
    if isinstance(head, Fits):
        raise TypeError(f"the head {name} has fit but cannot be saved: give it save and load")
    settings_of(head)


def settings_of(head: Head[Any]) -> dict[str, Any]:
    """Return the fields of a head by name, as JSON values.

    Raises:
        TypeError: the head has attributes but is not a dataclass, or JSON cannot represent a field.
    """
    name = type(head).__name__
    if isinstance(head, type) or not is_dataclass(head):
        if isinstance(head, type) or getattr(head, "__dict__", None):
            raise TypeError(
                f"the head {name} cannot be saved: make it a frozen dataclass, or give it save and load"
            )
        return {}
    settings = asdict(head)
    for field, value in settings.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            found = type(value).__name__
            raise TypeError(
                f"the field {field!r} of the head {name} is a {found}, which JSON cannot represent: "
                "give the head save and load"
            ) from None
    return settings


def fit_head(head: Head[Bound], view: GraphView) -> Head[Bound]:
    """Fit a head before its network is built. By default there is nothing to fit."""
    return head.fit(view) if isinstance(head, Fits) else head


def follow_head(bound: Bound, view: GraphView, network: MixtureNetwork) -> Bound:
    """Return a bound head on the view of a graph that has grown; by default it is bound again."""
    if isinstance(bound, Follows):
        return bound.follow(view)
    head: Head[Bound] = bound.head
    return head.bind(view, network)


def run_key_of(head: Head[Any]) -> Mapping[str, Any]:
    """Return everything in a fitted head that training depends on; by default its fields.

    Entries of a field that is itself a dataclass have names such as `config.num_rand_negs`.
    """
    if isinstance(head, Fits):
        return head.run_key()
    if isinstance(head, type) or not is_dataclass(head):
        return dict(vars(head))
    key: dict[str, Any] = {}
    for field, value in asdict(head).items():
        parts = value if isinstance(value, dict) else {"": value}
        key |= {f"{field}.{name}".removesuffix("."): part for name, part in parts.items()}
    return key


def tokenizer_of(head: Head[Any]) -> Tokenizer | None:
    """Return the tokenizer whose STUs a head decodes; by default None."""
    return head.tokenizer if isinstance(head, HasTokenizer) else None


def save_head(head: Head[Any], folder: Path) -> dict[str, Any]:
    """Save a head in an existing folder; return its settings for the manifest, by default its fields."""
    return dict(head.save(folder)) if isinstance(head, Saves) else settings_of(head)


def load_head(kind: type[Head[Any]], settings: Mapping[str, Any], folder: Path) -> Head[Any]:
    """Load the head of a class that `save_head` saved.

    Raises:
        DataError, ValueError: the settings or files are not what `save_head` wrote.
    """
    if issubclass(kind, Saves):
        return kind.load(settings, folder)
    if is_dataclass(kind):
        return read_config(kind, settings)
    return kind()
