"""Every recommender that the contract tests hold to account: add a model here, and it inherits them all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from graphrec.models import HEURISTICS, LEARNED, Recommender, TwoTower

SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 2, "progress": False}

SWITCHED = {
    "history": "pooled",
    "interaction": "moe",
    "activation": "swiglu",
    "num_rand_negs": 16,
    "in_batch": False,
    "temporal_weight": 0.5,
}
"""Every option of the two-tower but the defaults."""

RECOMMENDERS: dict[str, Callable[[], Recommender]] = {
    **HEURISTICS,
    **{name: partial(TwoTower, sources=sources, **SMALL) for name, sources in LEARNED.items()},
    "two_tower_embeddings": partial(TwoTower, sources=(), **SMALL),
    "two_tower_switched": partial(TwoTower, **SWITCHED, **SMALL),
}
"""By the name of a test: what builds it, unfitted and from a fixed seed."""

BY_CHANCE = {"random"}
"""Those that may tell apart people of whom nothing is known."""

TOLERANCE: dict[str, float] = dict.fromkeys([*LEARNED, "two_tower_embeddings", "two_tower_switched"], 1e-4)
"""Relative difference allowed between equal questions asked differently; where nothing is said, 1e-12."""
