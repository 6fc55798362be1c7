"""How much CPU time does one request for a list cost, alone and in a batch, as the network grows?

python -m benchmarks.speed.requests [--users 25000 100000] [--dataset NAME] [--models ...] --out DIR

One thread; k = 20, users who acted in the newer half of the log, all at the time just after the last event,
as in service where nothing happens in between; single ones also ten events apart. A synthetic network has ten
events a user. Models are trained for one short epoch, since the cost of a request does not depend on the
weights, and kept in DIR, so that a second run only measures. The floor is the time of the matrix products of
a request alone, at the rate of a product of two large matrices in the same run.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.models import (
    GENERATIVE_PRESETS,
    TWO_TOWER_PRESETS,
    GenerativeSTU,
    ListRanker,
    Recommender,
    TwoTower,
    WindowConfig,
)
from graphrec.tokenizer import TokenizerQualityWarning

K, BATCH, WARM_UP, APART = 20, 256, 20, 10
EVENTS_A_USER = 10
EPOCH_BATCHES = 20
SIDE = 1024
"""Rows of the square matrices whose product gives the machine's rate."""

SHORT = {"max_epochs": 1, "epoch_batches": EPOCH_BATCHES, "progress": False}
MODELS: dict[str, Callable[[], Recommender]] = {
    "stu": lambda: GenerativeSTU(**GENERATIVE_PRESETS["stu"], **SHORT),  # type: ignore[arg-type]
    "two_tower_mixture": lambda: TwoTower(**TWO_TOWER_PRESETS["two_tower_mixture"], **SHORT),  # type: ignore[arg-type]
    "list_ranker": lambda: ListRanker(config=WindowConfig(max_epochs=1)),
}


def cpu_seconds(work: Callable[[], object]) -> float:
    """Seconds of the processor that one call takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def fitted(name: str, graph: FriendGraph, folder: Path) -> Recommender:
    """The model, trained for a short epoch, or as an earlier run left it."""
    model = MODELS[name]()
    if not folder.exists():
        unfinished = folder.with_suffix(".partial")
        model.fit(graph, until=TemporalSplit.of(graph).t_val).save(unfinished)
        unfinished.rename(folder)
    return type(model).load(folder, graph)


def asked(graph: FriendGraph, number: int) -> Query:
    """Queries of users who acted lately, just after the last event."""
    events = graph.events()
    size = len(events.src)
    drawn = torch.randint(size // 2, size, (number,), generator=torch.Generator().manual_seed(0))
    user = events.src[drawn]
    now: Tensor = torch.full_like(user, int(events.time[-1]) + 1)
    return Query(user, now, torch.zeros_like(user))


def apart(graph: FriendGraph, number: int) -> Query:
    """Queries of the actors of some of the last events, each just before its event, in order of time."""
    events = graph.events()
    place = torch.arange(number) * APART + len(events) - number * APART
    return Query(events.src[place], events.time[place], torch.zeros_like(place))


def timed(model: Recommender, query: Query) -> Tensor:
    """Milliseconds of each query asked alone, but for the first ones."""
    taken = torch.empty(len(query))
    for number in range(len(query)):
        taken[number] = 1e3 * cpu_seconds(partial(model.recommend, query[number : number + 1], K))
    return taken[WARM_UP:]


def measured(model: Recommender, requests: int) -> list[str]:
    """Milliseconds of a request, alone and in a batch, and of its matrix products."""
    query = asked(model.graph, max(requests + WARM_UP, BATCH))
    taken = timed(model, query[: requests + WARM_UP])
    moving = timed(model, apart(model.graph, requests + WARM_UP))
    batch = min(cpu_seconds(lambda: model.recommend(query[:BATCH], K)) for _ in range(4)) / BATCH
    matrix = torch.rand(SIDE, SIDE)
    rate = 2 * SIDE**3 / min(cpu_seconds(lambda: matrix @ matrix) for _ in range(5))
    floors = []
    for part, size in ((query[WARM_UP : WARM_UP + 1], 1), (query[:BATCH], BATCH)):
        with FlopCounterMode(display=False) as counter:
            model.recommend(part, K)
        floors.append(1e3 * counter.get_total_flops() / rate / size)
    return [
        f"{taken.median():.1f}",
        f"{taken.quantile(0.99):.1f}",
        f"{moving.median():.1f}",
        f"{floors[0]:.2f}",
        f"{1 / batch:,.0f}",
        f"{1e3 * batch:.2f}",
        f"{floors[1]:.2f}",
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.requests")
    parser.add_argument(
        "--users", type=int, nargs="*", default=[25_000, 100_000], help="of synthetic networks"
    )
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME", help="or 'none'")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--requests", type=int, default=200, help="single ones")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    networks = [] if options.dataset == "none" else [options.dataset]
    body = []
    for network in [*networks, *options.users]:
        graph = (
            load_dataset(network)
            if isinstance(network, str)
            else load_dataset("Synthetic", num_users=network, num_events=EVENTS_A_USER * network)
        )
        for name in options.models:
            model = fitted(name, graph, options.out / f"requests-{network}-{name}")
            row = [f"{network}, {graph.num_users:,} users", name, *measured(model, options.requests)]
            body.append(row)
            print(*row, sep=" | ", flush=True)
    header = [
        "network",
        "model",
        "one: ms",
        "p99",
        "apart: ms",
        "products",
        "batch: requests/s",
        "ms",
        "products",
    ]
    print(f"\nload average {os.getloadavg()[0]:.1f}\n")
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
