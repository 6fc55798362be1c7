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
        children: tuple[np.ndarray, np.ndarray],
        *,
        leaves: bool,
    ) -> Tensor:
        """Score all children of R prefixes.

        Args:
            score: the network of the level.
            vector: [B, D] float32, the queries.
            row: [R] int64, the query of each prefix.
            node: [R] int64, its node.
            children: (first child of each prefix [R], node of each child [T]) int64, of `find_children`.
            leaves: whether the children are leaves.

        Returns:
            [T] float32.
        """
        history, forest = self._history, self._history.forest
        start, child = children
        out, first, count = torch.empty(len(child)), start, forest.child_columns.number[node.numpy()]
        moment = np.zeros(len(child), np.int64)
        if len(self._moment) > 1:  # else no node is asked for twice
            key, same = (self._moment[row] * forest.num_nodes + node).unique(return_inverse=True)
            prefix = key % forest.num_nodes
            at, nodes = forest.children(prefix)
            number = forest.num_children(prefix)
            child, moment = nodes.numpy(), (key // forest.num_nodes)[at].numpy()
            first = (number.cumsum(0) - number)[same].numpy()
        part = score.parts(vector)
        table, snapshot, place = history.embedding_table(self._number, leaves=leaves)
        add_child_scores(
            first,
            start,
            count,
            row.numpy(),
            child,
            moment,
            (part.features @ self._features(child, moment).T).numpy(),
            table.numpy(),
            snapshot.numpy(),
            place.numpy(),
            part.query.numpy(),
            self._place.numpy(),
            part.features[:, COSINE].contiguous().numpy(),
            part.output.numpy(),
            part.bias.numpy(),
            out.numpy(),
        )
        return out

    def _features(self, node: np.ndarray, moment: np.ndarray) -> Tensor:
        """`prefix_features` of nodes [n] before moments [n], with 0 for the cosine: [n, F] float32."""
        columns, forest = self._columns, self._history.forest
        time, tick, pace = self._time, self._tick, self._pace
        if columns is None:
            at, nodes = torch.from_numpy(moment), torch.from_numpy(node)
            now, none = time[at], torch.zeros(len(node))
            activity = self._history.activity(nodes, tick[at], now)
            return prefix_features(now, pace[at], activity, forest.size[nodes], none).T
        log, popularity = torch.empty(4, len(node)), torch.empty(len(node), dtype=torch.float64)
        out = torch.empty(len(node), NUM_PREFIX_FEATURES)
        arrays = log.numpy(), popularity.numpy(), out.numpy()
        if not gather_children(columns, node, moment, time.numpy(), tick.numpy(), *arrays):
            raise ValueError("a group cannot be queried at a tick before its `since`")
        write_columns(log.log1p_().numpy(), NUM_GAPS, moment, pace.numpy(), LOGS, arrays[2])
        out[:, POPULARITY] = popularity.add_(MIN_POPULARITY).log_()
        return out
