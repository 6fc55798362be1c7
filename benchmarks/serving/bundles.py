"""Bundles of synthetic networks for the benchmarks of serving, kept in a folder.

python -m benchmarks.serving.bundles --users 25000 --model stu --out DIR

A network has ten events a user. Models train for one short epoch: the cost of a request does not depend on
the weights.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.speed.requests import EVENTS_A_USER, MODELS
from graphrec.datasets import load_dataset
from graphrec.service import Bundle
from graphrec.tokenizer import TokenizerQualityWarning


def bundle_of(users: int, model: str, out: Path) -> Path:
    """The folder of a bundle, made if it is not there yet."""
    folder = out / f"bundle-{users}-{model}"
    if folder.exists():
        return folder
    out.mkdir(parents=True, exist_ok=True)
    graph = load_dataset("Synthetic", num_users=users, num_events=EVENTS_A_USER * users)
    bundle = Bundle.fit(graph, model="adamic_adar" if model in MODELS else model)
    if model in MODELS:
        short = MODELS[model]().fit(graph, until=bundle.until)
        bundle = replace(
            bundle, recommender=short, tokenizer=short.tokenizer or bundle.tokenizer, model=model
        )
    bundle.save(folder)
    return folder


def main() -> None:
    """Make a bundle, and print its folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.bundles")
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--model", default="stu", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    torch.set_num_threads(1)
    print(bundle_of(options.users, options.model, options.out))


if __name__ == "__main__":
    main()
