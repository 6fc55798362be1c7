"""How far above or below the best heuristic of each slice is a model?

python -m benchmarks.quality.ratios --dataset NAME [--model two_tower_mixture] [--seeds 0 1 2] --out DIR

Every heuristic and every seed of the model rank the same test events. The best heuristic is picked by the
test events themselves, for each slice. The ratio is of the model's MRR, reciprocal ranks averaged over
seeds, to that heuristic's; its 95 % interval resamples actors. Ranks are kept in DIR; an interrupted run
continues.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.ladder import fitted
from graphrec.data import FriendGraph, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import SLICES, StreamingRanks, evaluate_streaming
from graphrec.models import HEURISTICS, LEARNED

RESAMPLES = 1000


def reciprocal_ranks(
    graph: FriendGraph, split: TemporalSplit, name: str, seed: int, file: Path
) -> np.ndarray:
    """1 / rank on the test events (see `inverted`), kept in a file."""
    if file.exists():
        kept: np.ndarray = np.load(file)
        return kept
    began = time.perf_counter()
    model = fitted(name, graph, split, seed)
    fit = time.perf_counter() - began
    out = inverted(evaluate_streaming(model, graph, split=split, progress=False))
    np.save(file, out)
    print(f"{name}, seed {seed}: fit {fit:.0f} s, test MRR {np.nanmean(out[0]):.4f}", flush=True)
    return out


def inverted(ranks: StreamingRanks) -> np.ndarray:
    """1 / rank, [1 + slices, n]: among all, and in each event's own slice; NaN outside."""
    rows = []
    for slice_name in SLICES:
        row = np.full(len(ranks.event_id), np.nan)
        inside = ranks.members.get(slice_name, np.ones(len(row), dtype=bool))
        row[inside] = 1.0 / ranks.select(slice_name)[0]
        rows.append(row)
    return np.stack(rows)


def interval(model: np.ndarray, rule: np.ndarray, actor: np.ndarray) -> tuple[float, float]:
    """95 % interval of the ratio of two means over the same events, actors resampled."""
    _, group = np.unique(actor, return_inverse=True)
    sums = np.stack([np.bincount(group, weights) for weights in (model, rule)])
    rng = np.random.default_rng(0)
    drawn = rng.integers(sums.shape[1], size=(RESAMPLES, sums.shape[1]))
    totals = sums[:, drawn].sum(2)
    low, high = np.quantile(totals[0] / totals[1], [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.ratios", description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--model", default="two_tower_mixture", choices=list(LEARNED))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    graph = load_dataset(options.dataset)
    split = TemporalSplit.of(graph)

    def ranks_of(name: str, seed: int) -> np.ndarray:
        return reciprocal_ranks(
            graph, split, name, seed, options.out / f"{options.dataset}-{name}-{seed}.npy"
        )

    rules = {name: ranks_of(name, 0) for name in HEURISTICS if name != "random"}
    seeds = np.stack([ranks_of(options.model, seed) for seed in options.seeds])
    judged = evaluate_streaming(fitted("random", graph, split, 0), graph, split=split, progress=False)
    body = []
    for number, slice_name in enumerate(SLICES):
        inside = ~np.isnan(seeds[0, number])
        if not inside.any():
            continue
        best = max(rules, key=lambda name: float(np.mean(rules[name][number][inside])))
        rule = rules[best][number][inside]
        model = seeds[:, number, inside]
        low, high = interval(model.mean(0), rule, judged.actor[inside])
        body.append(
            [
                slice_name,
                int(inside.sum()),
                f"{rule.mean():.3f}",
                best,
                f"{model.mean():.3f}",
                " ".join(f"{value:.3f}" for value in model.mean(1)),
                f"{model.mean() / rule.mean():.2f} [{low:.2f}, {high:.2f}]",
            ]
        )
    header = [f"{options.dataset}, test MRR", "n", "best rule", "", options.model, "by seed", "ratio"]
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
