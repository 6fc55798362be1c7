"""Every recommender that the contract tests hold to account: add a model here, and it inherits them all."""

from __future__ import annotations

from collections.abc import Callable

from graphrec.models import HEURISTICS, Recommender, TwoTower

SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 2, "progress": False}

RECOMMENDERS: dict[str, Callable[[], Recommender]] = {
    **HEURISTICS,
    "two_tower": lambda: TwoTower(pointer=False, **SMALL),
    "two_tower_pointer": lambda: TwoTower(**SMALL),
}
"""By the name of a test: what builds it, unfitted and from a fixed seed."""

BY_CHANCE = {"random"}
"""Those that may tell apart people of whom nothing is known."""

TOLERANCE: dict[str, float] = {"two_tower": 1e-4, "two_tower_pointer": 1e-4}
"""Relative difference allowed between equal questions asked differently; where nothing is said, 1e-12."""
