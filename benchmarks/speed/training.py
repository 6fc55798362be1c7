"""Training speed on one thread, and where the bound lies.

python -m benchmarks.speed.training [--dataset NAME] [--users N]

First at the size of the public reference (embeddings 128, model width 256, 2 layers, 8 heads), with the user
table alone: whole training steps (load, encode every prefix, loss, backward, AdamW) beside the bare encoder's
forward and backward over the same positions in the same run. Then each row of the ladder as it is by default.
`--users N` grows a synthetic network of N users and 10 N events, to see how the cost of an event grows.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from tabulate import tabulate
from torch_geometric.data import HeteroData

from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.features import Timelines
from graphrec.models import TWO_TOWER_PRESETS, Preset, TwoTower
from graphrec.train import adamw

REFERENCE: dict[str, Any] = {
    "embedding_dim": 128,
    "hidden_channels": 256,
    "num_layers": 2,
    "num_heads": 8,
    "window": 50,
    "events_per_batch": 4096,
    "max_queries": 2**20,
}
BARE: Preset = {"components": (), "features": ()}
REFERENCE_RATE = 104
"""Examples a second of the public reference implementation, measured once on one core of such a machine."""


def seconds(work: Callable[[], None], repeats: int = 3) -> float:
    """The fastest of a few runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.training")
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--users", type=int, help="of a synthetic network")
    parser.add_argument("--batches", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    grown = {"num_users": options.users, "num_events": 10 * options.users} if options.users else {}
    graph = load_dataset("Synthetic" if options.users else options.dataset, **grown)
    until = TemporalSplit.of(graph).t_val
    body = []
    for name in ("reference size, embeddings alone", *TWO_TOWER_PRESETS):
        whole = name in TWO_TOWER_PRESETS
        began = time.perf_counter()
        model = TwoTower(
            **TWO_TOWER_PRESETS.get(name, BARE),
            progress=False,
            epoch_batches=options.batches,
            **({} if whole else REFERENCE),
        )
        loader = model.prepare(graph, until=until)
        ready = time.perf_counter() - began
        network = model.network.train()
        optimizer = adamw(network, lr=1e-3, weight_decay=0.01)
        first: list[HeteroData] = list(loader)
        examples = sum(int(model.losses(batch, 0)["events"]) for batch in first)
        acts = [Timelines.of_batch(batch, graph.actions) for batch in first]
        positions = sum(map(len, acts))

        def encode(network=network, acts=acts, model=model) -> None:  # type: ignore[no-untyped-def]
            for timelines in acts:
                tick = model.view.timeline.tick(timelines.time)
                table = model.head.embed_others(timelines.other, tick).detach()
                network.tower.history(timelines, table).sum().backward()

        def step(loader=loader, model=model, optimizer=optimizer) -> None:  # type: ignore[no-untyped-def]
            for batch in loader:
                optimizer.zero_grad()
                model.losses(batch, 0)["loss"].backward()
                optimizer.step()

        step()  # the optimizer makes its state
        bare, taken = seconds(encode), seconds(step)
        body.append(
            [
                name,
                f"{positions / taken:,.0f}",
                f"{positions / bare:,.0f}",
                f"{bare / taken:.2f}",
                f"{examples / taken:,.0f} ({examples / taken / REFERENCE_RATE:.0f} x {REFERENCE_RATE})",
                f"{1000 * taken / examples:.2f}",
                f"{ready:.0f}",
                f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f}",
            ]
        )
    header = [
        f"{graph.num_users:,} users, one thread",
        "positions/s",
        "bare encoder",
        "ratio",
        "examples/s",
        "ms/example",
        "ready s",
        "peak GiB so far",
    ]
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
