"""Scores of the children of prefixes without gradients: what depends on the node alone is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.features import prefix_features
from graphrec.models.heads.codes.history import CodeHistory
from graphrec.models.heads.layer_kernel import add_layer_scores
from graphrec.nn import PrefixScore

COSINE = 5
"""The row of the cosine in `prefix_features`."""


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
        self._history = history
        self._place = torch.zeros(len(query), 0) if place is None else place
        self._time, self._moment = query.time.unique(return_inverse=True)
        some = torch.empty_like(self._time)
        some[self._moment] = torch.arange(len(query))  # a query of each moment
        self._tick, self._pace, self._number = tick[some], pace[some], number[some]

    def add_to(
        self, logit: Tensor, score: PrefixScore, vector: Tensor, row: Tensor, node: Tensor, *, leaves: bool
    ) -> None:
        """Add the scores of all children of R prefixes to their logits.

        Args:
            logit: [T] float32, in the order of `Forest.children`; changed in place.
            score: the network of the level.
            vector: [B, D] float32, the queries.
            row: [R] int64, the query of each prefix.
            node: [R] int64, its node.
            leaves: whether the children are leaves.
        """
        history, forest = self._history, self._history.forest
        key, same = (self._moment[row] * forest.num_nodes + node).unique(return_inverse=True)
        prefix, moment = key % forest.num_nodes, key // forest.num_nodes
        at, child = forest.children(prefix)
        moment = moment[at]
        time = self._time[moment]
        features = prefix_features(
            time,
            self._pace[moment],
            history.activity(child, self._tick[moment], time),
            forest.size[child],
            torch.zeros(len(child)),
        )
        part = score.parts(vector)
        embeddings = torch.zeros(len(child), 0)
        if self._place.size(1):
            embeddings = history.embeddings(self._number[moment], child, leaves=leaves)
        count = forest.num_children(prefix)
        first, count = (count.cumsum(0) - count)[same], count[same]
        arrays = (
            first,
            count.cumsum(0) - count,
            count,
            row,
            part.features @ features,
            embeddings.T,
            part.query,
            self._place,
            part.features[:, COSINE],
            part.output,
            logit.add_(part.bias),
        )
        add_layer_scores(*(array.contiguous().numpy() for array in arrays))
