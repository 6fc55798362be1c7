"""Is anything lost, or any reader refused, when processes change one bundle at the same moment?

python -m benchmarks.correctness.races --rounds 200

In each round seven processes start at once on one folder: one adds events, one forgets a person, two block a
pair each, one saves a bundle that it loaded before the others began (and repeats its change if it is
refused), and two load the bundle, one of them without permission to write where the system has a user for it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty
from threading import BrokenBarrierError
from typing import Any

import torch

from graphrec import Bundle, EventLog, FriendGraph
from graphrec.service import Rules, StaleBundleError, change_rules
from graphrec.tokenizer import RandomCodes

NOBODY = 65534
"""The user id of the reader without permission to write."""

LONGEST_WAIT_S = 300
"""After so long at the start or the end of a round, a process of the race is taken to be lost."""

START = 1_000_000


def fitted(folder: Path, rounds: int) -> None:
    """A small bundle, with a person to be forgotten in every round."""
    people = [f"gone-{number}" for number in range(rounds)] + [f"p{number}" for number in range(20)]
    src = [*people, *people]
    dst = [*people[1:], people[0], *people[7:], *people[:7]]
    log = EventLog.from_arrays(src, dst, list(range(len(src))))
    graph = FriendGraph.from_events(log)
    Bundle.fit(graph, model="popularity", tokenizer=RandomCodes()).save(folder)


def log_of(name: str, number: int) -> EventLog:
    """One event by somebody new."""
    return EventLog.from_arrays([f"{name}-{number}"], ["p0"], [START + number])


def add(folder: Path, number: int, before: Bundle) -> None:
    """Add an event."""
    Bundle.update(folder, lambda bundle: bundle.add(log_of("new", number)))


def forget(folder: Path, number: int, before: Bundle) -> None:
    """Forget a person."""
    Bundle.update(folder, lambda bundle: bundle.forget(f"gone-{number}"))


def block(folder: Path, number: int, before: Bundle) -> None:
    """Block a pair."""
    change_rules(folder, add=Rules.of([("p1", f"x-{number}")]))


def block_other(folder: Path, number: int, before: Bundle) -> None:
    """Block another pair."""
    change_rules(folder, add=Rules.of([("p2", f"y-{number}")]))


def save_late(folder: Path, number: int, before: Bundle) -> None:
    """Save what was loaded before; if another was faster, begin anew."""
    try:
        before.add(log_of("late", number)).save(folder)
    except StaleBundleError:
        Bundle.update(folder, lambda bundle: bundle.add(log_of("late", number)))


def read(folder: Path, number: int, before: Bundle) -> None:
    """Load, and ask."""
    for _ in range(3):
        bundle = Bundle.load(folder)
        bundle.suggest(["p0"], k=3)


def read_only(folder: Path, number: int, before: Bundle) -> None:
    """The same by a user who may not write, where that user may enter the folders above."""
    may_enter = all(above.stat().st_mode & 0o001 for above in folder.resolve().parents)
    if not (may_enter and hasattr(os, "seteuid") and os.geteuid() == 0):
        read(folder, number, before)
        return
    os.seteuid(NOBODY)
    try:
        read(folder, number, before)
    finally:
        os.seteuid(0)


WORK: tuple[Callable[[Path, int, Bundle], None], ...] = (
    *(add, forget, block, block_other, save_late),
    *(read, read_only),
)


def _work(place: int, folder: Path, rounds: int, barrier: Barrier, failures: Any) -> None:
    torch.set_num_threads(1)
    for number in range(rounds):
        try:
            barrier.wait(LONGEST_WAIT_S)
            before = Bundle.load(folder)
            barrier.wait(LONGEST_WAIT_S)
            WORK[place](folder, number, before)
        except BaseException as error:
            failures.put(f"round {number}, {WORK[place].__name__}: {type(error).__name__}: {error}")
            if isinstance(error, BrokenBarrierError):
                return
        barrier.wait(LONGEST_WAIT_S)


def run_races(folder: Path, rounds: int) -> list[str]:
    """Race in a folder that does not exist yet; what went wrong, a line each."""
    fitted(folder, rounds)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name])  # torch is imported once
    barrier, failures = context.Barrier(len(WORK)), context.Queue()
    workers = [
        context.Process(target=_work, args=(place, folder, rounds, barrier, failures))
        for place in range(len(WORK))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    out = []
    while True:
        try:
            out.append(failures.get(timeout=0.2))
        except Empty:
            break
    out += [f"a process ended with {worker.exitcode}" for worker in workers if worker.exitcode]
    bundle, numbers = Bundle.load(folder), range(rounds)
    people = set(bundle.graph.user_ids.values.to_pylist())
    for name, wanted in (("new", True), ("late", True), ("gone", False)):
        wrong = [number for number in numbers if (f"{name}-{number}" in people) != wanted]
        out += [f"round {number}: {name}-{number} is {'lost' if wanted else 'back'}" for number in wrong]
    expected = Rules.of([pair for n in numbers for pair in (("p1", f"x-{n}"), ("p2", f"y-{n}"))])
    if bundle.rules != expected:
        out.append(f"{len((expected - bundle.rules).blocked)} blocks are lost")
    stray = [path.name for path in folder.iterdir() if path.name.startswith("version-")]
    if len(stray) != 1:
        out.append(f"versions are left: {stray}")
    return out


def main() -> None:
    """Race, and say what was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        failures = run_races(Path(outer) / "bundle", options.rounds)
    print(f"{options.rounds} races of {len(WORK)} processes in {time.monotonic() - begun:.0f} s")
    print(*(failures or ["nothing was lost, no reader was refused"]), sep="\n")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
