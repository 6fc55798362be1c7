"""Gradient boosting on the candidates and features of `ListRanker`, for the benchmark `lists`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import OUTCOMES, FriendGraph, Outcome, Query
from graphrec.features import WindowFeatures
from graphrec.models import WindowExamples, collect_examples
from graphrec.temporal import SpectralEmbeddings, Timeline, ordinary_graph

WINDOWS_OF_TRAINING = 64
SPECTRAL_DIM, SPECTRAL_ITERATIONS = 24, 8
MAX_SNAPSHOT_ROWS = 10**7
"""As `ListRanker` has them."""

BOOSTING: dict[str, Any] = {
    "max_iter": 100,
    "learning_rate": 0.07,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 40,
    "l2_regularization": 5.0,
    "early_stopping": False,
}

NUM_BINS = 255
"""Of each feature, by quantiles of the examples."""

NO_CANDIDATE = -50.0
"""Log-probability below that of any candidate."""


@dataclass(frozen=True)
class Candidates:
    """Finds the candidates of `ListRanker` and their features, for queries at any time.

    Attributes:
        timeline: the index of ordinary acts.
        features: finds them.
    """

    timeline: Timeline
    features: WindowFeatures

    @classmethod
    def of(cls, graph: FriendGraph, *, until: int, seed: int) -> Self:
        """Index a graph whose training period ends at `until` (seconds); the seed starts the embeddings."""
        timeline, num_users = Timeline.of(ordinary_graph(graph)), graph.num_users
        num_events = int(timeline.num_events_before(timeline.tick(torch.tensor(until))))
        snapshots = max(1, min(WINDOWS_OF_TRAINING, MAX_SNAPSHOT_ROWS // num_users))
        spectral = SpectralEmbeddings(
            timeline,
            torch.randn(num_users, SPECTRAL_DIM, generator=torch.Generator().manual_seed(seed)),
            every=max(1, num_events // snapshots),
            iterations=SPECTRAL_ITERATIONS,
            regularized=False,
        )
        window = max(1.0, num_events / WINDOWS_OF_TRAINING)
        return cls(timeline, WindowFeatures(timeline, spectral, window, torch.arange(num_users)))

    def examples(self, graph: FriendGraph, *, until: int, seed: int) -> WindowExamples:
        """Draw the examples that `ListRanker` trains on."""
        generator = torch.Generator().manual_seed(seed)
        return collect_examples(graph, self.features, until=until, generator=generator)


class BoostedLists:
    """Scores candidates by the probability of one outcome; others come after them, as with `ListRanker`.

    Args:
        outcome: 'initiation' or 'tie'.
        examples: to train on.
        candidates: finds them.
        seed: of the boosting.

    Attributes:
        name: the row's name.
    """

    def __init__(self, outcome: Outcome, examples: WindowExamples, candidates: Candidates, seed: int) -> None:
        self.name = f"boosting, {outcome}"
        self._candidates = candidates
        column = OUTCOMES.index(outcome)
        label, weight = examples.label[:, column].numpy() > 0, examples.weight[:, column].numpy()
        known, x = weight > 0, examples.x.numpy()
        self._borders = np.quantile(x, np.arange(1, NUM_BINS) / NUM_BINS, axis=0)
        self._classifier = booster(seed).fit(self._binned(x[known]), label[known], weight[known])

    def _binned(self, x: np.ndarray) -> np.ndarray:
        """The bin of each feature, [n, F]; scikit-learn takes long to make its own of weighted examples."""
        columns = zip(self._borders.T, x.T, strict=True)
        return np.stack([np.searchsorted(borders, column) for borders, column in columns], 1)

    def score(self, query: Query) -> Tensor:
        """Log-probabilities of all users, [B, N] float64."""
        timeline, features = self._candidates.timeline, self._candidates.features
        tick = timeline.tick(query.time)
        out = torch.empty(len(query), timeline.num_users, dtype=torch.float64)
        for moment in tick.unique().tolist():
            rows = (tick == moment).nonzero().squeeze(1)
            rate = features.popularity(moment)
            out[rows] = NO_CANDIDATE + rate / (1.0 + rate)
            found = features.candidates(query.user[rows], moment)
            if len(found.row):
                chance = self._classifier.predict_proba(self._binned(found.x.numpy()))[:, 1]
                out[rows[found.row], found.user] = torch.from_numpy(np.log(chance.clip(1e-20)))
        return out


def booster(seed: int) -> Any:
    """An untrained booster. Ends the program with one line if scikit-learn is not installed."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        sys.exit("lists: gradient boosting needs scikit-learn: pip install 'graphrec[benchmarks]'")
    return HistGradientBoostingClassifier(random_state=seed, **BOOSTING)
