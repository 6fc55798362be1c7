"""What a training epoch costs by the number of threads, alone and beside a busy process.

python -m benchmarks.speed.threads [--dataset MathOverflow] [--batches 3] [--rounds 2]

Each run is a process of its own, in turn; wall and CPU seconds are the least and the most of the rounds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time

import torch

from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.models import TwoTower
from graphrec.temporal import Timeline
from graphrec.threads import granted_cpus

SETTINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "default": ({}, []),
    "OMP_NUM_THREADS=1": ({"OMP_NUM_THREADS": "1"}, []),
    "OMP_NUM_THREADS=2": ({"OMP_NUM_THREADS": "2"}, []),
    "pinned to one CPU": ({}, ["taskset", "-c", "0"]),
}
"""What of the environment is set, and what the command begins with."""


def epoch(dataset: str, batches: int) -> tuple[float, float]:
    """Wall and CPU seconds of a fit of one short epoch, judged by an hour; the index is built before."""
    graph = load_dataset(dataset)
    split = TemporalSplit.of(graph)
    Timeline.of(graph)
    model = TwoTower(max_epochs=1, epoch_batches=batches, progress=False)
    began, used = time.perf_counter(), time.process_time()
    model.fit(graph, until=split.t_val, validate_until=split.t_val + 3600)
    return time.perf_counter() - began, time.process_time() - used


def measured(setting: str, dataset: str, batches: int, *, busy: bool) -> tuple[float, float]:
    """The same in a process of its own, beside one that never rests."""
    environment, prefix = SETTINGS[setting]
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [*prefix, sys.executable, "-m", "benchmarks.speed.threads", "--dataset", dataset, "--once"]
    command += ["--batches", str(batches)]
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        done = subprocess.run(
            command, env=clean | environment, capture_output=True, text=True, check=True, timeout=600
        )
    finally:
        if other is not None:
            other.kill()
            other.wait()
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.threads", description=__doc__)
    parser.add_argument("--dataset", default="MathOverflow")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--once", action="store_true", help="one run in this process: wall and CPU seconds")
    options = parser.parse_args()
    if options.once:
        print(*epoch(options.dataset, options.batches))
        return
    names = [name for name, (_, prefix) in SETTINGS.items() if not prefix or shutil.which(prefix[0])]
    found: dict[tuple[str, bool], list[tuple[float, float]]] = {}
    loads = [os.getloadavg()[0]]
    for _ in range(options.rounds):
        for busy in (False, True):
            for name in names:
                run = measured(name, options.dataset, options.batches, busy=busy)
                found.setdefault((name, busy), []).append(run)
                loads.append(os.getloadavg()[0])
                print(f"{name}, {'beside a busy process' if busy else 'alone'}: {run}", file=sys.stderr)
    print(f"{granted_cpus()} CPUs, torch {torch.__version__}, load {min(loads):.1f} to {max(loads):.1f}\n")
    print("| | alone: wall s | CPU s | beside a busy process: wall s | CPU s |\n|---|---|---|---|---|")
    for name in names:
        cells = []
        for busy in (False, True):
            for part in zip(*found[name, busy], strict=True):
                cells.append(f"{min(part):.1f} to {max(part):.1f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
