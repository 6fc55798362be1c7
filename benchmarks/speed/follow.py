"""What does it cost a fitted model to follow appended events, beside the bare index?

python -m benchmarks.speed.follow [--dataset mathoverflow] [--users 1000000] [--models adamic_adar ...]

The model is fitted on the first 80 % of the log and takes in later events, with the newcomers among them, in
logs of `CALL` events; bare `Timeline.append` takes in the same ones, as the floor. After some appends one
request (k = 20) is answered. One thread, CPU time; models are trained for one short epoch, since the cost
does not depend on the weights.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings

import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate

from benchmarks.speed.index import draw_events
from graphrec.data import EventLog, Events, FriendGraph, Query
from graphrec.datasets import load_dataset
from graphrec.models import (
    GENERATIVE_PRESETS,
    HEURISTICS,
    TWO_TOWER_PRESETS,
    GenerativeSTU,
    ListRanker,
    Recommender,
    TwoTower,
    WindowConfig,
)
from graphrec.temporal import Timeline
from graphrec.tokenizer import ResidualKMeans, TokenizerQualityWarning

CALL, CALLS = 20, 200
"""Events of one append, and appends that are timed."""

QUERY_EVERY, K = 10, 20
"""Appends between two requests, and users wanted."""

SHORT = {"max_epochs": 1, "epoch_batches": 5, "progress": False}


def build(name: str) -> Recommender:
    """An unfitted model that is trained for a moment."""
    if name in HEURISTICS:
        return HEURISTICS[name]()
    if name == "list_ranker":
        return ListRanker(config=WindowConfig(max_epochs=1))
    if name in TWO_TOWER_PRESETS:
        return TwoTower(**TWO_TOWER_PRESETS[name], **SHORT)  # type: ignore[arg-type]
    return GenerativeSTU(**GENERATIVE_PRESETS[name], **SHORT, tokenizer=ResidualKMeans())  # type: ignore[arg-type]


def synthetic(num_users: int) -> EventLog:
    """A log of three events a user."""
    src, dst, moment = draw_events(3 * num_users, num_users)
    return EventLog.from_arrays(src, dst, moment)


def log_of(graph: FriendGraph) -> EventLog:
    """The log of a graph."""
    events = graph.events()
    return EventLog(events.src, events.dst, events.time, events.action, graph.actions, graph.user_ids)


def part(log: EventLog, start: int, end: int) -> EventLog:
    """Some events of a log, as a log of their own."""
    names = log.user_ids.values
    rows = slice(start, end)
    actions = pa.array(log.actions).take(pa.array(log.action[rows].numpy()))
    src, dst = (names.take(pa.array(side[rows].numpy())) for side in (log.src, log.dst))
    return EventLog.from_arrays(src, dst, log.time[rows], actions)


def measure(name: str, place: str, log: EventLog) -> list[object]:
    """Append to a fitted model, and return a row of the table."""
    first = len(log) * 4 // 5
    model = build(name).fit(FriendGraph.from_events(part(log, 0, first)), until=int(log.time[first - 1]) + 1)
    graph = model.graph
    query = Query.of(graph, graph.events().src[-1:])
    model.recommend(query, K)
    logs = [part(log, first + CALL * call, first + CALL * (call + 1)) for call in range(CALLS + 1)]
    bare, spent, answers, floor = Timeline.of(graph).copy(), list[float](), list[float](), list[float]()
    for number, new in enumerate(logs):
        start = time.process_time()
        model.append(new)
        spent.append(time.process_time() - start)
        if number % QUERY_EVERY == 0:
            now = Query.of(model.graph, query.user)
            model.recommend(now, K)
            answers.append(time.process_time() - start)
        at = len(bare.events)
        added = Events(*(column[at : at + CALL] for column in vars(model.graph.events()).values()))
        start = time.process_time()
        bare.append(added, num_users=model.graph.num_users)
        floor.append(time.process_time() - start)
    spent, floor, answers = spent[1:], floor[1:], answers[1:]  # the first append copies the index
    return [
        name,
        place,
        f"{model.graph.num_users - graph.num_users}",
        f"{CALL * CALLS / sum(spent):,.0f}",
        f"{CALL * CALLS / sum(floor):,.0f}",
        f"{1000 * float(np.median(spent)):.2f}",
        f"{1000 * max(spent):.1f}",
        f"{1000 * max(floor):.1f}",
        f"{1000 * float(np.median(answers)):.1f}",
    ]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="mathoverflow")
    parser.add_argument("--users", type=int, nargs="*", default=[1_000_000], help="of synthetic networks")
    parser.add_argument("--models", nargs="*", default=["adamic_adar", "two_tower_mixture", "stu"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    rows = []
    if arguments.dataset:
        log = log_of(load_dataset(arguments.dataset))
        rows += [measure(name, arguments.dataset, log) for name in arguments.models]
    rows += [measure("adamic_adar", f"{size:,} users", synthetic(size)) for size in arguments.users]
    titles = "model,log,newcomers,events/s,bare index,median ms,longest ms,bare longest,append to answer ms"
    print(tabulate(rows, titles.split(","), tablefmt="github"))
    print(f"load {os.getloadavg()[0]:.1f}; {CALLS} appends of {CALL} events")


if __name__ == "__main__":
    main()
