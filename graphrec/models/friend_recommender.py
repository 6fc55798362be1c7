"""The default recommender: one model for the next act, and one for the coming days."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from graphrec.data import DataError, FriendGraph, Query
from graphrec.data.saved import load_errors_as_data_error, make_folder, read_manifest, write_manifest
from graphrec.models.appending import reads_graph
from graphrec.models.manifest import load_submodels, save_submodels
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.models.recommender import Recommender
from graphrec.models.wanted import Wanted
from graphrec.models.windows.recommender import ListRanker
from graphrec.temporal import Timeline

FORMAT, MANIFEST = "graphrec.FriendRecommender/1", "friend_recommender.json"


@final
class FriendRecommender(Recommender):
    """Answers both questions of a `Query`: who is next, and with whom an outcome begins within a horizon.

    The first needs to know who is present at a moment, repeated contacts included; the second, whom a user
    has not met and how fast they make first contacts. Both models are fitted on the same events.

    Args:
        next_act: answers queries without a horizon.
        lists: answers queries with one.

    Raises:
        TypeError: a model is of another kind.
    """

    name = "friend_recommender"
    dtype = torch.float32
    comparable_scores = True

    def __init__(self, next_act: MixtureRecommender[Any], lists: ListRanker) -> None:
        for model, kind in ((next_act, MixtureRecommender), (lists, ListRanker)):
            if not isinstance(model, kind):
                raise TypeError(f"expected a {kind.__name__}, got a {type(model).__name__}")
        self.next_act, self.lists = next_act, lists

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of both models."""
        return self.next_act.num_parameters + self.lists.num_parameters

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve of the model of the next act."""
        return self.next_act.curve

    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Fit both models on events before `until`.

        Args:
            graph: the whole graph.
            until: seconds.
            validate_until: seconds, see `MixtureRecommender.fit`; the model of lists sees nothing after
                `until`.

        Raises:
            TypeError, ValueError: as `MixtureRecommender.fit`.
        """
        until = self._check_past(graph, until)
        self.next_act.fit(graph, until=until, validate_until=validate_until)
        self.lists.fit(graph, until=until)
        return self._join(graph)

    def _join(self, graph: FriendGraph) -> Self:
        """Use both models as fitted on this graph."""
        self._graph, self.fitted_until = graph, self.next_act.fitted_until
        self.tokenizer = self.next_act.tokenizer
        self.default_horizon, self.default_outcome = self.lists.default_horizon, self.lists.default_outcome
        return self

    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        self._check_fitted()
        return type(self)(self.next_act.on(graph), self.lists.on(graph))._join(graph)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`: None if one of the models reads more than the index."""
        next_act, lists = self.next_act.reading(timeline, changed), self.lists.reading(timeline, changed)
        if next_act is None or lists is None:
            return None
        out = copy.copy(self)
        out.next_act, out.lists = next_act, lists
        return out

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`."""
        self.next_act.follow(graph)
        self.lists.follow(graph)
        self._join(graph)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; each model in a folder of its own."""
        self._check_fitted()
        path = make_folder(folder)
        members = save_submodels({"next_act": self.next_act, "lists": self.lists}, path)
        write_manifest(path / MANIFEST, FORMAT, {"members": members})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        path = Path(folder)
        with load_errors_as_data_error(cls, path):
            members = load_submodels(read_manifest(path / MANIFEST, FORMAT)["members"], path, graph)
            next_act, lists = members["next_act"], members["lists"]
            if not isinstance(next_act, MixtureRecommender) or not isinstance(lists, ListRanker):
                raise DataError("it has models of other kinds")
        return cls(next_act, lists)._join(graph)

    def _model(self, query: Query) -> Recommender:
        """The model that answers queries."""
        return self.next_act if query.horizon is None else self.lists

    def _score_in_order(self, query: Query) -> Tensor:
        return self._model(query).score_all(query)

    @reads_graph
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """See `Recommender.score_pairs`."""
        self._check(query)
        return self._model(query).score_pairs(query, row, user)

    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        return self._model(query)._recommend(query, wanted)
