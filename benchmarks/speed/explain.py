"""What an explanation of one pair costs, beside the scores of this pair that it cannot do without.

python -m benchmarks.speed.explain [--dataset MathOverflow] [--models stu adamic_adar] [--pairs 20]

Models are fitted in few steps: the time of an explanation does not depend on their parameters. The pairs are
users of the test part with the person recommended first. All figures are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from statistics import median
from unittest.mock import patch

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec import FriendGraph, Query, TemporalSplit, load_dataset
from graphrec.explain import explain
from graphrec.models import HEURISTICS, Clustered, GenerativeSTU, Recommender, TwoTower
from graphrec.tokenizer import TokenizerQualityWarning

LEARNED: dict[str, Callable[..., Recommender]] = {
    "stu": GenerativeSTU,
    "two_tower_mixture": TwoTower,
    "clustered": Clustered,
}
FEW_STEPS = {"max_epochs": 1, "epoch_batches": 2, "progress": False}


class Stopwatch:
    """Counts the scores that a class of recommenders computes of pairs, and adds up their CPU seconds."""

    def __init__(self) -> None:
        self.number, self.seconds = 0, 0.0

    def on(self, kind: type[Recommender]) -> AbstractContextManager[object]:
        """Watch a class for the time of a context."""
        score_pairs = kind.score_pairs

        def watched(model: Recommender, query: Query, row: Tensor, user: Tensor) -> Tensor:
            start = time.process_time()
            out = score_pairs(model, query, row, user)
            self.number, self.seconds = self.number + 1, self.seconds + time.process_time() - start
            return out

        return patch.object(kind, "score_pairs", watched)


def measured(model: Recommender, graph: FriendGraph, first: int, num_pairs: int) -> list[str]:
    """Seconds of the first explanation, the median and the longest of the others, and of their scores."""
    seconds, floors, numbers, events = [], [], [], graph.events()
    drawn = first + torch.randperm(len(events) - first, generator=torch.Generator().manual_seed(0))
    for event in drawn[: num_pairs + 1].tolist():
        query, watch = Query.of_events(graph, torch.tensor([event])), Stopwatch()
        best, _ = model.recommend(query, 1)
        user, candidate = graph.user_ids.lookup(torch.cat([query.user, best[0]]))
        with watch.on(type(model)):
            start = time.process_time()
            explain(model, user, candidate, int(query.time))
            seconds.append(time.process_time() - start)
        floors.append(watch.seconds)
        numbers.append(watch.number)
    later, floor = seconds[1:], floors[1:]
    return [
        f"{seconds[0]:.2f}",
        f"{median(later):.3f}",
        f"{max(later):.3f}",
        f"{median(numbers[1:]):.0f}",
        f"{median(floor):.3f}",
        f"{median(a / b for a, b in zip(later, floor, strict=True)):.2f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.explain")
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME")
    parser.add_argument(
        "--models",
        nargs="*",
        choices=[*LEARNED, *HEURISTICS],
        default=["stu", "two_tower_mixture", "adamic_adar"],
    )
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    torch.set_num_threads(1)
    graph = load_dataset(options.dataset)
    split, body = TemporalSplit.of(graph), []
    for name in options.models:
        build = LEARNED.get(name)
        model = HEURISTICS[name]() if build is None else build(**FEW_STEPS)
        model.fit(graph, until=split.t_val)
        body.append([name, *measured(model, graph, split.num_train, options.pairs)])
        print(*body[-1], sep=" | ", flush=True)
    header = ["model", "first: s", "s", "longest", "scores", "scores: s", "ratio"]
    print(
        f"\n{graph.num_users:,} users, {graph.num_events:,} events; load average {os.getloadavg()[0]:.1f}\n"
    )
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
