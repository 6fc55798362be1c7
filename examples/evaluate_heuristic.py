"""A heuristic of your own, evaluated beside those of the library: who wrote to the user most often, lately?

python examples/evaluate_heuristic.py [--dataset Copenhagen]
"""

from __future__ import annotations

import argparse
from typing import Self

import torch
from torch import Tensor

from graphrec import FriendGraph, Query, Recommender, TemporalSplit, evaluate_streaming, load_dataset
from graphrec.models import HEURISTICS

WEEK_S = 7 * 86_400


class RecentSenders(Recommender):
    """How often each user acted on the query's user in the last week before the query."""

    name = "recent_senders"

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Remember the graph: nothing is learned, so `until` does not matter."""
        self._graph = graph
        return self

    def _score_in_order(self, query: Query) -> Tensor:
        """Scores of all users for queries in order of time: [B, N]. `score` and `recommend` call it."""
        events = self.graph.events()
        scores = torch.zeros(len(query), self.graph.num_users, dtype=self.dtype)
        for row, (user, time) in enumerate(zip(query.user.tolist(), query.time.tolist(), strict=True)):
            first, end = torch.searchsorted(events.time, torch.tensor([time - WEEK_S, time])).tolist()
            senders = events.src[first:end][events.dst[first:end] == user]  # strictly before `time`
            scores[row] = torch.bincount(senders, minlength=self.graph.num_users)
        return scores


def main() -> None:
    """Evaluate and print MRR by slice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen")
    options = parser.parse_args()
    graph = load_dataset(options.dataset)
    split = TemporalSplit.of(graph)
    for model in (RecentSenders(), HEURISTICS["repeat_recency"](), HEURISTICS["reply_recency"]()):
        ranks = evaluate_streaming(model.fit(graph, until=split.t_val), graph, part="test")
        figures = "  ".join(f"{row['slice']} {row['mrr']:.3f}" for row in ranks.rows()[:4])
        print(f"{model.name:15} {figures}")


if __name__ == "__main__":
    main()
