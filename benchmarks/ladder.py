"""The ladder: every recommender on one event log, by slice, both ways, in one report.

python -m benchmarks.ladder --events FILE.csv[.gz] | --dataset NAME [--users FILE] [--models ...] --out DIR
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from graphrec.cli import EVENTS_HELP, add_reading_options, add_roles_option, build_graph, parse_log
from graphrec.data import (
    DataError,
    FriendGraph,
    Part,
    Roles,
    TemporalSplit,
    digest_code,
    digest_graph,
    digest_source,
    digest_value,
    printable,
    read_users,
)
from graphrec.datasets import DATASETS, SyntheticFriends, World, load_dataset
from graphrec.evaluate import ListResult, StreamingRanks, evaluate_lists, evaluate_mutual, evaluate_streaming
from graphrec.metrics import bootstrap_ratio
from graphrec.models import (
    DEFAULT_MODEL,
    HEURISTICS,
    MODELS,
    Oracle,
    Random,
    Recommender,
    build,
    model_kind,
    model_names,
    suggest,
)
from graphrec.report import (
    Html,
    NetworkStatistics,
    degree_and_reciprocity,
    learning_curves,
    list_table,
    mutual_table,
    quality_over_time,
    score_by_slice,
    slice_table,
    timing_table,
    two_questions,
    write_report,
)
from graphrec.temporal import Timeline
from graphrec.threads import one_intra_op_thread

NUM_BINS = 8
"""Points of the curve of quality against time, in each part."""

SHOWN_USERS = 3

BY_DEFAULT = (*HEURISTICS, "two_tower", DEFAULT_MODEL)
"""Others are judged on request. The default model contains `two_tower_mixture`, for the next act."""

ORACLE = "oracle"

PARTS: tuple[Part, ...] = ("val", "test")
COMPARED = ("initiation_precision", "tie_precision")
"""Metrics of lists that are compared with the best rule, list by list."""


def fitted(
    name: str, graph: FriendGraph, split: TemporalSplit, seed: int, world: World | None = None
) -> Recommender:
    """A recommender by its row name, fitted on the training part; a learned one chooses on validation."""
    if name == ORACLE and world is not None:
        return Oracle(world).fit(graph, until=split.t_val)
    if name == "random":
        return Random(torch.Generator().manual_seed(seed)).fit(graph, until=split.t_val)
    model = build(name, seed=seed if model_kind(name) == "learned" else None)
    times = {"until": split.t_val}
    if "validate_until" in inspect.signature(model.fit).parameters:
        times["validate_until"] = split.t_test
    return model.fit(graph, **times)


def judge(model: Recommender, graph: FriendGraph, split: TemporalSplit, fit_seconds: float) -> dict[str, Any]:
    """Judge a fitted recommender on validation and test."""
    name = model.name
    kind = ORACLE if name == ORACLE else model_kind(name)
    ready = time.perf_counter()
    ranks = [evaluate_streaming(model, graph, part=part, split=split) for part in PARTS]
    seconds = time.perf_counter() - ready
    lists = evaluate_lists(model, graph, part="test", split=split)
    queries = sum(len(r.event_id) for r in ranks)
    return {
        "rows": [{"model": name, "kind": kind} | row for r in ranks for row in r.rows()],
        "lists": [{"kind": kind} | row for row in lists.rows()],
        "list_terms": _terms(lists),
        "mutual": evaluate_mutual(model, graph, part="test", split=split, snapshot=False),
        "timing": {
            "model": name,
            "fit_s": fit_seconds,
            "queries_per_s": queries / seconds,
            "parameters": model.num_parameters,
        },
        "over_time": {"model": name} | _curve(ranks),
        "learning": [{"model": name} | row for row in model.curve],
        "evaluated": {r.part: len(r.event_id) for r in ranks},
    }


def _terms(result: ListResult) -> dict[str, list[list[float]]]:
    """The values of the compared metrics, and the recipient of each, as JSON holds them."""
    return {metric: [part.tolist() for part in result.terms(metric)] for metric in COMPARED}


def list_ratios(judged: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The ratio of each model's lists to those of the rule that is best in hindsight, paired by recipient."""
    out = []
    for metric in COMPARED:
        terms = {}
        for name, result in judged.items():
            values, recipients = result["list_terms"][metric]
            terms[name] = np.array(values), np.array(recipients, dtype=np.int64)
        rules = [name for name in judged if name in HEURISTICS and len(terms[name][0])]
        if not rules:
            continue
        best = max(rules, key=lambda name: terms[name][0].mean())
        for name in judged:
            ratio, low, high = bootstrap_ratio(terms[name], terms[best])
            if np.isfinite(ratio):
                row = {"model": name, "part": "test", "metric": f"{metric}@10", "best_rule": best}
                out.append(row | {"ratio": ratio, "low": low, "high": high})
    return out


def _curve(ranks: list[StreamingRanks]) -> dict[str, list[float]]:
    times, scores = [], []
    for part in ranks:
        for rows in np.array_split(np.arange(len(part.time)), NUM_BINS):
            if len(rows):
                times.append(float(part.time[rows].mean()))
                scores.append(float((1 / part.rank_all[rows]).mean()))
    return {"time": times, "mrr": scores}


@one_intra_op_thread()
def run(
    graph: FriendGraph,
    dataset: str,
    models: list[str],
    seed: int,
    out: Path,
    resume: bool,
    world: World | None = None,
) -> None:
    """Judge all models, writing what is known after each, then show it."""
    split = TemporalSplit.of(graph)
    began = time.perf_counter()
    Timeline.of(graph)
    print(f"index of {graph.num_events:,} events built in {time.perf_counter() - began:.1f} s")
    network = NetworkStatistics.of(graph)
    print(f"{dataset}: " + ", ".join(f"{value} {name}" for name, value in network.rows()))
    if graph.num_self_loops:
        print(f"{graph.num_self_loops:,} rows whose src and dst are the same user were dropped")
    out.mkdir(parents=True, exist_ok=True)
    head: dict[str, Any] = {
        "dataset": dataset,
        "users": graph.num_users,
        "events": graph.num_events,
        "seed": seed,
        "split": {
            "train": split.num_train,
            "val": split.num_val,
            "test": split.num_test,
            "t_val": split.t_val,
            "t_test": split.t_test,
        },
    }
    partial = out / "partial.json"
    key = {
        "events and users": digest_graph(graph),
        "split and seed": digest_value(head),
        "code": digest_value([digest_code(), Path(__file__).read_bytes(), own_code(models)]),
        "world": None
        if world is None
        else digest_value({f.name: getattr(world, f.name) for f in fields(world)}),
    }
    judged = _resumed(partial, key, models) if resume and partial.exists() else {}
    ready: dict[str, Recommender] = {}
    for number, name in enumerate(models, 1):
        if name not in judged:
            began = time.perf_counter()
            ready[name] = fitted(name, graph, split, seed, world)
            judged[name] = judge(ready[name], graph, split, time.perf_counter() - began)
            partial.write_text(json.dumps({"key": key, "judged": judged}))
        row = next(r for r in judged[name]["rows"] if r["part"] == "test" and r["slice"] == "all")
        print(f"[{number}/{len(models)}] {name}: test MRR {row['mrr']:.3f} ({row['n']:,} events)", flush=True)
    partial.unlink(missing_ok=True)

    results = head | {
        "rows": [row for name in models for row in judged[name]["rows"]],
        "lists": [row for name in models for row in judged[name]["lists"]],
        "list_ratios": list_ratios({name: judged[name] for name in models}),
        "mutual": [row for name in models for row in judged[name]["mutual"]],
        "timing": [judged[name]["timing"] for name in models],
        "over_time": [judged[name]["over_time"] for name in models],
        "learning": [row for name in models for row in judged[name]["learning"]],
        "network": dict(network.rows()),
    }
    results["split"]["evaluated"] = judged[models[0]]["evaluated"]
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    best = _best_on_validation(results["rows"])
    print(f"\n{list_table(results['lists'], results['list_ratios'], 'test')}\n")
    print(f"{slice_table(results['rows'], 'test')}\n\n{mutual_table(results['mutual'])}\n")
    print(f"{timing_table(results['timing'])}\n")
    if best not in ready:
        ready[best] = fitted(best, graph, split, seed, world)
    suggestions = _suggestions(graph, ready[best])
    print(suggestions)
    _write_report(out, results, network, suggestions)
    print(
        f"\nwritten: {', '.join(str(out / name) for name in ('results.json', 'report.html', 'scores.png'))}"
    )


def own_code(models: Sequence[str]) -> dict[str, str]:
    """Digests of the files that define the builders of models, by name; '' for those of graphrec."""
    builders: dict[str, Any] = {name: MODELS[name] for name in models if name in MODELS}
    return {
        name: digest_source(builder.func if isinstance(builder, partial) else builder)
        for name, builder in builders.items()
    }


def _resumed(partial: Path, key: dict[str, str | None], models: list[str]) -> dict[str, dict[str, Any]]:
    """What an interrupted run has judged, if all it depends on is the same."""
    try:
        kept = json.loads(partial.read_text())
        then, judged = dict(kept["key"]), dict(kept["judged"])
    except (KeyError, TypeError, ValueError):
        print(f"starting anew: {partial} is damaged, or of another version")
        return {}
    other = [name for name, value in key.items() if then.get(name) != value]
    if other:
        print(f"starting anew: {partial} is of a run with other {', '.join(other)}")
        return {}
    done = {name: result for name, result in judged.items() if name in models}
    print(f"resuming: {len(done)} of {len(models)} models are done")
    return done


def _best_on_validation(rows: list[dict[str, Any]]) -> str:
    """What ranks new ties best on validation (all events, where there are no new ties), the oracle aside."""
    for name in ("new", "all"):
        shown = [
            row for row in rows if (row["part"], row["slice"]) == ("val", name) and row["kind"] != "oracle"
        ]
        if shown:
            return str(max(shown, key=lambda row: row["mrr"])["model"])
    raise AssertionError("every part has events")


def _suggestions(graph: FriendGraph, model: Recommender) -> str:
    """New people for the users who acted last, after the end of the log."""
    events = graph.events()
    last = dict.fromkeys(events.src.flip(0)[:1000].tolist())  # distinct, latest first
    users = torch.tensor(list(last)[:SHOWN_USERS])
    lines = [
        f"suggestions by {model.name}, the best on new ties in validation, for the users who acted last:"
    ]
    for given in suggest(model, users, k=5):
        lines.append(
            f"  {printable(str(given.user))}: "
            f"{', '.join(printable(str(person)) for person in given.people) or 'nobody is left'}"
        )
    return "\n".join(lines)


def _write_report(out: Path, results: dict[str, Any], network: NetworkStatistics, suggestions: str) -> None:
    title = f"{results['dataset']}: who comes next?"
    scores = score_by_slice(results["rows"], title)
    scores.savefig(out / "scores.png", dpi=130)
    rows = (f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in network.rows())
    facts = "".join(rows)
    learned = results["learning"]
    learning = [("Learning", "", learning_curves(learned, "Learning"))] if learned else []
    write_report(
        out / "report.html",
        title,
        [
            ("The network", "", Html(f"<table>{facts}</table>")),
            ("Degrees and answers", "", degree_and_reciprocity(network, results["dataset"])),
            (
                "Lists for the coming days",
                "At eight moments of the test part, ten new people for everyone seen lately. Initiation: the "
                "user turns to the person in the window that follows; tie: the person answers, too. To "
                "best rule: divided by the best rule in hindsight, with the 95 % interval by recipient.",
                list_table(results["lists"], results["list_ratios"], "test", fmt="html"),
            ),
            *_questions(out, results),
            (
                "Score by slice",
                "Each test event ranks the person turned to among all users, seeing only what is strictly "
                "older. repeat: had acted on them; reply: only they had acted; new: neither. Lines: 95 % "
                "intervals by actor.",
                scores,
            ),
            (
                "Test, all slices",
                "The best of each slice is starred.",
                slice_table(results["rows"], "test", fmt="html"),
            ),
            (
                "Validation, all slices",
                "Models are chosen here.",
                slice_table(results["rows"], "val", fmt="html"),
            ),
            *learning,
            (
                "Quality through time",
                "",
                quality_over_time(results["over_time"], "MRR through validation and test"),
            ),
            (
                "Both sides",
                "Mutual MRR takes the worse of both ranks, just before the first contact of pairs that "
                "become mutual in the test window; answered: just before the reply.",
                mutual_table(results["mutual"], fmt="html"),
            ),
            ("Cost", "", timing_table(results["timing"], fmt="html")),
            ("Suggestions", "", suggestions),
        ],
    )


def _questions(out: Path, results: dict[str, Any]) -> list[tuple[str, str, Figure]]:
    """The section on both questions, if the test part has new contacts and lists."""
    has_new = any((row["part"], row["slice"]) == ("test", "new") for row in results["rows"])
    if not has_new or not results["lists"]:
        return []
    figure = two_questions(results["rows"], results["lists"], f"{results['dataset']}: two questions")
    figure.savefig(out / "questions.png", dpi=110)
    text = (
        "To the right, models that know who is next when a user acts; to the top, those whose lists hold in "
        "the days that follow."
    )
    return [("Two questions", text, figure)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and turn what a user can mend into one line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--events", metavar="EVENTS", nargs="+", help=EVENTS_HELP)
    source.add_argument(
        "--dataset", metavar="NAME", default="MathOverflow", help=f"one of {', '.join(DATASETS)}, Synthetic"
    )
    add_reading_options(parser)
    add_roles_option(parser)
    parser.add_argument("--users", metavar="FILE", help="CSV or Parquet with a column 'user' and features")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        default=None,
        help=f"some of {', '.join(model_names())}, and {ORACLE} for a synthetic network; "
        f"by default the heuristics, two_tower and {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--plugin",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module that registers models of your own, for --models",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--resume", action="store_true", help="keep the models an interrupted run has finished"
    )
    options = parser.parse_args(arguments)
    synthetic = not options.events and options.dataset.lower() == "synthetic"
    default = [*BY_DEFAULT, *([ORACLE] if synthetic else [])]
    models = list(dict.fromkeys(options.models or default))
    try:
        for module in options.plugin:
            importlib.import_module(module)
        for name in models:
            if not (name == ORACLE and synthetic):
                model_kind(name)
    except (ImportError, KeyError, ValueError) as error:
        parser.error(str(error.args[0]))
    if options.users and not options.events:
        parser.error("--users goes with --events")
    world = None
    try:
        if options.events:
            users = read_users(options.users) if options.users else None
            graph = build_graph(parse_log(options), users, options.roles)
            dataset = Path(options.events[0]).name
        elif synthetic:
            friends = SyntheticFriends()
            graph, dataset, world = friends[0], friends.name, friends.world
        else:
            roles = Roles.parse(options.roles) if options.roles else None
            graph, dataset = load_dataset(options.dataset, roles=roles), options.dataset
        run(graph, dataset, models, options.seed, options.out, options.resume, world)
    except (DataError, FileNotFoundError, KeyError) as error:
        sys.exit(f"ladder: {error.args[0] if error.args else error}")


if __name__ == "__main__":
    main()
