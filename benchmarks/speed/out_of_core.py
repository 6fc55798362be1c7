"""Index Parquet files larger than memory: minutes and peak memory of each stage, and how both grow."""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

EVENTS_PER_USER = 10
PART_ROWS = 5_000_000
REPEATED = 0.5
"""Share of the events that go to one of the few friends of the actor."""


def write_log(folder: Path, num_events: int, *, shuffled: bool) -> None:
    """Write a synthetic log in parts: heavy-tailed activity and popularity, repeated contacts, some ties."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    num_users = num_events // EVENTS_PER_USER
    raw_id = draw.permutation(num_users) * 7919 + 10**9
    moment = 0
    for part, first in enumerate(range(0, num_events, PART_ROWS)):
        size = min(PART_ROWS, num_events - first)
        # Ranks are log-uniform over part of the range: activity falls as 1 / rank behind the first thousand.
        src = _skewed(draw, size, num_users)
        friend = (src * 2654435761 + draw.geometric(0.3, size) * 40503) % num_users
        dst = np.where(draw.random(size) < REPEATED, friend, _skewed(draw, size, num_users))
        gap = draw.integers(0, 3, size)
        times = moment + np.cumsum(gap)
        moment = int(times[-1])
        if shuffled:
            times = draw.permutation(times)
        action = pa.DictionaryArray.from_arrays(
            draw.integers(0, 3, size).astype(np.int8), ["call", "like", "text"]
        )
        table = pa.table({"src": raw_id[src], "dst": raw_id[dst], "timestamp": times, "action": action})
        pa.parquet.write_table(table, folder / f"part-{part:04}.parquet")


def _skewed(draw: np.random.Generator, size: int, num_users: int) -> np.ndarray:
    """Users [size] int64: half uniform, half by a power law."""
    rank = (1000 * ((1 + num_users / 1000) ** draw.random(size) - 1)).astype(np.int64)
    uniform = draw.integers(0, num_users, size)
    return np.minimum(np.where(draw.random(size) < 0.5, rank, uniform), num_users - 1)


def status(name: str) -> float:
    """GiB that a line of this process's status names."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 2**20
    return math.nan


class Peak:
    """The largest anonymous memory since the last look, sampled every 20 ms."""

    def __init__(self) -> None:
        self.anonymous = self.resident = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, status("RssAnon"))
            self.resident = max(self.resident, status("VmRSS"))
            time.sleep(0.02)


def measure_index(log: Path, index: Path, memory: float) -> None:
    """Index a log in this process, and print every stage."""
    from graphrec.temporal import index_parquet

    peak = Peak()
    overall = [0.0, 0.0]
    start = time.monotonic()

    def tell(text: str) -> None:
        overall[:] = max(overall[0], peak.anonymous), max(overall[1], peak.resident)
        print(f"  {text}: peak {peak.anonymous:.2f} GiB anonymous, {peak.resident:.2f} resident", flush=True)
        peak.anonymous = peak.resident = 0.0

    found = index_parquet([log], index, memory=int(memory * 2**30), progress=tell)
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"  {found.num_events:,} events, {found.num_users:,} users: {seconds:.1f} s, "
        f"{usage.ru_utime:.1f} user + {usage.ru_stime:.1f} system CPU s, "
        f"peak {overall[0]:.2f} GiB anonymous, {usage.ru_maxrss / 2**20:.2f} resident"
    )
    print(f"SECONDS {seconds}")


def measure_open(index: Path) -> None:
    """Open an index in this process, and ask it."""
    import torch

    from graphrec.temporal import Timeline

    before = status("RssAnon")
    start = time.perf_counter()
    timeline = Timeline.open(index)
    opened = time.perf_counter()
    user = torch.arange(0, timeline.num_users, max(1, timeline.num_users // 1000))
    tick = torch.full_like(user, len(timeline.instants) // 2)
    timeline.degree(user, tick)
    first = time.perf_counter()
    timeline.degree(user, tick)
    second = time.perf_counter()
    print(
        f"  open {1e3 * (opened - start):.1f} ms, first query of {len(user)} users "
        f"{1e3 * (first - opened):.1f} ms, "
        f"again {1e3 * (second - first):.2f} ms, {status('RssAnon') - before:.2f} GiB anonymous more"
    )


def main() -> None:
    """Run the sizes given, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory", type=float, default=4.0, help="GiB")
    parser.add_argument("--shuffled", action="store_true", help="rows of each part in no order of time")
    parser.add_argument("--folder", type=Path, help="for logs and indices; by default a temporary one")
    parser.add_argument("--stage", nargs=3, metavar=("STAGE", "LOG", "INDEX"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        stage, log, index = options.stage
        if stage == "index":
            measure_index(Path(log), Path(index), options.memory)
        else:
            measure_open(Path(index))
        return
    seconds: list[float] = []
    for number in options.events:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            log, index = Path(folder) / "log", Path(folder) / "index"
            write_log(log, number, shuffled=options.shuffled)
            size = sum(path.stat().st_size for path in log.iterdir()) / 2**30
            print(f"{number:,} events, {size:.2f} GiB of Parquet", flush=True)
            seconds.append(_run("index", log, index, options.memory))
            kept = sum(path.stat().st_blocks for path in index.iterdir()) * 512
            print(f"  index of {kept / 2**30:.2f} GiB, {kept / number:.0f} bytes an event")
            _run("open", log, index, options.memory)
    for a, b in zip(range(len(seconds) - 1), range(1, len(seconds)), strict=True):
        growth = math.log(seconds[b] / seconds[a]) / math.log(options.events[b] / options.events[a])
        print(
            f"{options.events[a]:,} to {options.events[b]:,} events: seconds grow with exponent {growth:.2f}"
        )


def _run(stage: str, log: Path, index: Path, memory: float) -> float:
    command = [sys.executable, "-m", "benchmarks.speed.out_of_core", "--memory", str(memory)]
    done = subprocess.Popen(
        [*command, "--stage", stage, str(log), str(index)], stdout=subprocess.PIPE, text=True
    )
    seconds = math.nan
    for line in done.stdout or ():
        if line.startswith("SECONDS"):
            seconds = float(line.split()[1])
        else:
            print(line, end="", flush=True)
    if done.wait():
        raise SystemExit(f"{stage} failed")
    return seconds


if __name__ == "__main__":
    main()
