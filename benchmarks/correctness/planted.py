"""Is a planted pattern found, and nothing in a random graph?

python -m benchmarks.correctness.planted [--seed S]

Planted: every user writes to the same twelve users in turn, so the next is always the one who has waited
longest, and nothing else tells. Random: sources and targets are drawn uniformly; chance is the mean of 1 /
rank over the other users.
"""

from __future__ import annotations

import argparse

import numpy as np
from tabulate import tabulate

from graphrec.data import EventLog, FriendGraph, TemporalSplit
from graphrec.evaluate import evaluate_streaming
from graphrec.models import HEURISTICS, LEARNED, MixtureRecommender, Recommender

NUM_USERS = 50


def round_robin(*, partners: int = 12, rounds: int = 14, seed: int = 0) -> FriendGraph:
    """Everyone writes to their own people in turn, all of them once a round, in a new order each time."""
    rng = np.random.default_rng(seed)
    others = [[v for v in range(NUM_USERS) if v != u] for u in range(NUM_USERS)]
    circle = np.stack([rng.permutation(row)[:partners] for row in others])
    turns = rounds * partners
    src = np.concatenate([rng.permutation(NUM_USERS) for _ in range(turns)])
    dst = circle[src, np.repeat(np.arange(turns) % partners, NUM_USERS)]
    return FriendGraph.from_events(EventLog.from_arrays(src, dst, 60 * np.arange(len(src))))


def uniform(*, num_events: int = 5000, seed: int = 0) -> FriendGraph:
    """Both ends of every event are drawn uniformly."""
    rng = np.random.default_rng(seed)
    src = rng.integers(NUM_USERS, size=num_events)
    dst = (src + rng.integers(1, NUM_USERS, size=num_events)) % NUM_USERS
    return FriendGraph.from_events(EventLog.from_arrays(src, dst, 60 * np.arange(num_events)))


def learner(name: str, *, seed: int, max_epochs: int = 8) -> Recommender:
    """A learned model small enough for fifty people."""
    return LEARNED[name](
        embedding_dim=16,
        hidden_channels=16,
        window=16,
        events_per_batch=256,
        max_epochs=max_epochs,
        patience=max_epochs,
        seed=seed,
        progress=False,
    )


def judged(model: Recommender, graph: FriendGraph) -> dict[str, float]:
    """Fit on training, choose on validation, judge all test events."""
    split = TemporalSplit.of(graph)
    if isinstance(model, MixtureRecommender):
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
    else:
        model.fit(graph, until=split.t_val)
    return evaluate_streaming(model, graph, progress=False).rows()[0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness.planted")
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    graphs = round_robin(seed=seed), uniform(seed=seed)
    body = []
    for name in (*HEURISTICS, *LEARNED):
        row = [name]
        for graph in graphs:
            model = learner(name, seed=seed) if name in LEARNED else HEURISTICS[name]()
            found = judged(model, graph)
            row.append(f"{found['mrr']:.3f} [{found['mrr_low']:.3f}, {found['mrr_high']:.3f}]")
        body.append(row)
    chance = float(np.mean(1 / np.arange(1, NUM_USERS)))
    print(tabulate(body, headers=["test MRR, all", "planted", f"random (chance {chance:.3f})"]))


if __name__ == "__main__":
    main()
