"""Where distrust is common, do lists that know the roles of actions lead to fewer negative acts?

python -m benchmarks.quality.distrust [--seeds 0 1 2] [--models list_ranker ...] [--out FILE]

In simulated worlds an eighth of the users is notorious, all of them popular: acts on them are mostly
distrust. Each model is fitted twice, knowing that distrust is negative, and taking it for an act like any
other. Both are judged alike: by wanted initiations and ties, and by the share of list places that lead to
distrust in the window. 95 % intervals are paired by recipient.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from graphrec.data import EventLog, FriendGraph, TemporalSplit
from graphrec.datasets import SyntheticFriends
from graphrec.evaluate import ListResult, evaluate_lists
from graphrec.metrics import bootstrap_ratio
from graphrec.models import build, model_kind
from graphrec.threads import one_intra_op_thread

NUM_USERS, NUM_EVENTS = 1000, 30_000
POPULAR_SHARE, NOTORIOUS_SHARE = 0.3, 0.4
"""Share of users who are popular, by acts received, and share of these who are notorious."""

DISTRUST_RATES = 0.02, 0.8
"""Share of acts that are distrust: of those on other users, and on the notorious ones."""

DISTRUST = "distrust"
MODELS = ("list_ranker", "recent_popularity", "new_popularity", "adamic_adar", "decayed_adamic_adar")
METRICS = ("initiation_precision", "tie_precision")

Terms = tuple[np.ndarray, np.ndarray]


def distrustful(graph: FriendGraph, seed: int) -> FriendGraph:
    """The same log, with acts on notorious users turned into distrust; accepted requests stay."""
    rng, events = np.random.default_rng(seed), graph.events()
    src, dst = events.src.numpy(), events.dst.numpy()
    received = np.bincount(dst, minlength=graph.num_users)
    popular = received >= np.quantile(received, 1 - POPULAR_SHARE)
    notorious = popular & (rng.random(graph.num_users) < NOTORIOUS_SHARE)
    action = np.array(graph.actions)[events.action.numpy()].astype(object)
    turned = rng.random(len(src)) < np.array(DISTRUST_RATES)[notorious[dst].astype(np.int64)]
    action[turned & (action != "friend_accept")] = DISTRUST
    log = EventLog.from_arrays(src, dst, events.time.numpy(), action=action.tolist())
    return FriendGraph.from_events(log)


def negative_terms(result: ListResult, graph: FriendGraph) -> Terms:
    """The share of each list's places that lead to a negative act in its window, and each list's recipient.

    Args:
        result: lists that were judged.
        graph: their graph, with roles.
    """
    events, size = graph.events(), graph.num_users
    negative = graph.roles.having("negative")[events.action]
    src, dst, time = (column[negative] for column in (events.src, events.dst, events.time))
    questions = result.questions
    moment = torch.searchsorted(questions.start, time, right=True) - 1
    inside = (moment >= 0) & (time < questions.end[moment.clamp(min=0)])
    came = ((moment * size + src) * size + dst)[inside]
    row, share = result.lists.row, result.lists.share
    listed = (questions.moment[row] * size + result.lists.user[row]) * size + result.lists.person
    count = len(result.lists.user)
    hits = torch.bincount(row, weights=share * torch.isin(listed, came), minlength=count)
    places = torch.bincount(row, weights=share, minlength=count)
    return (hits / places.clamp(min=1e-9)).numpy(), result.lists.user.numpy()


@one_intra_op_thread()
def judged(model: str, seed: int, number: int) -> tuple[dict[str, Terms], dict[str, Terms]]:
    """Terms of a model that knows roles and of one that ignores them, on the world of a seed."""
    graph = distrustful(SyntheticFriends(NUM_USERS, NUM_EVENTS, seed=seed)[0], seed)
    split, out = TemporalSplit.of(graph), []
    for read in (graph, graph.with_roles({DISTRUST: "ordinary"})):
        recommender = build(model, seed=seed if model_kind(model) == "learned" else None)
        recommender.fit(read, until=split.t_val)
        result = evaluate_lists(recommender, graph, split=split, progress=False)
        terms = {metric: result.terms(metric) for metric in METRICS}
        terms["negative"] = negative_terms(result, graph)
        out.append({metric: (values, who + number * NUM_USERS) for metric, (values, who) in terms.items()})
    return out[0], out[1]


def joined(parts: Sequence[Terms]) -> Terms:
    """The terms of several worlds together."""
    return np.concatenate([values for values, _ in parts]), np.concatenate([who for _, who in parts])


def figures(models: Sequence[str], seeds: Sequence[int]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table."""
    columns = ["model", "metric", "roles known", "roles ignored", "ratio [95 %]"]
    rows = []
    for model in models:
        runs = [judged(model, seed, number) for number, seed in enumerate(seeds)]
        for metric in ("negative", *METRICS):
            known, ignored = (joined([run[side][metric] for run in runs]) for side in (0, 1))
            ratio, low, high = bootstrap_ratio(known, ignored)
            name = "places that lead to distrust" if metric == "negative" else metric.replace("_", " ")
            cells = [f"{values.mean():.5f}".removeprefix("0") for values, _ in (known, ignored)]
            rows.append([model, name, *cells, f"{ratio:.2f} [{low:.2f}, {high:.2f}]"])
        print(f"{model} done", file=sys.stderr, flush=True)
    return columns, rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.distrust", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", default=[*MODELS], metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the table as JSON")
    options = parser.parse_args(arguments)
    try:
        for model in options.models:
            model_kind(model)
    except KeyError as error:
        parser.error(str(error.args[0]))
    columns, rows = figures(options.models, options.seeds)
    print(tabulate(rows, headers=columns, disable_numparse=True))
    if options.out is not None:
        table = {
            "name": f"Distrust, {len(options.seeds)} worlds",
            "command": "python -m benchmarks.quality.distrust",
            "columns": columns,
            "rows": rows,
        }
        options.out.write_text(json.dumps({"tables": [table]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
