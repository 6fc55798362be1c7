"""Every recommender by its name, for command lines, bundles and benchmarks."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Literal, get_args

from graphrec.data import FriendGraph
from graphrec.data.checks import check_choice
from graphrec.models.builders import (
    CLUSTERED_PRESETS,
    GENERATIVE_PRESETS,
    TWO_TOWER_PRESETS,
    Clustered,
    GenerativeSTU,
    TwoTower,
)
from graphrec.models.friend_recommender import FriendRecommender
from graphrec.models.heuristics import HEURISTICS
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.models.naming import add_name
from graphrec.models.nearest import Nearest
from graphrec.models.recommender import Recommender
from graphrec.models.rerank.hybrid import Hybrid
from graphrec.models.rerank.reciprocal import ReciprocalReranker
from graphrec.models.rerank.reply_model import ReplyModel
from graphrec.models.windows.recommender import ListRanker

ModelKind = Literal["heuristic", "learned"]
"""Builders of learned models take `seed`; those of heuristics take no arguments."""

ENTRY_POINTS = "graphrec.models"
"""The entry point group in which installed packages declare the modules that register their models."""


def nearest(*, seed: int = 0) -> Nearest:
    """Build a `Nearest` of a two-tower without neighborhood."""
    return Nearest(TwoTower(components=(), features=(), seed=seed))


def hybrid(*, seed: int = 0) -> Hybrid:
    """Build a `Hybrid`: `GenerativeSTU` rescores candidates of itself, `Nearest` and `adamic_adar`."""
    generator = GenerativeSTU(seed=seed)
    return Hybrid(generator, [generator, nearest(seed=seed), HEURISTICS["adamic_adar"]()])


def both(*, seed: int = 0) -> ReciprocalReranker:
    """Build a `ReciprocalReranker` of a generative model."""
    return ReciprocalReranker(GenerativeSTU(seed=seed), ReplyModel(seed=seed))


def friend_recommender(*, seed: int = 0) -> FriendRecommender:
    """Build the default: a two-tower mixture, and a `ListRanker` with another one for windows."""
    windows = TwoTower(targets="windows", seed=seed)
    return FriendRecommender(TwoTower(seed=seed), ListRanker(mixture=windows, seed=seed))


DEFAULT_MODEL = "friend_recommender"
"""The name of the model that bundles, the command line and the ladder use by default."""

LEARNED: dict[str, Callable[..., MixtureRecommender[Any]]] = {
    **{name: partial(TwoTower, **preset) for name, preset in TWO_TOWER_PRESETS.items()},
    **{name: partial(GenerativeSTU, **preset) for name, preset in GENERATIVE_PRESETS.items()},
    **{name: partial(Clustered, **preset) for name, preset in CLUSTERED_PRESETS.items()},
}
"""Builds each mixture recommender of this library, unfitted, in its default configuration."""

MODELS: dict[str, Callable[..., Recommender]] = {
    **HEURISTICS,
    **LEARNED,
    "nearest": nearest,
    "stu_hybrid": hybrid,
    "stu_both": both,
    "list_ranker": ListRanker,
    DEFAULT_MODEL: friend_recommender,
}
"""Builds each recommender, unfitted, in its default configuration; `register_model` adds to it."""

_KINDS: dict[str, ModelKind] = dict.fromkeys(HEURISTICS, "heuristic")
"""Kinds of heuristics and registered models; every other model is learned."""


def register_model(name: str, builder: Callable[..., Recommender], kind: ModelKind = "learned") -> None:
    """Register a builder under a name, for `build`, bundles, the command line and the ladder.

    An installed package declares the module that calls this function as an entry point. The module is
    imported when the name is first used:

        [project.entry-points."graphrec.models"]
        my_model = "my_package.my_model"

    Args:
        name: name of the model, equal to its attribute `name`.
        builder: builds an unfitted recommender in its default configuration. It is called as `builder()`, and
            that of a learned model as `builder(seed=...)`, too. A function or class that is defined again in
            the same place, as in a notebook, replaces the earlier definition.
        kind: 'learned' or 'heuristic'.

    Raises:
        TypeError: the builder does not accept these calls.
        ValueError: another builder has this name, it is not a valid name, or the kind is unknown.
    """
    check_choice("kind", kind, get_args(ModelKind))
    if not callable(builder):
        raise TypeError(f"the builder of {name!r} must be a class or function, got {builder!r}")
    calls: list[dict[str, int]] = [{}, {"seed": 0}] if kind == "learned" else [{}]
    for arguments in calls:
        try:
            inspect.signature(builder).bind(**arguments)
        except TypeError as error:
            call = "builder(seed=0)" if arguments else "builder()"
            raise TypeError(f"the builder of {name!r} is called as {call}: {error}") from None
    add_name(MODELS, "model", name, builder)
    _KINDS[name] = kind


def model_names() -> tuple[str, ...]:
    """Return all names of models, including those that installed packages declare."""
    return tuple(dict.fromkeys([*MODELS, *sorted(entry_points(group=ENTRY_POINTS).names)]))


def model_kind(name: str) -> ModelKind:
    """Return the kind of a model. Raises KeyError for an unknown name, as `build` does."""
    _find(name)
    return _KINDS.get(name, "learned")


def build(name: str, *, seed: int | None = None) -> Recommender:
    """Build an unfitted recommender by name.

    Args:
        name: name of the model.
        seed: seed of a learned model; by default that of its builder.

    Raises:
        KeyError: the name is unknown; the message has the nearest name, or all names.
        TypeError: a seed is given for a heuristic, or a registered builder returns something else.
        ValueError: the recommender's `name` differs, or the module that a package declares for the name
            cannot be imported or does not register it.
    """
    builder = _find(name)
    if seed is not None and model_kind(name) != "learned":
        raise TypeError(f"{name} is a heuristic, which takes no seed")
    model = builder() if seed is None else builder(seed=seed)
    if not isinstance(model, Recommender):
        raise TypeError(f"the builder of {name!r} must return a Recommender, got a {type(model).__name__}")
    if model.name != name:
        raise ValueError(f"the model registered as {name!r} has the name {model.name!r}: give both the same")
    return model


def load_recommender(name: str, folder: str | os.PathLike[str], graph: FriendGraph) -> Recommender:
    """Load the recommender of a name that `save` wrote, for the graph that it was saved with.

    Raises:
        KeyError: the name is unknown.
        DataError: the folder holds another model, or is damaged.
    """
    builder = _find(name)
    # Unfitted recommenders are cheap to build.
    kind = builder if isinstance(builder, type) and issubclass(builder, Recommender) else type(build(name))
    return kind.load(folder, graph)


def _find(name: str) -> Callable[..., Recommender]:
    """Return the builder of a model, and import the module that declares it, if necessary."""
    if name not in MODELS:
        _import_declared(name)
    if name in MODELS:
        return MODELS[name]
    names = model_names()
    like = get_close_matches(name, names, n=1)
    hint = f"did you mean {like[0]!r}?" if like else f"the models are {', '.join(names)}"
    raise KeyError(f"unknown model {name!r}; {hint}")


def _import_declared(name: str) -> None:
    """Import the module that an installed package declares for a model, if there is one."""
    found = {point.value: point for point in entry_points(group=ENTRY_POINTS, name=name)}
    if len(found) > 1:
        raise ValueError(f"several packages declare the model {name!r}: {', '.join(sorted(found))}")
    for place, point in found.items():
        try:
            point.load()
        except Exception as error:  # whatever the package does when it is imported
            raise ValueError(
                f"{place}, which declares the model {name!r}, cannot be imported: {error}"
            ) from error
        if name not in MODELS:
            raise ValueError(f"{place} declares the model {name!r}, but does not call register_model for it")
