"""Does any metric depend on how users are numbered, or on the order of rows of the same time?

python -m benchmarks.correctness.invariance [--dataset NAME] [--models ...]

Evaluates every heuristic on the log, on the log with other user ids, and on the log with the rows of each
time shuffled, and prints the largest absolute difference of any metric, intervals included. It must be 0,
but for the last bit of a sum in another order. `random` depends on ids, so it must differ under other ids:
that shows the check can fail.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import pyarrow as pa
from tabulate import tabulate
from tqdm import tqdm

from graphrec.data import DataError, EventLog, FriendGraph, TemporalSplit, UserTable
from graphrec.datasets import DATASETS, load_dataset
from graphrec.evaluate import Row, evaluate_mutual, evaluate_streaming
from graphrec.models import HEURISTICS

TOLERANCE = 1e-9
SEED = 0


def renumbered(graph: FriendGraph, new_id: np.ndarray, order: np.ndarray) -> FriendGraph:
    """The same events, in another order of rows and between people of other ids."""
    events = graph.events()
    src, dst, time, code = (x.numpy()[order] for x in (events.src, events.dst, events.time, events.action))
    action = pa.DictionaryArray.from_arrays(code, list(graph.actions)).cast(pa.string())
    log = EventLog.from_arrays(new_id[src], new_id[dst], time, action=pa.chunked_array([action]))
    everyone = UserTable.from_table(pa.table({"user": new_id}), where="the users")
    return FriendGraph.from_events(log, everyone)


def judge(name: str, graph: FriendGraph) -> dict[tuple[str, str], float]:
    """Every metric of both protocols on the test part, by slice and name."""
    split = TemporalSplit.of(graph)
    model = HEURISTICS[name]().fit(graph, until=split.t_val)
    rows: list[Row] = evaluate_streaming(model, graph, split=split).rows()
    rows += evaluate_mutual(model, graph, split=split)
    return {
        (row["slice"], metric): value
        for row in rows
        for metric, value in row.items()
        if not isinstance(value, str)
    }


def largest_difference(a: dict[tuple[str, str], float], b: dict[tuple[str, str], float]) -> tuple[float, str]:
    """Over all metrics, and which it is; infinite where one side lacks a slice."""
    if a.keys() != b.keys():
        return float("inf"), "the slices differ"
    gap, (slice_name, metric) = max((abs(a[key] - b[key]), key) for key in a)
    return gap, f"{slice_name} {metric}" if gap else ""


def main() -> None:
    """Print the largest differences; exit with an error where a metric moved, or where `random` did not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness.invariance", description=__doc__)
    parser.add_argument(
        "--dataset", metavar="NAME", default="Copenhagen", help=f"one of {', '.join(DATASETS)}"
    )
    parser.add_argument("--models", nargs="+", metavar="MODEL", default=list(HEURISTICS))
    options = parser.parse_args()
    unknown = [name for name in options.models if name not in HEURISTICS]
    if unknown:
        parser.error(f"unknown model {unknown[0]!r}; the models are {', '.join(HEURISTICS)}")
    try:
        graph = load_dataset(options.dataset)
    except (DataError, KeyError) as error:
        sys.exit(f"invariance: {error.args[0]}")

    rng = np.random.default_rng(SEED)
    ids, rows = np.arange(graph.num_users), np.arange(graph.num_events)
    permuted = renumbered(graph, rng.permutation(graph.num_users), rows)
    shuffled = renumbered(graph, ids, np.lexsort((rng.random(len(rows)), graph.events().time.numpy())))
    body, worst = [], 0.0
    for name in tqdm(dict.fromkeys(options.models), unit="model", disable=None, leave=False):
        known = judge(name, graph)
        line: list[object] = [name, len(known)]
        for changed, must_hold in ((permuted, name != "random"), (shuffled, True)):
            gap, where = largest_difference(known, judge(name, changed))
            line += [f"{gap:.3g}", where]
            if must_hold:
                worst = max(worst, gap)
            elif gap == 0.0:
                sys.exit("invariance: `random` did not notice other ids, so the check proves nothing")
        body.append(line)
    header = ["model", "metrics", "other ids", "in", "shuffled ties", "in"]
    print(tabulate(body, headers=header, disable_numparse=True))
    if worst >= TOLERANCE:
        sys.exit(f"invariance: a metric moves by {worst:.3g}")
    print(f"largest difference but that of `random` under other ids: {worst:.3g}")


if __name__ == "__main__":
    main()
