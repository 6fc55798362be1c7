"""What the strictly-past index costs: to build, to open, to ask and to append to.

python -m benchmarks.speed.index [--events 10000000] [--users 1000000]

Events join two users drawn by Pareto-distributed activity. All figures are of one thread, beside a floor of
the same run: a gather of as many random numbers.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from graphrec.data import EventLog, Events, FriendGraph
from graphrec.temporal import Timeline

SEED = 0
NUM_QUERIES = 100_000
APPEND_CALL = 100
"""Events of one call of `append`, where calls are timed one by one."""


def draw_events(num_events: int, num_users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, target and time of events."""
    rng = np.random.default_rng(SEED)
    activity = np.cumsum(rng.pareto(1.2, num_users) + 1)

    def by_activity() -> np.ndarray:
        found = np.searchsorted(activity, rng.random(num_events) * activity[-1])
        return np.asarray(np.minimum(found, num_users - 1))

    src, dst = by_activity(), by_activity()
    dst[dst == src] = (dst[dst == src] + 1) % num_users
    return src, dst, np.sort(rng.integers(0, 3 * num_events, num_events))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def memory_gib(name: str) -> float:
    """Resident memory in GiB: `VmRSS` now, `VmHWM` at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 2**20


def forget_peak() -> None:
    """Let `VmHWM` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def gather_seconds(number: int, size: int) -> float:
    """CPU seconds of gathering so many random entries of an array of `size` int32."""
    table = np.arange(size, dtype=np.int32)
    place = np.random.default_rng(SEED).integers(0, size, number)
    return cpu_seconds(lambda: table[place])


def main() -> None:
    """Print one row a measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    args = parser.parse_args()
    torch.set_num_threads(1)

    small = FriendGraph.from_events(EventLog.from_arrays(*draw_events(2_000, 100)))
    compiled = cpu_seconds(lambda: _everything(small))
    rows: list[tuple[str, str, str]] = [
        ("first use, kernels compiled or loaded: CPU s", f"{compiled:.2f}", "")
    ]

    more = args.events // 10
    graph = FriendGraph.from_events(EventLog.from_arrays(*draw_events(args.events + more, args.users)))
    whole = graph.events()
    first = Events(*(column[: args.events].clone() for column in vars(whole).values()))
    later = Events(*(column[args.events :].clone() for column in vars(whole).values()))
    log = EventLog(first.src, first.dst, first.time, first.action, graph.actions, graph.user_ids)
    graph = FriendGraph.from_events(log)
    graph.events()

    floor = gather_seconds(2 * args.events, 2 * args.events)
    forget_peak()
    before = memory_gib("VmRSS")
    built: list[Timeline] = []
    seconds = cpu_seconds(lambda: built.append(Timeline(graph)))
    timeline = built.pop()
    held = (
        sum(column.nbytes for lists in timeline.columns[:3] for column in lists)
        + timeline.columns.pair.nbytes
    )
    rows += [
        ("build: CPU s", f"{seconds:.2f}", f"{seconds / floor:.1f} gathers of {2 * args.events:,}"),
        ("build: peak over the input, GiB", f"{memory_gib('VmHWM') - before:.2f}", ""),
        ("bytes a half-edge", f"{held / (2 * args.events):.1f}", ""),
    ]

    rng = np.random.default_rng(SEED)
    event = torch.from_numpy(rng.integers(0, args.events, NUM_QUERIES))
    user, tick = timeline.events.src[event], timeline.tick(timeline.events.time[event])
    found = 0

    def ask() -> None:
        nonlocal found
        found = len(timeline.distinct_contacts(user, tick, k=64, window=256))

    seconds = cpu_seconds(ask)
    floor = gather_seconds(found, 2 * args.events)
    rows.append(
        (
            f"distinct contacts of {NUM_QUERIES:,} queries: CPU s",
            f"{seconds:.3f}",
            f"{seconds / floor:.1f} gathers of the {found:,} found",
        )
    )

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        rows.append(("save: CPU s", f"{cpu_seconds(lambda: timeline.save(path)):.2f}", ""))
        opened: list[Timeline] = []
        seconds = cpu_seconds(lambda: opened.append(Timeline.open(path)))
        rows.append(("open: CPU ms", f"{1e3 * seconds:.1f}", ""))
        mapped = opened.pop()
        seconds = cpu_seconds(lambda: mapped.distinct_contacts(user[:1], tick[:1]))
        rows.append(("first query of the mapped index: CPU ms", f"{1e3 * seconds:.1f}", ""))
        pauses = []
        gc.collect()
        gc.freeze()  # as a service does (docs/service.md): a full collection takes longer than any append
        start = time.process_time()
        for at in range(0, len(later), APPEND_CALL):
            part = Events(*(column[at : at + APPEND_CALL] for column in vars(later).values()))
            begin = time.perf_counter()
            mapped.append(part)
            pauses.append(time.perf_counter() - begin)
        seconds = time.process_time() - start
        rows += [
            (f"append, {APPEND_CALL} a call: events a CPU s", f"{len(later) / seconds:,.0f}", ""),
            ("append: longest call, ms", f"{1e3 * max(pauses):.1f}", f"of {len(pauses):,} calls"),
            ("append: 99.9 % of calls within, ms", f"{1e3 * np.quantile(pauses, 0.999):.2f}", ""),
        ]
    print(tabulate(rows, headers=["measure", "value", "beside"], disable_numparse=True))


def _everything(graph: FriendGraph) -> None:
    """Use each kernel once."""
    timeline = Timeline(graph)
    event = timeline.events
    timeline.distinct_contacts(event.src[:1], torch.tensor([5]), k=64, window=256)
    last = Events(*(column[-1:] for column in vars(event).values()))
    timeline.append(last)


if __name__ == "__main__":
    main()
