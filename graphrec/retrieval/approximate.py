"""Approximate search in the cells nearest to a query (faiss)."""

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
    """Users are in cells around the centers of k-means, and a query searches only the nearest cells.

    This is an inverted file (Jegou et al. 2011, https://doi.org/10.1109/TPAMI.2010.57). The search is deeper
    by the number of excluded users, and a query that finds too few users in its cells is searched exactly, so
    that lists always have k users, or all there are.

    Args:
        num_cells: by default 4 times the root of the number of users.
        num_probes: cells searched; more find more and take longer. It may be changed at any time.
    """

    _index: faiss.IndexIVFFlat

    def __init__(self, *, num_cells: int | None = None, num_probes: int = 40) -> None:
        if num_cells is not None:
            check_count("num_cells", num_cells)
        self.num_cells, self.num_probes = num_cells, num_probes
        self._exact = ExactIndex()

    @property
    def num_probes(self) -> int:
        """Cells searched."""
        return self._num_probes

    @num_probes.setter
    def num_probes(self, number: int) -> None:
        self._num_probes = check_count("num_probes", number)
        if self.dim:
            self._index.nprobe = min(self.num_built_cells, self._num_probes)

    @property
    def num_built_cells(self) -> int:
        """Cells of the built index; 0 before `build`."""
        return int(self._index.nlist) if self.dim else 0

    def build(self, vectors: Tensor) -> Self:
        """Assign the vectors [N, D] to cells; k-means uses at most 256 vectors a cell. Returns this index."""
        vectors = self._check_and_count(vectors)
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
        # In the order of `ExactIndex`.
        self._index.add(self._exact._vectors.numpy())
        return self

    def recall(self, queries: Tensor, k: int, exclude: Exclude | None = None) -> float:
        """The mean share of the k users of exact search that this search finds; arguments as in `search`."""
        expected = self._exact.search(queries, k, exclude)[0]
        return float(recall(self.search(queries, k, exclude)[0], expected).mean())

    def _search(
        self, queries: Tensor, k: int, exclude: Exclude, exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        count = torch.bincount(exclude[0], minlength=len(queries))
        # Queries are grouped by the depth of the search, a power of two.
        depth = 2 ** (k + count).double().log2().ceil().long()
        options = self._options(exclude_users)
        key = exclude[0] * self.num_users + exclude[1]
        users = torch.full((len(queries), k), -1)
        scores = torch.full((len(queries), k), -torch.inf)
        for size in depth.unique().tolist():
            rows = (depth == size).nonzero().squeeze(1)
            values, place = map(
                torch.from_numpy, self._index.search(queries[rows].numpy(), size, params=options)
            )
            found = torch.where(place >= 0, self._exact._order[place], -1)
            at = rows[:, None] * self.num_users + found
            allowed = (found >= 0) & ~torch.isin(at, key)
            order = (~allowed).long().argsort(dim=1, stable=True)[:, :k]  # allowed first, in order
            kept = allowed.gather(1, order)
            users[rows] = torch.where(kept, found.gather(1, order), -1)
            scores[rows] = torch.where(kept, values.gather(1, order), -torch.inf)
        wanted = (self.num_users - int(exclude_users.sum()) - count).clamp(max=k)
        short = ((users >= 0).sum(1) < wanted).nonzero().squeeze(1)
        if len(short):
            number = torch.full((len(queries),), -1)
            number[short] = torch.arange(len(short))
            here = number[exclude[0]] >= 0
            missed = number[exclude[0][here]], exclude[1][here]
            users[short], scores[short] = self._exact._search(queries[short], k, missed, exclude_users)
        return users, scores

    def _options(self, exclude_users: Tensor) -> Any:
        """Search parameters of faiss that skip users [N] bool; None if there are none to skip."""
        if not bool(exclude_users.any()):
            return None
        allowed = np.packbits(~exclude_users[self._exact._order].numpy(), bitorder="little")
        make: Any = faiss  # its types lack what its Python side adds
        selector = make.IDSelectorBitmap(allowed)
        return make.SearchParametersIVF(sel=selector, nprobe=self._index.nprobe)
