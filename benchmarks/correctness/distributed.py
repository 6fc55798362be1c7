"""Two processes under torchrun against one: the same model, the same result within the seeds' noise.

python -m benchmarks.correctness.distributed [--dataset NAME] [--seeds S] [--processes P]

A two-tower is fitted for each seed by one process and by P that share every batch (gloo, one thread each),
and judged on validation (what chose the epoch) and test. The noise is the 95 % interval of the difference
between two means of S seeds (Welch's t). Exit status 1 if a difference lies outside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import ttest_ind
from tabulate import tabulate

from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import evaluate_streaming
from graphrec.models import TwoTower

METRICS = ("val all", "val new", "test all", "test new")


def fit_and_judge(dataset: str, seeds: int, out: Path) -> None:
    """What each process does; the first one judges."""
    torch.set_num_threads(1)
    graph = load_dataset(dataset)
    split = TemporalSplit.of(graph)
    rows = []
    for seed in range(seeds):
        model = TwoTower(embedding_dim=32, hidden_channels=32, max_epochs=6, seed=seed, progress=False)
        began = time.perf_counter(), time.process_time()
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        seconds = time.perf_counter() - began[0], time.process_time() - began[1]
        if os.environ["RANK"] == "0":
            best = max(model.curve, key=lambda row: row["val_score"])
            test = {
                row["slice"]: row["mrr"] for row in evaluate_streaming(model, graph, progress=False).rows()
            }
            rows.append(
                [best["val_all"], best["val_new"], test["all"], test["new"], *seconds, len(model.curve)]
            )
    if os.environ["RANK"] == "0":
        out.write_text(json.dumps(rows))


def launched(dataset: str, seeds: int, processes: int) -> np.ndarray:
    """[seeds, metrics, seconds, CPU seconds and epochs] of a number of processes under torchrun."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
        options = ("--dataset", dataset, "--seeds", str(seeds), "--worker", str(out))
        command = (sys.executable, *torchrun, "-m", "benchmarks.correctness.distributed", *options)
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
        return np.array(json.loads(out.read_text()))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness.distributed")
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        fit_and_judge(options.dataset, options.seeds, options.worker)
        return 0
    one, many = (launched(options.dataset, options.seeds, size) for size in (1, options.processes))
    body, apart = [], False
    for number, name in enumerate(METRICS):
        a, b = one[:, number], many[:, number]
        low, high = ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
        inside = low <= 0.0 <= high
        apart |= not inside
        body.append(
            [
                name,
                *(f"{x.mean():.4f} ({', '.join(f'{value:.4f}' for value in x)})" for x in (a, b)),
                f"{b.mean() - a.mean():+.4f} [{low:+.4f}, {high:+.4f}]",
                "within" if inside else "OUTSIDE",
            ]
        )
    for number, name in ((-3, "seconds of a fit"), (-2, "CPU seconds, first process"), (-1, "epochs")):
        body.append([name, *(f"{x[:, number].mean():.1f}" for x in (one, many)), "", ""])
    header = [f"{options.dataset}, MRR (seeds)", "one process", f"{options.processes} processes"]
    print(tabulate(body, headers=[*header, "difference, 95 %", "noise"], disable_numparse=True))
    return int(apart)


if __name__ == "__main__":
    sys.exit(main())
