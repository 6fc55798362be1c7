"""How fast the two-tower trains, beside its bare encoder, on one thread.

python -m benchmarks.training [--dataset NAME] [--batches B]

At the size of the public reference (embeddings 128, model width 256, 2 layers, 8 heads): positions a second
of whole training steps (load, encode every prefix, loss, backward, AdamW) with the user table alone and with
the pointer, and of the bare encoder's forward and backward over the same positions in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from tabulate import tabulate
from torch_geometric.data import HeteroData

from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.models import TwoTower
from graphrec.nn import Timelines

REFERENCE: dict[str, Any] = {
    "embedding_dim": 128,
    "hidden_channels": 256,
    "num_layers": 2,
    "num_heads": 8,
    "window": 50,
}
ALL = ("pointer", "paths", "union", "presence")
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--batches", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_dataset(options.dataset)
    until = TemporalSplit.of(graph).t_val
    body = []
    bare_rate = None
    for sources in ((), ("presence",), ("pointer", "presence"), ALL):
        model = TwoTower(sources=sources, batch_acts=4096, max_queries=2**20 if not sources else 128, progress=False, **REFERENCE)
        loader = model.prepare(graph, until=until)
        network = model.network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
        first: list[HeteroData] = []
        for batch in loader:
            first.append(batch)
            if len(first) == options.batches:
                break
        examples = sum(int(model.losses(batch, 0)["events"]) for batch in first)
        acts = [Timelines.of_batch(batch, graph.actions) for batch in first]
        positions = sum(map(len, acts))

        def encode(network=network, acts=acts, model=model) -> None:  # type: ignore[no-untyped-def]
            for timelines in acts:
                table = network.actor(model._row[timelines.other])
                network.history(timelines, table).sum().backward()

        def step(loader=loader, model=model, optimizer=optimizer) -> None:  # type: ignore[no-untyped-def]
            for number, batch in enumerate(loader):
                if number == options.batches:
                    break
                optimizer.zero_grad()
                model.losses(batch, 0)["loss"].backward()
                optimizer.step()

        bare, whole = seconds(encode), seconds(step)
        if bare_rate is None:
            bare_rate = positions / bare
            body.append(["bare encoder", f"{bare_rate:,.0f}", "", "1.00"])
        body.append(
            [
                model.name,
                f"{positions / whole:,.0f}",
                f"{examples / whole:,.0f} ({examples / whole / REFERENCE_RATE:.0f} x {REFERENCE_RATE})",
                f"{positions / whole / bare_rate:.2f}",
            ]
        )
    header = [f"{options.dataset}, one thread", "positions/s", "examples/s", "to the bare encoder"]
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
