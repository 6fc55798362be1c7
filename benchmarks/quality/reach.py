"""Which method finds targets beyond the neighborhood, and at what cost?

python -m benchmarks.quality.reach --dataset NAME|--users N [--part val|test] [--only ROW ...] --out DIR

Two random samples of the part's events are evaluated. *Beyond*: the target is neither a contact of the actor
nor a candidate of the neighborhood (contacts, ends of two-hop paths, users seen lately); all of these and
the actor are excluded. *Few*: the actor has fewer than 5 events so far; contacts and the actor are excluded.
Recall@50 and @200; milliseconds a query, from the query to a list of 200, in batches; and how many users,
tree nodes or centroids were scored. Models are trained before the part `val`, and their epoch is chosen on
it. At full size: --epochs 6 --epoch-batches 50 --judged 3000.

Rows: `gnn`, `kmeans` and `random` are the generator of `GenerativeSTU` alone, on codes of each kind, by
beams of several widths, and exactly where users are few; `gnn_alone` is trained without a neighborhood.
`two_tower` is the softmax over all users in the two-tower's mixture, `softmax` one that is trained without a
neighborhood. `knn` is `Nearest`; `hybrid` is what `GenerativeSTU` recommends, alone and with the nearest
users and friends of friends among its candidates. `structure` is the cosine of spectral embeddings, exact
and by a faiss inverted file of which several parts are searched. `popularity` (recent) and `last_seen` are
one list for all users at a time, which a service would keep: their milliseconds are those of computing it.
Each row runs in a process of its own and is kept in DIR; an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.speed.scale import in_own_process, measure
from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.datasets import load_dataset
from graphrec.decode import Beam, beam_search, score_all
from graphrec.metrics import bootstrap_interval, count_above, mean_rank
from graphrec.models import (
    GENERATIVE_PRESETS,
    HEURISTICS,
    TWO_TOWER_PRESETS,
    BoundCodeHead,
    BoundSoftmaxHead,
    GenerativeSTU,
    Hybrid,
    MixtureRecommender,
    MixtureScorer,
    Nearest,
    Recommender,
    TwoTower,
    generators,
)
from graphrec.retrieval import ApproximateIndex, ExactIndex, select_rows
from graphrec.temporal import Neighborhood, NeighborhoodConfig, SpectralEmbeddings, Timeline, contains
from graphrec.tokenizer import GNNRQVAE, RandomCodes, ResidualKMeans, Tokenizer, TokenizerQualityWarning

CUTS = (50, 200)
BEAMS, PROBES = (20, 50, 200, 800), (1, 4, 16, 64)
FEW = 5
QUERIES, SCORES = 256, 2**22
"""Queries searched for at once, and scores of everyone held at once."""
EXACT_USERS = 50_000
"""Up to so many, the generator scores everyone too, which tells what the beam loses."""
JUDGED_SCORES, LEAST_JUDGED = 25_000_000, 64
"""Events times users that choose the epoch, and the fewest events."""
DIM, SNAPSHOTS, MAX_ROWS = 32, 16, 10**7
"""Of the structural embeddings, as the models have them."""
SEED = 0

Pairs = tuple[Tensor, Tensor]
Figures = dict[str, Any]


@dataclass
class Cost:
    """What retrieval took: seconds, and what was scored."""

    seconds: float = 0.0
    scored: float = 0.0
    began: float = field(default=0.0, repr=False)

    def __enter__(self) -> Cost:
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.began


class Retriever(Protocol):
    """A way to find people."""

    def ranks(self, query: Query, target: Tensor, exclude: Pairs, cost: Cost) -> Tensor:
        """Where the targets of B queries, in order of time, are listed: [B] float64, inf where they are not.

        The targets are not excluded; the pairs of `exclude` are distinct.
        """


def listed(users: Tensor, target: Tensor) -> Tensor:
    """Ranks [B] of targets [B] on lists [B, k]."""
    hit = users == target[:, None]
    place = hit.int().argmax(1).double() + 1.0
    return torch.where(hit.any(1), place, torch.inf)


class Everyone:
    """By scores of all users: `score` gives them, [b, N]."""

    def __init__(self, score: Callable[[Query], Tensor], num_users: int, rows: int = QUERIES) -> None:
        self._score, self._num_users = score, num_users
        self._rows = max(1, min(rows, SCORES // num_users))

    def ranks(self, query: Query, target: Tensor, exclude: Pairs, cost: Cost) -> Tensor:
        """See `Retriever`; of equals, the mean of the best and the worst rank."""
        out = torch.empty(len(query), dtype=torch.float64)
        for rows in torch.arange(len(query)).split(self._rows):
            barred = select_rows(*exclude, rows, len(query))
            with cost:
                scores = self._score(query[rows])
                scores.index_put(barred, torch.tensor(-torch.inf, dtype=scores.dtype)).topk(
                    min(max(CUTS), self._num_users)
                )
            goal = target[rows]
            out[rows] = mean_rank(scores, goal, count_above(scores, goal), barred).double()
        cost.scored += len(query) * self._num_users
        return out


class Counted:
    """A scorer that counts the nodes it is asked for."""

    def __init__(self, scorer: MixtureScorer, cost: Cost) -> None:
        self._scorer, self._cost = scorer, cost

    def __call__(self, beam: Beam, state: Any) -> tuple[Tensor, Any]:
        """As the scorer."""
        self._cost.scored += float(self._scorer.tree.num_children[beam.node].sum())
        return self._scorer(beam, state)


class Written:
    """By the generator alone, in a beam down the tree."""

    def __init__(self, model: MixtureRecommender[BoundCodeHead], beam_size: int) -> None:
        self._model, self._beam_size = model, beam_size

    def ranks(self, query: Query, target: Tensor, exclude: Pairs, cost: Cost) -> Tensor:
        """See `Retriever`."""
        users = torch.full((len(query), max(CUTS)), -1)
        with cost:
            for rows, scorer in generators(self._model, query):
                barred = select_rows(*exclude, rows, len(query))
                users[rows] = beam_search(
                    Counted(scorer, cost),
                    scorer.tree,
                    len(rows),
                    max(CUTS),
                    beam_size=self._beam_size,
                    exclude=barred,
                )[0]
        return listed(users, target)


class Listed:
    """By what a recommender lists; what it scored is not known, but that it was not fewer than it lists."""

    def __init__(self, model: Recommender) -> None:
        self._model = model

    def ranks(self, query: Query, target: Tensor, exclude: Pairs, cost: Cost) -> Tensor:
        """See `Retriever`."""
        with cost:
            users = self._model.recommend(query, max(CUTS), exclude)[0]
        cost.scored += float((users >= 0).sum())
        return listed(users, target)


class Near:
    """By an inverted file over the structural embeddings of each moment."""

    def __init__(
        self,
        structure: SpectralEmbeddings,
        timeline: Timeline,
        probes: int,
        indices: dict[int, faiss.IndexIVFFlat],
    ) -> None:
        self._structure, self._timeline, self._probes = structure, timeline, probes
        self._indices = indices

    def _index(self, snapshot: int) -> faiss.IndexIVFFlat:
        if snapshot not in self._indices:
            vectors = self._structure.embedding[snapshot]
            order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(SEED))
            order = order[vectors[order].any(1)]  # of equals the first comes first: in no order of indices
            lists = max(1, int(4 * len(order) ** 0.5))
            flat = faiss.IndexFlatIP(vectors.size(1))
            index = faiss.IndexIVFFlat(flat, vectors.size(1), lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.min_points_per_centroid = 1  # only a warning
            index.train(vectors[order].numpy())
            index.add_with_ids(vectors[order].numpy(), order.numpy())
            self._indices[snapshot] = index
        return self._indices[snapshot]

    def ranks(self, query: Query, target: Tensor, exclude: Pairs, cost: Cost) -> Tensor:
        """See `Retriever`."""
        tick = self._timeline.tick(query.time)
        for snapshot in torch.searchsorted(self._structure.tick, tick, right=True).sub(1).unique().tolist():
            self._index(snapshot)
        users = np.full((len(query), max(CUTS)), -1)
        order = exclude[0].argsort(stable=True)
        barred = exclude[1][order].split(torch.bincount(exclude[0], minlength=len(query)).tolist())
        with cost:
            stands = self._structure.query(query.user, tick)
            snapshots, place = stands.snapshot, stands.vector
            for row, (snapshot, out) in enumerate(zip(snapshots.tolist(), barred, strict=True)):
                index, vector = self._indices[snapshot], place[row : row + 1].numpy()
                gone = faiss.IDSelectorBatch(out.numpy())
                allowed = faiss.IDSelectorNot(gone)
                search: Any = faiss.SearchParametersIVF  # whose arguments its stubs do not know
                options = search(sel=allowed, nprobe=self._probes)
                users[row] = index.search(vector, max(CUTS), params=options)[1][0]
        for snapshot in snapshots.unique().tolist():
            index, rows = self._indices[snapshot], snapshots == snapshot
            lists: Any = index.invlists
            sizes = np.array([lists.list_size(number) for number in range(index.nlist)])
            probed = index.quantizer.search(place[rows].numpy(), min(self._probes, index.nlist))[1]
            cost.scored += float(sizes[probed].sum()) + index.nlist * len(probed)
        return listed(torch.from_numpy(users), target)


@dataclass(frozen=True)
class Setting:
    """What all rows share: the graph, its split, and how models are trained."""

    graph: FriendGraph
    split: TemporalSplit
    training: dict[str, Any]

    def fitted(self, model: Any) -> Any:
        """A model trained before validation, on the first events of which its epoch is chosen."""
        size = max(LEAST_JUDGED, JUDGED_SCORES // self.graph.num_users)
        time_, first = self.graph.events().time, self.split.num_train
        last = min(first + size, first + self.split.num_val)
        end = max(int(time_[last - 1]) + 1, self.split.t_val + 1)
        return model.fit(self.graph, until=self.split.t_val, validate_until=min(end, self.split.t_test))


Rows = Iterator[tuple[str, Retriever]]


def written(setting: Setting, *, tokenizer: type[Tokenizer], preset: str) -> Rows:
    """The generator on codes of a kind."""
    kind = GenerativeSTU(tokenizer=tokenizer(seed=SEED), **GENERATIVE_PRESETS[preset], **setting.training)
    model: MixtureRecommender[BoundCodeHead] = setting.fitted(kind)
    for beam_size in BEAMS:
        yield f"beam {beam_size}", Written(model, beam_size)
    num_users = setting.graph.num_users
    if num_users <= EXACT_USERS:
        yield "everyone", Everyone(partial(everyone_written, model), num_users, rows=16)


@torch.no_grad()
def everyone_written(model: MixtureRecommender[BoundCodeHead], query: Query) -> Tensor:
    """What the generator alone gives everyone, [B, N]."""
    out = torch.full((len(query), model.graph.num_users), -torch.inf)
    for rows, scorer in generators(model, query):
        out[rows] = score_all(scorer, scorer.tree, len(rows))
    return out


def softmax(setting: Setting, **preset: Any) -> Rows:
    """The softmax over everyone."""
    model: MixtureRecommender[BoundSoftmaxHead] = setting.fitted(TwoTower(**preset, **setting.training))
    model.network.mixture = None  # nothing is looked at around a query any more
    yield "everyone", Everyone(model.score, setting.graph.num_users)


def knn(setting: Setting) -> Rows:
    """The UserID model alone: who is nearest to the user tower's vector, exactly and by faiss."""
    bare = TwoTower(components=(), features=(), **setting.training)
    model: MixtureRecommender[BoundSoftmaxHead] = setting.fitted(bare)
    yield "everyone", Listed(Nearest(model, index=ExactIndex).join(setting.graph))
    for probes in PROBES:
        index = partial(ApproximateIndex, num_probes=probes)
        yield f"faiss, {probes} parts", Listed(Nearest(model, index=index).join(setting.graph))


def hybrid(setting: Setting) -> Rows:
    """Generated, nearest and friends of friends, in the order of the generative model, mixture and all."""
    scorer: MixtureRecommender[BoundCodeHead] = setting.fitted(
        GenerativeSTU(tokenizer=ResidualKMeans(seed=SEED), **setting.training)
    )
    nearest = setting.fitted(Nearest(TwoTower(components=(), features=(), **setting.training)))
    friends = HEURISTICS["adamic_adar"]().fit(setting.graph, until=setting.split.t_val)
    yield "generated alone", Listed(scorer)
    yield "fused", Listed(Hybrid(scorer, [scorer, nearest, friends]).join(setting.graph))


def structure(setting: Setting) -> Rows:
    """Cosines of where people stand in the network."""
    timeline, num_users = Timeline.of(setting.graph), setting.graph.num_users
    start = torch.randn(num_users, DIM, generator=torch.Generator().manual_seed(SEED))
    every = max(1, setting.split.num_train // max(1, min(SNAPSHOTS, MAX_ROWS // num_users)))
    places = SpectralEmbeddings(timeline, start, every=every)

    def cosines(query: Query) -> Tensor:
        return places.query(query.user, timeline.tick(query.time)).cosines()

    yield "everyone", Everyone(cosines, num_users)
    indices: dict[int, faiss.IndexIVFFlat] = {}
    for probes in PROBES:
        yield f"faiss, {probes} parts", Near(places, timeline, probes, indices)


def rule(setting: Setting, *, name: str) -> Rows:
    """A rule of thumb."""
    model: Recommender = HEURISTICS[name]().fit(setting.graph, until=setting.split.t_val)
    yield "everyone", Everyone(model.score, setting.graph.num_users)


ROWS: dict[str, Callable[[Setting], Rows]] = {
    "gnn": partial(written, tokenizer=GNNRQVAE, preset="stu"),
    "gnn_alone": partial(written, tokenizer=GNNRQVAE, preset="stu_generator"),
    "kmeans": partial(written, tokenizer=ResidualKMeans, preset="stu"),
    "random": partial(written, tokenizer=RandomCodes, preset="stu"),
    "two_tower": partial(softmax, **TWO_TOWER_PRESETS["two_tower_mixture"]),
    "softmax": partial(softmax, components=(), features=("presence", "spectral")),
    "knn": knn,
    "hybrid": hybrid,
    "structure": structure,
    "popularity": partial(rule, name="recent_popularity"),
    "last_seen": partial(rule, name="last_seen"),
}


@dataclass(frozen=True)
class Questions:
    """Events to judge, in order of time, and who is not listed.

    Attributes:
        event: [n] int64, positions in the log.
        exclude: (row [M], user [M]) int64, distinct.
    """

    event: Tensor
    exclude: Pairs


def barred(timeline: Timeline, query: Query, *, around: bool) -> Pairs:
    """The asking users, their contacts, and with `around` the neighborhood's candidates: distinct pairs."""
    tick, num_users = timeline.tick(query.time), timeline.num_users
    row, user = timeline.contacts.before(query.user, tick)
    rows, users = [torch.arange(len(query)), row], [query.user, user]
    if around:
        people = Neighborhood.of(timeline, query.user, tick, NeighborhoodConfig())
        rows, users = [*rows, people.row], [*users, people.user]
    key = (torch.cat(rows) * num_users + torch.cat(users)).unique()
    return key // num_users, key % num_users


def questions(graph: FriendGraph, drawn: Tensor, judged: int, *, around: bool) -> tuple[Questions, float]:
    """The first `judged` of events drawn [n] whose target may be listed, and their share of those looked at.

    Without `around`, of actors with fewer than 5 acts so far alone.
    """
    timeline, chosen, looked = Timeline.of(graph), [], 0
    for ids in drawn.split(QUERIES):
        query, target = Query.of_events(graph, ids), timeline.events.dst[ids]
        kept = ~contains(barred(timeline, query, around=around), target)
        if not around:
            kept &= timeline.num_acts(query.user, timeline.tick(query.time)) < FEW
        chosen.append(ids[kept])
        looked += len(ids)
        if sum(map(len, chosen)) >= judged:
            break
    found = torch.cat(chosen)
    event = found[:judged].sort().values
    parts = [
        (query_at, barred(timeline, Query.of_events(graph, ids), around=around))
        for query_at, ids in zip(range(0, len(event), QUERIES), event.split(QUERIES), strict=False)
        if len(ids)
    ]
    row = torch.cat([at + pair[0] for at, pair in parts] or [event])
    user = torch.cat([pair[1] for _, pair in parts] or [event])
    return Questions(event, (row, user)), len(found) / max(1, looked)


def judge(
    dataset: str, sizes: dict[str, int], part: Part, row: str, judged: int, training: dict[str, Any]
) -> Figures:
    """All figures of one row, in the process that calls."""
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    graph = load_dataset(dataset, **sizes)
    split, timeline = TemporalSplit.of(graph), Timeline.of(graph)
    ids = split.event_ids(part)
    drawn = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(SEED))]
    asked: dict[str, tuple[Questions, Tensor]] = {}
    out: Figures = {"share": {}, "rows": []}
    for name, around in (("outside", True), ("few acts", False)):
        of, out["share"][name] = questions(graph, drawn, judged, around=around)
        asked[name] = of, timeline.num_acts(*_actors(timeline, graph, of.event)) < FEW
    ready: list[tuple[str, Retriever]] = []

    def prepare(folder: Path) -> Callable[[], object]:
        return lambda: ready.extend([next(rows)])

    rows = ROWS[row](Setting(graph, split, training))
    out["fit seconds"], _, _, out["fit peak GiB"] = measure(prepare, Path())
    for name, way in [*ready, *rows]:
        for where, (of, few) in asked.items():
            query, target, cost = Query.of_events(graph, of.event), timeline.events.dst[of.event], Cost()
            if not len(query):
                continue
            ranks = way.ranks(query, target, of.exclude, cost)
            slices = {where: torch.ones_like(few)} | (
                {f"{where}, few acts": few} if where == "outside" else {}
            )
            for slice_name, inside in slices.items():
                if bool(inside.any()):
                    out["rows"].append(
                        {
                            "row": row,
                            "way": name,
                            "slice": slice_name,
                            "n": int(inside.sum()),
                            **_recall(ranks[inside].numpy(), query.user[inside].numpy()),
                            "scored": cost.scored / len(query),
                            "ms": 1e3 * cost.seconds / len(query),
                        }
                    )
    return out


def _actors(timeline: Timeline, graph: FriendGraph, event: Tensor) -> tuple[Tensor, Tensor]:
    query = Query.of_events(graph, event)
    return query.user, timeline.tick(query.time)


def _recall(ranks: np.ndarray, actors: np.ndarray) -> dict[str, float]:
    out = {}
    for cut in CUTS:
        hit = (ranks <= cut).astype(np.float64)
        out[f"recall@{cut}"] = float(hit.mean())
        out[f"recall@{cut}_low"], out[f"recall@{cut}_high"] = bootstrap_interval(hit, actors)
    return out


def main() -> None:
    """Judge what is not kept yet, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.reach", description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", metavar="NAME", default="CollegeMsg")
    source.add_argument("--users", type=int, metavar="N", help="simulated, with ten events each")
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--judged", type=int, default=200, help="events of each kind, at most")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--epoch-batches", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    dataset, sizes = options.dataset, {}
    if options.users:
        dataset, sizes = "Synthetic", {"num_users": options.users, "num_events": 10 * options.users}
    training = {"max_epochs": options.epochs, "epoch_batches": options.epoch_batches, "seed": SEED}
    head = [dataset, *sizes.values(), options.part, options.judged, options.epochs, options.epoch_batches]
    name = "-".join(["reach", *map(str, head)])
    found: list[dict[str, Any]] = []
    for row in options.only:
        file = options.out / f"{name}-{row}.json"
        if not file.exists():
            what = (dataset, sizes, options.part, row, options.judged, training | {"progress": False})
            file.write_text(json.dumps(in_own_process(judge, *what), indent=1) + "\n")
            print(f"{row}: done", flush=True)
        figures = json.loads(file.read_text())
        found += figures["rows"]
    share = ", ".join(f"{kind} {value:.1%}" for kind, value in figures["share"].items())
    print(f"\n{name}; of the events looked at: {share}")
    for slice_name in dict.fromkeys(one["slice"] for one in found):
        body = [
            [
                one["row"],
                one["way"],
                *(_cell(one, cut) for cut in CUTS),
                f"{one['scored']:,.0f}",
                f"{one['ms']:.2f}",
            ]
            for one in found
            if one["slice"] == slice_name
        ]
        size = next(one["n"] for one in found if one["slice"] == slice_name)
        header = [
            f"{slice_name}, n = {size}",
            "by",
            *(f"recall@{cut}" for cut in CUTS),
            "scored",
            "ms a query",
        ]
        print(f"\n{tabulate(body, headers=header, disable_numparse=True)}")


def _cell(one: dict[str, Any], cut: int) -> str:
    low, high = one[f"recall@{cut}_low"], one[f"recall@{cut}_high"]
    return f"{one[f'recall@{cut}']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
