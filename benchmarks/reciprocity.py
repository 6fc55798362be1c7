"""Both sides must want it: late answers, who answers, lists for both sides, and a fair load.

python -m benchmarks.reciprocity [--datasets Synthetic ...] [--models adamic_adar ppr ...] [--seeds 0 ...]
    [--parts late answers both load] [--candidates 50] [--no-streaming] [--out DIR]

`late`: on synthetic worlds, the answer rate of the approaches of the last two days, counted and corrected,
against the truth; and what a model learns from such approaches alone. `answers`: the model of answers against
constants, past rates and a gradient-boosted model on the same features (needs scikit-learn). `both`: each
recommender alone, with the parameter-free combination, and with the weights that validation chose; 95 %
intervals, and of differences pair by pair. `load`: lists with half the greatest exposure.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import SyntheticFriends, load_dataset
from graphrec.evaluate import (
    Lists,
    Maturity,
    Pairs,
    Snapshot,
    evaluate_snapshot,
    evaluate_streaming,
    horizon,
    judge_lists,
    mutual_ranks,
    snapshot_query,
)
from graphrec.metrics import bootstrap_interval, calibration_error
from graphrec.models import HEURISTICS, LEARNED, Bidirectional, Reciprocity, Recommender, TwoTower, fair_load
from graphrec.report import reliability_diagram

DAY = 86_400
SYNTHETIC = "Synthetic"
PARTS = ("late", "answers", "both", "load")
DRAWN = ("receiver's past", "reciprocity model")
MOMENTS = range(30, 88, 4)
"""Days of the synthetic world at which young approaches are judged."""


def graph_of(name: str, seed: int) -> FriendGraph:
    """A data set; the synthetic world follows the seed."""
    return load_dataset(name, seed=seed) if name == SYNTHETIC else load_dataset(name)


def hoped(name: str) -> str | None:
    """The act of a snapshot: by default the commonest; in the synthetic world messages open no tie."""
    return "friend_request" if name == SYNTHETIC else None


def fitted(name: str, graph: FriendGraph, split: TemporalSplit, seed: int) -> Recommender:
    """A recommender by its row name."""
    if name in LEARNED:
        model = TwoTower(sources=LEARNED[name], seed=seed, progress=False)
        return model.fit(graph, until=split.t_val, validate_until=split.t_test)
    return HEURISTICS[name]().fit(graph, until=split.t_val)


def learned_answers(graph: FriendGraph, split: TemporalSplit, seed: int) -> Reciprocity:
    """The model of answers, trained on training, its epoch and level chosen on validation."""
    model = Reciprocity(wait=horizon(split, "test"), seed=seed, progress=False)
    return model.fit(graph, until=split.t_val, validate_until=split.t_test)


def approaches(pairs: Pairs, chosen: np.ndarray) -> tuple[Query, torch.Tensor]:
    """The questions that first acts put, and whom they went to."""
    user, person, time, action = (
        torch.from_numpy(part[chosen]) for part in (pairs.u, pairs.v, pairs.first, pairs.action)
    )
    return Query(user, time, action), person


def true_chances(dataset: SyntheticFriends, pairs: Pairs) -> np.ndarray:
    """The probability that each pair's first act, a request, is ever answered, [P] float64."""
    requests, size = dataset[0]["user", "friend_request", "user"], dataset[0].num_users
    key, order = (requests.edge_index[0] * size + requests.edge_index[1]).sort(stable=True)
    place = np.searchsorted(key.numpy(), pairs.u * size + pairs.v)
    chance: np.ndarray = dataset.world.answer_probability[order].numpy()[place]
    return chance


# --- Late answers -------------------------------------------------------------------------------------------


def late(seeds: Sequence[int]) -> None:
    """Print the errors of answer rates and of models under censoring."""
    wait, names = 2 * DAY, ("silence is a no", "decided ones alone", "corrected", "as it came out")
    errors: list[list[float]] = []
    learned: list[list[float]] = []
    for seed in seeds:
        dataset = SyntheticFriends(5_000, 150_000, seed=seed)
        graph = dataset[0].select_actions(["friend_accept", "friend_request"])
        pairs = Pairs.of(graph)
        chance = true_chances(dataset, pairs)
        within = float(dataset.world.answered_within(torch.tensor(wait // 3600)))
        begin, end = int(pairs.first.min()), int(pairs.first.max())
        for day in MOMENTS:
            until = begin + day * DAY
            young = (pairs.first < until) & (pairs.first >= until - wait)
            truth = float(chance[young].mean() * within)
            label = pairs.answered(until=until, wait=wait)[young]
            corrected = Maturity.of(pairs, until=until, wait=wait).answer_rate(pairs, young, until=until)
            came = (pairs.answered(until=end + wait, wait=wait)[young] == 1).mean()
            rates = [(label == 1).mean(), (label == 1).sum() / max(1, (label >= 0).sum()), corrected, came]
            errors.append([float(rate) / truth - 1 for rate in rates])

        # A young network: a model of its first three days, and what it says of the four days after.
        until = begin + 3 * DAY
        after = (pairs.first >= until) & (pairs.first < until + 4 * DAY)
        truth = float(chance[after].mean() * within)
        said = []
        for naive in (True, False):
            model = Reciprocity(wait=wait, naive=naive, seed=seed, progress=False).fit(graph, until=until)
            said.append(float(model.probability(*approaches(pairs, after)).mean()) / truth - 1)
        learned.append(said)
    table = np.array(errors)
    body = [
        [name, f"{mean:+.1%}", f"{size:.1%}"]
        for name, mean, size in zip(names, table.mean(0), np.abs(table).mean(0), strict=True)
    ]
    print(tabulate(body, headers=["answer rate of the last two days", "mean error", "mean |error|"]), "\n")
    body = [
        [name, f"{error:+.1%}"]
        for name, error in zip(("silence is a no", "corrected"), np.mean(learned, 0), strict=True)
    ]
    print(tabulate(body, headers=["model of the first three days, on the next four", "mean error"]), "\n")


# --- Who answers --------------------------------------------------------------------------------------------


def answers(name: str, seeds: Sequence[int], out: Path | None) -> None:
    """Print log loss, AUC and calibration on the approaches of test that are decided at its end; draw it."""
    body: dict[str, list[list[float]]] = {}
    number, shown = 0, {}
    for seed in seeds:
        graph = graph_of(name, seed)
        split, pairs = TemporalSplit.of(graph), Pairs.of(graph)
        wait = horizon(split, "test")
        test = (pairs.first >= split.t_test) & (pairs.first + wait < split.end + 1)
        number = int(test.sum())
        outcome = pairs.answered(until=split.end + 1, wait=wait)[test] == 1
        for title, chance in predictions(graph, split, pairs, test, seed).items():
            if title in DRAWN:
                shown[title] = chance, outcome
            lucky = np.random.default_rng(0).random((20, len(chance))) < chance
            luck = float(np.mean([calibration_error(chance, row) for row in lucky]))
            figures = (
                log_loss(chance, outcome),
                auc(chance, outcome),
                calibration_error(chance, outcome),
                luck,
            )
            body.setdefault(title, []).append(list(figures))
    rows = [[title, *spread(runs)] for title, runs in body.items()]
    headers = [
        f"{name}: {number:,} approaches",
        "log loss",
        "AUC",
        "calibration error",
        "of true probabilities",
    ]
    print(tabulate(rows, headers=headers), "\n", flush=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        picture = out / f"reliability-{name}.png"
        reliability_diagram(shown, f"{name}: {number:,} approaches of test").savefig(picture, dpi=120)
        print("written:", picture, "\n")


def predictions(
    graph: FriendGraph, split: TemporalSplit, pairs: Pairs, test: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """P(answer) of the approaches of test by each way to predict it."""
    model = learned_answers(graph, split, seed)
    train, val = pairs.first + model.wait < split.t_val, pairs.first >= split.t_val
    val &= pairs.first + model.wait < split.t_test
    outcome = pairs.answered(until=split.t_test, wait=model.wait) == 1
    rate = float(outcome[train].mean())
    query, person = approaches(pairs, test)
    out = {"constant": np.full(int(test.sum()), rate)}
    for title, who, side in (("sender's past", query.user, "asking"), ("receiver's past", person, "asked")):
        record = model.record(who, query.time, side)  # type: ignore[arg-type]
        out[title] = ((record.answered + 5 * rate) / (record.number + 5)).numpy()
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ImportError:
        print("scikit-learn is not installed: no gradient boosting")
    else:
        shown = {
            part: model.features(*approaches(pairs, rows)).numpy()
            for part, rows in (("train", train), ("val", val), ("test", test))
        }
        boosted = HistGradientBoostingClassifier(
            learning_rate=0.05,
            max_iter=400,
            max_leaf_nodes=15,
            l2_regularization=1.0,
            early_stopping=True,
            random_state=seed,
        ).fit(shown["train"], outcome[train], X_val=shown["val"], y_val=outcome[val])
        out["gradient boosting"] = boosted.predict_proba(shown["test"])[:, 1]
    out["reciprocity model"] = model.probability(query, person).numpy()
    return out


def log_loss(chance: np.ndarray, outcome: np.ndarray) -> float:
    """Mean negative log-likelihood."""
    chance = chance.clip(1e-6, 1 - 1e-6)
    return float(-np.where(outcome, np.log(chance), np.log1p(-chance)).mean())


def auc(chance: np.ndarray, outcome: np.ndarray) -> float:
    """How often what happened was thought likelier than what did not; ties count half."""
    ordered = np.sort(chance[~outcome])
    below, not_above = (np.searchsorted(ordered, chance[outcome], side=side) for side in ("left", "right"))
    return float((below + not_above).mean() / 2 / max(1, len(ordered)))


def spread(runs: list[list[float]]) -> list[str]:
    """Mean and standard deviation over the seeds."""
    table = np.array(runs)
    return [f"{mean:.4f} ± {sd:.4f}" for mean, sd in zip(table.mean(0), table.std(0), strict=True)]


# --- Both directions ----------------------------------------------------------------------------------------


def both(name: str, models: Sequence[str], seeds: Sequence[int], candidates: int, streaming: bool) -> None:
    """Print every recommender alone and made two-sided."""
    runs: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray, Snapshot, float]]] = {}
    chosen: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        graph = graph_of(name, seed)
        split = TemporalSplit.of(graph)
        answering = learned_answers(graph, split, seed)
        for model in models:
            base = fitted(model, graph, split, seed)
            two = Bidirectional(base, answering, num_candidates=candidates).join(graph, until=split.t_val)
            for way, scorer in (("alone", base), ("default", two), ("chosen", two)):
                if way == "chosen":
                    two.choose(start=split.t_val, end=split.t_test, action=hoped(name))
                    chosen.setdefault(model, []).append(two.weights)
                worse, group = mutual_ranks(scorer, graph, split=split)
                snapshot = evaluate_snapshot(scorer, graph, split=split, action=hoped(name))
                new = float("nan")
                if streaming:
                    ranks = evaluate_streaming(scorer, graph, split=split).of("new")[0]
                    new = float((1 / ranks).mean())
                runs.setdefault((model, way), []).append((1 / worse, group, snapshot, new))
        del graph
    body = []
    for (model, way), found in runs.items():
        alone = runs[model, "alone"]
        mutual = [run[0] for run in found]
        precision = [run[2].reciprocated() for run in found]
        row = [model if way == "alone" else f"  {way}", interval(mutual), interval(precision, digits=5)]
        if way == "alone":
            row += ["", ""]
        else:
            groups = [run[1] for run in found]
            row.append(interval([a - b[0] for a, b in zip(mutual, alone, strict=True)], groups))
            gains = [a - b[2].reciprocated() for a, b in zip(precision, alone, strict=True)]
            row.append(interval(gains, digits=5))
        one = float(np.mean([run[2].row("all")["precision@10"] for run in found]))
        body.append([*row, f"{one:.5f}", f"{np.mean([run[3] for run in found]):.4f}"])
    headers = [name, "mutual MRR", "reciprocated P@10", "gain", "gain", "P@10", "new MRR"]
    print(tabulate(body, headers=headers, disable_numparse=True))
    for model, weights in chosen.items():
        print(f"chosen for {model}:", ", ".join(f"a = {a:.2f}, b = {b:.2f}" for a, b in weights))
    print(flush=True)


def interval(
    values: Sequence[np.ndarray], groups: Sequence[np.ndarray] | None = None, *, digits: int = 4
) -> str:
    """Mean over all seeds' values with its bootstrap interval; NaN is left out."""
    labels = [np.arange(len(value)) for value in values] if groups is None else groups
    label = np.concatenate([g + 10**9 * number for number, g in enumerate(labels)])
    value = np.concatenate(values)
    kept = np.isfinite(value)
    if not kept.any():
        return ""
    low, high = bootstrap_interval(value[kept], label[kept])
    return f"{value[kept].mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


# --- Fair load ----------------------------------------------------------------------------------------------


def load(name: str, model: str, seeds: Sequence[int], candidates: int) -> None:
    """Print what half the greatest exposure costs."""
    k, body = 10, []
    for seed in seeds:
        graph = graph_of(name, seed)
        split = TemporalSplit.of(graph)
        base = fitted(model, graph, split, seed)
        two = Bidirectional(base, learned_answers(graph, split, seed), num_candidates=candidates)
        two.join(graph, until=split.t_val).choose(start=split.t_val, end=split.t_test, action=hoped(name))
        query = snapshot_query(graph, split=split, action=hoped(name))
        people, _, approach = two.ties(query, candidates)
        values = 1 / (1 + torch.arange(candidates, dtype=torch.float64)).log1p() * (people >= 0)
        before = judged(people[:, :k], graph, split, query, "as they are")
        most = int(before.exposure.max()) // 2
        fair = fair_load(people, values, k=k, most=most)
        rows = [before, judged(fair.people, graph, split, query, "half the exposure")]
        heaviest = loads(people[:, :k], people, approach, graph.num_users).max()
        fair = fair_load(
            people, values, k=k, most=most, approaches=approach, most_approaches=float(heaviest) / 2
        )
        rows.append(judged(fair.people, graph, split, query, "and half the approaches"))
        for snapshot in rows:
            row = snapshot.row("all")
            body.append(
                [
                    snapshot.name,
                    *(
                        row[key]
                        for key in (
                            "most_suggested",
                            "exposure_gini",
                            "never_suggested",
                            "reciprocated_precision@10",
                            "precision@10",
                            "ties_found@10",
                        )
                    ),
                ]
            )
    grouped: dict[str, list[list[float]]] = {}
    for title, *figures in body:
        grouped.setdefault(str(title), []).append([float(x) for x in figures])
    table = [[title, *np.mean(runs, 0)] for title, runs in grouped.items()]
    headers = [f"{name}, {model}", "most", "Gini", "never", "reciprocated P@10", "P@10", "ties found"]
    print(tabulate(table, headers=headers, floatfmt=".5g"), "\n", flush=True)


def judged(
    people: torch.Tensor, graph: FriendGraph, split: TemporalSplit, query: Query, name: str
) -> Snapshot:
    """What became of lists at the start of test."""
    return judge_lists(Lists.of(query.user, people), graph, name=name, split=split)


def loads(lists: torch.Tensor, people: torch.Tensor, approach: torch.Tensor, num_users: int) -> torch.Tensor:
    """Expected approaches of everybody who is on the first places of candidates."""
    size = lists.size(1)
    listed = lists >= 0
    out = torch.zeros(num_users, dtype=torch.float64)
    return out.index_add_(0, lists[listed], approach[:, :size][listed])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reciprocity")
    parser.add_argument("--datasets", nargs="+", default=[SYNTHETIC], metavar="NAME")
    parser.add_argument(
        "--models", nargs="+", default=["adamic_adar", "ppr"], choices=[*HEURISTICS, *LEARNED]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--candidates", type=int, default=50, metavar="C")
    parser.add_argument("--no-streaming", action="store_true", help="leave out the MRR of new ties")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for reliability diagrams")
    options = parser.parse_args()
    if "late" in options.parts:
        late(options.seeds)
    for name in options.datasets:
        # Heuristics, and all of a real network but what is learned, know no seed.
        if "answers" in options.parts:
            answers(name, options.seeds, options.out)
        if "both" in options.parts:
            both(name, options.models, options.seeds, options.candidates, not options.no_streaming)
        if "load" in options.parts:
            for model in options.models:
                load(name, model, options.seeds, options.candidates)


if __name__ == "__main__":
    main()
