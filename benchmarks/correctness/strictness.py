"""Does any answer depend on what had not happened yet? Rewrite the future, and see whether a score moves.

python -m benchmarks.correctness.strictness [--dataset NAME] [--queries 100000] [--models ...]

At each of 40 times, half of them the times of events, every event at or after that time is replaced: other
ends, other actions, other times from that time on, some of them that time itself. Queries of that time share
their batch with as many of other times, before and after, so that a batch cannot carry news backwards. Scores
of everyone must be the same to the last bit. As a control the same queries are asked one second later, on
both logs: that lets in what happened at the query's own second, as `<=` would, and must be noticed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import NamedTuple

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from graphrec.data import DataError, EventLog, FriendGraph, Query
from graphrec.datasets import DATASETS, load_dataset
from graphrec.models import HEURISTICS, Recommender

NUM_TIMES = 40
BATCH = 256
SEED = 0


def other_future(graph: FriendGraph, time: int, generator: torch.Generator) -> FriendGraph:
    """The graph with the same users and past, and as many but other events from `time` on."""
    events = graph.events()
    past = int(torch.searchsorted(events.time, time))
    size, end = len(events) - past, int(events.time[-1])
    moment = torch.randint(time, max(end, time) + 1, (size,), generator=generator).sort().values
    moment[: max(1, size // 100)] = time
    src = torch.randint(graph.num_users, (size,), generator=generator)
    step = torch.randint(1, graph.num_users, (size,), generator=generator)
    log = EventLog(
        src=torch.cat([events.src[:past], src]),
        dst=torch.cat([events.dst[:past], (src + step) % graph.num_users]),
        time=torch.cat([events.time[:past], moment]),
        action=torch.cat(
            [events.action[:past], torch.randint(len(graph.actions), (size,), generator=generator)]
        ),
        actions=graph.actions,
        user_ids=graph.user_ids,
    )
    return FriendGraph.from_events(log)


def draw_times(graph: FriendGraph, generator: torch.Generator) -> list[int]:
    """Half of them times of events, half any seconds; all later than the first event."""
    time = graph.events().time
    first, last = int(time[0]), int(time[-1])
    later = time[time > first]
    of_events = later[torch.randint(len(later), (NUM_TIMES // 2,), generator=generator)]
    of_any = torch.randint(first + 1, last + 1, (NUM_TIMES - NUM_TIMES // 2,), generator=generator)
    return torch.cat([of_events, of_any]).tolist()


def draw_queries(graph: FriendGraph, time: int, size: int, generator: torch.Generator) -> Query:
    """Random people and actions at one time, and first of all whoever acts at that time."""
    events = graph.events()
    here = (events.time == time).nonzero().squeeze(1)[: size // 2]
    user = torch.randint(graph.num_users, (size,), generator=generator)
    action = torch.randint(len(graph.actions), (size,), generator=generator)
    user[: len(here)], action[: len(here)] = events.src[here], events.action[here]
    return Query(user, torch.full((size,), time), action)


def scores_among(model: Recommender, query: Query, others: Query) -> Tensor:
    """Scores [B, N] of the queries, each batch shared with as many others."""
    parts = []
    for start in range(0, len(query), BATCH):
        asked, beside = query[start : start + BATCH], others[start : start + BATCH]
        both = Query(
            torch.cat([asked.user, beside.user]),
            torch.cat([asked.time, beside.time]),
            torch.cat([asked.action, beside.action]),
        )
        parts.append(model.score(both)[: len(asked)])
    return torch.cat(parts)


def num_changed(a: Tensor, b: Tensor) -> int:
    """How many rows differ anywhere."""
    return int((a != b).any(1).sum())


class Row(NamedTuple):
    """Of one model: its queries, how many changed, and how many did when asked a second later."""

    model: str
    queries: int
    changed: int
    changed_later: int


def check(graph: FriendGraph, models: list[str], num_queries: int) -> list[Row]:
    """Ask each model its share of the queries, on the log and on its rewritings."""
    generator = torch.Generator().manual_seed(SEED)
    size = -(-num_queries // (NUM_TIMES * len(models)))
    counts = {name: [0, 0, 0] for name in models}
    events = graph.events()
    for time in tqdm(draw_times(graph, generator), unit="time", disable=None, leave=False):
        rewritten = other_future(graph, time, generator)
        query = draw_queries(graph, time, size, generator)
        later = replace(query, time=query.time + 1)
        others = Query.of_events(graph, torch.randint(len(events), (size,), generator=generator))
        for name in models:
            known, unknown = (HEURISTICS[name]().fit(g, until=time) for g in (graph, rewritten))
            same, after = (
                num_changed(scores_among(known, q, others), scores_among(unknown, q, others))
                for q in (query, later)
            )
            counts[name] = [a + b for a, b in zip(counts[name], (size, same, after), strict=True)]
    return [Row(name, *numbers) for name, numbers in counts.items()]


def main() -> None:
    """Print the counts; exit with an error where an answer moved, or where the control was not noticed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness.strictness", description=__doc__)
    parser.add_argument(
        "--dataset", metavar="NAME", default="Copenhagen", help=f"one of {', '.join(DATASETS)}"
    )
    parser.add_argument("--queries", type=int, default=100_000, metavar="Q", help="in all, over the models")
    parser.add_argument("--models", nargs="+", metavar="MODEL", default=list(HEURISTICS))
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in HEURISTICS]
    if unknown:
        parser.error(f"unknown model {unknown[0]!r}; the models are {', '.join(HEURISTICS)}")
    if options.queries < 1:
        parser.error("at least one query is needed")
    try:
        graph = load_dataset(options.dataset)
    except (DataError, KeyError) as error:
        sys.exit(f"strictness: {error.args[0]}")
    rows = check(graph, list(dict.fromkeys(options.models)), options.queries)
    changed = sum(row.changed for row in rows)
    total = Row("all", sum(row.queries for row in rows), changed, sum(row.changed_later for row in rows))
    header = ["model", "queries", "changed", "changed a second later"]
    print(tabulate([*rows, total], headers=header, intfmt=","))
    if changed:
        sys.exit(f"strictness: {changed:,} answers depend on events at or after their own time")
    if any(row.changed_later == 0 for row in rows if row.model != "random"):
        sys.exit("strictness: the control was not noticed, so the check proves nothing")


if __name__ == "__main__":
    main()
