"""Who is suggested to newcomers, and which newcomers are suggested, when little but features is known?

python -m benchmarks.quality.newcomers [--dataset NAME ...] [--models NAME ...] [--seeds 0 1 2] [--out DIR]

Whole people are held out, and asked about with 0, 1, 3 and 5 contacts known (`evaluate_newcomers`): by time
where times tell who came first, else drawn by the seed. Beside models by name: heuristics, and with features
the contacts of alike users, a two-tower, logistic regression and GraphSAGE (PyG's). `Synthetic` is another
world for each seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.quality.newcomer_peers import PEERS, Known
from graphrec.data import USER, DataError
from graphrec.datasets import DATASETS, load_dataset
from graphrec.evaluate import DIRECTIONS, NewcomerQuestions, NewcomerRanks, Scorer, evaluate_newcomers
from graphrec.metrics import bootstrap_ratio
from graphrec.models import HEURISTICS, build
from graphrec.threads import one_intra_op_thread

SYNTHETIC = "Synthetic"
DEFAULT = ("DeezerHungary", "TwitchGermany", "LastFMAsia", SYNTHETIC, "MathOverflow", "CollegeMsg")
RULES = ("popularity", "recent_popularity", "common_neighbors", "adamic_adar")
MODELS = ("two_tower_mixture", "stu")
METRICS = ("mrr", "recall")


def scorers(
    questions: NewcomerQuestions, names: list[str], seed: int
) -> Iterator[tuple[Scorer, bool, float]]:
    """Fit each: (the scorer, whether it is a peer, CPU seconds of the fit)."""
    graph, until = questions.graph, questions.until
    for rule in RULES:
        yield HEURISTICS[rule]().fit(graph, until=until), True, 0.0
    if graph[USER].get("x") is not None:
        known = Known.of(graph, until)
        for peer in PEERS:
            began = time.process_time()
            yield peer(known, seed), True, time.process_time() - began
    for name in names:
        began = time.process_time()
        yield build(name, seed=seed).fit(graph, until=until), False, time.process_time() - began


def judged(dataset: str, names: list[str], seed: int) -> Iterator[dict[str, Any]]:
    """A row for each scorer and question, and each model's ratio to the best peer in hindsight."""
    graph = load_dataset(dataset, **({"seed": seed} if dataset == SYNTHETIC else {}))
    questions = NewcomerQuestions.of(graph, seed=seed)
    peers: list[NewcomerRanks] = []
    for scorer, is_peer, seconds in scorers(questions, names, seed):
        ranks = evaluate_newcomers(scorer, questions)
        if is_peer:
            peers.append(ranks)
        for row in ranks.rows():
            ratios: dict[str, Any] = {}
            question = row["known_contacts"], row["direction"]
            for metric in METRICS if not is_peer else ():
                means = [peer.terms(metric, *question)[0].mean() for peer in peers]
                best = peers[int(np.argmax(means))]
                ratio = bootstrap_ratio(ranks.terms(metric, *question), best.terms(metric, *question))
                ratios |= {f"{metric}_ratio": ratio, f"{metric}_best": best.name}
            yield {"dataset": dataset, "seed": seed, "fit_s": seconds} | row | ratios


def main() -> None:
    """Print a table for each data set and question."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.newcomers")
    parser.add_argument(
        "--dataset", nargs="+", default=DEFAULT, choices=[*DATASETS, SYNTHETIC], metavar="NAME"
    )
    parser.add_argument("--models", nargs="*", default=MODELS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, help="folder for newcomers.json")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    try:
        with one_intra_op_thread():
            for dataset in options.dataset:
                for seed in options.seeds:
                    rows = list(judged(dataset, list(options.models), seed))
                    found += rows
                    _print(dataset, seed, rows)
    except DataError as error:
        sys.exit(f"newcomers: {error}")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "newcomers.json").write_text(json.dumps(found, indent=1))


def _print(dataset: str, seed: int, rows: list[dict[str, Any]]) -> None:
    for direction in DIRECTIONS:
        table: dict[str, list[str]] = {}
        numbers = sorted({row["known_contacts"] for row in rows if row["direction"] == direction})
        for row in rows:
            if row["direction"] == direction:
                cell = f"{row['mrr']:.4f} / {row['recall@50']:.4f}"
                if "mrr_ratio" in row:
                    cell += " = " + " / ".join(
                        "{:.2f} [{:.2f}, {:.2f}]".format(*row[f"{metric}_ratio"]) for metric in METRICS
                    )
                table.setdefault(row["model"], [row["model"]]).append(cell)
        print(f"\n{dataset}, seed {seed}, {direction}: MRR / recall@50, times the best peer")
        print(
            tabulate(table.values(), headers=["", *(f"{n} contacts" for n in numbers)], disable_numparse=True)
        )


if __name__ == "__main__":
    main()
