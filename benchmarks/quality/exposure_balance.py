"""What do balanced lists cost, and how much more evenly do they suggest people?

python -m benchmarks.quality.exposure_balance [--dataset CollegeMsg ...] [--part test] [--trained .8]

`ListRanker` is fitted on a share of the events; at eight moments of the tenth that follows, its ten best
candidates for each user stand beside ten of fifty by `balanced_topk`, and by `exposure_capped_topk` with half
of the largest exposure. Ties and initiations found, over those of the plain lists, with 95 % intervals paired
by recipient; how evenly people are suggested; and how much of its expected ties a list keeps.
`--part test` is the test part of the usual split, with training on 80 % of events.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from graphrec.data import FriendGraph, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.evaluate import ListQuestions, ListResult, SuggestionLists, judge_lists
from graphrec.metrics import bootstrap_ratio
from graphrec.models import ListRanker, balanced_topk, exposure_capped_topk
from graphrec.temporal import Timeline
from graphrec.threads import one_intra_op_thread

K, CANDIDATES = 10, 50
ROWS_PER_BATCH = 2000
METHODS = ("plain", "balanced", "capped")
SPREAD = ("sameness", "gini", "most_suggested", "distinct")


def split_at(graph: FriendGraph, trained: float) -> TemporalSplit:
    """Train on a share of the events, validate on the tenth after it."""
    times = graph.events().time
    t_val, t_test = (int(times[int(len(times) * share)]) for share in (trained, trained + 0.1))
    first, last = torch.searchsorted(times, torch.tensor([t_val, t_test])).tolist()
    return TemporalSplit(
        t_val=t_val,
        t_test=t_test,
        num_train=first,
        num_val=last - first,
        num_test=len(times) - last,
        start=int(times[0]),
        end=int(times[-1]),
    )


def candidates(model: ListRanker, graph: FriendGraph, questions: ListQuestions) -> tuple[Tensor, Tensor]:
    """The best candidates of each question whom the user has not met, and their probabilities."""
    contacts, found = Timeline.of(graph), []
    for start in range(0, len(questions), ROWS_PER_BATCH):
        query = questions.query[start : start + ROWS_PER_BATCH]
        met = contacts.contacts.before(query.user, contacts.tick(query.time))
        found.append(model.recommend(query, CANDIDATES, exclude=met))
    people, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
    return people, scores.exp()


def choose(method: str, people: Tensor, values: Tensor) -> Tensor:
    """The lists of all users at one moment."""
    plain = people[:, :K]
    if method == "plain":
        return plain
    if method == "balanced":
        return balanced_topk(people, values, k=K)
    most = int(torch.bincount(plain[plain >= 0]).max())
    return exposure_capped_topk(people, values, k=K, max_exposure=max(1, most // 2)).people


def compare(
    graph: FriendGraph, model: ListRanker, questions: ListQuestions
) -> Iterator[tuple[str, ListResult, np.ndarray, float]]:
    """Each method, its lists, the share of its expected ties that each list keeps, and seconds a moment."""
    people, values = candidates(model, graph, questions)
    best = values[:, :K].sum(1)
    for method in METHODS:
        lists, began = torch.full((len(questions), K), -1), time.perf_counter()
        for moment in questions.moment.unique():
            here = questions.moment == moment
            lists[here] = choose(method, people[here], values[here])
        seconds = (time.perf_counter() - began) / len(questions.start)
        kept = (values * (people[:, :, None] == lists[:, None, :]).any(2)).sum(1) / best
        listed = SuggestionLists.of(questions.query.user, lists)
        yield method, judge_lists(listed, graph, questions, name=method, k=K), kept.numpy(), seconds


def found_ratio(runs: list[dict[str, ListResult]], method: str, outcome: str) -> tuple[float, float, float]:
    """Outcomes found, over those of the plain lists, in all runs; recipients of two runs are different."""

    def pooled(name: str) -> tuple[np.ndarray, np.ndarray]:
        parts = [run[name].terms(f"{outcome}_recall") for run in runs]
        values, users = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate([user + at * 2**32 for at, user in enumerate(users)])

    return bootstrap_ratio(pooled(method), pooled("plain"))


@one_intra_op_thread()
def main() -> None:
    """Print a table for each data set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.exposure_balance")
    parser.add_argument("--dataset", nargs="+", default=["CollegeMsg", "EmailEuCore", "MathOverflow"])
    parser.add_argument("--part", choices=("val", "test"), default="val")
    parser.add_argument("--trained", nargs="+", type=float, default=[0.8], metavar="SHARE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    for name in options.dataset:
        graph = load_dataset(name)
        runs: list[dict[str, ListResult]] = []
        kept: dict[str, list[np.ndarray]] = {method: [] for method in METHODS}
        seconds: dict[str, list[float]] = {method: [] for method in METHODS}
        for trained in options.trained if options.part == "val" else [0.8]:
            split = split_at(graph, trained)
            questions = ListQuestions.of(graph, part=options.part, split=split)
            for seed in options.seeds:
                model = ListRanker("tie", seed=seed).fit(graph, until=split.t_val)
                runs.append({})
                for method, result, share, spent in compare(graph, model, questions):
                    runs[-1][method] = result
                    kept[method].append(share)
                    seconds[method].append(spent)
        body = []
        for method in METHODS:
            spread = [[run[method].spread()[key] for run in runs] for key in SPREAD]
            ratios = [found_ratio(runs, method, outcome) for outcome in ("tie", "initiation")]
            share = np.concatenate(kept[method])
            body.append(
                [
                    method,
                    int(sum(run[method].wanted_found["tie"].sum() for run in runs)),
                    *(f"{ratio:.3f} [{low:.3f}, {high:.3f}]" for ratio, low, high in ratios),
                    *(f"{np.mean(values):.3f}" for values in spread),
                    f"{np.quantile(share, 0.01):.3f}",
                    f"{np.mean(seconds[method]):.1f}",
                ]
            )
        headers = [f"{name}, {options.part}", "ties", "ties found", "initiations found", *SPREAD]
        headers += ["kept, 1 in 100", "s"]
        print(tabulate(body, headers=headers, disable_numparse=True), "\n", flush=True)


if __name__ == "__main__":
    main()
