"""Candidates of several recommenders, ranked by one scorer."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self, Unpack

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_count, check_graph
from graphrec.data.saved import (
    load_errors_as_data_error,
    make_folder,
    read_manifest,
    write_manifest,
)
from graphrec.models.appending import reads_graph
from graphrec.models.manifest import load_submodels, save_submodels
from graphrec.models.recommender import Recommender, latest
from graphrec.models.wanted import Exclusions, Wanted
from graphrec.retrieval.topk import padded_topk
from graphrec.temporal import Timeline

FORMAT, MANIFEST = "graphrec.Hybrid/1", "hybrid.json"


class Hybrid(Recommender):
    """Takes the union of the candidates of several recommenders, and ranks it by the scores of one model.

    Generation alone is weak for users with few events (Yang et al. 2024, https://arxiv.org/abs/2411.18814),
    so candidates of several retrievers are combined. A `GenerativeSTU` as scorer scores only the candidates;
    other models score all users.

    Args:
        scorer: ranks the candidates; fitted by `fit`.
        retrievers: propose candidates; fitted by `fit`. The scorer itself may be one of them.
        num_candidates: number of candidates from each retriever; k if that is greater.
    """

    def __init__(
        self, scorer: Recommender, retrievers: Sequence[Recommender], *, num_candidates: int = 100
    ) -> None:
        if not retrievers:
            raise ValueError("a hybrid needs at least one retriever")
        self.num_candidates = check_count("num_candidates", num_candidates)
        for model in (scorer, *retrievers):
            if not isinstance(model, Recommender):
                raise TypeError(f"a hybrid is made of recommenders, got a {type(model).__name__}")
        self.scorer, self.retrievers = scorer, tuple(retrievers)
        self.name, self.dtype = f"{scorer.name}_hybrid", scorer.dtype

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of all models together."""
        return sum(model.num_parameters for model in self._models)

    @property
    def _models(self) -> list[Recommender]:
        """The scorer and the retrievers, without repetition."""
        return list({id(model): model for model in (self.scorer, *self.retrievers)}.values())

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Fit all models on the events strictly before `until` (s)."""
        self._check_past(graph, until)
        for model in self._models:
            model.fit(graph, until=until)
        return self.join(graph)

    def join(self, graph: FriendGraph) -> Self:
        """Use all models as already fitted on this graph."""
        check_graph(graph)
        self._graph = graph
        self.fitted_until = latest(model.fitted_until for model in self._models)
        self.tokenizer = next((model.tokenizer for model in self._models if model.tokenizer), None)
        return self

    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        moved = {id(model): model.on(graph) for model in self._models}
        out = copy.copy(self)
        out.scorer = moved[id(self.scorer)]
        out.retrievers = tuple(moved[id(model)] for model in self.retrievers)
        return out.join(graph)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`."""
        out, scorer = copy.copy(self), self.scorer.reading(timeline, changed)
        if scorer is None:
            return None
        out.scorer = scorer
        return out

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: all models follow."""
        for model in self._models:
            model.follow(graph)
        self.join(graph)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; each model once, in a folder of its own."""
        self._check_fitted()
        folder = make_folder(folder)
        places = {id(model): str(place) for place, model in enumerate(self._models)}
        content = {
            "members": save_submodels({places[id(model)]: model for model in self._models}, folder),
            "scorer": places[id(self.scorer)],
            "retrievers": [places[id(model)] for model in self.retrievers],
            "num_candidates": self.num_candidates,
        }
        write_manifest(folder / MANIFEST, FORMAT, content)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with load_errors_as_data_error(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            members = load_submodels(content["members"], folder, graph)
            retrievers = [members[place] for place in content["retrievers"]]
            out = cls(members[content["scorer"]], retrievers, num_candidates=content["num_candidates"])
        return out.join(graph)

    def _score_in_order(self, query: Query) -> Tensor:
        """Scores of the scorer, also for users who are not candidates."""
        return self.scorer.score_all(query)

    @reads_graph
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """See `Recommender.score_pairs`: scores of the scorer."""
        self._check(query)
        return self.scorer.score_pairs(query, row, user)

    @reads_graph
    def candidates(self, query: Query, k: int, **exclusions: Unpack[Exclusions]) -> tuple[Tensor, Tensor]:
        """The best k of each retriever for B queries: (row [M], user [M]) int64, distinct and sorted."""
        num_users, keys = self.graph.num_users, []
        k = check_count("k", k)
        for retriever in self.retrievers:
            users = retriever.recommend(query, min(k, num_users), **exclusions)[0]
            row, column = (users >= 0).nonzero(as_tuple=True)
            keys.append(row * num_users + users[row, column])
        key = torch.cat(keys).unique()
        return key // num_users, key % num_users

    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """The k candidates with the highest scores."""
        k = wanted.k
        row, user = self.candidates(query, max(k, self.num_candidates), **wanted.exclusions())
        score = self.scorer.score_pairs(query, row, user).double()
        return padded_topk(row, user, score, (len(query), k), self.graph.num_users)
