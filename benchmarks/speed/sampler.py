"""Edges a second of the temporal sampler, bare and as a loader, on one thread.

python -m benchmarks.speed.sampler [--dataset NAME] [--users N] [--seeds 20480] [--out DIR]

`--users N` samples a synthetic network of N users and 10 N events. Beside the sampler stand PyG's
`NeighborLoader` (untimed, so that it has less to do), where one of its compiled backends is installed, and
what the same machine gathers at random in the same run: as many 32-bit numbers from an array as long as the
index's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tabulate import tabulate
from torch_geometric import typing as pyg
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.sampler import NodeSamplerInput

from graphrec.data import USER, FriendGraph, Query
from graphrec.datasets import load_dataset
from graphrec.loader import EventLoader, QueryLoader, TemporalSampler

SEED = 0
BATCH_SIZE = 1024
FAN_OUTS = ([20], [20, 10])
STRATEGIES = ("last", "uniform")
REPEATS = 5


def edges_per_second(run: Callable[[], int]) -> tuple[int, float]:
    """The edges of a run, and how many a second: the median of several, by the CPU time of this process."""
    edges, seconds = run(), []
    for _ in range(REPEATS):
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)
    return edges, edges / median(seconds)


def gathering(graph: FriendGraph, size: int) -> Callable[[], int]:
    """The limit: one random read for each edge, from an array as large as the index's half-edges."""
    generator = torch.Generator().manual_seed(SEED)
    content = torch.arange(2 * graph.num_events, dtype=torch.int32)
    where = torch.randint(content.numel(), (size,), generator=generator)
    return lambda: content[where].numel()


def sampling(sampler: TemporalSampler, query: Query) -> Callable[[], int]:
    """The sampler alone."""

    def run() -> int:
        edges = 0
        for ids in torch.arange(len(query)).split(BATCH_SIZE):
            inputs = NodeSamplerInput(ids, query.user[ids], query.time[ids], USER)
            edges += sum(row.numel() for row in sampler.sample_from_nodes(inputs).row.values())
        return edges

    return run


def loading(loader: Any) -> Callable[[], int]:
    """Whole batches."""
    return lambda: sum(batch.num_edges for batch in loader)


def neighbor_loader(graph: FriendGraph, query: Query, num_neighbors: list[int]) -> Any:
    """PyG's own, on all edges of any time in both directions."""
    events = graph.events()
    edge_index = torch.stack([torch.cat([events.src, events.dst]), torch.cat([events.dst, events.src])])
    data = Data(edge_index=edge_index, num_nodes=graph.num_users)
    return NeighborLoader(
        data, num_neighbors, input_nodes=query.user, batch_size=BATCH_SIZE, disjoint=pyg.WITH_PYG_LIB
    )


def main() -> None:
    """Time every combination, print and save."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.sampler", description=__doc__)
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME")
    parser.add_argument("--users", type=int, metavar="N", help="of a synthetic network")
    parser.add_argument("--seeds", type=int, default=20 * BATCH_SIZE, metavar="M")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/sampler.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = f"synthetic-{options.users}" if options.users else options.dataset
    grown = {"num_users": options.users, "num_events": 10 * options.users} if options.users else {}
    graph = load_dataset("Synthetic" if options.users else options.dataset, **grown)
    generator = torch.Generator().manual_seed(SEED)
    half = graph.num_events // 2  # seeds with a past
    event_ids = torch.randint(half, graph.num_events, (options.seeds,), generator=generator)
    query = Query.of_events(graph, event_ids)
    print(f"{name}: {graph.num_users:,} users, {graph.num_events:,} events, one thread")
    print(f"{options.seeds:,} seeds in batches of {BATCH_SIZE}, median of {REPEATS} runs", flush=True)

    rows: list[dict[str, Any]] = []

    def record(what: str, hops: list[int], strategy: str, run: Callable[[], int]) -> int:
        edges, speed = edges_per_second(run)
        rows.append(
            {"what": what, "hops": str(hops), "strategy": strategy, "edges": edges, "edges_per_s": speed}
        )
        return edges

    has_backend = pyg.WITH_PYG_LIB or pyg.WITH_TORCH_SPARSE
    for hops in FAN_OUTS:
        for strategy in STRATEGIES:
            chosen: dict[str, Any] = {"strategy": strategy}
            edges = record(
                "TemporalSampler", hops, strategy, sampling(TemporalSampler(graph, hops, **chosen), query)
            )
            chosen["batch_size"] = BATCH_SIZE
            record("QueryLoader", hops, strategy, loading(QueryLoader(graph, query, hops, **chosen)))
            events = EventLoader.of_events(graph, hops, event_ids=event_ids[: len(query) // 2], **chosen)
            record("EventLoader", hops, strategy, loading(events))
        if has_backend:
            record("PyG NeighborLoader", hops, "untimed", loading(neighbor_loader(graph, query, hops)))
        record("random gather (the machine's limit)", hops, "", gathering(graph, edges))

    body = [
        [row["what"], row["hops"], row["strategy"], row["edges"], f"{row['edges_per_s'] / 1e6:.2f}"]
        for row in rows
    ]
    header = ["", "hops", "strategy", "edges", "million edges/s"]
    print(
        "\n"
        + tabulate(
            body, headers=header, intfmt=",", disable_numparse=[4], colalign=["left"] * 3 + ["right"] * 2
        )
    )
    if not has_backend:
        print(
            "\nPyG's NeighborLoader was not run: neither pyg-lib nor torch-sparse is installed. On another "
            "occasion it gave 0.3 to 0.6 million edges/s on torch-sparse, untimed; this is no ratio."
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        results = {"dataset": name, "batch_size": BATCH_SIZE, "seeds": options.seeds, "rows": rows}
        (options.out / "sampler.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"\nwritten: {options.out / 'sampler.json'}")


if __name__ == "__main__":
    main()
