"""Every recommender that the contract tests hold to account: add a model here, and it inherits them all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from examples.activity_head import activity
from graphrec.models import (
    CLUSTERED_PRESETS,
    GENERATIVE_PRESETS,
    HEURISTICS,
    TWO_TOWER_PRESETS,
    Clustered,
    FriendRecommender,
    GenerativeSTU,
    Hybrid,
    ListRanker,
    Nearest,
    ReciprocalReranker,
    Recommender,
    ReplyModel,
    TwoTower,
    WindowConfig,
)
from graphrec.retrieval import ExactIndex
from graphrec.tokenizer import ResidualKMeans

SMALL = {"embedding_dim": 8, "hidden_channels": 8, "window": 8, "max_epochs": 2, "progress": False}

BARE = {"components": (), "features": ()}
"""A two-tower of embeddings alone."""

SWITCHED = {
    "history": "pooled",
    "interaction": "moe",
    "activation": "swiglu",
    "num_rand_negs": 16,
    "in_batch": False,
    "user_table": False,
    "history_loss_weight": 0.5,
}
"""Every option of the two-tower but the defaults."""

CODED = {**SMALL, "tokenizer": ResidualKMeans(dim=4)}

CROWDED = {**SMALL, "tokenizer": ResidualKMeans(dim=4, num_codebooks=2, codebook_size=4)}
"""So few codes that people share all but the last, and what is known of each tells them apart."""

GENERATED = {
    "tokenizer": ResidualKMeans(dim=4, num_codebooks=2, codebook_size=3, unique=False),
    "components": ("pointer",),
    "features": ("prefix_groups",),
    "decoder": "transformer",
}
"""Options of the generative model but the defaults; people share STUs."""

GROUPED = {
    "num_clusters": 5,
    "probe_fraction": 1.0,
    "start": "codes",
    "first_codes": ResidualKMeans(dim=4, num_codebooks=2, codebook_size=3, unique=False),
    "components": ("paths",),
    "features": ("presence",),
}
"""Options of the clustered model but the defaults."""


def two_sided(name: str) -> Recommender:
    """A heuristic made two-sided."""
    answers = ReplyModel(reply_window=3 * 86_400, hidden_channels=4, max_epochs=2, progress=False)
    return ReciprocalReranker(HEURISTICS[name](), answers, num_candidates=8)


def nearest() -> Nearest:
    """The embeddings of a two-tower, searched exactly."""
    return Nearest(TwoTower(**BARE, **SMALL), index=ExactIndex)


def hybrid() -> Hybrid:
    """Generated, nearest and neighbors' neighbors, judged by the generative model."""
    scorer = GenerativeSTU(**CODED)
    return Hybrid(scorer, [scorer, nearest(), HEURISTICS["adamic_adar"]()], num_candidates=5)


def list_ranker() -> ListRanker:
    """Lists by a small network."""
    return ListRanker(config=WindowConfig(hidden_channels=8, max_epochs=2))


RECOMMENDERS: dict[str, Callable[[], Recommender]] = {
    **HEURISTICS,
    **{name: partial(TwoTower, **preset, **SMALL) for name, preset in TWO_TOWER_PRESETS.items()},
    "two_tower_embeddings": partial(TwoTower, **BARE, **SMALL),
    "two_tower_switched": partial(TwoTower, **SWITCHED, **SMALL),
    **{name: partial(GenerativeSTU, **preset, **CROWDED) for name, preset in GENERATIVE_PRESETS.items()},
    "stu_switched": partial(GenerativeSTU, **GENERATED, **SMALL),
    "adamic_adar_both": partial(two_sided, "adamic_adar"),
    "last_seen_both": partial(two_sided, "last_seen"),
    **{name: partial(Clustered, **preset, **SMALL) for name, preset in CLUSTERED_PRESETS.items()},
    "clustered_switched": partial(Clustered, **GROUPED, **SMALL),
    "nearest": nearest,
    "stu_hybrid": hybrid,
    "activity": partial(activity, **SMALL),
    "list_ranker": list_ranker,
    "friend_recommender": lambda: FriendRecommender(
        TwoTower(**SMALL),
        ListRanker(
            config=WindowConfig(hidden_channels=8, max_epochs=2),
            mixture=TwoTower(targets="windows", **SMALL),
        ),
    ),
}
"""By the name of a test: what builds it, unfitted and from a fixed seed."""

BY_CHANCE = {"random"}
"""Those that may tell apart people of whom nothing is known."""

TOLERANCE: dict[str, float] = {
    **dict.fromkeys(
        [*TWO_TOWER_PRESETS, "two_tower_embeddings", "two_tower_switched", "nearest", "activity"], 1e-4
    ),
    **dict.fromkeys([*GENERATIVE_PRESETS, "stu_switched", "stu_hybrid"], 1e-3),
    **dict.fromkeys([*CLUSTERED_PRESETS, "clustered_switched"], 1e-3),
    **dict.fromkeys(["adamic_adar_both", "last_seen_both"], 1e-5),
    **dict.fromkeys(["list_ranker", "friend_recommender"], 1e-4),
}
"""Relative difference allowed between equal questions asked differently; where nothing is said, 1e-12."""

ROUNDING = {name: min(1e-5, TOLERANCE.get(name, 1e-12)) for name in RECOMMENDERS}
"""Relative difference allowed between equal sums that are added up in another order.

The order depends on the processor and on the sizes of what is added up beside them, those of the future among
them: what is float32 differs by some 1e-7. A planted leak differs by more, which a test holds.
"""
