"""Retrieval by user embeddings: the users with the largest inner products with the query vector."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_graph
from graphrec.data.precision import single_precision
from graphrec.data.saved import (
    load_errors_as_data_error,
    make_folder,
    read_manifest,
    write_manifest,
)
from graphrec.models.builders import TwoTower
from graphrec.models.heads.softmax import BoundSoftmaxHead, SoftmaxHead
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.models.recommender import Recommender
from graphrec.models.wanted import Wanted
from graphrec.retrieval import ApproximateIndex, ExactIndex, Index
from graphrec.retrieval.topk import select_rows
from graphrec.temporal import Timeline

FORMAT, MANIFEST = "graphrec.Nearest/1", "nearest.json"

INDEXES: dict[str, Callable[[], Index]] = {"approximate": ApproximateIndex, "exact": ExactIndex}
"""Indexes that a saved model can name."""


class Nearest(Recommender):
    """Recommends the k users whose two-tower vectors have the largest inner products with the query vector.

    A vector index holds one vector for each user, so scores use user embeddings, biases and profiles alone,
    without the neighborhood components and input features of the two-tower. By default the two-tower has
    neither (`components=()` and `features=()`).

    Args:
        two_tower: the model; `fit` fits it.
        index: makes the vector index: `ApproximateIndex` or `ExactIndex`.
    """

    name = "nearest"
    dtype = torch.float32

    def __init__(
        self,
        two_tower: MixtureRecommender[BoundSoftmaxHead] | None = None,
        *,
        index: Callable[[], Index] = ApproximateIndex,
    ) -> None:
        if two_tower is not None and getattr(two_tower, "kind", None) != SoftmaxHead.kind:
            raise TypeError(f"two_tower must be a TwoTower, got a {type(two_tower).__name__}")
        if not callable(index):
            raise TypeError(
                f"index must be a callable that makes an index, such as ExactIndex, got {index!r}"
            )
        self.two_tower = TwoTower(components=(), features=()) if two_tower is None else two_tower
        self._new_index = index
        self._index: Index | None = None
        self._state = -1
        self._changes = torch.empty(0, dtype=torch.int64)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of the two-tower."""
        return self.two_tower.num_parameters

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve of the two-tower, one row an epoch."""
        return self.two_tower.curve

    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Fit the two-tower on events strictly before `until` (seconds); see `MixtureRecommender.fit`."""
        self._check_past(graph, until)
        self.two_tower.fit(graph, until=until, validate_until=validate_until)
        return self.join(graph)

    def join(self, graph: FriendGraph) -> Self:
        """Use the two-tower as already fitted on this graph, and build the index.

        Raises:
            ValueError: all users have one vector: the two-tower has no user table, the graph no features.
        """
        check_graph(graph)
        head = self.two_tower.head
        if not head.head.config.user_table and head.view.profiles is None:
            raise ValueError(
                "nearest neighbors are found by embeddings or features of users, and there are neither: "
                "give the two-tower user_table=True, or the graph features of users"
            )
        self._graph, self._index, self._state = graph, None, -1
        self.fitted_until = self.two_tower.fitted_until
        self._changes = head.vector_changes()
        return self

    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        out = copy.copy(self)
        out.two_tower = self.two_tower.on(graph)
        return out.join(graph)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`."""
        out, two_tower = copy.copy(self), self.two_tower.reading(timeline, changed)
        if two_tower is None:
            return None
        out.two_tower = two_tower
        return out

    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: vectors are indexed again only if users came, or users have features."""
        size = self.graph.num_users
        self.two_tower.follow(graph)
        if graph.num_users > size or self.two_tower.view.profiles is not None:
            self.join(graph)
        self._graph = graph

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; the index is built anew where it is loaded.

        Raises:
            ValueError: the index is not one of `INDEXES`, by whose names a saved model finds it.
        """
        self._check_fitted()
        name = next((name for name, kind in INDEXES.items() if kind is self._new_index), None)
        if name is None:
            raise ValueError(f"a custom index cannot be saved; use one of {', '.join(INDEXES)}")
        folder = make_folder(folder)
        self.two_tower.save(folder)
        write_manifest(folder / MANIFEST, FORMAT, {"index": name})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with load_errors_as_data_error(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            out = cls(MixtureRecommender.load(folder, graph), index=INDEXES[content["index"]])
        return out.join(graph)

    def _score_in_order(self, query: Query) -> Tensor:
        out = torch.empty(len(query), self.graph.num_users)
        for time, _, rows in self._states(query):
            vectors = self.two_tower.head.user_vectors(time)
            out[rows] = self._query_vectors(query[rows]) @ vectors.T
        return out

    @single_precision()
    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """The users that the index finds; an approximate index may miss users."""
        k, (row, user) = wanted.k, wanted.with_own(query)
        users = torch.full((len(query), k), -1)
        scores = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        for time, state, rows in self._states(query):
            if self._index is None or state != self._state:
                vectors = self.two_tower.head.user_vectors(time)
                self._index, self._state = self._new_index().build(vectors), state
            excluded = select_rows(row, user, rows, len(query))
            found = self._index.search(self._query_vectors(query[rows]), k, excluded, wanted.exclude_users)
            users[rows], scores[rows] = found[0], found[1].double()
        return users, scores

    def _query_vectors(self, query: Query) -> Tensor:
        """Vectors of B queries: [B, W] float32."""
        return self.two_tower.head.query_vectors(self.two_tower.encode_query(query))

    def _states(self, query: Query) -> Iterator[tuple[int, int, Tensor]]:
        """Group queries that share one version of `user_vectors`.

        Yields:
            (a time of the version in seconds, the version's number, rows [b] int64 of its queries).
        """
        states = torch.searchsorted(self._changes, query.time.contiguous())
        for state in states.unique().tolist():
            rows = (states == state).nonzero().squeeze(1)
            yield int(query.time[rows[0]]), state, rows
