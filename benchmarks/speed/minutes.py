"""How long training takes until validation passes the best rule of thumb, and until it stops rising.

python -m benchmarks.speed.minutes [--dataset NAME] [--seed S]

On one thread; processor time from the first line of `fit`, validation included. Rules and model are judged on
the same validation events, among all users.
"""

from __future__ import annotations

import argparse
import time

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import rank_events
from graphrec.models import HEURISTICS, TwoTower


class Timed(TwoTower):
    """Notes when each validation was done."""

    def _validate(self, event_id: Tensor) -> dict[str, float]:
        scores = super()._validate(event_id)
        self.judged = event_id
        self.done = [*getattr(self, "done", []), time.process_time()]
        return scores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.minutes", description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_dataset(options.dataset)
    split = TemporalSplit.of(graph)
    model = Timed(seed=options.seed, progress=False)
    began = time.process_time()
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    best, which = 0.0, ""
    for name, kind in HEURISTICS.items():
        rule = kind().fit(graph, until=split.t_val)
        ranks = rank_events(
            rule, graph, model.judged, part="val", trained_until=split.t_val, progress=False
        ).rank_all
        if (1 / ranks).mean() > best:
            best, which = float((1 / ranks).mean()), name
    scores = [row["val_all"] for row in model.curve]
    minutes = [(done - began) / 60 for done in model.done[: len(scores)]]  # later ones are no epochs
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
