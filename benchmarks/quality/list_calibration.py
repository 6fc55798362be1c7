"""Are the probabilities of `ListRanker` those of what follows? A part of the benchmark `lists`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from graphrec.data import FriendGraph, Outcome
from graphrec.evaluate import ListOutcomes, ListQuestions, Scorer
from graphrec.metrics import reliability_by_quantile
from graphrec.temporal import Timeline

BATCH = 2**22
"""Scores of one batch."""

MIN_LOG_PROBABILITY = -40.0
"""Users with lower scores are no candidates."""

COLUMNS = (
    "data set",
    "outcome",
    "candidates",
    "predicted",
    "observed",
    "predicted / observed",
    "calibration error",
    "over the rate",
    "observed beyond candidates",
)
BIN_COLUMNS = ("candidates", "number", "mean prediction", "observed", "predicted / observed")


@dataclass(frozen=True)
class Predictions:
    """Probabilities of an outcome for all candidates of all lists, and what followed.

    Attributes:
        probability: [M] float64.
        happened: [M] bool. Candidates whose outcome is undecided are left out.
        num_beyond: outcomes of recipients with users who are no candidates.
    """

    probability: np.ndarray
    happened: np.ndarray
    num_beyond: int

    @classmethod
    def of(cls, model: Scorer, graph: FriendGraph, questions: ListQuestions, outcome: Outcome) -> Self:
        """Ask a model whose scores are log-probabilities for the questions.

        Args:
            model: the model.
            graph: the whole graph.
            questions: lists that are asked for.
            outcome: 'initiation' or 'tie'.
        """
        timeline, outcomes = Timeline.of(graph), ListOutcomes.of(graph, questions)
        size, query = graph.num_users, questions.about(outcome)
        asked = (questions.moment * size + query.user) * size
        counts = outcomes.replied if outcome == "tie" else np.ones(len(outcomes.key), dtype=bool)
        undecided = outcomes.undecided if outcome == "tie" else np.zeros(len(outcomes.key), dtype=bool)
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for rows in torch.arange(len(query)).split(max(1, BATCH // size)):
            batch = query[rows]
            score = model.score(batch).double()
            score[torch.arange(len(batch)), batch.user] = -torch.inf
            score[timeline.contacts.before(batch.user, timeline.tick(batch.time))] = -torch.inf
            row, person = (score > MIN_LOG_PROBABILITY).nonzero().T
            place, found = outcomes.find((asked[rows][row] + person).numpy())
            happened = found.copy()
            decided = np.ones(len(found), dtype=bool)
            if len(counts):
                happened &= counts[place]
                decided = ~(found & undecided[place])
            parts.append((score[row, person].exp().numpy()[decided], happened[decided]))
        probability, happened = (np.concatenate(column) for column in zip(*parts, strict=True))
        recipient = np.isin(outcomes.key // size, (asked // size).numpy())
        return cls(probability, happened, int((recipient & counts).sum() - happened.sum()))

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Self:
        """Put the predictions of several runs together."""
        return cls(
            np.concatenate([part.probability for part in parts]),
            np.concatenate([part.happened for part in parts]),
            sum(part.num_beyond for part in parts),
        )

    @property
    def ratio(self) -> float:
        """The number of outcomes predicted, over that observed; NaN if there is none."""
        total = self.happened.sum()
        return float(self.probability.sum() / total) if total else float("nan")

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap of the bins, weighted by their sizes."""
        predicted, observed, number = reliability_by_quantile(self.probability, self.happened)
        return float(np.average(np.abs(predicted - observed), weights=number)) if len(number) else 0.0
