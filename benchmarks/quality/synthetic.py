"""How far are heuristics from the best possible ranking in a simulated world, and what does the world cost?

python -m benchmarks.quality.synthetic [--users 1000000] [--events 10000000] [--seeds 3]

Seconds and peak memory of one large world; then worlds of 2,000 users and 60,000 events, with every
mechanism and without triadic closure: test MRR of the oracle and of heuristics, means over the seeds; and
statistics of all these worlds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from tabulate import tabulate

from graphrec.data import FRIEND, USER, FriendGraph, TemporalSplit
from graphrec.datasets import SyntheticFriends
from graphrec.evaluate import evaluate_streaming
from graphrec.models import HEURISTICS, Oracle

RULES = ("random", "popularity", "last_seen", "reply_recency", "adamic_adar", "jaccard", "ppr")
SLICES = ("all", "repeat", "reply", "new", "hop_2", "hop_far")
WORLDS: dict[str, tuple[str, ...]] = {
    "every mechanism": (),
    "without triadic closure": ("triadic_closure",),
}


WEEK_S = 7 * 86_400


def cost(num_users: int, num_events: int, folder: str) -> tuple[float, float, float, dict[str, float]]:
    """Seconds, CPU seconds and peak GiB of making, saving and loading a world; and what it is like."""
    began, began_cpu = time.perf_counter(), time.process_time()
    graph = SyntheticFriends(num_users, num_events, root=folder)[0]
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    return seconds, cpu, peak, statistics(graph)


def statistics(graph: FriendGraph) -> dict[str, float]:
    """What data sets of real people are described by."""
    events, n = graph.events(), graph.num_users
    src, dst, time_ = events.src.numpy(), events.dst.numpy(), events.time.numpy()
    pair, first = np.unique(src * n + dst, return_index=True)
    back = dst[first] * n + src[first]
    where = np.minimum(np.searchsorted(pair, back), len(pair) - 1)
    mutual = pair[where] == back
    wait = np.where(mutual, time_[first[where]], 2**62) - time_[first]
    approach = (wait > 0) & (time_[first] < time_[-1] - WEEK_S)
    acts = np.sort(np.bincount(src, minlength=n))
    friends = torch.bincount(graph[USER, FRIEND, USER].edge_index[0], minlength=n).double()
    return {
        "directed pairs": len(pair),
        "events that open one": len(pair) / len(src),
        "pairs reciprocated": float(mutual.mean()),
        "first approaches answered in 7 days": float((wait[approach] <= WEEK_S).mean()),
        "median friends": float(friends.median()),
        "most friends": float(friends.max()),
        "median acts": float(np.median(acts)),
        "most acts": float(acts[-1]),
        "acts of the busiest 1 %": float(acts[-max(1, n // 100) :].sum() / len(src)),
    }


def judged(
    without: tuple[str, ...], seed: int, folder: str
) -> tuple[dict[str, dict[str, float]], FriendGraph]:
    """Test MRR by model and slice in one small world, and its graph."""
    dataset = SyntheticFriends(seed=seed, without=without, root=folder)
    graph = dataset[0]
    until = TemporalSplit.of(graph).t_val
    models = [Oracle(dataset.world), *(HEURISTICS[name]() for name in RULES)]
    found = {}
    for model in models:
        rows = evaluate_streaming(model.fit(graph, until=until), graph, progress=False).rows()
        found[model.name] = {row["slice"]: row["mrr"] for row in rows}
    return found, graph


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.synthetic")
    parser.add_argument("--users", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--events", type=int, default=10_000_000, metavar="M")
    parser.add_argument("--seeds", type=int, default=3, metavar="K")
    options = parser.parse_args()
    described: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds, cpu, peak, large = pool.submit(cost, options.users, options.events, folder).result()
        title = f"{options.users:,} users, {options.events:,} events"
        described[title] = large
        print(
            f"{title}: {seconds:.1f} s, {cpu:.1f} CPU s, peak {peak:.2f} GiB, {os.cpu_count()} cores\n",
            flush=True,
        )
        for title, without in WORLDS.items():
            runs = [judged(without, seed, folder) for seed in range(options.seeds)]
            described[title] = statistics(runs[0][1])
            body = [
                [name, *(float(np.mean([found[name][s] for found, _ in runs])) for s in SLICES)]
                for name in runs[0][0]
            ]
            print(tabulate(body, headers=[f"{title}, test MRR", *SLICES], floatfmt=".3f"), "\n", flush=True)
    names = list(next(iter(described.values())))
    body = [
        [
            name,
            *(
                f"{values[name]:,.3g}" if values[name] < 100 else f"{values[name]:,.0f}"
                for values in described.values()
            ),
        ]
        for name in names
    ]
    print(tabulate(body, headers=["", *described], disable_numparse=True))


if __name__ == "__main__":
    main()
