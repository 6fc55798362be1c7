"""What each option of the two-tower is worth: the default, and it with one thing switched or left out.

python -m benchmarks.quality.options --dataset NAME [--seeds 0 1 2] [--only ROW ...] [--out FILE]

MRR on validation, never on test, by slice, as means over the seeds with their standard deviation. Every fit
is kept in FILE as soon as it is done; a second run goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from graphrec.data import USER, FriendGraph, TemporalSplit
from graphrec.datasets import DATASETS, load_dataset
from graphrec.evaluate import evaluate_streaming
from graphrec.models import TWO_TOWER_PRESETS, TwoTower

SLICES = ("all", "repeat", "reply", "new")
FEATURES = "without features"
WHOLE: dict[str, tuple[str, ...]] = {**TWO_TOWER_PRESETS["two_tower_mixture"]}  # type: ignore[dict-item]

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "history pooled": {"history": "pooled"},
    "history mean": {"history": "mean"},
    "mixture of experts": {"interaction": "moe"},
    "swiglu": {"activation": "swiglu"},
    "in-batch negatives alone": {"num_rand_negs": 0},
    "random negatives alone": {"in_batch": False},
    "last acts alone": {"history_loss_weight": 0.0},
    **{
        f"without {name}": {part: tuple(other for other in names if other != name)}
        for part, names in WHOLE.items()
        for name in names
    },
    FEATURES: {},
}
"""What differs from the default, by the name of a row; the last is for graphs with `x`, and takes it away."""


def judge(name: str, graph: FriendGraph, seed: int, **sizes: Any) -> dict[str, float]:
    """Validation MRR by slice, and seconds to fit, of one row and seed; `sizes` are the model's own."""
    if name == FEATURES:
        graph = copy.copy(graph)
        del graph[USER].x
    split = TemporalSplit.of(graph)
    model = TwoTower(seed=seed, progress=False, **OPTIONS[name], **sizes)
    began = time.perf_counter()
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    seconds = time.perf_counter() - began
    rows = evaluate_streaming(model, graph, part="val", split=split, progress=False).rows()
    return {row["slice"]: row["mrr"] for row in rows if row["slice"] in SLICES} | {"seconds": seconds}


def run(dataset: str, names: Sequence[str], seeds: Sequence[int], out: Path, **sizes: Any) -> str:
    """Judge what is not in the file yet, and show all of it as a table."""
    graph = load_dataset(dataset)
    assert isinstance(graph, FriendGraph)
    names = [name for name in names if name != FEATURES or "x" in graph[USER]]
    done: dict[str, dict[str, dict[str, float]]] = json.loads(out.read_text()) if out.exists() else {}
    kept = done.setdefault(dataset, {})
    for name in names:
        for seed in seeds:
            key = f"{name}, seed {seed}"
            if key not in kept:
                kept[key] = judge(name, graph, seed, **sizes)
                out.write_text(json.dumps(done, indent=1) + "\n")
                print(key, {part: round(value, 4) for part, value in kept[key].items()}, flush=True)
    body = []
    for name in names:
        fits = [kept[f"{name}, seed {seed}"] for seed in seeds]
        cells = [_cell([fit[part] for fit in fits if part in fit]) for part in SLICES]
        body.append([name, *cells, f"{np.mean([fit['seconds'] for fit in fits]):.0f}"])
    header = [f"{dataset}, validation MRR", *SLICES, "fit s"]
    return str(tabulate(body, headers=header, tablefmt="github", disable_numparse=True))


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}".replace("0.", ".")


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.options")
    parser.add_argument("--dataset", choices=DATASETS, default="Copenhagen", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS), metavar="ROW")
    parser.add_argument("--out", type=Path, default=Path("options.json"), metavar="FILE")
    options = parser.parse_args()
    print(run(options.dataset, options.only, options.seeds, options.out))


if __name__ == "__main__":
    main()
