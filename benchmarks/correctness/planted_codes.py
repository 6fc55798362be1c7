"""Do codes find planted communities, and nothing in a random graph?

python -m benchmarks.correctness.planted_codes [--seeds 0 1 2]

Planted: of 2,000 users, nine events of ten stay inside one of 40 communities; with as many codes, first
codes are compared with communities by their adjusted mutual information, 1 if they are the same and 0 by
chance. Random: both users of every event are drawn uniformly. The first nine tenths of the events are
fitted, and `evaluate_tokenizer` evaluates the ties of the rest, by homophily at length 1 and AUC against
pairs matched by degree, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from scipy.special import gammaln
from tabulate import tabulate
from torch import Tensor

from graphrec.data import EventLog, FriendGraph
from graphrec.tokenizer import (
    GNNRQVAE,
    Estimate,
    RandomCodes,
    ResidualKMeans,
    Tokenizer,
    TokenizerQualityWarning,
    evaluate_tokenizer,
)

CIRCLES, SIZE, NUM_EVENTS = 40, 50, 40_000
NUM_USERS = CIRCLES * SIZE
INSIDE = 0.9
UNTIL, END = 60 * NUM_EVENTS * 9 // 10, 60 * NUM_EVENTS
ROWS: dict[str, type[Tokenizer]] = {
    "gnn_rqvae": GNNRQVAE,
    "residual_kmeans": ResidualKMeans,
    "random": RandomCodes,
}


def world(*, inside: float, seed: int) -> FriendGraph:
    """An act a minute between two people; so large a share stays inside the actor's circle."""
    rng = np.random.default_rng(seed)
    src = rng.integers(NUM_USERS, size=NUM_EVENTS)
    step, far = rng.integers(1, SIZE, size=NUM_EVENTS), rng.integers(1, NUM_USERS, size=NUM_EVENTS)
    near = src // SIZE * SIZE + (src + step) % SIZE
    dst = np.where(rng.random(NUM_EVENTS) < inside, near, (src + far) % NUM_USERS)
    return FriendGraph.from_events(EventLog.from_arrays(src, dst, 60 * np.arange(NUM_EVENTS)))


def adjusted_mutual_information(one: Tensor, other: Tensor) -> float:
    """Of two partitions [n]; 1 where they are the same, 0 as expected by chance (Vinh et al. 2010)."""
    table = torch.zeros(int(one.max()) + 1, int(other.max()) + 1, dtype=torch.float64)
    table.index_put_((one, other), torch.ones(len(one), dtype=torch.float64), accumulate=True)
    joint = table.numpy()
    n, a, b = joint.sum(), joint.sum(1), joint.sum(0)

    def entropy(size: np.ndarray) -> float:
        share = size[size > 0] / n
        return float(-(share * np.log(share)).sum())

    mutual = entropy(a) + entropy(b) - entropy(joint.ravel())
    expected = 0.0
    for x in a[a > 0]:
        for y in b[b > 0]:
            k = np.arange(max(1, x + y - n), min(x, y) + 1)
            chance = sum(gammaln(v + 1) for v in (x, y, n - x, n - y))
            chance = chance - gammaln(n + 1) - sum(gammaln(v + 1) for v in (k, x - k, y - k, n - x - y + k))
            expected += float((k / n * np.log(n * k / (x * y)) * np.exp(chance)).sum())
    return (mutual - expected) / ((entropy(a) + entropy(b)) / 2 - expected)


def judged(row: str, seed: int) -> list[str]:
    """A row of the table."""
    out = [row, str(seed)]
    for inside in (INSIDE, 0.0):
        graph = world(inside=inside, seed=seed)
        tokenizer = ROWS[row](codebook_size=CIRCLES, seed=seed).fit(graph, until=UNTIL)
        if inside:
            code = tokenizer.codes_of_fit(graph)[:, 0]
            circle = graph.user_ids.raw // SIZE
            out.append(f"{adjusted_mutual_information(code[code >= 0], circle[code >= 0]):.3f}")
        verdict = evaluate_tokenizer(tokenizer, graph, later=END).ties
        out += [_shown(verdict.homophily["matched"][0]), _shown(verdict.auc["matched"])]
        out.append("yes" if verdict.finds_structure else "no")
    return out


def _shown(estimate: Estimate | None) -> str:
    return "unknown" if estimate is None else "{:.3f} [{:.3f}, {:.3f}]".format(*estimate)


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.correctness.planted_codes", description=__doc__
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    verdict = ["homophily 1", "AUC", "finds structure"]
    head = ["", "seed", "AMI", *(f"{name}, {where}" for where in ("planted", "random") for name in verdict)]
    print(
        tabulate([judged(row, seed) for row in ROWS for seed in options.seeds], head, disable_numparse=True)
    )


if __name__ == "__main__":
    main()
