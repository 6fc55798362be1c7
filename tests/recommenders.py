"""Every recommender that the contract tests hold to account: add a model here, and it inherits them all."""

from __future__ import annotations

from collections.abc import Callable

from graphrec.models import HEURISTICS, Recommender

RECOMMENDERS: dict[str, Callable[[], Recommender]] = {**HEURISTICS}
"""By the name of a test: what builds it, unfitted and from a fixed seed."""

BY_CHANCE = {"random"}
"""Those that may tell apart people of whom nothing is known."""

TOLERANCE: dict[str, float] = {}
"""Relative difference allowed between equal questions asked differently; where nothing is said, 1e-12."""
