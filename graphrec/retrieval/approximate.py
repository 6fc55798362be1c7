"""Approximate search: only the cells next to a query are looked at (faiss)."""

from __future__ import annotations

from typing import Any, Self

import faiss
import numpy as np
import torch
from torch import Tensor

from graphrec.data.checks import check_count
from graphrec.retrieval.exact import ExactIndex
from graphrec.retrieval.index import Exclude, Index, recall

SEED = 1234


class ApproximateIndex(Index):
    """Users lie in cells around the centres of k-means, and only the best cells of a query are looked at.

    This is an inverted file (Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57). Who is excluded is
    made up for by looking further, and a query that finds too few in its cells is answered exactly, so that
    there are always k, or all there are.

    Args:
        num_cells: by default 4 times the root of the number of users.
        num_probes: cells looked at; more find more and take longer.
    """

    _index: faiss.IndexIVFFlat

    def __init__(self, *, num_cells: int | None = None, num_probes: int = 40) -> None:
        for what, given in {"num_cells": num_cells, "num_probes": num_probes}.items():
            if given is not None:
                check_count(what, given)
        self.num_cells, self.num_probes = num_cells, num_probes
        self._exact = ExactIndex()

    def build(self, vectors: Tensor) -> Self:
        """Find cells for the vectors [N, D]; k-means sees at most 256 of them a cell."""
        vectors = self._taken(vectors)
        self._exact.build(vectors)
        cells = min(self.num_users, self.num_cells or max(1, round(4 * self.num_users**0.5)))
        quantizer = faiss.IndexFlatIP(self.dim)
        self._index = faiss.IndexIVFFlat(quantizer, self.dim, cells, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.seed, self._index.cp.min_points_per_centroid = SEED, 1
        self._index.nprobe = min(cells, self.num_probes)
        threads = faiss.omp_get_max_threads()
        try:
            faiss.omp_set_num_threads(1)  # sums in one order
            self._index.train(vectors.numpy())
        finally:
            faiss.omp_set_num_threads(threads)
        # As `ExactIndex` lists them: shuffled.
        self._index.add(self._exact._vectors.numpy())
        return self

    def recall(self, queries: Tensor, k: int, exclude: Exclude | None = None) -> float:
        """Mean share of the k that exact search finds which this one finds too."""
        expected = self._exact.search(queries, k, exclude)[0]
        return float(recall(self.search(queries, k, exclude)[0], expected).mean())

    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        count = torch.bincount(exclude[0], minlength=len(queries))
        # Rows that look for about as many, excluded ones among them, are searched together.
        asked = 2 ** (k + count).double().log2().ceil().long()
        options = self._options(exclude_users)
        key = exclude[0] * self.num_users + exclude[1]
        users = torch.full((len(queries), k), -1)
        scores = torch.full((len(queries), k), -torch.inf)
        for size in asked.unique().tolist():
            rows = (asked == size).nonzero().squeeze(1)
            values, place = map(
                torch.from_numpy, self._index.search(queries[rows].numpy(), size, params=options)
            )
            found = torch.where(place >= 0, self._exact._order[place], -1)
            at = rows[:, None] * self.num_users + found
            allowed = (found >= 0) & ~torch.isin(at, key)
            order = (~allowed).long().argsort(dim=1, stable=True)[:, :k]  # allowed first, as they come
            kept = allowed.gather(1, order)
            users[rows] = torch.where(kept, found.gather(1, order), -1)
            scores[rows] = torch.where(kept, values.gather(1, order), -torch.inf)
        wanted = (self.num_users - int(exclude_users.sum()) - count).clamp(max=k)
        short = ((users >= 0).sum(1) < wanted).nonzero().squeeze(1)
        if len(short):
            number = torch.full((len(queries),), -1)
            number[short] = torch.arange(len(short))
            here = number[exclude[0]] >= 0
            barred = number[exclude[0][here]], exclude[1][here]
            users[short], scores[short] = self._exact._search(queries[short], k, barred, exclude_users)
        return users, scores

    def _options(self, exclude_users: Tensor) -> Any:
        """What has the search pass over users [N] bool who are found by nobody; None where there are none."""
        if not bool(exclude_users.any()):
            return None
        allowed = np.packbits(~exclude_users[self._exact._order].numpy(), bitorder="little")
        make: Any = faiss  # whose own types do not know what its Python side adds
        selector = make.IDSelectorBitmap(allowed)
        return make.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
