"""Does a batch depend on the future of its seeds? Every loader is audited, and planted leaks are found.

python -m benchmarks.correctness.leakage [--dataset NAME] [--seeds 100000] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import HeteroSamplerOutput, NodeSamplerInput

from graphrec.data import USER, FriendGraph, Query
from graphrec.datasets import load_dataset
from graphrec.loader import Auditable, EventLoader, LeakageError, QueryLoader, TemporalSampler, audit_leakage

SEED = 0
BATCH_SIZE = 2048
NUM_NEIGHBORS = [10, 5]
NUM_NEGATIVES = 5
NUM_UNTIL = 5
"""At so many moments whole timelines are read."""


class SeesItsOwnTime(QueryLoader):
    """Leaks events at the seed's own time, as `<=` does."""

    ahead = 1

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A batch sampled `ahead` seconds too late."""
        ids, moment = out.metadata
        later = NodeSamplerInput(ids, self.query.user[ids], moment + self.ahead, USER)
        sampled = self.seeds.sampler.sample_from_nodes(later)
        sampled.metadata = out.metadata
        return super().filter_fn(sampled)


class SeesLater(SeesItsOwnTime):
    """Leaks events of the day after."""

    ahead = 86_400


class SeesTheReverse(EventLoader):
    """Leaks the reverse of the held-out edge: only the edge itself is taken out, as link splits do."""

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A batch that tells whether the target ever acts on the user."""
        batch = super().filter_fn(out)
        events, n = self.graph.events(), self.graph.num_users
        ids = batch.input_id
        batch.answered = torch.isin(self.target[ids] * n + self.query.user[ids], events.src * n + events.dst)
        return batch


class SeesNewerSecondHop(QueryLoader):
    """Leaks at the second hop: neighbors are older than the seed, their own neighbors are of any time."""

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A batch with whom the neighbors met last."""
        batch = super().filter_fn(out)
        met = batch[USER].n_id[batch.input_id.numel() :]
        never = torch.full_like(met, int(self.graph.events().time[-1]) + 1)
        sampler = TemporalSampler(self.graph, [1])
        batch.second = sampler.sample_from_nodes(
            NodeSamplerInput(torch.arange(len(met)), met, never, USER)
        ).node
        return batch


class DrawsNegativesFromTheFuture(QueryLoader):
    """Leaks by its negatives: whoever is acted upon next."""

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A batch whose negatives are later targets."""
        batch = super().filter_fn(out)
        events = self.graph.events()
        following = torch.searchsorted(events.time, batch.seed_time)[:, None] + torch.arange(NUM_NEGATIVES)
        batch.negatives = events.dst[following.clamp(max=len(events) - 1)]
        return batch


class CountsTheWholeLog(QueryLoader):
    """Leaks by a feature: how often each user is acted upon, in the whole log."""

    def filter_fn(self, out: HeteroSamplerOutput) -> HeteroData:
        """A batch with everybody's popularity."""
        batch = super().filter_fn(out)
        events, n = self.graph.events(), self.graph.num_users
        batch[USER].popularity = torch.bincount(events.dst, minlength=n)[batch[USER].n_id]
        return batch


LEAKS: tuple[type[QueryLoader] | type[EventLoader], ...] = (
    SeesItsOwnTime,
    SeesLater,
    SeesTheReverse,
    SeesNewerSecondHop,
    DrawsNegativesFromTheFuture,
    CountsTheWholeLog,
)


def query_loader(graph: FriendGraph, event_ids: Tensor, strategy: str) -> Iterable[Auditable]:
    """`QueryLoader` of the users who act."""
    yield planted(QueryLoader, graph, event_ids, strategy)


def event_loader(graph: FriendGraph, event_ids: Tensor, strategy: str) -> Iterable[Auditable]:
    """`EventLoader` of both ends."""
    yield planted(EventLoader, graph, event_ids, strategy)


def timelines(graph: FriendGraph, event_ids: Tensor, strategy: str) -> Iterable[Auditable]:
    """`QueryLoader.of_timelines` of everybody, at several moments, until as many seeds are reached."""
    users = torch.arange(graph.num_users).repeat(-(-len(event_ids) // (NUM_UNTIL * graph.num_users)))
    log = graph.events().time
    for number in range(NUM_UNTIL):
        until = int(log[len(log) * (number + 1) // (NUM_UNTIL + 1)])
        yield QueryLoader.of_timelines(graph, until=until, users=users, batch_size=BATCH_SIZE)


def planted(
    kind: type[QueryLoader] | type[EventLoader], graph: FriendGraph, event_ids: Tensor, strategy: str
) -> QueryLoader | EventLoader:
    """A loader of a kind for the seeds that events are."""
    query = Query.of_events(graph, event_ids)
    options = {
        "strategy": strategy,
        "num_negatives": NUM_NEGATIVES,
        "batch_size": BATCH_SIZE,
        "num_neighbors": NUM_NEIGHBORS,
    }
    if issubclass(kind, EventLoader):
        return kind(graph, query, graph.events().dst[event_ids], **options)  # type: ignore[arg-type]
    return kind(graph, query, **options)  # type: ignore[arg-type]


Build = Callable[[FriendGraph, Tensor, str], Iterable[Auditable]]

SOUND: dict[str, tuple[Build, str]] = {
    "QueryLoader, last": (query_loader, "last"),
    "QueryLoader, uniform": (query_loader, "uniform"),
    "EventLoader, last": (event_loader, "last"),
    "EventLoader, uniform": (event_loader, "uniform"),
    "QueryLoader.of_timelines": (timelines, "last"),
}


def main() -> None:
    """Audit the loaders and the leaks; the exit code is 1 if a loader leaks or a leak is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness.leakage", description=__doc__)
    parser.add_argument("--dataset", default="MathOverflow", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=100_000, metavar="M")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write DIR/leakage.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_dataset(options.dataset)
    generator = torch.Generator().manual_seed(SEED)
    event_ids = torch.randint(graph.num_events, (options.seeds,), generator=generator)
    print(f"{options.dataset}: {graph.num_users:,} users, {graph.num_events:,} events", flush=True)

    sound, failed = [], False
    for name, (build, strategy) in SOUND.items():
        began = time.perf_counter()
        row = {"loader": name, "num_seeds": 0, "num_moments": 0, "num_rewritten": 0, "result": "no leak"}
        try:
            for loader in build(graph, event_ids, strategy):
                moments = 2 if build is timelines else 20
                for key, value in asdict(audit_leakage(loader, num_moments=moments)).items():
                    row[key] += value
        except LeakageError as error:
            row["result"], failed = str(error), True
        row["seconds"] = round(time.perf_counter() - began, 1)
        sound.append(row)
        print(tabulate([row.values()], tablefmt="plain"), flush=True)

    leaks = []
    for kind in LEAKS:
        try:
            audit_leakage(planted(kind, graph, event_ids, "last"))
            found, failed = "MISSED", True
        except LeakageError as error:
            found = f"found: {error}"
        leaks.append({"leak": kind.__name__, "result": found})
    print("\n" + tabulate(sound, headers="keys", intfmt=","))
    print("\n" + tabulate(leaks, headers="keys"))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        results = {"dataset": options.dataset, "loaders": sound, "leaks": leaks}
        (options.out / "leakage.json").write_text(json.dumps(results, indent=1) + "\n")
        print(f"\nwritten: {options.out / 'leakage.json'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
