"""Which heuristic finds held-out friends in a network without times?

python -m benchmarks.quality.static [--datasets NAME ...] [--models MODEL ...] [--seed S]

Pairs are split at random into training, validation and test.
"""

from __future__ import annotations

import argparse
import sys

from tabulate import tabulate
from tqdm import tqdm

from graphrec.data import DataError, TemporalSplit
from graphrec.datasets import DeezerHungary, LastFMAsia, TwitchGermany, load_dataset
from graphrec.evaluate import evaluate_streaming
from graphrec.models import HEURISTICS

STATIC = [dataset.name for dataset in (DeezerHungary, LastFMAsia, TwitchGermany)]
MODELS = ("random", "popularity", "common_neighbors", "jaccard", "adamic_adar", "ppr")
"""The rules that need no order of events."""


def judged(name: str, model_name: str, seed: int) -> list[str]:
    """Fit on the pairs of training, judge on those of test."""
    graph = load_dataset(name, seed=seed)
    split = TemporalSplit.of(graph)
    model = HEURISTICS[model_name]().fit(graph, until=split.t_val)
    new = next(r for r in evaluate_streaming(model, graph, split=split).rows() if r["slice"] == "new")
    return [
        name,
        model_name,
        f"{new['n']:,}",
        f"{new['mrr']:.4f} [{new['mrr_low']:.4f}, {new['mrr_high']:.4f}]",
        f"{new['hits@10']:.4f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.static")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", default=STATIC, choices=STATIC)
    parser.add_argument("--models", nargs="+", metavar="MODEL", default=MODELS, choices=list(HEURISTICS))
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    options = parser.parse_args()
    try:
        tasks = [(name, model) for name in options.datasets for model in options.models]
        bar = tqdm(tasks, unit="model", disable=None, leave=False)
        rows = [judged(name, model, options.seed) for name, model in bar]
    except DataError as error:
        sys.exit(f"static: {error}")
    header = ["data set", "model", "n", "test MRR, new", "Hits@10"]
    print(tabulate(rows, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
