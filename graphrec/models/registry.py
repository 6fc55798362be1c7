"""Every recommender by its name, for command lines, bundles and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from graphrec.data import FriendGraph
from graphrec.models.builders import (
    CLUSTERED_PRESETS,
    GENERATIVE_PRESETS,
    TWO_TOWER_PRESETS,
    Clustered,
    GenerativeSTU,
    TwoTower,
)
from graphrec.models.heuristics import HEURISTICS
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.models.nearest import Nearest
from graphrec.models.recommender import Recommender
from graphrec.models.rerank.hybrid import Hybrid
from graphrec.models.rerank.reciprocal import ReciprocalReranker
from graphrec.models.rerank.reply_model import ReplyModel


def hybrid() -> Hybrid:
    """Build a `Hybrid`: `GenerativeSTU` rescores candidates of itself, `Nearest` and `adamic_adar`."""
    generator = GenerativeSTU()
    return Hybrid(generator, [generator, Nearest(), HEURISTICS["adamic_adar"]()])


def both() -> ReciprocalReranker:
    """Build a `ReciprocalReranker` of a generative model."""
    return ReciprocalReranker(GenerativeSTU(), ReplyModel())


LEARNED: dict[str, Callable[..., MixtureRecommender[Any]]] = {
    **{name: partial(TwoTower, **preset) for name, preset in TWO_TOWER_PRESETS.items()},
    **{name: partial(GenerativeSTU, **preset) for name, preset in GENERATIVE_PRESETS.items()},
    **{name: partial(Clustered, **preset) for name, preset in CLUSTERED_PRESETS.items()},
}
"""Builds each mixture recommender, unfitted, in its default configuration."""

MODELS: dict[str, Callable[..., Recommender]] = {
    **HEURISTICS,
    **LEARNED,
    "nearest": Nearest,
    "stu_hybrid": hybrid,
    "stu_both": both,
}
"""Builds each recommender, unfitted, in its default configuration."""


def build(name: str) -> Recommender:
    """Build an unfitted recommender by name. Raises KeyError, with all names, for an unknown one."""
    _check_name(name)
    return MODELS[name]()


def load_recommender(name: str, folder: str | os.PathLike[str], graph: FriendGraph) -> Recommender:
    """Load the recommender of a name that `save` wrote, for the graph that it was saved with.

    Raises:
        KeyError: the name is unknown.
        DataError: the folder holds another model, or is damaged.
    """
    _check_name(name)
    builder = MODELS[name]
    # Unfitted recommenders are cheap to build.
    kind: type[Recommender] = builder if isinstance(builder, type) else type(builder())
    return kind.load(folder, graph)


def _check_name(name: str) -> None:
    if name not in MODELS:
        raise KeyError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
