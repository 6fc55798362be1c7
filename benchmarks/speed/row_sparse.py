"""What a training step costs by the size of the user table: row-sparse updates against dense AdamW.

python -m benchmarks.speed.row_sparse [--rows 10000 100000 1000000]

A step looks up 2,048 random rows of a table of width 128 through a layer, and clips and applies the
gradients, one thread. Also: writing and reading the checkpoint to go on from, and the weights alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tabulate import tabulate
from torch import nn

from graphrec.train import adamw, clip_gradients

WIDTH = 128
LOOKED_UP = 2048


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of a few runs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[repeats // 2]


def step(rows: int, *, sparse: bool, folder: Path) -> tuple[float, float, float, float]:
    """Seconds of the first step, of one later, to write the weights and optimizer state, and to read them."""
    table = nn.Embedding(rows, WIDTH, sparse=sparse)
    network = nn.ModuleList([table, nn.Linear(WIDTH, 1)])
    optimizer = adamw(network, lr=1e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)

    def once() -> None:
        optimizer.zero_grad()
        index = torch.randint(rows, (LOOKED_UP,), generator=generator)
        network[1](table(index)).square().mean().backward()
        clip_gradients(network.parameters(), 1.0)
        optimizer.step()

    first, later = seconds(once, 1), seconds(once, 11)
    file = folder / "state.ckpt"
    write = seconds(lambda: torch.save([network.state_dict(), optimizer.state_dict()], file), 1)

    def read() -> None:
        weights, state = torch.load(file, weights_only=True)
        network.load_state_dict(weights)
        optimizer.load_state_dict(state)

    return first, later, write, seconds(read, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.row_sparse")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    torch.set_num_threads(1)
    body = []
    for rows in parser.parse_args().rows:
        with TemporaryDirectory() as folder:
            dense = step(rows, sparse=False, folder=Path(folder))
            sparse = step(rows, sparse=True, folder=Path(folder))
        times = [f"{1000 * value:,.1f}" for value in (dense[1], sparse[1])]
        body.append(
            [
                f"{rows:,}",
                *times,
                f"{dense[1] / sparse[1]:.0f}",
                *(f"{x:.2f}" for x in (sparse[0], *sparse[2:])),
            ]
        )
    header = ["rows", "dense ms", "row-sparse ms", "ratio", "first step s", "write s", "read s"]
    print(tabulate(body, headers=header, disable_numparse=True))


if __name__ == "__main__":
    main()
