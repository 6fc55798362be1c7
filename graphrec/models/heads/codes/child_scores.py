"""Scores of the children of prefixes without gradients: what depends on the node alone is computed once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features import NUM_PREFIX_FEATURES, prefix_features
from graphrec.features.gaps import write_columns
from graphrec.features.prefix import MIN_POPULARITY
from graphrec.models.heads.codes.child_kernels import add_child_scores, gather_children
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.nn import PrefixScore

COSINE, POPULARITY = 5, 6
"""Rows of `prefix_features`."""

LOGS, NUM_GAPS = np.arange(4), 2
"""Its rows that `gather_children` fills with the numbers whose logarithms they are; first the gaps."""


class ChildScores:
    """Computes `PrefixScore`s of children of prefixes for B queries; on the CPU, without gradients.

    Queries of one time share the features of a node, and queries in service are all of one time.

    Args:
        history: all users' codes over time.
        query: B queries.
        tick: [B] int64, their times as ticks.
        pace: [B], of `query_pace`.
        number: [B] int64, the moment of `history` that each query reads.
        place: [B, dim], spectral embeddings of the queries' users; None if they are not used.
    """

    def __init__(
        self,
        history: CodeHistory,
        query: Query,
        tick: Tensor,
        pace: Tensor,
        number: Tensor,
        place: Tensor | None,
    ) -> None:
        self._history, self._columns = history, history.columns
        self._place = torch.zeros(len(query), 0) if place is None else place
        self._time, self._moment = query.time.unique(return_inverse=True)
        some = torch.empty_like(self._time)
        some[self._moment] = torch.arange(len(query))  # a query of each moment
        self._tick, self._pace, self._number = tick[some], pace[some], number[some]

    def scores(
        self,
        score: PrefixScore,
        vector: Tensor,
        row: Tensor,
        node: Tensor,
        children: tuple[Tensor, Tensor],
        *,
        leaves: bool,
    ) -> Tensor:
        """Score all children of R prefixes.

        Args:
            score: the network of the level.
            vector: [B, D] float32, the queries.
            row: [R] int64, the query of each prefix.
            node: [R] int64, its node.
            children: (first child of each prefix [R], node of each child [T]) int64, of `Forest.children`.
            leaves: whether the children are leaves.

        Returns:
            [T] float32.
        """
        history, forest = self._history, self._history.forest
        start, child = children
        out, count, first = torch.empty(len(child)), forest.num_children(node), start
        moment = torch.zeros_like(child)
        if len(self._moment) > 1:  # else no node is asked for twice
            key, same = (self._moment[row] * forest.num_nodes + node).unique(return_inverse=True)
            prefix = key % forest.num_nodes
            at, child = forest.children(prefix)
            moment = (key // forest.num_nodes)[at]
            number = forest.num_children(prefix)
            first = (number.cumsum(0) - number)[same]
        part = score.parts(vector)
        table, snapshot, place = history.embedding_table(self._number, leaves=leaves)
        arrays: tuple[Tensor, ...] = (
            first,
            start,
            count,
            row,
            child,
            moment,
            part.features @ self._features(child, moment).T,
            table,
            snapshot,
            place,
            part.query,
            self._place,
            part.features[:, COSINE],
            part.output,
            part.bias,
            out,
        )
        add_child_scores(*(array.contiguous().numpy() for array in arrays))
        return out

    def _features(self, node: Tensor, moment: Tensor) -> Tensor:
        """`prefix_features` of nodes [n] before moments [n], with 0 for the cosine: [n, F] float32."""
        columns, forest = self._columns, self._history.forest
        time, tick, pace = self._time, self._tick, self._pace
        if columns is None:
            now = time[moment]
            activity, none = self._history.activity(node, tick[moment], now), torch.zeros(len(node))
            return prefix_features(now, pace[moment], activity, forest.size[node], none).T
        log, popularity = torch.empty(4, len(node)), torch.empty(len(node), dtype=torch.float64)
        out = torch.empty(len(node), NUM_PREFIX_FEATURES)
        where = moment.contiguous().numpy()
        given = (node.contiguous().numpy(), where, time.numpy(), tick.numpy())
        if not gather_children(columns, *given, log.numpy(), popularity.numpy(), out.numpy()):
            raise ValueError("a group cannot be queried at a tick before its `since`")
        write_columns(log.log1p_().numpy(), NUM_GAPS, where, pace.numpy(), LOGS, out.numpy())
        out[:, POPULARITY] = popularity.add_(MIN_POPULARITY).log_()
        return out
