"""The configuration of a mixture recommender."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypedDict, TypeVar, Unpack, get_args

from graphrec.data.checks import check_choice, check_count, check_number, check_seed
from graphrec.nn import COMPONENTS, Activation, Component, EncoderConfig, History, Interaction
from graphrec.temporal import NeighborhoodConfig

Feature = Literal["presence", "spectral", "prefix_groups"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
"""Input features for every user: recency and counts of events ('presence'), positions in the contact graph
('spectral'), and votes of the neighbors for their prefix groups ('prefix_groups')."""

Targets = Literal["next_acts", "windows"]
"""What a mixture recommender is trained on; see `TrainConfig`."""

T = TypeVar("T")


@dataclass(frozen=True)
class TrainConfig:
    """How a mixture recommender is trained.

    Attributes:
        history_loss_weight: loss weight of all events of a timeline but the last; 0 trains on last events
            alone.
        events_per_batch: number of events on the timelines of a batch.
        max_queries: number of events of a batch that become training queries, at most.
        epoch_batches: number of batches in an epoch, at most; each epoch draws others.
        max_epochs: number of epochs, at most.
        patience: epochs without a better validation score after which training stops.
        seed: fixes initial weights, order, negatives and dropout.
        targets: 'next_acts', whom a user acts on at each event, or 'windows', with whom an outcome begins in
            a window after a regular moment (see `WindowLoss`).

    Raises:
        TypeError: a value of another kind.
        ValueError: a value is out of range.
    """

    history_loss_weight: float = 1.0
    events_per_batch: int = 1024
    max_queries: int = 64
    epoch_batches: int = 50
    max_epochs: int = 6
    patience: int = 3
    seed: int = 0
    targets: Targets = "next_acts"

    def __post_init__(self) -> None:
        weight = check_number("history_loss_weight", self.history_loss_weight, minimum=0.0)
        object.__setattr__(self, "history_loss_weight", weight)
        for name in ("events_per_batch", "max_queries", "epoch_batches", "max_epochs", "patience"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        object.__setattr__(self, "seed", check_seed(self.seed))
        check_choice("targets", self.targets, get_args(Targets))


@dataclass(frozen=True)
class MixtureConfig:
    """The configuration of a mixture recommender, without its head.

    Attributes:
        components: the distributions over the neighborhood that are mixed with the head: any of
            'pointer', 'paths' and 'union', see `NeighborhoodMixture`.
        features: input features of the head for every user: any of 'presence', 'spectral' and
            'prefix_groups'; a head declares which it supports.
        neighborhood: limits of the neighborhood.
        encoder: the user tower.
        train: training.

    Raises:
        TypeError: a value of another kind.
        ValueError: an unknown component or feature.
    """

    components: tuple[Component, ...] = COMPONENTS
    features: tuple[Feature, ...] = ("presence", "spectral")
    neighborhood: NeighborhoodConfig = field(default_factory=NeighborhoodConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        for one, known in (("component", COMPONENTS), ("feature", FEATURES)):
            given = _names(f"{one}s", getattr(self, f"{one}s"))
            for name in given:
                check_choice(one, name, known)
            object.__setattr__(self, f"{one}s", tuple(name for name in known if name in given))
        for name, kind in (
            ("neighborhood", NeighborhoodConfig),
            ("encoder", EncoderConfig),
            ("train", TrainConfig),
        ):
            if not isinstance(getattr(self, name), kind):
                wrong = type(getattr(self, name)).__name__
                raise TypeError(f"{name} must be a {kind.__name__}, got a {wrong}")

    @property
    def searched_neighborhood(self) -> NeighborhoodConfig:
        """Limits of the neighborhood to read: only contacts if no component or feature reads others."""
        if set(self.components) <= {"pointer"} and "prefix_groups" not in self.features:
            return replace(self.neighborhood, max_bridges=0, recent_window=0)
        return self.neighborhood


class Settings(TypedDict, total=False):
    """The fields of `EncoderConfig` and `TrainConfig` as keyword arguments of a builder."""

    history: History
    interaction: Interaction
    activation: Activation
    embedding_dim: int
    hidden_channels: int
    num_layers: int
    num_heads: int
    window: int
    dropout: float
    history_loss_weight: float
    events_per_batch: int
    max_queries: int
    epoch_batches: int
    max_epochs: int
    patience: int
    seed: int
    targets: Targets


def mixture_config(
    *,
    components: Collection[Component] = COMPONENTS,
    features: Collection[Feature] = ("presence", "spectral"),
    neighborhood: NeighborhoodConfig | None = None,
    **settings: Unpack[Settings],
) -> MixtureConfig:
    """Make a configuration from the keyword arguments of a builder.

    Args:
        components: the distributions over the neighborhood to mix with the head.
        features: input features of the head for every user.
        neighborhood: limits of the neighborhood.
        **settings: fields of `EncoderConfig` and `TrainConfig`, such as `seed`.

    Raises:
        TypeError: a setting is unknown, or a value has a wrong type.
        ValueError: a value is unknown or out of range.
    """
    encoder, train = ({one.name for one in fields(kind)} for kind in (EncoderConfig, TrainConfig))
    unknown = [name for name in settings if name not in encoder | train]
    if unknown:
        raise TypeError(
            f"unexpected argument {unknown[0]!r}; settings are {', '.join(sorted(encoder | train))}"
        )
    return MixtureConfig(
        components=_names("components", components),
        features=_names("features", features),
        neighborhood=NeighborhoodConfig() if neighborhood is None else neighborhood,
        encoder=_built(EncoderConfig, {name: value for name, value in settings.items() if name in encoder}),
        train=_built(TrainConfig, {name: value for name, value in settings.items() if name in train}),
    )


def _names(what: str, names: Collection[T]) -> tuple[T, ...]:
    """Return names as a tuple. Raises TypeError for a single string."""
    if isinstance(names, str):
        raise TypeError(f"{what} must be several names, such as ({names!r},), got the string {names!r}")
    return tuple(names)


def _built(make: Callable[..., T], values: Mapping[str, object]) -> T:
    """Make a dataclass, with the fields that are among `values`."""
    return make(**values)
