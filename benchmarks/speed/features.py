"""How many microseconds a query do the neighborhood and its features take, and how far is that from a gather?

python -m benchmarks.speed.features [--dataset MathOverflow] [--users 25000 1000000] [--events-per-user 5]

CPU time of one thread, the median of many batches. `past`: the queries of random events, each at its own
time, as in training and evaluation. `present`: the actors of random events, just after the last event, as in
a service. `presence` is for 512 random candidates. The floor gathers as many random 32-bit numbers as the
features have values, from an array of two numbers an event.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.speed.scale import in_own_process, write_log
from graphrec.data import FriendGraph, Query, read_events
from graphrec.datasets import load_dataset
from graphrec.features import (
    pair_features,
    path_features,
    person_features,
    presence_features,
    query_features,
)
from graphrec.temporal import Neighborhood, NeighborhoodConfig, SpectralEmbeddings, Timeline

SEED = 0
DIMENSIONS = 16
NUM_CANDIDATES = 512
BATCHES = {1: 200, 256: 8}
"""By their size, how many are timed; one more is not."""

Seconds = dict[str, float]


def one_batch(
    timeline: Timeline, embeddings: SpectralEmbeddings, query: Query, candidates: Tensor, memory: Tensor
) -> Seconds:
    """CPU seconds of every stage of a batch, by name."""
    seconds: Seconds = {}
    began = time.process_time()

    def done(name: str) -> None:
        nonlocal began
        now = time.process_time()
        seconds[name], began = now - began, time.process_time()

    tick = timeline.tick(query.time)
    around = Neighborhood.of(timeline, query.user, tick, NeighborhoodConfig())
    done("neighborhood")
    pair = pair_features(timeline, query, around.contacts)
    done("pair")
    now = timeline.activity(around.user, tick[around.row])
    done("activity of neighbors")
    path = path_features(timeline, query, around, now)
    done("path")
    near = embeddings.query(query.user, tick)
    done("embeddings of users")
    person = person_features(timeline, query, around, now, near)
    done("person")
    own = query_features(timeline, query)
    done("query")
    seconds["neighborhood and features"] = sum(seconds.values())
    for _ in presence_features(timeline, query, candidates, near):
        pass
    done(f"presence of {NUM_CANDIDATES}")
    size = sum(x.numel() for x in (pair, path, person, own))
    place = torch.randint(len(memory), (size,))
    began = time.process_time()
    memory[place]
    done("floor: gather as many numbers")
    return seconds


def microseconds(timeline: Timeline, *, present: bool) -> dict[int, Seconds]:
    """Median microseconds a query of every stage, by batch size."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    events = timeline.events
    start = torch.randn(timeline.num_users, DIMENSIONS, generator=generator)
    embeddings = SpectralEmbeddings(timeline, start, every=len(events) - 1)
    memory = torch.zeros(2 * len(events), dtype=torch.int32)
    out: dict[int, Seconds] = {}
    for size, number in BATCHES.items():
        batches = []
        for _ in range(number + 1):
            event = torch.randint(len(events), (size,), generator=generator)
            moment = torch.full((size,), int(events.time[-1]) + 1) if present else events.time[event]
            candidates = torch.randint(timeline.num_users, (NUM_CANDIDATES,), generator=generator)
            query = Query(events.src[event], moment, events.action[event])
            batches.append(one_batch(timeline, embeddings, query, candidates, memory))
        out[size] = {
            name: 1e6 * statistics.median(batch[name] for batch in batches[1:]) / size for name in batches[0]
        }
    return out


def measure(name: str, num_users: int, num_events: int) -> dict[tuple[str, int], Seconds]:
    """Microseconds a query on a data set, or a synthetic log, by kind of query and batch size."""
    if name:
        graph = load_dataset(name)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.csv"
            write_log(path, num_events, num_users, np.random.default_rng(SEED))
            graph = FriendGraph.from_events(read_events(path))
    timeline = Timeline(graph)
    kinds = {"past": False, "present": True}
    return {
        (kind, size): seconds
        for kind, present in kinds.items()
        for size, seconds in microseconds(timeline, present=present).items()
    }


def main() -> None:
    """Measure every network in a process of its own, and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.features", description=__doc__)
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME")
    parser.add_argument("--users", type=int, nargs="*", default=[25_000, 1_000_000], metavar="N")
    parser.add_argument("--events-per-user", type=int, default=5, metavar="M")
    options = parser.parse_args()
    networks = [(options.dataset, 0, 0)] if options.dataset else []
    networks += [("", users, users * options.events_per_user) for users in options.users]
    for name, users, events in networks:
        found: dict[tuple[str, int], Seconds] = in_own_process(measure, name, users, events)
        print(f"\n{name or f'{users:,} users, {events:,} events'}: microseconds a query, one thread\n")
        header = ["", *(f"{kind}, batch {size}" for kind, size in found)]
        stages = next(iter(found.values()))
        body = [[stage, *(f"{column[stage]:.1f}" for column in found.values())] for stage in stages]
        print(
            tabulate(body, headers=header, disable_numparse=True, colalign=["left", *["right"] * len(found)])
        )


if __name__ == "__main__":
    main()
