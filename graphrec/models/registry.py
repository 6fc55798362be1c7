"""Every recommender by its name: what a command line, a bundle or a benchmark asks for."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from graphrec.data import FriendGraph
from graphrec.models.bidirectional import Bidirectional
from graphrec.models.clustered import CLUSTERED, Clustered
from graphrec.models.generative import GENERATIVE, GenerativeSTU
from graphrec.models.heuristics import HEURISTICS
from graphrec.models.hybrid import Hybrid
from graphrec.models.nearest import Nearest
from graphrec.models.reciprocity import Reciprocity
from graphrec.models.recommender import Recommender
from graphrec.models.two_tower import LEARNED, TwoTower


def hybrid() -> Hybrid:
    """Whom the generative model writes, who is nearest by UserID, and friends of friends."""
    generator = GenerativeSTU()
    return Hybrid(generator, [generator, Nearest(), HEURISTICS["adamic_adar"]()])


def both() -> Bidirectional:
    """Whom the generative model writes, in the order of how likely both sides want the tie."""
    return Bidirectional(GenerativeSTU(), Reciprocity())


MODELS: dict[str, Callable[..., Recommender]] = {
    **HEURISTICS,
    **{name: partial(TwoTower, sources=sources) for name, sources in LEARNED.items()},
    **{name: partial(GenerativeSTU, sources=sources) for name, sources in GENERATIVE.items()},
    **{name: partial(Clustered, sources=sources) for name, sources in CLUSTERED.items()},
    "nearest": Nearest,
    "stu_hybrid": hybrid,
    "stu_both": both,
}
"""What builds each, unfitted, in its default configuration."""


def build(name: str) -> Recommender:
    """An unfitted recommender. Raises KeyError with the names there are."""
    if name not in MODELS:
        raise KeyError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    return MODELS[name]()


def load_recommender(name: str, folder: str | os.PathLike[str], graph: FriendGraph) -> Recommender:
    """What a recommender of this name wrote with `save`, for the graph it was saved with."""
    return type(build(name)).load(Path(folder), graph)
