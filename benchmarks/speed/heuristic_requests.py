"""CPU milliseconds of one request to a heuristic, beside the same list from scores of all users.

python -m benchmarks.speed.heuristic_requests [--users 25000 100000 1000000] [--models NAME ...]

On one thread: lists of 20 for the actors of the last events, one request an event, at the events' own times,
as a service gets them. Logs are synthetic (power-law activity, ten events a user) and MathOverflow. The last
column is the exponent of growth of the median from the smallest to the largest synthetic log.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from math import log
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.speed.scale import write_log
from graphrec.data import FriendGraph, Query, read_events
from graphrec.datasets import load_dataset
from graphrec.models import HEURISTICS, Heuristic

LIST_LENGTH = 20
EVENTS_PER_USER = 10


def synthetic(num_users: int) -> FriendGraph:
    """A log of power-law activity; users without an event are left out."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        write_log(path, EVENTS_PER_USER * num_users, num_users, np.random.default_rng(0))
        return FriendGraph.from_events(read_events(path))


def milliseconds(model: Heuristic, query: Query) -> tuple[float, np.ndarray]:
    """CPU time of the first request, which prepares what is kept, and of each of the others."""
    times = []
    for b in range(len(query)):
        began = time.process_time()
        model.recommend(query[b : b + 1], LIST_LENGTH)
        times.append(1e3 * (time.process_time() - began))
    return times[0], np.array(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.heuristic_requests", description=__doc__
    )
    parser.add_argument("--users", type=int, nargs="+", default=[25_000, 100_000, 1_000_000])
    parser.add_argument("--models", nargs="+", default=list(HEURISTICS), choices=HEURISTICS)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--slow", type=int, default=5, help="requests answered from scores of all users")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, medians = [], {}
    for size in (0, *options.users):
        graph = synthetic(size) if size else load_dataset("MathOverflow")
        events = torch.arange(graph.num_events - options.requests, graph.num_events)
        query = Query.of_events(graph, events)
        for name in options.models:
            rule = HEURISTICS[name]
            plain = type(f"Plain{rule.__name__}", (rule,), {"direct": None})
            until = int(query.time[-1]) + 1
            _, slow = milliseconds(plain().fit(graph, until=until), query[-options.slow - 1 :])
            model = rule().fit(graph, until=until)
            few = options.slow + 1 if rule.direct is None else options.requests
            first, fast = milliseconds(model, query[-few:])
            medians[name, size] = float(np.median(fast))
            cost = [f"{value:.2f}" for value in (np.median(fast), np.quantile(fast, 0.99))]
            before = float(np.median(slow))
            rows.append([size or "MathOverflow", name, *cost, f"{first:.0f}", f"{before:.1f}"])
            print(*rows[-1], flush=True)
    print(tabulate(rows, headers=["users", "rule", "median ms", "p99", "first", "from all scores"]))
    low, high = min(options.users), max(options.users)
    if low < high:
        growth = [
            [name, f"{log(medians[name, high] / medians[name, low]) / log(high / low):.2f}"]
            for name in options.models
        ]
        print(tabulate(growth, headers=["rule", f"exponent, {low:,} to {high:,} users"]))


if __name__ == "__main__":
    main()
