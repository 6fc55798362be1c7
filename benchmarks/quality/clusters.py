"""How much quality is kept when only some clusters of users are searched?

python -m benchmarks.quality.clusters --dataset NAME|--users N [--part val] [--only TABLE ...] --out DIR

`curve`: with one fitted model, MRR when groups of users are searched in the order of their routing score, up
to a share of all users; a target that is not searched counts 0. All kinds of groups are equal in number.
In-model clusters are routed by the model's prediction of the next cluster; k-means of its user vectors,
first codes of residual k-means over the network, and random groups by the dot product of the query and the
group's mean vector; faiss IVF by its own coarse quantizer. Where users around are weighted in, as for
in-model clusters, groups come in the order of their likeliest member, among users around, whom the model
scores, and the others. With `pointer` the user's contacts, with `around` the whole neighborhood is searched
besides, and counts; users in no group yet are always searched. Fewer competitors may also raise a rank. Also
sizes and homophily of the clusters, their members, and mutual metrics. `grid`: small and large model,
two-tower, clusters searched wholly and at a tenth. `tables`: loss in nats, held out and in training, of
users and of clusters, without a neighborhood. `balance`: of clusters. `cost`: queries per second, and
recall@50 of held-out targets, on a synthetic network. Figures are kept in DIR/clusters.json; an interrupted
run continues.
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

from benchmarks.quality.smaller_search import (
    BATCH,
    BESIDES,
    OWN,
    SLICES,
    Groups,
    Kept,
    groups_of,
    judged_events,
)
from benchmarks.speed.scale import LOG, in_own_process, write_log
from graphrec.data import FriendGraph, Part, Query, TemporalSplit, read_events
from graphrec.datasets import load_dataset
from graphrec.evaluate import evaluate_mutual, evaluate_streaming
from graphrec.models import BoundClusterHead, Clustered, MixtureRecommender, Recommender, TwoTower
from graphrec.temporal import Timeline, run_starts

Figures = dict[str, Any]
MUTUAL = ("slice", "n", "mutual_mrr", "mutual_hits@10", "reciprocated_precision@10", "exposure_gini")
SHARES = (0.02, 0.05, 0.1, 0.2, 0.5)
SMALL: Figures = {"embedding_dim": 16, "hidden_channels": 16, "num_layers": 1}
LARGE: Figures = {"embedding_dim": 128, "hidden_channels": 128, "num_layers": 4}


def curve(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Quality by groups, share and what is searched besides."""
    split = TemporalSplit.of(graph)
    model = Clustered(seed=seed, progress=False, **sizes)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    kept = Kept(model, judged_events(graph, part, split))
    rows = [{"groups": "all", "share": 1.0} | kept.whole()]
    for name, groups in groups_of(model, seed).items():
        for besides in BESIDES:
            for share in SHARES:
                row = {"groups": name, "besides": besides, "share": share}
                rows.append(row | kept.searched(groups, share, besides))
    mutual = evaluate_mutual(model, graph, part=part, split=split, progress=False)
    return {
        "rows": rows,
        "mutual": mutual,
        "curve": model.curve,
        "clusters": balance_of(model),
        "made of": made_of(model),
    }


def balance_of(model: MixtureRecommender[BoundClusterHead]) -> Figures:
    """Sizes of clusters, bridging, and how many times as often as chance a contact is in the same one."""
    cluster, graph = model.head.assignments, model.graph
    size = torch.bincount(cluster[cluster >= 0], minlength=model.head.table.num_clusters).double()
    src, dst = graph.events().src, graph.events().dst
    later = graph.events().time >= model.view.period.until
    inside = (cluster[src] >= 0) & (cluster[dst] >= 0)
    share = size / size.sum()
    same = [float((cluster[src] == cluster[dst])[inside & part].double().mean()) for part in (~later, later)]
    return {
        "clusters": len(size),
        "largest / mean": float(size.max() / size.mean()),
        "dead": int((size == 0).sum()),
        "bridging": float((model.head.index.share[model.view.row > 0, 1] > 0).double().mean()),
        "homophily, training": same[0] / float(share.square().sum()),
        "homophily, later": same[1] / float(share.square().sum()),
        "start": model.head.head.config.start,
    }


def grid(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Small and large, two-tower and clusters, searched wholly and at a tenth with the people around."""
    split, out = TemporalSplit.of(graph), {}
    for size, arguments in {"small": SMALL, "large": LARGE}.items():
        tower = TwoTower(seed=seed, progress=False, **(sizes | arguments))
        tower.fit(graph, until=split.t_val, validate_until=split.t_test)
        rows = evaluate_streaming(tower, graph, part=part, split=split, progress=False).rows()
        out[f"{size}, user table"] = {row["slice"]: row["mrr"] for row in rows if row["slice"] in SLICES}
        model = Clustered(seed=seed, progress=False, **(sizes | arguments))
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        kept = Kept(model, judged_events(graph, part, split))
        out[f"{size}, clusters, all searched"] = kept.whole()
        groups = Groups(model.head.index, lambda kept: kept.log_next, weighs=True)
        for besides in BESIDES:
            out[f"{size}, clusters, a tenth, {besides}"] = kept.searched(groups, 0.1, besides)
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
    kinds: dict[str, Callable[..., MixtureRecommender[Any]]] = {
        "user table": TwoTower,
        "cluster table": Clustered,
    }
    for name, kind in kinds.items():
        model = kind(seed=seed, progress=False, **(sizes | {"components": (), "features": ()}))
        model.fit(graph, until=split.t_val, validate_until=split.t_test)
        for where, ids in parts.items():
            nats: dict[str, list[Tensor]] = {}
            for rows in torch.from_numpy(ids).split(BATCH):
                target, query = events.dst[rows], Query.of_events(graph, rows)
                with torch.no_grad():
                    asked = model.encode_query(query)
                    log_p = model.head.log_probs(asked).gather(1, target[:, None])
                    nats.setdefault(name, []).append(-log_p[:, 0])
                    if isinstance(model.head, BoundClusterHead):
                        index = model.head.index
                        placed = index.since[target] < asked.tick
                        log_c = model.head.next_cluster(asked)[0].gather(1, index.cluster[target, :1])
                        nats.setdefault("next cluster", []).append(-log_c[placed, 0])
            for row, values in nats.items():
                out.setdefault(row, {})[where] = float(torch.cat(values).mean())
    return out


def balance(graph: FriendGraph, part: Part, seed: int, sizes: Figures) -> Figures:
    """Of clusters, whatever the part."""
    split = TemporalSplit.of(graph)
    model = Clustered(seed=seed, progress=False, **sizes)
    model.fit(graph, until=split.t_val, validate_until=split.t_test)
    return {"": balance_of(model) | {"val_score": max(row["val_score"] for row in model.curve)}}


def made_of(model: MixtureRecommender[BoundClusterHead]) -> list[Figures]:
    """What each cluster is made of, the largest first: members as of the fit, and their acts in training."""
    cluster, events, timeline = model.head.assignments, model.graph.events(), model.view.timeline
    number = model.head.table.num_clusters
    past = (events.time < model.view.period.until) & (cluster[events.src] >= 0) & (cluster[events.dst] >= 0)
    src, dst = cluster[events.src[past]], cluster[events.dst[past]]
    size = torch.bincount(cluster[cluster >= 0], minlength=number)
    table = torch.bincount(src * number + dst, minlength=number * number).view(number, number).double()
    out, into = table.sum(1), table.sum(0)
    chance = into / into.sum()
    elsewhere = table - table.diagonal().diag()
    tick = timeline.tick(torch.tensor(model.view.period.until)).expand(len(cluster))
    acts = timeline.num_acts(torch.arange(len(cluster)), tick).double()
    began = (timeline.events.time[0], model.view.period.until)
    first = timeline.instants[timeline.first_tick.clamp(max=len(timeline.instants) - 1)]
    age = (first - began[0]).double() / (began[1] - began[0])
    rows = []
    for one in size.argsort(descending=True, stable=True)[: int((size > 0).sum())].tolist():
        inside = cluster == one
        rows.append(
            {
                "cluster": one,
                "members": int(size[one]),
                "acts of the median member": float(acts[inside].median()),
                "first seen, of training": float(age[inside].median()),
                "acts inside": float(table[one, one] / out[one].clamp(min=1)),
                "by chance": float(chance[one]),
                "next most into": int(elsewhere[one].argmax()),
                "acts there": float(elsewhere[one].max() / out[one].clamp(min=1)),
            }
        )
    return rows


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
        model.head.probe_fraction = share
        judge(f"clusters, {share:.0%}", lambda: model.recommend(query, 50, exclude=exclude)[0])
    vectors = torch.cat([model.head.vectors, model.head.biases[:, None]], dim=1).numpy()
    size = model.head.table.num_clusters
    coarse = faiss.IndexFlatIP(vectors.shape[1])
    index = faiss.IndexIVFFlat(coarse, vectors.shape[1], size, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)

    def by_faiss(index: Any) -> Tensor:
        with torch.no_grad():
            asked = torch.cat(
                [model.encode_query(query[rows]).vector for rows in torch.arange(len(query)).split(BATCH)]
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
    mutual = [{key: row[key] for key in MUTUAL if key in row} for row in figures["mutual"]]
    parts = (said, [figures["clusters"]], figures["made of"][:10], mutual)
    tables = [str(tabulate(part, headers="keys", floatfmt=".3f")) for part in parts]
    return f"everyone searched: {head}; of that, kept:\n" + "\n\n".join(tables)


def picture(figures: Figures, title: str, path: Path) -> None:
    """Quality against the share of users searched: everything and new ties, pointer off and on."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, PercentFormatter

    whole, *rows = figures["rows"]
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    names = [name for name in dict.fromkeys(row["groups"] for row in rows) if "alone" not in name]
    colors = {name: f"C{number}" for number, name in enumerate(name for name in names if "," not in name)}
    for line, which in zip(axes, ("all", "new"), strict=True):
        for axis, besides in zip(line, ("off", "pointer"), strict=True):
            for name in names:
                mine = [row for row in rows if (row["groups"], row["besides"]) == (name, besides)]
                x, y = [row["searched"] for row in mine], [row[which] / whole[which] for row in mine]
                look: Figures = {"linewidth": 3, "zorder": 5} if name == OWN else {"linewidth": 1.2}
                look |= {"linestyle": "--" if "," in name else "-", "color": colors[name.split(",")[0]]}
                axis.plot(x, y, marker=".", label=name, **look)
            axis.axhline(0.95, color="black", linewidth=0.5)
            axis.set(xscale="log", title=f"{which}, pointer {'on' if besides == 'pointer' else 'off'}")
            axis.set_xticks(SHARES)
            axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
        line[0].set_ylabel("MRR, of that of everyone searched")
    for axis in axes[1]:
        axis.set_xlabel("users searched")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.suptitle(title)
    figure.savefig(path, dpi=80)


def picture_of_clusters(rows: list[Figures], title: str, path: Path) -> None:
    """Sizes, homophily, and how active the members are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    sizes, homophily, kinds = figure.subplots(1, 3)
    size = np.array([row["members"] for row in rows])
    inside = np.array([row["acts inside"] for row in rows])
    acts = np.array([row["acts of the median member"] for row in rows])
    age = np.array([row["first seen, of training"] for row in rows])
    sizes.bar(np.arange(len(size)), size, width=1.0)
    sizes.set(xlabel="clusters, by size", ylabel="members")
    homophily.plot(np.sort(inside)[::-1], label="inside")
    homophily.plot(np.sort([row["by chance"] for row in rows])[::-1], label="by chance")
    homophily.set(xlabel="clusters, by share inside", ylabel="share of acts that stay inside")
    homophily.legend()
    points = kinds.scatter(np.maximum(acts, 0.5), inside, s=4 * size, c=age, alpha=0.7)
    kinds.set(xscale="log", xlabel="acts of the median member", ylabel="share of acts that stay inside")
    figure.colorbar(points, ax=kinds, label="median member first seen, of training")
    figure.suptitle(title)
    figure.savefig(path, dpi=80)


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
                title = f"{name}, {part}"
                picture(kept[key], title, out / f"clusters-{name}-{seed}.png")
                picture_of_clusters(kept[key]["made of"], title, out / f"clusters-{name}-{seed}-made-of.png")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.clusters", description=__doc__)
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
