"""After how many minutes of training is validation above the best heuristic, and when does it stop rising?

python -m benchmarks.speed.minutes [--dataset NAME] [--seed S]

On one thread; CPU time from the first line of `fit`, validation included. Heuristics and model are evaluated
on the same validation events, among all users.
"""

from __future__ import annotations

import argparse
import time
from unittest.mock import patch

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.data import FriendGraph, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import Scorer, StreamingRanks, rank_events
from graphrec.models import HEURISTICS, TwoTower, validation_ranks


class Timed:
    """Ranks validation events as a fit does, and notes when each validation was done."""

    def __init__(self) -> None:
        self.judged = torch.empty(0, dtype=torch.int64)
        self.done: list[float] = []

    def __call__(self, scorer: Scorer, graph: FriendGraph, event_id: Tensor) -> StreamingRanks:
        """The ranks of the events' targets, as a fit asks for them."""
        ranks = validation_ranks(scorer, graph, event_id)
        self.judged = event_id
        self.done.append(time.process_time())
        return ranks


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.minutes", description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_dataset(options.dataset)
    split = TemporalSplit.of(graph)
    model, timed = TwoTower(seed=options.seed, progress=False), Timed()
    began = time.process_time()
    with patch("graphrec.models.mixture.recommender.validation_ranks", timed):
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
    best, which = 0.0, ""
    for name, kind in HEURISTICS.items():
        rule = kind().fit(graph, until=split.t_val)
        ranks = rank_events(
            rule, graph, timed.judged, part="val", trained_until=split.t_val, progress=False
        ).rank_all
        if (1 / ranks).mean() > best:
            best, which = float((1 / ranks).mean()), name
    scores = [row["val_all"] for row in model.curve]
    minutes = [(done - began) / 60 for done in timed.done]
    print(
        tabulate(
            [
                [f"{m:.1f}", f"{score:.3f}", "passes the best rule" if score > best else ""]
                for m, score in zip(minutes, scores, strict=True)
            ],
            headers=[f"{options.dataset}, minutes", "val MRR, all", f"best rule: {which} {best:.3f}"],
            disable_numparse=True,
        )
    )
    print(f"highest after {minutes[scores.index(max(scores))]:.1f} minutes")


if __name__ == "__main__":
    main()
