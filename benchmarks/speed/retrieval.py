"""How fast is exact and approximate inner-product search on one thread, and what does approximation miss?

python -m benchmarks.speed.retrieval [--users 25000 100000 1000000] [--out DIR]

Vectors of 64 numbers are generated to look like user tables: communities are clouds of different sizes, and
norms are spread as popularity is. A query is near the vector of a user. `spectral` are the spectral
embeddings of MathOverflow, `two_tower` the user embeddings of a two-tower trained there, with its own query
vectors. IVF is what `ApproximateIndex` uses, HNSW the graph index of faiss.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.models import TwoTower
from graphrec.retrieval import ApproximateIndex, ExactIndex, recall
from graphrec.temporal import SpectralEmbeddings, Timeline

DIM, K, NUM_QUERIES, BATCH = 64, 50, 1024, 256
SHARES = (128, 64, 32, 16, 8)
"""One in so many cells is looked at."""
BREADTHS = (64, 128, 256, 512)
"""efSearch of HNSW."""
LINKS, BUILD_BREADTH = 16, 64
Search = Callable[[Tensor], Tensor]


def tables(num_users: int) -> tuple[Tensor, Tensor]:
    """Vectors [N, D] and queries [B, D]."""
    generator = torch.Generator().manual_seed(0)
    circles = max(50, num_users // 200)
    center = torch.randn(circles, DIM, generator=generator)
    size = torch.rand(circles, generator=generator) ** 2 + 0.01
    circle = torch.multinomial(size, num_users, replacement=True, generator=generator)
    vectors = center[circle] + 0.7 * torch.randn(num_users, DIM, generator=generator)
    vectors *= torch.exp(0.3 * torch.randn(num_users, 1, generator=generator))
    return vectors, near(vectors, generator)


def spectral() -> tuple[Tensor, Tensor]:
    """Spectral embeddings of MathOverflow."""
    graph = load_dataset("MathOverflow")
    assert isinstance(graph, FriendGraph)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(graph.num_users, DIM, generator=generator)
    vectors = SpectralEmbeddings(Timeline.of(graph), start, every=graph.num_events).embedding[-1]
    return vectors, near(vectors[vectors.any(1)], generator)


def learned() -> tuple[Tensor, Tensor]:
    """User embeddings of a two-tower trained on MathOverflow, and its vectors for the last questions."""
    graph = load_dataset("MathOverflow")
    assert isinstance(graph, FriendGraph)
    split = TemporalSplit.of(graph)
    model = TwoTower(components=(), features=(), progress=False)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    query = Query.of_events(graph, split.event_ids("test")[-NUM_QUERIES:])
    parts = [model.encode_query(query[rows]) for rows in torch.arange(len(query)).split(BATCH)]
    queries = torch.cat([model.head.query_vectors(part) for part in parts])
    return model.head.user_vectors(split.t_test), queries


def near(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Queries near some of the vectors."""
    chosen = vectors[torch.randint(len(vectors), (NUM_QUERIES,), generator=generator)]
    return chosen + 0.3 * vectors.std() * torch.randn(chosen.shape, generator=generator)


def judged(
    name: str, search: Search, queries: Tensor, expected: Tensor, build_seconds: float
) -> dict[str, Any]:
    """One row: speed by the CPU time of this process, and recall."""
    search(queries[:BATCH])
    began = time.process_time()
    found = torch.cat([search(part) for part in queries.split(BATCH)])
    seconds = time.process_time() - began
    share = float(recall(found, expected).mean())
    return {"index": name, "build_s": build_seconds, "queries_per_s": len(queries) / seconds, "recall": share}


def compared(vectors: Tensor, queries: Tensor) -> list[dict[str, Any]]:
    """Rows of all indices."""
    began = time.process_time()
    exact = ExactIndex().build(vectors)
    seconds = time.process_time() - began
    expected = exact.search(queries, K)[0]
    rows = [judged("exact", lambda part: exact.search(part, K)[0], queries, expected, seconds)]
    began = time.process_time()
    inverted = ApproximateIndex().build(vectors)
    seconds = time.process_time() - began
    for share in SHARES:
        inverted.num_probes = max(1, round(inverted.num_built_cells / share))
        name = f"IVF {inverted.num_built_cells}, 1 in {share}"
        rows.append(judged(name, lambda part: inverted.search(part, K)[0], queries, expected, seconds))
    graph = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_BREADTH
    began = time.process_time()
    graph.add(vectors.numpy())
    seconds = time.process_time() - began
    for breadth in BREADTHS:
        graph.hnsw.efSearch = breadth

        def search(part: Tensor) -> Tensor:
            return torch.from_numpy(graph.search(part.numpy(), K)[1])

        rows.append(judged(f"HNSW {LINKS}, {breadth}", search, queries, expected, seconds))
    return rows


def main() -> None:
    """Read the command line, and print a table for each size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.retrieval", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[25_000, 100_000, 1_000_000])
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write retrieval.json there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    out: dict[str, list[dict[str, Any]]] = {}
    made: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"spectral": spectral, "two_tower": learned}
    made |= {str(size): partial(tables, size) for size in options.users}
    for name, make in made.items():
        vectors, queries = make()
        out[name] = compared(vectors, queries)
        print(f"{name}: {len(vectors):,} x {DIM}, {NUM_QUERIES} queries, k = {K}, one thread")
        body = [list(row.values()) for row in out[name]]
        header = ["index", "build, CPU s", "queries / CPU s", f"recall@{K}"]
        print(tabulate(body, header, floatfmt=("", ".1f", ",.0f", ".3f")), flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "retrieval.json").write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
