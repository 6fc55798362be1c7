"""How good are lists for the coming days, beside every rule, gradient boosting and true probabilities?

python -m benchmarks.quality.lists [--dataset CollegeMsg ...] [--seeds 0 1 2] [--models NAME ...] [--out DIR]

For each data set every heuristic, gradient boosting (scikit-learn) and `ListRanker` for either outcome, and
further models by name: precision@10, recall of ties, the ratio to the best heuristic in hindsight, how evenly
people are suggested, and CPU seconds of a fit; then whether the probabilities of `ListRanker` are right.
`Synthetic` is another world for each seed, with the oracle and the share of the way to it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.quality.boosted_lists import BoostedLists, Candidates, booster
from benchmarks.quality.list_calibration import BIN_COLUMNS, COLUMNS, Predictions
from graphrec.data import OUTCOMES, DataError, FriendGraph, Outcome, TemporalSplit
from graphrec.datasets import DATASETS, SyntheticFriends, World, load_dataset
from graphrec.evaluate import ListQuestions, ListResult, Scorer, evaluate_lists
from graphrec.metrics import bootstrap_ratio, reliability_by_quantile
from graphrec.models import HEURISTICS, ListRanker, Random, Recommender, WindowOracle, build, model_kind
from graphrec.report import log_reliability_diagram
from graphrec.threads import one_intra_op_thread

SYNTHETIC = "Synthetic"
DEFAULT = ("CollegeMsg", "EmailEuCore", "Copenhagen", "MathOverflow", SYNTHETIC)
METRICS = ("initiation_precision", "tie_precision", "tie_recall")
COMPARED = ("initiation_precision", "tie_precision")
RANKER = "list_ranker"
ORACLE = "window_oracle"

MAX_PPR_USERS = 3000
"""Personalized PageRank takes minutes with more users, and is left out."""

Terms = tuple[np.ndarray, np.ndarray]
"""The values whose mean is a metric, and the recipient of each."""


@dataclass(frozen=True)
class Network:
    """One network to judge lists on.

    Attributes:
        graph: the whole graph.
        split: its parts.
        questions: lists that are asked for in test.
        world: its true probabilities, if it is simulated.
        number: 0 for a data set, the same for all seeds; of a simulated one, counted.
    """

    graph: FriendGraph
    split: TemporalSplit
    questions: ListQuestions
    world: World | None
    number: int


@dataclass(frozen=True)
class Run:
    """The lists of one model and seed, judged.

    Attributes:
        terms: of each of `METRICS`.
        spread: `gini` and `sameness`.
        fit_seconds: CPU seconds of the fit.
    """

    terms: dict[str, Terms]
    spread: dict[str, float]
    fit_seconds: float


def network_of(name: str, seed: int, number: int) -> Network:
    """Load a data set, or simulate the world of a seed."""
    world = None
    if name == SYNTHETIC:
        friends = SyntheticFriends(seed=seed)
        graph, world = friends[0], friends.world
    else:
        graph = load_dataset(name)
    split = TemporalSplit.of(graph)
    return Network(graph, split, ListQuestions.of(graph, split=split), world, number if world else 0)


def judge(scorer: Scorer, network: Network, fit_seconds: float, outcome: Outcome | None = None) -> Run:
    """Judge a fitted model on the test lists of a network, asked for one outcome or for its default."""
    result: ListResult = evaluate_lists(
        scorer, network.graph, split=network.split, outcome=outcome, progress=False
    )
    offset = network.number * network.graph.num_users  # users of two worlds are different people
    terms = {}
    for metric in METRICS:
        values, recipient = result.terms(metric)
        terms[metric] = values, recipient + offset
    return Run(terms, {key: result.spread()[key] for key in ("gini", "sameness")}, fit_seconds)


def rules(network: Network) -> Iterator[tuple[str, Run]]:
    """Judge every heuristic."""
    for name in HEURISTICS:
        if name == "ppr" and network.graph.num_users > MAX_PPR_USERS:
            continue
        rule = Random(torch.Generator().manual_seed(0)) if name == "random" else build(name)
        yield name, fit_and_judge(rule, network)[1]


def fit_and_judge(model: Recommender, network: Network) -> tuple[Recommender, Run]:
    """Fit a model on training, and judge its lists."""
    began = time.process_time()
    fitted = model.fit(network.graph, until=network.split.t_val)
    return fitted, judge(fitted, network, time.process_time() - began)


def boosting(network: Network, seed: int) -> Iterator[tuple[str, Run]]:
    """Judge gradient boosting on the inputs of `ListRanker`, by either outcome."""
    began, until = time.process_time(), network.split.t_val
    candidates = Candidates.of(network.graph, until=until, seed=seed)
    examples = candidates.examples(network.graph, until=until, seed=seed)
    collected = time.process_time() - began
    for outcome in OUTCOMES:
        began = time.process_time()
        model = BoostedLists(outcome, examples, candidates, seed)
        yield model.name, judge(model, network, collected + time.process_time() - began)


def rankers(network: Network, seed: int) -> Iterator[tuple[Outcome, Run, Predictions]]:
    """Judge one `ListRanker`, asked for either outcome, and the probabilities of that outcome."""
    began = time.process_time()
    model = ListRanker(seed=seed).fit(network.graph, until=network.split.t_val)
    fit_seconds = time.process_time() - began
    for outcome in OUTCOMES:
        run = judge(model, network, fit_seconds, outcome)
        yield outcome, run, Predictions.of(model, network.graph, network.questions, outcome)


@one_intra_op_thread()
def run_dataset(
    name: str, seeds: Sequence[int], models: Sequence[str], say: Callable[[str], None]
) -> tuple[dict[str, list[Run]], dict[str, list[Predictions]]]:
    """Judge all models for all seeds: the runs of each model, and the predictions of each outcome."""
    runs: dict[str, list[Run]] = {}
    predictions: dict[str, list[Predictions]] = {outcome: [] for outcome in OUTCOMES}

    def keep(model: str, run: Run, times: int = 1) -> None:
        runs.setdefault(model, []).extend([run] * times)
        means = (f"{run.terms[metric][0].mean():.5f}" for metric in COMPARED)
        say(f"{name}, seed {seed}, {model}: {' / '.join(means)}, fit {run.fit_seconds:.0f} CPU s")

    for number, seed in enumerate(seeds):
        if name == SYNTHETIC or number == 0:
            network = network_of(name, seed, number)
            times = 1 if name == SYNTHETIC else len(seeds)
            for model, run in rules(network):
                keep(model, run, times)
            if network.world is not None:
                oracle = WindowOracle(network.world).fit(network.graph, until=network.split.t_val)
                for outcome in OUTCOMES:
                    keep(f"{ORACLE}, {outcome}", judge(oracle, network, 0.0, outcome))
        for model, run in boosting(network, seed):
            keep(model, run)
        for outcome, run, predicted in rankers(network, seed):
            keep(f"{RANKER}, {outcome}", run)
            predictions[outcome].append(predicted)
        for model in models:
            learned = model_kind(model) == "learned"
            keep(model, fit_and_judge(build(model, seed=seed if learned else None), network)[1])
    return runs, predictions


# --- Tables -------------------------------------------------------------------------------------------------


def pooled(runs: Sequence[Run], metric: str) -> Terms:
    """The terms of all runs: one mean over them weighs each seed alike, up to undecided places."""
    terms = [run.terms[metric] for run in runs]
    return np.concatenate([values for values, _ in terms]), np.concatenate([who for _, who in terms])


def best_rule(runs: dict[str, list[Run]], metric: str) -> str:
    """The heuristic with the largest mean, in hindsight."""
    return max(
        (name for name in runs if name in HEURISTICS),
        key=lambda name: float(pooled(runs[name], metric)[0].mean()),
    )


def share_of_way(value: float, rule: float, oracle: float) -> float:
    """How much of the way from the best rule to the oracle a model goes; NaN if the rule is level with it."""
    return (value - rule) / (oracle - rule) if oracle > rule else float("nan")


def short(value: float, digits: int = 5) -> str:
    """A number without the zero in front of its point, or '' for NaN."""
    return "" if np.isnan(value) else f"{value:.{digits}f}".replace("0.", ".", 1 if abs(value) < 1 else 0)


def with_range(values: Sequence[float], digits: int = 5) -> str:
    """The mean over the seeds, and the smallest and largest value where they differ."""
    low, high = min(values), max(values)
    text = short(float(np.mean(values)), digits)
    return (
        text
        if short(low, digits) == short(high, digits)
        else (f"{text} ({short(low, digits)} to {short(high, digits)})")
    )


def list_figures(runs: dict[str, list[Run]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of lists, by precision of ties; the best rules are starred."""
    best = {metric: best_rule(runs, metric) for metric in COMPARED}
    columns = ["model", *(f"{metric.replace('_', ' ')}@10" for metric in METRICS)]
    columns += [f"{outcome}s: ratio to best rule [95 %]" for outcome in OUTCOMES]
    oracles = {f"{outcome}_precision": f"{ORACLE}, {outcome}" for outcome in OUTCOMES}
    bounded = runs.keys() >= {*oracles.values()}
    if bounded:
        columns += [f"{outcome}s: share of the way" for outcome in OUTCOMES]
    columns += ["gini", "sameness", "fit CPU s"]
    rows = []
    means = {
        name: {metric: float(pooled(own, metric)[0].mean()) for metric in METRICS}
        for name, own in runs.items()
    }
    for name in sorted(runs, key=lambda name: -means[name]["tie_precision"]):
        own = runs[name]
        row = [name + "*" * (name in best.values())]
        row += [with_range([float(run.terms[metric][0].mean()) for run in own]) for metric in METRICS]
        for metric in COMPARED:
            ratio, low, high = bootstrap_ratio(pooled(own, metric), pooled(runs[best[metric]], metric))
            row.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]" if np.isfinite(ratio) else "")
        if bounded:
            for metric in COMPARED:
                ends = (means[end][metric] for end in (best[metric], oracles[metric]))
                row.append(short(share_of_way(means[name][metric], *ends), 2))
        row += [with_range([run.spread[key] for run in own], 3) for key in ("gini", "sameness")]
        rows.append([*row, f"{np.mean([run.fit_seconds for run in own]):.0f}"])
    return columns, rows


def calibration_figures(name: str, predictions: dict[str, list[Predictions]]) -> list[list[str]]:
    """Rows of the table of calibration: one an outcome, means and ranges over the seeds."""
    rows = []
    for outcome, parts in predictions.items():
        rates = [float(part.happened.mean()) for part in parts]
        rows.append(
            [
                name,
                outcome,
                f"{np.mean([len(part.happened) for part in parts]):,.0f}",
                f"{np.mean([part.probability.sum() for part in parts]):,.0f}",
                f"{np.mean([part.happened.sum() for part in parts]):,.0f}",
                with_range([part.ratio for part in parts], 2),
                with_range([part.error for part in parts]),
                with_range([part.error / rate for part, rate in zip(parts, rates, strict=True) if rate], 2),
                f"{np.mean([part.num_beyond for part in parts]):,.0f}",
            ]
        )
    return rows


def bin_figures(parts: Sequence[Predictions]) -> list[list[str]]:
    """Rows of the table of predictions in deciles, the last one in three, of all seeds together."""
    joined = Predictions.joined(parts)
    mean, observed, number = reliability_by_quantile(joined.probability, joined.happened)
    rows, seen = [], 0
    for predicted, happened, size in zip(mean, observed, number, strict=True):
        low, high = (100 * place / len(joined.happened) for place in (seen, seen + size))
        ratio = f"{predicted / happened:.2f}" if happened else ""
        rows.append(
            [
                f"{low:.4g} to {high:.4g} %",
                f"{size:,}",
                f"{predicted:.2e}",
                f"{happened:.2e}",
                ratio,
            ]
        )
        seen += size
    return rows


def tables_of(
    name: str, runs: dict[str, list[Run]], predictions: dict[str, list[Predictions]], command: str
) -> list[dict[str, Any]]:
    """All tables of a data set, as `benchmarks.render` takes them."""
    columns, rows = list_figures(runs)
    tables = [{"name": f"Lists, {name}", "command": command, "columns": columns, "rows": rows}]
    rows = calibration_figures(name, predictions)
    tables.append({"name": f"Calibration, {name}", "columns": [*COLUMNS], "rows": rows})
    for outcome, parts in predictions.items():
        rows = bin_figures(parts)
        columns = [*BIN_COLUMNS]
        tables.append(
            {"name": f"Calibration by quantiles, {name}, {outcome}", "columns": columns, "rows": rows}
        )
    return tables


def write(out: Path, name: str, tables: list[dict[str, Any]], drawn: dict[str, Predictions]) -> None:
    """Write the tables of a data set, and its reliability diagram."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps({"tables": tables}, indent=1) + "\n")
    if any(part.happened.any() for part in drawn.values()):
        shown = {outcome: (part.probability, part.happened) for outcome, part in drawn.items()}
        figure = log_reliability_diagram(shown, f"{name}: candidates of lists in test")
        figure.savefig(out / f"reliability-{name}.png", dpi=90)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and turn what a user can mend into one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.lists", description=__doc__)
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=[*DEFAULT],
        metavar="NAME",
        help=f"some of {', '.join(DATASETS)}, {SYNTHETIC}",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="further models by name")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for tables as JSON, and diagrams")
    options = parser.parse_args(arguments)
    try:
        booster(0)
        for model in options.models:
            model_kind(model)
        for name in options.dataset:
            runs, predictions = run_dataset(
                name, options.seeds, options.models, lambda line: print(line, file=sys.stderr, flush=True)
            )
            command = f"python -m benchmarks.quality.lists --dataset {name}"
            tables = tables_of(name, runs, predictions, command)
            for figures in tables:
                print(f"\n{figures['name']}\n")
                print(
                    tabulate(figures["rows"], headers=figures["columns"], disable_numparse=True), flush=True
                )
            if options.out is not None:
                joined = {outcome: Predictions.joined(parts) for outcome, parts in predictions.items()}
                write(options.out, name, tables, joined)
    except (DataError, FileNotFoundError, KeyError) as error:
        sys.exit(f"lists: {error.args[0] if error.args else error}")


if __name__ == "__main__":
    main()
