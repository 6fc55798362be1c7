"""Seconds and peak memory on a log of millions of events, beside the floor of the same machine and run.

python -m benchmarks.speed.scale [--events 10000000] [--users 1000000] [--out DIR]

Every stage runs in a process of its own, so that its peak is its own. A peak counts all that is resident
while the stage runs, its input included.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import torch
from tabulate import tabulate

from graphrec.data import FriendGraph, TemporalSplit, read_events
from graphrec.datasets import load_dataset
from graphrec.evaluate import evaluate_mutual, evaluate_streaming
from graphrec.models import HEURISTICS
from graphrec.temporal import Timeline

SEED = 0
YEAR = 365 * 86_400
ACTIONS = ("call", "like", "message")
NUM_QUERIES = 100_000
LOG, GRAPH = "events.csv", "graph.pt"

Work = Callable[[], object]


def write_log(path: Path, num_events: int, num_users: int, rng: np.random.Generator) -> None:
    """A year of a social network, as CSV in order of time.

    Activity is Pareto-distributed, four events share a tie on average (a few ties have thousands), three
    ties of five are answered, most reach a near place on a ring (so that friends of friends meet), the others
    a popular person, and a tie's events cluster in the weeks after its first.
    """
    num_ties = max(1, num_events // 4)
    activity = np.cumsum(rng.pareto(1.5, num_users) + 0.2)

    def by_activity(size: int) -> np.ndarray:
        place = np.searchsorted(activity, rng.random(size) * activity[-1])
        return np.asarray(np.minimum(place, num_users - 1))

    one = by_activity(num_ties)
    step = np.ceil(rng.pareto(1.0, num_ties) * 10).clip(1, num_users - 1).astype(np.int64)
    other = (one + step * rng.choice([-1, 1], num_ties)) % num_users
    popular = rng.random(num_ties) < 0.2
    other[popular] = by_activity(int(popular.sum()))
    other[other == one] = (one[other == one] + 1) % num_users
    answered = rng.random(num_ties) < 0.6
    begins = rng.integers(0, YEAR, num_ties)

    strength = np.cumsum(rng.pareto(1.5, num_ties) + 0.2)
    tie = np.minimum(np.searchsorted(strength, rng.random(num_events) * strength[-1]), num_ties - 1)
    moment = (begins[tie] + rng.exponential(30 * 86_400, num_events).astype(np.int64)) % YEAR
    back = answered[tie] & (rng.random(num_events) < 0.45)
    order = np.argsort(moment, kind="stable")
    tie, back = tie[order], back[order]
    ids = rng.permutation(np.arange(num_users) * 7 + 100_000)
    action = pa.DictionaryArray.from_arrays(rng.choice(3, num_events, p=[0.1, 0.4, 0.5]), list(ACTIONS))
    table = pa.table(
        {
            "src": ids[np.where(back, other[tie], one[tie])],
            "dst": ids[np.where(back, one[tie], other[tie])],
            "timestamp": 1_700_000_000 + moment[order],
            "action": action.cast(pa.string()),
        }
    )
    pa.csv.write_csv(table, path)


# Each stage prepares its input, which is not timed, and returns the work, which is.


def floor_bytes(folder: Path) -> Work:
    """Every byte of the file, once."""

    def work() -> None:
        with (folder / LOG).open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    return work


def floor_pyarrow(folder: Path) -> Work:
    """The file as Arrow columns, unchecked and unsorted."""
    return lambda: pa.csv.read_csv(folder / LOG)


def reading(folder: Path) -> Work:
    """`read_events`."""
    return lambda: read_events(folder / LOG)


def building(folder: Path) -> Work:
    """`FriendGraph.from_events`."""
    log = read_events(folder / LOG)
    return lambda: FriendGraph.from_events(log)


def saving(folder: Path) -> Work:
    """`FriendGraph.save`."""
    graph = FriendGraph.from_events(read_events(folder / LOG))
    return lambda: graph.save(folder / GRAPH)


def loading(folder: Path) -> Work:
    """`FriendGraph.load`, which validates."""
    return lambda: FriendGraph.load(folder / GRAPH)


def validating(folder: Path) -> Work:
    """`FriendGraph.validate`."""
    graph = FriendGraph.load(folder / GRAPH)
    return lambda: graph.validate()


def floor_sort(folder: Path) -> Work:
    """One stable sort of as many integers as the index has half-edges."""
    events = FriendGraph.load(folder / GRAPH).events()
    key = torch.cat([events.src, events.dst]) << 32 | events.time.repeat(2)
    return lambda: key.argsort(stable=True)


def indexing(folder: Path) -> Work:
    """`Timeline`."""
    graph = FriendGraph.load(folder / GRAPH)
    return lambda: Timeline(graph)


def asking(folder: Path) -> Work:
    """A batch of `Timeline.distinct_contacts`: the actors of random events, at those events' times."""
    timeline = Timeline(FriendGraph.load(folder / GRAPH))
    generator = torch.Generator().manual_seed(SEED)
    event = torch.randint(len(timeline.events), (NUM_QUERIES,), generator=generator)
    user, moment = timeline.events.src[event], timeline.events.time[event]
    return lambda: timeline.distinct_contacts(user, timeline.tick(moment), k=64, window=256)


def _judging(name: str) -> Work:
    graph = load_dataset("MathOverflow")
    split = TemporalSplit.of(graph)

    def work() -> None:
        model = HEURISTICS[name]().fit(graph, until=split.t_val)
        evaluate_streaming(model, graph, split=split, progress=False)
        evaluate_mutual(model, graph, split=split, progress=False)

    return work


def judging_reply_recency(folder: Path) -> Work:
    """MathOverflow: index, `evaluate_streaming` and `evaluate_mutual`."""
    return _judging("reply_recency")


def judging_adamic_adar(folder: Path) -> Work:
    """MathOverflow: index, `evaluate_streaming` and `evaluate_mutual`."""
    return _judging("adamic_adar")


STAGES: dict[str, tuple[Callable[[Path], Work], str | None]] = {
    "read the bytes (floor)": (floor_bytes, None),
    "pyarrow.csv.read_csv, unchecked (floor)": (floor_pyarrow, None),
    "read_events": (reading, "pyarrow.csv.read_csv, unchecked (floor)"),
    "FriendGraph.from_events": (building, None),
    "FriendGraph.save": (saving, None),
    "FriendGraph.load": (loading, None),
    "FriendGraph.validate": (validating, None),
    "one sort of the half-edges (floor)": (floor_sort, None),
    "Timeline": (indexing, "one sort of the half-edges (floor)"),
    f"distinct_contacts, {NUM_QUERIES:,} queries": (asking, None),
    "evaluate MathOverflow, reply_recency": (judging_reply_recency, None),
    "evaluate MathOverflow, adamic_adar": (judging_adamic_adar, None),
}
"""By name: how to prepare it, and the floor it is compared with."""


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        stage: its name.
        seconds: of its work alone.
        cpu_seconds: the same, of all threads, without waiting for what else the machine does.
        before_gib: resident before the work: the libraries and the stage's input.
        peak_gib: the most that was resident during the work.
        ratio: seconds over those of its floor, or None.
    """

    stage: str
    seconds: float
    cpu_seconds: float
    before_gib: float
    peak_gib: float
    ratio: float | None = None


def measure(prepare: Callable[[Path], Work], folder: Path) -> tuple[float, float, float, float]:
    """Seconds, CPU seconds, GiB before and GiB at the peak of one stage, in the process that calls."""
    work = prepare(folder)
    forget_peak = Path("/proc/self/clear_refs")
    if forget_peak.exists():  # Linux; elsewhere a peak includes that of making the input
        forget_peak.write_text("5")
    before = _peak_gib()
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - began_cpu, before, _peak_gib()


def _peak_gib() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def in_own_process(function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _ratio(cost: Cost) -> str:
    return "" if cost.ratio is None else f"{cost.ratio:.1f}"


def main() -> None:
    """Write the log, run the stages in order, print and save what they took."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.scale", description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, metavar="M")
    parser.add_argument("--users", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/scale.json")
    options = parser.parse_args()
    if options.events < 10 or options.users < 2:
        parser.error("at least 10 events and 2 users are needed")
    costs: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        in_own_process(write_log, folder / LOG, options.events, options.users, np.random.default_rng(SEED))
        size = (folder / LOG).stat().st_size / 2**20
        print(f"{options.events:,} events, {options.users:,} users, {size:,.0f} MiB, {os.cpu_count()} cores")
        for number, (name, (prepare, floor)) in enumerate(STAGES.items(), 1):
            seconds, cpu, before, peak = in_own_process(measure, prepare, folder)
            ratio = seconds / costs[floor].seconds if floor else None
            costs[name] = Cost(name, seconds, cpu, before, peak, ratio)
            print(f"[{number}/{len(STAGES)}] {name}: {seconds:.2f} s, {peak:.2f} GiB", flush=True)
    body = [
        [c.stage, *(f"{x:.2f}" for x in (c.seconds, c.cpu_seconds, c.before_gib, c.peak_gib)), _ratio(c)]
        for c in costs.values()
    ]
    header = ["stage", "seconds", "CPU s", "before GiB", "peak GiB", "x floor"]
    print("\n" + tabulate(body, headers=header, disable_numparse=True, colalign=["left", *["right"] * 5]))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        results = {
            "events": options.events,
            "users": options.users,
            "csv_mib": size,
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "stages": [asdict(cost) for cost in costs.values()],
        }
        (options.out / "scale.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"\nwritten: {options.out / 'scale.json'}")


if __name__ == "__main__":
    main()
