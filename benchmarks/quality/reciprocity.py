"""Which users reply, and what do lists for both sides gain?

python -m benchmarks.quality.reciprocity [--datasets Synthetic ...] [--models adamic_adar ...] [--seeds 0 ...]
    [--parts late answers both load] [--candidates 50] [--users 2000] [--epochs 6] [--out DIR]

`late`: on synthetic worlds, the reply rate of the initiations of the last two days, counted and corrected,
against the true probabilities; and what a model learns from such initiations alone. `answers`: the reply
model against constants, past rates and gradient boosting on the same features (needs scikit-learn). `both`:
each recommender alone, reranked by default, and with the weights that validation chose; 95 % intervals, also
of differences pair by pair. `load`: lists with half the largest exposure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from tabulate import tabulate

from graphrec.data import FriendGraph, Query, TemporalSplit
from graphrec.datasets import SyntheticFriends, load_dataset
from graphrec.evaluate import (
    Initiations,
    ReplyDelayCurve,
    Snapshot,
    SuggestionLists,
    default_reply_window,
    evaluate_snapshot,
    evaluate_snapshot_lists,
    mutual_ranks,
    rank_events,
    snapshot_query,
)
from graphrec.metrics import bootstrap_interval, calibration_error
from graphrec.models import (
    HEURISTICS,
    LEARNED,
    ReciprocalReranker,
    Recommender,
    ReplyModel,
    build,
    exposure_capped_topk,
    load_recommender,
)
from graphrec.report import reliability_diagram

NAMES = (*HEURISTICS, *LEARNED)
DAY = 86_400
SYNTHETIC = "Synthetic"
PARTS = ("late", "answers", "both", "load")
DRAWN = ("receiver's past", "reciprocity model")
MOST_NEW = 1000
"""New ties of test whose one-directional rank is taken."""

EVENTS_EACH = 30
MOMENTS = range(30, 88, 4)
"""Days of the synthetic world at which young approaches are judged."""


def graph_of(name: str, seed: int, users: int) -> FriendGraph:
    """A data set; the synthetic world follows the seed, with thirty events for each of its users."""
    if name == SYNTHETIC:
        return cast(FriendGraph, SyntheticFriends(users, EVENTS_EACH * users, seed=seed)[0])
    return load_dataset(name)


def hoped(name: str) -> str | None:
    """The act of a snapshot: by default the commonest; in the synthetic world messages open no tie."""
    return "friend_request" if name == SYNTHETIC else None


def label(name: str, model: str, seed: int, options: argparse.Namespace) -> str:
    """What a file of figures or a folder of a model is called."""
    world = f"{name}-{options.users}" if name == SYNTHETIC else name
    return f"{world}-{model}-{seed}" if model in HEURISTICS else f"{world}-{model}-{seed}-{options.epochs}"


def fitted(
    name: str, model: str, graph: FriendGraph, split: TemporalSplit, seed: int, options: argparse.Namespace
) -> Recommender:
    """A recommender by its row name, read where it was kept."""
    if model in HEURISTICS:
        return build(model).fit(graph, until=split.t_val)
    folder = None if options.out is None else options.out / label(name, model, seed, options)
    if folder is not None and folder.exists():
        return load_recommender(model, folder, graph)
    settings = {"seed": seed, "max_epochs": options.epochs, "progress": False}
    out = LEARNED[model](**settings)
    out.fit(graph, until=split.t_val, validate_until=split.t_test)
    if folder is not None:
        folder.mkdir(parents=True)
        out.save(folder)
    return out


def learned_answers(graph: FriendGraph, split: TemporalSplit, seed: int) -> ReplyModel:
    """The model of answers, trained on training, its epoch and level chosen on validation."""
    model = ReplyModel(reply_window=default_reply_window(split, "test"), seed=seed, progress=False)
    return model.fit(graph, until=split.t_val, validate_until=split.t_test)


def approaches(pairs: Initiations, chosen: np.ndarray) -> tuple[Query, torch.Tensor]:
    """The questions that first acts put, and whom they went to."""
    user, person, time, action = (
        torch.from_numpy(part[chosen])
        for part in (pairs.initiator, pairs.recipient, pairs.initiation_time, pairs.initiation_action)
    )
    return Query(user, time, action), person


def true_chances(dataset: SyntheticFriends, pairs: Initiations) -> np.ndarray:
    """The probability that each pair's first act, a request, is ever answered, [P] float64."""
    requests, size = dataset[0]["user", "friend_request", "user"], dataset[0].num_users
    key, order = (requests.edge_index[0] * size + requests.edge_index[1]).sort(stable=True)
    place = np.searchsorted(key.numpy(), pairs.initiator * size + pairs.recipient)
    chance: np.ndarray = dataset.world.reply_probability[order].numpy()[place]
    return chance


# --- Late answers -------------------------------------------------------------------------------------------


def late(seeds: Sequence[int]) -> None:
    """Print the errors of answer rates and of models under censoring."""
    wait, names = 2 * DAY, ("silence is a no", "decided ones alone", "corrected", "as it came out")
    errors: list[list[float]] = []
    learned: list[list[list[float]]] = []
    for seed in seeds:
        dataset = SyntheticFriends(5_000, 150_000, seed=seed)
        graph = dataset[0].select_actions(["friend_accept", "friend_request"])
        pairs = Initiations.of(graph)
        chance = true_chances(dataset, pairs)
        within = float(dataset.world.reply_delay_cdf(torch.tensor(wait // 3600)))
        begin, end = int(pairs.initiation_time.min()), int(pairs.initiation_time.max())
        for day in MOMENTS:
            until = begin + day * DAY
            young = (pairs.initiation_time < until) & (pairs.initiation_time >= until - wait)
            truth = float(chance[young].mean() * within)
            label = pairs.reply_labels(until=until, reply_window=wait)[young]
            corrected = ReplyDelayCurve.of(pairs, until=until, reply_window=wait).reply_rate(
                pairs, young, until=until
            )
            came = (pairs.reply_labels(until=end + wait, reply_window=wait)[young] == 1).mean()
            rates = [(label == 1).mean(), (label == 1).sum() / max(1, (label >= 0).sum()), corrected, came]
            errors.append([float(rate) / truth - 1 for rate in rates])

        learned.append(young_network(seed, wait))
    table = np.array(errors)
    body = [
        [name, f"{mean:+.1%}", f"{size:.1%}"]
        for name, mean, size in zip(names, table.mean(0), np.abs(table).mean(0), strict=True)
    ]
    print(tabulate(body, headers=["answer rate of the last two days", "mean error", "mean |error|"]), "\n")
    table = np.array(learned)  # [seeds, models, 2]
    body = [
        [name, *(f"{mean:+.1%}, {size:.1%}" for mean, size in zip(means, sizes, strict=True))]
        for name, means, sizes in zip((names[0], names[2]), table.mean(0), np.abs(table).mean(0), strict=True)
    ]
    headers = ["a model of three days: mean error, mean |error|", "of these days", "of the next four"]
    print(tabulate(body, headers=headers), "\n")


def young_network(seed: int, wait: int) -> list[list[float]]:
    """Errors of what a naive and a corrected model of three days say of these, and of the next four."""
    dataset = SyntheticFriends(20_000, 200_000, seed=seed, num_days=10)
    graph = dataset[0].select_actions(["friend_accept", "friend_request"])
    pairs = Initiations.of(graph)
    chance = true_chances(dataset, pairs) * float(dataset.world.reply_delay_cdf(torch.tensor(wait // 3600)))
    begin = int(pairs.initiation_time.min())
    until, end = begin + 3 * DAY, begin + 7 * DAY
    out = []
    for naive in (True, False):
        model = ReplyModel(reply_window=wait, naive=naive, seed=seed, progress=False).fit(graph, until=until)
        errors = []
        for days in (
            pairs.initiation_time < until,
            (pairs.initiation_time >= until) & (pairs.initiation_time < end),
        ):
            said = float(model.probability(*approaches(pairs, days)).mean())
            errors.append(said / float(chance[days].mean()) - 1)
        out.append(errors)
    return out


# --- Who answers --------------------------------------------------------------------------------------------


def answers(name: str, options: argparse.Namespace) -> None:
    """Print log loss, AUC and calibration on the approaches of test that are decided at its end; draw it."""
    body: dict[str, list[list[float]]] = {}
    number, shown = 0, {}
    for seed in options.seeds:
        graph = graph_of(name, seed, options.users)
        split, pairs = TemporalSplit.of(graph), Initiations.of(graph)
        wait = default_reply_window(split, "test")
        test = (pairs.initiation_time >= split.t_test) & (pairs.initiation_time + wait < split.end + 1)
        number = int(test.sum())
        outcome = pairs.reply_labels(until=split.end + 1, reply_window=wait)[test] == 1
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
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        picture = options.out / f"reliability-{name}.png"
        reliability_diagram(shown, f"{name}: {number:,} approaches of test").savefig(picture, dpi=120)
        print("written:", picture, "\n")


def predictions(
    graph: FriendGraph, split: TemporalSplit, pairs: Initiations, test: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """P(answer) of the approaches of test by each way to predict it."""
    model = learned_answers(graph, split, seed)
    train, val = (
        pairs.initiation_time + model.config.reply_window < split.t_val,
        pairs.initiation_time >= split.t_val,
    )
    val &= pairs.initiation_time + model.config.reply_window < split.t_test
    outcome = pairs.reply_labels(until=split.t_test, reply_window=model.config.reply_window) == 1
    rate = float(outcome[train].mean())
    query, person = approaches(pairs, test)
    out = {"constant": np.full(int(test.sum()), rate)}
    past = {
        "sender's past": model.history(query.user, query.time, "initiator"),
        "receiver's past": model.history(person, query.time, "recipient"),
    }
    for title, one in past.items():
        out[title] = ((one.num_replies + 5 * rate) / (one.num_initiations + 5)).numpy()
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

WAYS = ("alone", "default", "chosen")
FIGURES = ("mutual MRR", "reciprocated P@10", "P@10", "new MRR")


class Remembering(ReciprocalReranker):
    """Asks the other side about a query's candidate once, since weights change nothing of its answer."""

    def __init__(self, recommender: Recommender, reply_model: ReplyModel, *, num_candidates: int) -> None:
        super().__init__(recommender, reply_model, num_candidates=num_candidates)
        self._known: dict[tuple[int, ...], float] = {}

    def reverse_ranks(self, asked: Query, person: torch.Tensor) -> torch.Tensor:
        """Ranks as computed the first time."""
        parts = asked.user, asked.time, asked.action, person
        keys = list(zip(*(part.tolist() for part in parts), strict=True))
        new = torch.tensor([place for place, key in enumerate(keys) if key not in self._known]).long()
        if len(new):
            ranks = super().reverse_ranks(asked[new], person[new])
            self._known.update(zip((keys[place] for place in new), ranks.tolist(), strict=True))
        return torch.tensor([self._known[key] for key in keys], dtype=torch.float64)


def both(name: str, options: argparse.Namespace) -> None:
    """Print every recommender alone and made two-sided, and what that changes pair by pair."""
    body, chosen = [], []
    for model in options.models:
        runs = [kept(name, model, seed, options) for seed in options.seeds]
        weights = (", ".join(f"{weight:g}" for weight in run["weights"].tolist()) for run in runs)
        chosen.append(f"{model} ({'; '.join(weights)})")
        for way in WAYS:
            row = [model if way == "alone" else f"  {way}"]
            for figure in FIGURES:
                values = [run[f"{way} {figure}"].numpy() for run in runs]
                # Only the synthetic world is another one for another seed.
                groups = [
                    run[f"who {figure}"].numpy() + (name == SYNTHETIC) * 10**9 * number
                    for number, run in enumerate(runs)
                ]
                if way == "alone":
                    row.append(interval(values, groups))
                    continue
                alone = [run[f"alone {figure}"].numpy() for run in runs]
                gains = [mine - before for mine, before in zip(values, alone, strict=True)]
                row.append(f"{mean(values):.5f}, {interval(gains, groups, signed=True)}")
            body.append(row)
    print(tabulate(body, headers=[f"{name}: figure, gain", *FIGURES], disable_numparse=True))
    print("chosen (a, q):", ", ".join(chosen), "\n", flush=True)


def kept(name: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """What `judged_both` finds, read where it was written before."""
    file = f"both-{label(name, model, seed, options)}-{options.candidates}.pt"
    path = None if options.out is None else options.out / file
    if path is not None and path.exists():
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return found
    found = judged_both(name, model, seed, options)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(found, path)
    return found


def judged_both(name: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Of one recommender, each way, figures of pairs, lists and new ties of test, and whose they are."""
    began = time.process_time()
    graph = graph_of(name, seed, options.users)
    split = TemporalSplit.of(graph)
    base = fitted(name, model, graph, split, seed, options)
    took = time.process_time() - began
    two = Remembering(base, learned_answers(graph, split, seed), num_candidates=options.candidates)
    two.join(graph, until=split.t_val)
    events = new_ties(graph, split)
    found: dict[str, torch.Tensor] = {}
    for way, scorer in zip(WAYS, (base, two, two), strict=True):
        if way == "chosen":
            two.choose(start=split.t_val, end=split.t_test, action=hoped(name))
        worse, group = mutual_ranks(scorer, graph, split=split)
        snapshot = evaluate_snapshot(scorer, graph, split=split, action=hoped(name))
        share = snapshot.lists.share.numpy() * snapshot.initiated
        row, size = snapshot.lists.row.numpy(), len(snapshot.lists.user)
        ranks, actor = rank_events(scorer, graph, events, part="test", trained_until=split.t_val).select(
            "new"
        )
        values = 1 / worse, snapshot.reciprocated(), np.bincount(row, share, size) / snapshot.k, 1 / ranks
        found |= {f"{way} {figure}": torch.from_numpy(x) for figure, x in zip(FIGURES, values, strict=True)}
    who = torch.from_numpy(group), snapshot.lists.user, snapshot.lists.user, torch.from_numpy(actor)
    found |= {f"who {figure}": whose for figure, whose in zip(FIGURES, who, strict=True)}
    print(
        f"{name}, {model}, seed {seed}: fit {took:.0f} s, all {time.process_time() - began:.0f} s", flush=True
    )
    return found | {"weights": torch.tensor(two.weights)}


def new_ties(graph: FriendGraph, split: TemporalSplit) -> torch.Tensor:
    """Events of test between people without earlier contact, or a thousand of them."""
    events, size, pairs = graph.events(), graph.num_users, Initiations.of(graph)
    first = dict(zip(pairs.initiator * size + pairs.recipient, pairs.initiation_time, strict=True))
    chosen = split.event_ids("test")
    chosen = chosen[
        [
            first.get(u * size + v, first.get(v * size + u)) == moment
            for u, v, moment in zip(
                *(x[chosen].tolist() for x in (events.src, events.dst, events.time)), strict=True
            )
        ]
    ]
    lot = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))
    return chosen[lot[:MOST_NEW].sort().values]


def mean(values: Sequence[np.ndarray]) -> float:
    """Over all seeds' values; NaN is left out."""
    return float(np.nanmean(np.concatenate(values)))


def interval(values: Sequence[np.ndarray], groups: Sequence[np.ndarray], *, signed: bool = False) -> str:
    """Mean over all seeds' values with its bootstrap interval; NaN is left out."""
    value, label = np.concatenate(values), np.concatenate(groups)
    inside = np.isfinite(value)
    if not inside.any():
        return ""
    sign = "+" if signed else ""
    low, high = bootstrap_interval(value[inside], label[inside])
    return f"{value[inside].mean():{sign}.5f} [{low:{sign}.5f}, {high:{sign}.5f}]"


# --- Fair load ----------------------------------------------------------------------------------------------


def load(name: str, model: str, options: argparse.Namespace) -> None:
    """Print what half the greatest exposure costs, list by list."""
    k, candidates = 10, options.candidates
    runs: dict[str, list[Snapshot]] = {}
    for seed in options.seeds:
        graph = graph_of(name, seed, options.users)
        split = TemporalSplit.of(graph)
        base = fitted(name, model, graph, split, seed, options)
        two = ReciprocalReranker(base, learned_answers(graph, split, seed), num_candidates=candidates)
        two.join(graph, until=split.t_val)
        query = snapshot_query(graph, split=split, action=hoped(name))
        people, value, approach = two.ties(query, candidates)
        lists = {"as they are": people[:, :k]}
        most = int(torch.bincount(people[:, :k][people[:, :k] >= 0]).max()) // 2
        lists["half the exposure"] = exposure_capped_topk(people, value, k=k, max_exposure=most).people
        heaviest = float(loads(people[:, :k], people, approach, graph.num_users).max())
        lists["and half the approaches"] = exposure_capped_topk(
            people, value, k=k, max_exposure=most, initiations=approach, max_initiations=heaviest / 2
        ).people
        for title, chosen in lists.items():
            snapshot = evaluate_snapshot_lists(
                SuggestionLists.of(query.user, chosen), graph, name=title, split=split
            )
            runs.setdefault(title, []).append(snapshot)
    columns = (
        "most_suggested",
        "exposure_gini",
        "never_suggested",
        "reciprocated_precision@10",
        "precision@10",
    )
    body = []
    for title, found in runs.items():
        rows = [snapshot.row("all") for snapshot in found]
        before = [snapshot.reciprocated() for snapshot in runs["as they are"]]
        gains = [
            (snapshot.reciprocated() - old) / mean(before)
            for snapshot, old in zip(found, before, strict=True)
        ]
        groups = [
            snapshot.lists.user.numpy() + (name == SYNTHETIC) * 10**9 * number
            for number, snapshot in enumerate(found)
        ]
        means = (f"{np.mean([row[column] for row in rows]):.5g}" for column in columns)
        body.append([title, *means, interval(gains, groups, signed=True)])
    headers = [f"{name}, {model}", "most", "Gini", "never", "reciprocated P@10", "P@10", "gain, relative"]
    print(tabulate(body, headers=headers, disable_numparse=True), "\n", flush=True)


def loads(lists: torch.Tensor, people: torch.Tensor, approach: torch.Tensor, num_users: int) -> torch.Tensor:
    """Expected approaches of everybody who is on the first places of candidates."""
    size = lists.size(1)
    listed = lists >= 0
    out = torch.zeros(num_users, dtype=torch.float64)
    return out.index_add_(0, lists[listed], approach[:, :size][listed])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.reciprocity")
    parser.add_argument("--datasets", nargs="+", default=[SYNTHETIC], metavar="NAME")
    parser.add_argument("--models", nargs="+", default=["adamic_adar", "ppr"], choices=NAMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--candidates", type=int, default=50, metavar="C")
    parser.add_argument("--users", type=int, default=2000, help="of the synthetic world")
    parser.add_argument("--epochs", type=int, default=6, help="of what is learned")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for diagrams, and figures to go on from")
    options = parser.parse_args()
    if "late" in options.parts:
        late(options.seeds)
    for name in options.datasets:
        # Heuristics, and all of a real network but what is learned, know no seed.
        if "answers" in options.parts:
            answers(name, options)
        if "both" in options.parts:
            both(name, options)
        if "load" in options.parts:
            for model in options.models:
                load(name, model, options)


if __name__ == "__main__":
    main()
