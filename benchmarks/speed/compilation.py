"""CPU seconds of compiling every kernel once, by room, and of loading the machine code afterwards.

python -m benchmarks.speed.compilation

Small models, indices, loaders and evaluations use nearly all kernels, in a new process with an empty cache;
then again in a second one, which finds the machine code. The seconds are those of the thread that compiles:
they grow on a machine whose memory and caches are busy.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import torch
from numba.core import event
from tabulate import tabulate

from graphrec.data import Events, FriendGraph, Query, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import evaluate_lists
from graphrec.explain import explain
from graphrec.loader import EventLoader
from graphrec.models import HEURISTICS, GenerativeSTU, TwoTower, balanced_topk
from graphrec.models import build as build_model
from graphrec.temporal import Timeline, index_parquet

LARGEST = 12
"""Kernels that are listed one by one."""


class Recorder(event.Listener):
    """CPU seconds of each function that numba compiles, without those it calls for."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[list[Any]] = []

    def on_start(self, event: Any) -> None:
        """Begin a function."""
        function = event.data["dispatcher"].py_func
        self._open.append([f"{function.__module__}.{function.__name__}", time.thread_time(), 0.0])

    def on_end(self, event: Any) -> None:
        """End it."""
        name, began, inside = self._open.pop()
        spent = time.thread_time() - began
        self.seconds[name] += spent - inside
        if self._open:
            self._open[-1][2] += spent


def use_index(graph: FriendGraph, folder: Path) -> None:
    """Build, read, append to, change, write and map an index, also from Parquet."""
    timeline = Timeline(graph)
    events = timeline.events
    timeline.distinct_contacts(events.src[:1], torch.tensor([5]), k=64, window=256)
    last = Events(*(column[-1:] for column in vars(events).values()))
    timeline.append(last)
    timeline.restore(timeline.remove(torch.tensor([5])))
    timeline.save(folder / "index")
    Timeline.open(folder / "index").append(last)
    table = pa.table({"src": events.src.numpy(), "dst": events.dst.numpy(), "timestamp": events.time.numpy()})
    pa.parquet.write_table(table, folder / "log.parquet")
    index_parquet([folder / "log.parquet"], folder / "from_parquet")


def use_kernels() -> None:
    """Let everything that has kernels use them."""
    graph = load_dataset("Synthetic", num_users=300, num_events=3000)
    split = TemporalSplit.of(graph)
    query = Query(torch.tensor([1, 2]), torch.tensor([split.t_test] * 2), torch.tensor([0, 0]))
    with tempfile.TemporaryDirectory() as folder:
        use_index(graph, Path(folder))
    for strategy in ("last", "uniform"):
        event_ids = torch.arange(1500, 1600)
        list(EventLoader.of_events(graph, [20, 10], event_ids=event_ids, batch_size=50, strategy=strategy))
    for heuristic in HEURISTICS.values():
        rule = heuristic().fit(graph, until=split.t_val)
        rule.recommend(query, 5)
        rule.score(query)
    evaluate_lists(HEURISTICS["adamic_adar"]().fit(graph, until=split.t_val), graph)
    quick: dict[str, Any] = {"max_epochs": 1, "progress": False}
    for model in (TwoTower(**quick), GenerativeSTU(**quick), build_model("list_ranker")):
        model.fit(graph, until=split.t_val)
        users, _ = model.recommend(query, 5)
        ids = graph.user_ids.raw
        explain(model, int(ids[1]), int(ids[int(users[0, 0])]), split.t_test)
    people = torch.rand(20, 30).argsort(dim=1)[:, :10]
    balanced_topk(people, torch.rand(20, 10), k=3)


def main() -> None:
    """Run the two processes, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().measure:
        torch.set_num_threads(1)
        recorder = Recorder()
        event.register("numba:compile", recorder)
        began = time.process_time()
        use_kernels()
        print("FOUND " + json.dumps([time.process_time() - began, recorder.seconds]))
        return
    with tempfile.TemporaryDirectory() as folder:
        first, second = (measured(folder) for _ in range(2))
    whole, seconds = first
    rooms: defaultdict[str, float] = defaultdict(float)
    number: Counter[str] = Counter()
    for name, spent in seconds.items():
        room = ".".join(name.split(".")[:2]) if name.startswith("graphrec.") else "numba"
        rooms[room] += spent
        number[room] += 1
    by_time = sorted(rooms.items(), key=lambda item: -item[1])
    rows = [[room, number[room], f"{spent:.1f}"] for room, spent in by_time]
    rows.append(["all", len(seconds), f"{sum(seconds.values()):.1f}"])
    print(tabulate(rows, headers=["room", "functions", "CPU s to compile"], disable_numparse=True))
    largest = sorted(seconds.items(), key=lambda item: -item[1])[:LARGEST]
    table = [[name, f"{spent:.2f}"] for name, spent in largest]
    print("\n" + tabulate(table, headers=["the largest", "CPU s"], disable_numparse=True))
    print(f"\nthe whole run: {whole:.1f} CPU s with an empty cache, {second[0]:.1f} with a full one")


def measured(cache: str) -> tuple[float, dict[str, float]]:
    """CPU seconds of the run, and of each function compiled in it, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.compilation", "--measure"],
        env=os.environ | {"NUMBA_CACHE_DIR": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    if not found:
        sys.exit(run.stderr)
    whole, seconds = json.loads(found[0].removeprefix("FOUND "))
    return whole, seconds


if __name__ == "__main__":
    main()
