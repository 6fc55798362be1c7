"""Does the score fall without the evidence that a reason names, and more than without other events?

python -m benchmarks.correctness.reasons [--dataset Copenhagen] [--models ...] [--pairs 100] [--seed 0]

Pairs of a random user and a random candidate, at random moments of validation and test; every other
candidate is a contact of the user, or a contact of a contact, at random. For each piece of evidence: the
fall of the score without it, and the mean change without as many random other events of the past, and
without as many other events of the two users, where they have so many (three draws each). For each pair: the
fall without all of its evidence at once.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from tabulate import tabulate
from torch import Tensor

from graphrec import FriendGraph, Query, Recommender, TemporalSplit, load_dataset
from graphrec.explain import Explanation, SharedContact, explain
from graphrec.models import HEURISTICS
from graphrec.temporal import Timeline
from graphrec.tokenizer import ResidualKMeans

DRAWS = 3


def pairs(graph: FriendGraph, number: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """Random (user, candidate, time), indices and seconds, half of them near to each other."""
    generator = torch.Generator().manual_seed(seed)
    timeline, split = Timeline.of(graph), TemporalSplit.of(graph)

    def draw(values: Tensor) -> Tensor:
        return values[torch.randint(len(values), (1,), generator=generator)]

    later = timeline.events.time[timeline.events.time >= split.t_val]
    everyone = torch.arange(graph.num_users)
    found = 0
    while found < number:
        moment = draw(later)
        tick = timeline.tick(moment)
        user = draw(everyone[timeline.degree(everyone, tick) > 0])
        candidate = draw(everyone)
        if found % 2:
            candidate = draw(timeline.contacts.before(user, tick)[1])
            if torch.rand(1, generator=generator) < 0.8:
                candidate = draw(timeline.contacts.before(candidate, tick)[1])
        if user != candidate:
            yield int(user), int(candidate), int(moment)
            found += 1


class Check:
    """The score of one explained pair without some events of its past."""

    def __init__(self, recommender: Recommender, told: Explanation, seed: int) -> None:
        self._recommender, self.told = recommender, told
        graph = recommender.graph
        self._past = graph.snapshot(told.time)
        self._query = Query.of(graph, [told.user], told.time, told.action)
        self._candidate = graph.user_ids.index([told.candidate])
        self._generator = torch.Generator().manual_seed(seed)
        self.ids = torch.arange(self._past.num_events)
        src, dst = self._past.events().src, self._past.events().dst
        either = torch.cat([self._query.user, self._candidate])
        self.near = self.ids[torch.isin(src, either) | torch.isin(dst, either)]

    def fall(self, event_ids: Tensor) -> float:
        """By how much it is lower."""
        kept = torch.ones(len(self.ids), dtype=torch.bool).index_fill_(0, event_ids, False)
        world = self._recommender.on(self._past.select_events(kept))
        return self.told.score - float(world.score(self._query, self._candidate))

    def change(self, among: Tensor, evidence: Tensor) -> float | None:
        """The mean change without as many others; None where there are not so many."""
        others = among[~torch.isin(among, evidence)]
        if len(others) < len(evidence):
            return None
        draws = [torch.randperm(len(others), generator=self._generator) for _ in range(DRAWS)]
        return sum(abs(self.fall(others[order[: len(evidence)]])) for order in draws) / DRAWS


def judge(
    recommender: Recommender, asked: Sequence[tuple[int, int, int]], tokenizer: ResidualKMeans
) -> list[object]:
    """A row of the table."""
    ids, kinds = recommender.graph.user_ids, Counter[str]()
    fell: list[bool] = []
    single: list[bool] = []
    less: dict[str, list[bool]] = {"random": [], "near": []}
    seconds = []
    for seed, (user, candidate, moment) in enumerate(asked):
        began = time.perf_counter()
        one, other = ids.lookup([user, candidate])
        told = explain(recommender, one, other, moment, tokenizer=tokenizer)
        seconds.append(time.perf_counter() - began)
        check = Check(recommender, told, seed)
        pieces = [torch.tensor(piece.event_ids) for piece in told.evidence]
        kinds.update(type(piece).__name__ for piece in told.evidence)
        for piece, events in zip(told.evidence, pieces, strict=True):
            fall = check.fall(events)
            single.append(fall > 0 and (isinstance(piece, SharedContact) or fall == piece.effect))
            for name, among in (("random", check.ids), ("near", check.near)):
                change = check.change(among, events)
                if change is not None:
                    less[name].append(change < fall)
        if pieces:
            fell.append(check.fall(torch.cat(pieces).unique()) > 0)
    names = ("PastEvents", "SharedContact", "SharedPrefixGroup", "CandidateActivity")
    shares = [_share(single), _share(fell), *map(_share, less.values())]
    middle = sorted(seconds)[len(seconds) // 2]
    return [recommender.name, len(asked) - len(fell), *(kinds[name] for name in names), *shares, middle]


def _share(true: list[bool]) -> str:
    return f"{sum(true)} / {len(true)}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dataset", default="Copenhagen")
    parser.add_argument("--models", nargs="+", default=list(HEURISTICS), choices=HEURISTICS)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    graph = load_dataset(arguments.dataset)
    split = TemporalSplit.of(graph)
    tokenizer = ResidualKMeans().fit(graph, until=split.t_val)
    asked = list(pairs(graph, arguments.pairs, arguments.seed))
    rows = []
    for name in arguments.models:
        rows.append(judge(HEURISTICS[name]().fit(graph, until=split.t_val), asked, tokenizer))
        print(f"{name}: done", flush=True)
    heads = ["nothing to tell", "acts", "contacts", "prefix groups", "activity", "falls without it"]
    heads = ["model", *heads, "without all", "more than random", "more than near", "s (median)"]
    print(tabulate(rows, headers=heads, floatfmt=".2f", tablefmt="github"))


if __name__ == "__main__":
    main()
