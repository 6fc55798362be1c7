"""Retrieval by UserID: the people whose embeddings are nearest to the user tower's vector."""

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
from graphrec.models.recommender import Recommender, of_rows
from graphrec.models.saved import made_folder, read_manifest, reading, write_manifest
from graphrec.models.two_tower import TwoTower
from graphrec.retrieval import ApproximateIndex, ExactIndex, Index

FORMAT, MANIFEST = "graphrec.Nearest/1", "nearest.json"

INDEXES: dict[str, Callable[[], Index]] = {"approximate": ApproximateIndex, "exact": ExactIndex}
"""Those that can be saved, by name."""


class Nearest(Recommender):
    """The k nearest neighbours, by inner product, of a two-tower's query vectors among all users.

    Only the user embeddings, their biases and profiles count, not what else the two-tower mixes: a vector for
    each user is what an index can hold. With `sources=()`, the default, that is all the two-tower learns.

    Args:
        two_tower: the model; `fit` fits it.
        index: what builds an index: `ApproximateIndex`, or `ExactIndex`.
    """

    name = "nearest"
    dtype = torch.float32

    def __init__(
        self, two_tower: TwoTower | None = None, *, index: Callable[[], Index] = ApproximateIndex
    ) -> None:
        if two_tower is not None and not isinstance(two_tower, TwoTower):
            raise TypeError(f"two_tower must be a TwoTower, got a {type(two_tower).__name__}")
        if not callable(index):
            raise TypeError(f"index must be what builds an index, such as ExactIndex, got {index!r}")
        self.two_tower = TwoTower(sources=()) if two_tower is None else two_tower
        self._new_index = index

    @property
    def num_parameters(self) -> int:
        """Of the two-tower."""
        return self.two_tower.num_parameters

    @property
    def curve(self) -> list[dict[str, float]]:
        """Of the two-tower."""
        return self.two_tower.curve

    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Fit the two-tower on what is older than `until`; see `TwoTower.fit`."""
        self._check_past(graph, until)
        self.two_tower.fit(graph, until=until, validate_until=validate_until)
        return self.join(graph)

    def join(self, graph: FriendGraph) -> Self:
        """Take the two-tower as it is, fitted on this graph."""
        check_graph(graph)
        self._graph, self._state = graph, -1
        self.fitted_until = self.two_tower.fitted_until
        self._changes = self.two_tower.vectors_change()
        return self

    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        out = copy.copy(self)
        out.two_tower = self.two_tower.on(graph)
        return out.join(graph)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`; the index is built anew where it is loaded.

        Raises:
            ValueError: the index is not one of `INDEXES`, so that nobody could build it by its name.
        """
        self._check_fitted()
        name = next((name for name, kind in INDEXES.items() if kind is self._new_index), None)
        if name is None:
            raise ValueError(f"an index of one's own cannot be saved: the indexes are {', '.join(INDEXES)}")
        folder = made_folder(folder)
        self.two_tower.save(folder)
        write_manifest(folder / MANIFEST, FORMAT, {"index": name})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with reading(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            out = cls(TwoTower.load(folder, graph), index=INDEXES[content["index"]])
        return out.join(graph)

    def _score_in_order(self, query: Query) -> Tensor:
        out = torch.empty(len(query), self.graph.num_users)
        for time, _, rows in self._states(query):
            vectors = self.two_tower.user_vectors(time)
            out[rows] = self.two_tower.query_vectors(query[rows]) @ vectors.T
        return out

    @single_precision()
    def recommend(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k people whom the index finds nearest; never the asking user.

        Args, Returns, Raises: as in `Recommender.recommend`; an approximate index may miss somebody.
        """
        wanted = self._check_wanted(query, k, exclude, exclude_users)
        k = wanted.k
        row, user = torch.cat([torch.arange(len(query)), wanted.row]), torch.cat([query.user, wanted.user])
        users = torch.full((len(query), k), -1)
        scores = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        for time, state, rows in self._states(query):
            if state != self._state:
                self._index, self._state = self._new_index().build(self.two_tower.user_vectors(time)), state
            barred = of_rows(row, user, rows, len(query))
            vectors = self.two_tower.query_vectors(query[rows])
            found = self._index.search(vectors, k, barred, wanted.exclude_users)
            users[rows], scores[rows] = found[0], found[1].double()
        return users, scores

    def _states(self, query: Query) -> Iterator[tuple[int, int, Tensor]]:
        """Queries for which everyone is in the same place: a time (s) of it, its number, rows [b] int64."""
        states = torch.searchsorted(self._changes, query.time.contiguous())
        for state in states.unique().tolist():
            rows = (states == state).nonzero().squeeze(1)
            yield int(query.time[rows[0]]), state, rows
