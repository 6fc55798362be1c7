"""What does generating STUs gain or lose against scoring every user, and what does each part add?

python -m benchmarks.quality.generative --dataset NAME [--part val|test] [--only ROW ...] --out DIR

Every row ranks the same events of the part. MRR by slice, means over the seeds; ratios of `stu` to the best
heuristic (in hindsight, for each slice) and to `two_tower_mixture`, with 95 % intervals that resample
actors. Then for each row mutual metrics and exposure on test; for generative ones the share of the exact top
ten that a beam finds, and the share of codes that exist when decoded without the tree. Ranks and figures are
kept in DIR; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.quality.ratios import interval, inverted, reciprocal_ranks
from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import SLICES, evaluate_mutual, evaluate_streaming
from graphrec.models import (
    GENERATIVE_PRESETS,
    HEURISTICS,
    TWO_TOWER_PRESETS,
    BoundCodeHead,
    GenerativeSTU,
    MixtureRecommender,
    TwoTower,
    unconstrained_validity,
)
from graphrec.nn import COMPONENTS
from graphrec.temporal import Timeline
from graphrec.tokenizer import GNNRQVAE, RandomCodes, ResidualKMeans

WHOLE = GENERATIVE_PRESETS["stu"]
TWO_TOWER, STU = "two_tower_mixture", "stu"
ASKED = 500
"""Queries that a beam is judged by."""

MUTUAL = ("mutual_mrr", "mutual_hits@10", "reciprocated_precision@10", "exposure_gini", "never_suggested")

ROWS: dict[str, Callable[..., MixtureRecommender[Any]]] = {
    TWO_TOWER: partial(TwoTower, **TWO_TOWER_PRESETS[TWO_TOWER]),
    STU: GenerativeSTU,
    "tiger": lambda *, seed: GenerativeSTU(
        components=(), features=(), tokenizer=ResidualKMeans(seed=seed), seed=seed
    ),
    "tiger, pointer": lambda *, seed: GenerativeSTU(
        components=COMPONENTS[:1], features=(), tokenizer=ResidualKMeans(seed=seed), seed=seed
    ),
    "no pointer": partial(GenerativeSTU, components=COMPONENTS[1:]),
    "no prefix groups": partial(
        GenerativeSTU, features=tuple(name for name in WHOLE["features"] if name != "prefix_groups")
    ),
    "generator alone": partial(GenerativeSTU, **GENERATIVE_PRESETS["stu_generator"]),
    "decoder transformer": partial(GenerativeSTU, decoder="transformer"),
    "decoder moe": partial(GenerativeSTU, decoder="moe"),
    "history mean": partial(GenerativeSTU, history="mean"),
    "codes k-means": lambda *, seed: GenerativeSTU(tokenizer=ResidualKMeans(seed=seed), seed=seed),
    "codes random": lambda *, seed: GenerativeSTU(tokenizer=RandomCodes(seed=seed), seed=seed),
    "2 levels": lambda *, seed: GenerativeSTU(tokenizer=GNNRQVAE(num_codebooks=2, seed=seed), seed=seed),
    "4 levels": lambda *, seed: GenerativeSTU(tokenizer=GNNRQVAE(num_codebooks=4, seed=seed), seed=seed),
}
MAIN = (TWO_TOWER, STU, "tiger", "tiger, pointer")


def judged(
    graph: FriendGraph, split: TemporalSplit, name: str, seed: int, part: str, file: Path
) -> tuple[np.ndarray, dict[str, float]]:
    """1 / rank on the part's events (see `inverted`), and other figures of the row."""
    figures = file.with_suffix(".json")
    if figures.exists():
        return np.load(file), json.loads(figures.read_text())
    began = time.perf_counter()
    model = ROWS[name](seed=seed)
    model.progress = False
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    out: dict[str, float] = {"fit, s": time.perf_counter() - began, "parameters": model.num_parameters}
    began = time.perf_counter()
    ranks = evaluate_streaming(model, graph, part=part, split=split, progress=False)  # type: ignore[arg-type]
    out["queries/s"] = len(ranks.event_id) / (time.perf_counter() - began)
    if part == "test":
        for row in evaluate_mutual(model, graph, split=split, progress=False):
            out |= {f"{row['slice']}, {key}": float(row[key]) for key in MUTUAL if key in row}
    if isinstance(model.head, BoundCodeHead):
        out |= searched(model, graph, ranks.event_id[:ASKED])
    np.save(file, inverted(ranks))
    figures.write_text(json.dumps(out, indent=1) + "\n")
    print(f"{name}, seed {seed}: {out['fit, s']:.0f} s, MRR {np.nanmean(np.load(file)[0]):.4f}", flush=True)
    return judged(graph, split, name, seed, part, file)


def searched(model: MixtureRecommender[BoundCodeHead], graph: FriendGraph, event_id: Any) -> dict[str, float]:
    """What a beam of 50 loses, and what would be written without the tree."""
    query = Query.of_events(graph, torch.as_tensor(event_id))
    timeline = Timeline.of(graph)
    exclude = timeline.contacts.before(query.user, timeline.tick(query.time))
    found, _ = model.recommend(query, 10, exclude=exclude)
    scores = model.score(query)
    scores[torch.arange(len(query)), query.user] = -torch.inf
    scores[exclude] = -torch.inf
    best = scores.topk(10).indices
    same = (found[:, :, None] == best[:, None]).any(2).double().mean()
    return {
        "beam's overlap": float(same),
        "valid without tree": float(unconstrained_validity(model, query).mean()),
    }


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.generative", description=__doc__)
    parser.add_argument("--dataset", default="Copenhagen", metavar="NAME")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(MAIN), metavar="ROW")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    graph = load_dataset(options.dataset)
    split = TemporalSplit.of(graph)
    found: dict[str, list[tuple[np.ndarray, dict[str, float]]]] = {}
    for name in options.only:
        found[name] = []
        for seed in options.seeds:
            file = options.out / f"{options.dataset}-{options.part}-{name}-{seed}.npy"
            found[name].append(judged(graph, split, name, seed, options.part, file))
    ranks = {name: np.stack([one for one, _ in runs]) for name, runs in found.items()}
    rules = {}
    if options.part == "test":
        rules = {
            name: reciprocal_ranks(graph, split, name, 0, options.out / f"{options.dataset}-{name}-0.npy")
            for name in HEURISTICS
            if name != "random"
        }
    actor = evaluate_streaming(
        HEURISTICS["random"]().fit(graph, until=split.t_val),
        graph,
        part=options.part,
        split=split,
        progress=False,
    ).actor
    body = []
    for number, slice_name in enumerate(SLICES):
        inside = ~np.isnan(next(iter(ranks.values()))[0, number])
        if not inside.any():
            continue
        mean = {name: one[:, number, inside].mean(0) for name, one in ranks.items()}
        row: list[Any] = [slice_name, int(inside.sum())]
        row += [_spread(one[:, number, inside].mean(1)) for one in ranks.values()]
        others = {TWO_TOWER: mean[TWO_TOWER]} if TWO_TOWER in mean and STU in mean else {}
        if rules and STU in mean:
            best = max(rules, key=lambda name: float(rules[name][number][inside].mean()))
            others = {best: rules[best][number][inside], **others}
        for name, other in others.items():
            low, high = interval(mean[STU], other, actor[inside])
            row.append(f"{mean[STU].mean() / other.mean():.2f} [{low:.2f}, {high:.2f}] of {name}")
        body.append(row)
    header = [f"{options.dataset}, {options.part} MRR", "n", *ranks]
    print(tabulate(body, headers=header, disable_numparse=True))
    keys = list(dict.fromkeys(key for runs in found.values() for _, one in runs for key in one))
    body = [
        [key, *(_spread([one[key] for _, one in runs if key in one]) for runs in found.values())]
        for key in keys
    ]
    print(tabulate(body, headers=["", *found], disable_numparse=True))


def _spread(values: Any) -> str:
    """Mean and standard deviation over the seeds."""
    if not len(values):
        return ""
    spread = f" ± {np.std(values, ddof=1):,.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):,.3f}{spread}"


if __name__ == "__main__":
    main()
