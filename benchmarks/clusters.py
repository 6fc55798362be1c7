"""What a smaller search costs: quality against the share of users searched, in clusters and other groups.

python -m benchmarks.clusters --dataset NAME|--users N [--part val] [--only TABLE ...] [--seeds 0] --out DIR

`curve`: the scores of one fitted model, but only those count who are searched: groups in the order of their
routes until so many users are reached, and everybody in no group yet. In-model clusters are routed by what
the model says comes next; k-means of its user vectors, first codes of residual k-means over the network,
random groups, and the in-model clusters too, by the dot product of the query with the mean vector of the
group; faiss IVF by its own coarse quantiser. There are as many groups everywhere. With `pointer` the user's
contacts, with `around` all of the neighbourhood's people are searched besides, and count; a target that is
not searched ties with all others that are not, and fewer competitors may also raise a rank. `grid`: small and
large model, two-tower, clusters searched wholly and at a tenth. `tables`: nats, held out and in training, of
users and of clusters, without any neighbourhood. `balance`: of clusters, over seeds. `cost`: queries per
second, and held-out targets in the first 50, of a synthetic network.
Every figure is kept in DIR/clusters.json as soon as it is there, and a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.scale import LOG, in_own_process, write_log
from graphrec.data import FriendGraph, Part, Query, TemporalSplit, read_events
from graphrec.datasets import load_dataset
from graphrec.evaluate import evaluate_mutual, evaluate_streaming, rank_events
from graphrec.evaluate.protocol import sampled
from graphrec.models import Clustered, Recommender, TwoTower
from graphrec.nn import SLOTS, Clusters
from graphrec.sampler import Neighborhood, Timeline, run_starts
from graphrec.tokenizer import ResidualKMeans

Figures = dict[str, Any]
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SLICES = ("all", "repeat", "reply", "new")
SMALL: Figures = {"embedding_dim": 16, "hidden_channels": 16, "num_layers": 1}
LARGE: Figures = {"embedding_dim": 128, "hidden_channels": 128, "num_layers": 4}
BATCH = 64
OWN = "in-model clusters"


class Searched:
    """A scorer of given queries that knows scores of those alone who are searched."""

    def __init__(self, name: str, query: Query, scores: Tensor, searched: Tensor) -> None:
        self.name, self._scores, self._searched = name, scores, searched
        keys = zip(*(part.tolist() for part in (query.user, query.time, query.action)), strict=True)
        self._row = {key: row for row, key in enumerate(keys)}

    def score(self, query: Query) -> Tensor:
        """[B, N]; whoever is not searched is below all others."""
        keys = zip(*(part.tolist() for part in (query.user, query.time, query.action)), strict=True)
        rows = torch.tensor([self._row[key] for key in keys])
        scores = self._scores[rows]
        return torch.where(self._searched[rows], scores, scores.min() - 1.0)


def groups_of(model: Clustered, seed: int) -> dict[str, tuple[Clusters, Callable[[Tensor], Tensor] | None]]:
    """Groups by name, and what routes query vectors [B, D] to them, [B, C]; None where the model does."""
    own, network = model.clusters, model.network
    known, size = model._row > 0, network.num_clusters
    vectors = torch.cat([model._vector, model._bias[:, None]], dim=1)

    def plain(group: Tensor) -> Clusters:
        cluster = group[:, None].repeat(1, SLOTS)
        share = torch.eye(SLOTS)[0].repeat(len(group), 1)
        return Clusters(model._timeline, cluster, share, known & (group >= 0), size)

    def by_mean(clusters: Clusters) -> Callable[[Tensor], Tensor]:
        group = clusters.cluster[known, 0]
        total = torch.zeros(size, vectors.size(1)).index_add_(0, group, vectors[known])
        mean = total / torch.bincount(group, minlength=size).clamp(min=1)[:, None]
        return lambda vector: vector @ mean[:, :-1].T + mean[:, -1]

    means = faiss.Kmeans(vectors.size(1), size, niter=20, seed=seed, min_points_per_centroid=1)
    means.train(vectors[known].numpy())
    near = torch.from_numpy(means.index.search(vectors.numpy(), 1)[1][:, 0])
    coarse = faiss.IndexFlatIP(vectors.size(1))
    index = faiss.IndexIVFFlat(coarse, vectors.size(1), size, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[known].numpy())
    inverted = torch.from_numpy(coarse.search(vectors.numpy(), 1)[1][:, 0])
    centre = torch.from_numpy(coarse.reconstruct_n(0, size))
    codes = ResidualKMeans(num_codebooks=2, codebook_size=size, unique=False, seed=seed)
    codes.fit(model.graph, until=model._until)
    chance = torch.randint(size, (len(known),), generator=torch.Generator().manual_seed(seed))
    others = {
        "k-means of its vectors": plain(near),
        "STU prefixes": plain(codes.codes_before(model.graph, model._until)[:, 0]),
        "random groups": plain(chance),
    }
    return {
        OWN: (own, None),
        f"{OWN}, routed by mean": (own, by_mean(own)),
        **{name: (clusters, by_mean(clusters)) for name, clusters in others.items()},
        "faiss IVF": (plain(inverted), lambda vector: vector @ centre[:, :-1].T + centre[:, -1]),
    }


class Kept:
    """All that is needed of a model at its queries, worked out once."""

    def __init__(self, model: Clustered, event_id: Tensor) -> None:
        self.model, self.query = model, Query.of_events(model.graph, event_id)
        self.tick = model._timeline.tick(self.query.time)
        self.scores = torch.cat([model.score(part) for part in self._parts()])
        asked = [model._ask_now(part) for part in self._parts()]
        self.vector = torch.cat([one.vector for one in asked]).detach()
        with torch.no_grad():
            self.next = torch.cat([model._next_cluster(one)[0] for one in asked])
        everyone = [
            Neighborhood.of(model._timeline, part.user, model._timeline.tick(part.time), model.reach)
            for part in self._parts()
        ]
        self.around = {"off": torch.zeros_like(self.scores, dtype=torch.bool)}
        for name in ("pointer", "around"):
            mask = torch.zeros_like(self.around["off"])
            for number, around in enumerate(everyone):
                row, user = around.row, around.user
                if name == "pointer":
                    row, user = row[around.contact], user[around.contact]
                mask[row + number * BATCH, user] = True
            self.around[name] = mask

    def _parts(self) -> list[Query]:
        return [self.query[start : start + BATCH] for start in range(0, len(self.query), BATCH)]

    def searched(
        self, clusters: Clusters, route: Callable[[Tensor], Tensor] | None, share: float, besides: str
    ) -> Tensor:
        """Who is searched for each query, [n, N] bool, when that is to be a share of all."""
        log_p = self.next if route is None else route(self.vector)
        around, num_users = self.around[besides], self.scores.size(1)
        unplaced = clusters.since >= self.tick[:, None]
        size = clusters.sizes(self.tick)
        order = log_p.masked_fill(size == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
        before = size.gather(1, order).cumsum(1) - size.gather(1, order)
        left = share * num_users - around.sum(1, keepdim=True)
        if share >= 1.0:  # whoever is in two clusters counts twice, so the last ones would be left out
            left = torch.full_like(left, torch.inf)
        probed = torch.zeros_like(size, dtype=torch.bool).scatter(1, order, before < left)
        inside = probed[:, clusters.cluster[:, 0]]
        for slot in range(1, SLOTS):
            inside |= probed[:, clusters.cluster[:, slot]] & (clusters.share[:, slot] > 0)
        return (inside & ~unplaced) | around | unplaced


def mrr(kept: Kept, event_id: Tensor, part: Part, searched: Tensor) -> Figures:
    """MRR by slice, and the first slice's Hits@50, over the searched."""
    scorer = Searched("searched", kept.query, kept.scores, searched)
    ranks = rank_events(scorer, kept.model.graph, event_id, part=part, trained_until=0, progress=False)
    rows = {row["slice"]: row for row in ranks.rows()}
    out = {name: rows[name]["mrr"] for name in SLICES if name in rows}
    return out | {"hits@50": rows["all"]["hits@50"]}


def curve(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Quality by groups, share and what is searched besides."""
    split = TemporalSplit.of(graph)
    model = Clustered(seed=seed, progress=False, **sizes)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    event_id = torch.from_numpy(np.sort(sampled(split.event_ids(part).numpy(), graph.num_users)))
    kept = Kept(model, event_id)
    rows = [{"groups": "all", "share": 1.0} | mrr(kept, event_id, part, torch.ones_like(kept.around["off"]))]
    first = kept.model._timeline.first_tick < kept.tick[:, None]
    for name, (clusters, route) in groups_of(model, seed).items():
        for besides in kept.around:
            for share in SHARES:
                searched = kept.searched(clusters, route, share, besides)
                row = {"groups": name, "besides": besides, "share": share}
                rows.append(row | {"searched": float((searched & first).float().mean())})
                rows[-1] |= mrr(kept, event_id, part, searched)
    mutual = evaluate_mutual(model, graph, part=part, split=split, progress=False)
    return {"rows": rows, "mutual": mutual, "curve": model.curve, "clusters": balance_of(model)}


def balance_of(model: Clustered) -> Figures:
    """Sizes of clusters, bridging, and how many times as often as chance a contact is in the same one."""
    cluster, graph = model.assignments, model.graph
    size = torch.bincount(cluster[cluster >= 0], minlength=model.network.num_clusters).double()
    src, dst = graph.events().src, graph.events().dst
    later = graph.events().time >= model._until
    inside = (cluster[src] >= 0) & (cluster[dst] >= 0)
    share = size / size.sum()
    same = [float((cluster[src] == cluster[dst])[inside & part].double().mean()) for part in (~later, later)]
    return {
        "clusters": len(size),
        "largest / mean": float(size.max() / size.mean()),
        "dead": int((size == 0).sum()),
        "bridging": float((model.clusters.share[model._row > 0, 1] > 0).double().mean()),
        "homophily, training": same[0] / float(share.square().sum()),
        "homophily, later": same[1] / float(share.square().sum()),
        "start": "scratch" if model._first is None else "codes",
    }


def grid(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Small and large, two-tower and clusters, searched wholly and at a tenth with the people around."""
    split, out = TemporalSplit.of(graph), {}
    event_id = torch.from_numpy(np.sort(sampled(split.event_ids(part).numpy(), graph.num_users)))
    for size, arguments in {"small": SMALL, "large": LARGE}.items():
        tower = TwoTower(seed=seed, progress=False, **(sizes | arguments))
        tower.fit(graph, until=split.t_val, validate_until=split.t_test)
        rows = evaluate_streaming(tower, graph, part=part, split=split, progress=False).rows()
        out[f"{size}, user table"] = {row["slice"]: row["mrr"] for row in rows if row["slice"] in SLICES}
        model = Clustered(seed=seed, progress=False, **(sizes | arguments))
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        kept = Kept(model, event_id)
        out[f"{size}, clusters, all searched"] = mrr(
            kept, event_id, part, torch.ones_like(kept.around["off"])
        )
        for besides in ("around", "off"):
            searched = kept.searched(model.clusters, None, 0.1, besides)
            out[f"{size}, clusters, a tenth, {besides}"] = mrr(kept, event_id, part, searched)
    return out


def tables(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Nats in training and held out: of users by a user table, by clusters, and of clusters alone."""
    split = TemporalSplit.of(graph)
    out: Figures = {}
    draw = np.random.default_rng(seed)
    events = graph.events()
    size = int(torch.searchsorted(events.time, split.t_val))
    parts = {"training": np.arange(size // 10, size), "held out": split.event_ids(part).numpy()}
    parts = {name: np.sort(draw.permutation(ids)[:2000]) for name, ids in parts.items()}
    for name, kind in {"user table": TwoTower, "cluster table": Clustered}.items():
        model = kind(seed=seed, progress=False, **(sizes | {"sources": ()}))
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        for where, ids in parts.items():
            nats: dict[str, list[Tensor]] = {}
            for rows in torch.from_numpy(ids).split(BATCH):
                target, query = events.dst[rows], Query.of_events(graph, rows)
                with torch.no_grad():
                    asked = model._ask_now(query)
                    log_p = model._log_everyone(asked).gather(1, target[:, None])
                    nats.setdefault(name, []).append(-log_p[:, 0])
                    if isinstance(model, Clustered):
                        placed = model.clusters.since[target] < asked.tick
                        log_c = model._next_cluster(asked)[0].gather(1, model.clusters.cluster[target, :1])
                        nats.setdefault("next cluster", []).append(-log_c[placed, 0])
            for row, values in nats.items():
                out.setdefault(row, {})[where] = float(torch.cat(values).mean())
    return out


def balance(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Of both starts."""
    split, out = TemporalSplit.of(graph), {}
    for start in ("codes", "scratch"):
        model = Clustered(start=start, seed=seed, progress=False, **sizes)
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        score = max(row["val_score"] for row in model.curve)
        out[start] = balance_of(model) | {"val_score": score}
    return out


def cost(num_users: int, num_queries: int, seed: int, sizes: Figures) -> Figures:
    """Queries per second of exact search, of clusters and of faiss, and held-out targets in the first 50."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LOG
        in_own_process(write_log, path, 10 * num_users, num_users, np.random.default_rng(seed))
        graph = FriendGraph.from_events(read_events(path))
    split = TemporalSplit.of(graph)
    out: Figures = {}
    settings: Figures = {"start": "codes", "seed": seed, **sizes}
    model = Clustered(**settings)
    began = time.perf_counter()
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    out["fit"] = {"seconds": time.perf_counter() - began, **balance_of(model)}
    # First contacts right after one moment, all asked at it, as a service does.
    timeline, events = Timeline.of(graph), graph.events()
    tick = timeline.tick(torch.tensor(split.t_test))
    opened, actor, target = timeline.contacts.chronological
    later = ((opened >= tick) & (timeline.first_tick[actor] < tick)).nonzero().squeeze(1)
    later = later[run_starts(opened[later]) == torch.arange(len(later))][:num_queries]
    action = torch.zeros_like(later) + events.action.mode().values
    query = Query(actor[later], torch.full_like(later, split.t_test), action)
    row, met = timeline.contacts.before(query.user, tick.expand(len(query)))
    exclude = row, met

    def judge(name: str, find: Callable[[], Tensor]) -> None:
        began = time.perf_counter()
        users = find()
        seconds = time.perf_counter() - began
        hits = float((users == target[later][:, None]).any(1).float().mean())
        out[name] = {"queries_per_s": len(query) / seconds, "recall@50": hits}
        if "exact" in found:
            same = (users[:, :, None] == found["exact"][:, None, :]).any(2) & (users >= 0)
            out[name]["of the exact 50"] = float(same.float().mean())
        found[name] = users
        print(f"{name}: {out[name]}", flush=True)

    found: dict[str, Tensor] = {}
    judge("exact", lambda: Recommender.recommend(model, query, 50, exclude=exclude)[0])
    for share in (0.01, 0.1):
        model.search_share = share
        judge(f"clusters, {share:.0%}", lambda: model.recommend(query, 50, exclude=exclude)[0])
    vectors = torch.cat([model._vector, model._bias[:, None]], dim=1).numpy()
    size = model.network.num_clusters
    coarse = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(coarse, vectors.shape[1], size, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)

    def by_faiss(index: Any) -> Tensor:
        with torch.no_grad():
            asked = torch.cat(
                [model._ask_now(query[rows]).vector for rows in torch.arange(len(query)).split(BATCH)]
            )
        asked = torch.cat([asked, torch.ones(len(asked), 1)], dim=1)
        return torch.from_numpy(index.search(asked.numpy(), 50)[1])

    judge("faiss flat, vectors alone", lambda: by_faiss(flat))
    for share in (0.01, 0.1):
        index.nprobe = max(1, round(share * size))
        judge(f"faiss IVF, vectors alone, {share:.0%}", lambda: by_faiss(index))
    return out


def table(name: str, figures: Figures) -> str:
    """Figures of a table, for people."""
    if name != "curve":
        rows = [{"": row} | values for row, values in figures.items()]
        return str(tabulate(rows, headers="keys", floatfmt=".3f"))
    whole, *rows = figures["rows"]
    said = [
        {**{key: row[key] for key in ("groups", "besides", "share", "searched")}}
        | {key: row[key] / whole[key] if whole[key] else 1.0 for key in (*SLICES, "hits@50") if key in whole}
        for row in rows
    ]
    head = ", ".join(f"{key} {value:.3f}" for key, value in whole.items() if key not in ("groups", "share"))
    return f"everyone searched: {head}; of that, kept:\n" + str(
        tabulate(said, headers="keys", floatfmt=".3f")
    )


def picture(figures: Figures, title: str, path: Path) -> None:
    """Quality against share, a panel a slice."""
    from matplotlib.figure import Figure

    whole, *rows = figures["rows"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, besides in zip(axes, ("off", "pointer"), strict=True):
        for name in dict.fromkeys(row["groups"] for row in rows):
            mine = [row for row in rows if (row["groups"], row["besides"]) == (name, besides)]
            x, y = [row["searched"] for row in mine], [row["new"] / whole["new"] for row in mine]
            axis.plot(x, y, marker="o", markersize=3, label=name)
        axis.set(xscale="log", xlabel="share of users searched", title=f"new ties, pointer {besides}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("MRR, of that of everyone searched")
    axes[1].legend(fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=100)


TABLES: dict[str, Callable[[FriendGraph, Part, int, Figures], Figures]] = {
    "curve": curve,
    "grid": grid,
    "tables": tables,
    "balance": balance,
}


def run(
    name: str, graph: FriendGraph, part: Part, only: list[str], seeds: list[int], out: Path, sizes: Figures
) -> None:
    """The tables of a graph, printed and kept."""
    kept_in = out / "clusters.json"
    kept: Figures = json.loads(kept_in.read_text()) if kept_in.exists() else {}
    for which in only:
        for seed in seeds:
            key = f"{name}, {part}, {which}, seed {seed}"
            if key not in kept:
                kept[key] = TABLES[which](graph, part, seed, sizes)
                kept_in.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"\n{key}\n{table(which, kept[key])}", flush=True)
            if which == "curve":
                picture(kept[key], f"{name}, {part}", out / f"clusters-{name}-{seed}.png")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--dataset", help="a data set, for the tables of quality")
    parser.add_argument("--users", type=int, help="of a synthetic network, for cost")
    parser.add_argument("--queries", type=int, default=500, help="for cost")
    parser.add_argument("--part", default="test", choices=["val", "test"])
    parser.add_argument("--only", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", default="{}", metavar="JSON", help="arguments of the models")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes: Figures = json.loads(options.set)
    if options.dataset:
        graph = load_dataset(options.dataset)
        if not isinstance(graph, FriendGraph):
            parser.error(f"{options.dataset} is not one graph")
        run(options.dataset, graph, options.part, options.only, options.seeds, options.out, sizes)
    if options.users:
        figures = cost(options.users, options.queries, options.seeds[0], sizes)
        (options.out / f"clusters-{options.users}.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(
            tabulate([{"": row} | values for row, values in figures.items() if row != "fit"], headers="keys")
        )


if __name__ == "__main__":
    main()
