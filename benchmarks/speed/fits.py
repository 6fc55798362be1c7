"""What does it cost to fit the default tokenizer and `stu`, as the network grows?

python -m benchmarks.speed.fits [--users 25000 200000] [--dataset MathOverflow] [--models tokenizer stu]

Each fit runs in a process of its own: CPU seconds of all threads, and the most that was resident, the graph
and the libraries included. `--users N` grows a synthetic network of N users and 10 N events. A `stu` is
trained for its usual epochs up to 100,000 users, and for two above.
"""

from __future__ import annotations

import argparse
import os
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.speed.scale import Work, in_own_process, measure
from graphrec.data import TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.models import GenerativeSTU
from graphrec.tokenizer import GNNRQVAE, TokenizerQualityWarning

MAX_USERS_OF_ALL_EPOCHS = 100_000


def prepare(model: str, num_users: int | None, dataset: str, _: Path) -> Work:
    """Load the graph; the work is the fit on the first 80 % of its events."""
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    sizes = {} if num_users is None else {"num_users": num_users, "num_events": 10 * num_users}
    graph = load_dataset("Synthetic" if num_users else dataset, **sizes)
    split = TemporalSplit.of(graph)
    if model == "tokenizer":
        return lambda: GNNRQVAE().fit(graph, until=split.t_val)
    if graph.num_users > MAX_USERS_OF_ALL_EPOCHS:
        stu = GenerativeSTU(progress=False, max_epochs=2)
    else:
        stu = GenerativeSTU(progress=False)
    return lambda: stu.fit(graph, until=split.t_val, validate_until=split.t_test)


def cost(model: str, num_users: int | None, dataset: str) -> tuple[float, float]:
    """CPU seconds and peak GiB of a fit, in the process that calls."""
    _, cpu, _, peak = measure(partial(prepare, model, num_users, dataset), Path())
    return cpu, peak


def main() -> None:
    """Fit, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.fits", description=__doc__)
    parser.add_argument("--users", type=int, nargs="*", default=[25_000, 200_000], metavar="N")
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME", help="or 'none'")
    parser.add_argument("--models", nargs="*", choices=["tokenizer", "stu"], default=["tokenizer", "stu"])
    options = parser.parse_args()
    names = {} if options.dataset == "none" else {options.dataset: None}
    places: dict[str, int | None] = names | {f"{users:,} users": users for users in options.users}
    body = []
    for model in options.models:
        costs: dict[int, float] = {}
        for place, users in places.items():
            cpu, peak = in_own_process(cost, model, users, options.dataset)
            load = " ".join(f"{value:.1f}" for value in os.getloadavg())
            body.append([model, place, f"{cpu:.1f}", f"{peak:.2f}", load])
            print(f"{model}, {place}: {cpu:.1f} CPU s, {peak:.2f} GiB", flush=True)
            if users:
                costs[users] = cpu
        if len(costs) > 1:
            slope = np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0]
            body.append([model, "exponent in users", f"{slope:.2f}", "", ""])
    header = ["fit", "network", "CPU s", "peak GiB", "load average"]
    print(f"\n{tabulate(body, headers=header, disable_numparse=True)}")


if __name__ == "__main__":
    main()
