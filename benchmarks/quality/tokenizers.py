"""Are codes evenly used, do they predict later ties, and how do newcomers and refits fare?

python -m benchmarks.quality.tokenizers --dataset NAME|--users N [--part val|test] [--only ROW ...] --out DIR

All tokenizers have the same codebook sizes, are fitted on what is strictly older than the part, and
evaluated by the pairs whose first contact falls into it. `residual_vq` is the ResidualVQ of
vector-quantize-pytorch, if installed, on the embeddings of `gnn_rqvae` of the same seed. Newcomers are
encoded from the events of their first 3 ties and evaluated by later ones, relative to users present at the
fit; if there are fewer than 30 such ties (as without times), a twentieth of the users, drawn by the seed, is
left out of a fit of its own. Drift is from a fit without the last events to a refit on 5 % more. Each
tokenizer runs in a process of its own; figures are kept in DIR, and an interrupted run continues.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from benchmarks.speed.scale import in_own_process, measure
from graphrec.data import USER, EventLog, FriendGraph, TemporalSplit, hashed
from graphrec.datasets import load_dataset
from graphrec.nn import ResidualQuantizer
from graphrec.temporal import run_starts
from graphrec.tokenizer import (
    GNNRQVAE,
    MIN_SCORED_TIES,
    REFIT_EVENT_RATIO,
    CodebookFit,
    RandomCodes,
    ResidualKMeans,
    Ties,
    Tokenizer,
    TokenizerQualityWarning,
    code_drift,
    default_codebook_size,
    score_ties,
)

PEER, PASSES, BATCH = "vector_quantize_pytorch", 20, 8192
FIRST_TIES, KEPT_OUT = 3, 20
Figures = dict[str, float | None]


class Peer(GNNRQVAE):
    """Another library's codebooks: k-means on all vectors, then moving averages; a refit starts cold."""

    def quantize(self, vectors: Tensor, fit: CodebookFit) -> ResidualQuantizer:
        """Plain nearest codes."""
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            sizes = {"num_quantizers": self.num_codebooks, "codebook_size": fit.codebook_size}
            kind = importlib.import_module(PEER).ResidualVQ
            peer = kind(dim=vectors.size(1), **sizes, kmeans_init=True, threshold_ema_dead_code=2)
            for batch in (len(vectors), *[BATCH] * PASSES):
                for rows in torch.randperm(len(vectors)).split(batch):
                    peer(vectors[None, rows])
        out = _Nearest(vectors.size(1), num_codebooks=self.num_codebooks, codebook_size=fit.codebook_size)
        out.codebooks.copy_(peer.codebooks)
        return out


class _Nearest(ResidualQuantizer):
    def assign(self, vectors: Tensor, *, balanced: bool = True, keep: Tensor | None = None) -> Tensor:
        return super().assign(vectors, balanced=False)


ROWS: dict[str, Callable[..., Tokenizer]] = {
    "gnn_rqvae": GNNRQVAE,
    "residual_kmeans": ResidualKMeans,
    "random": RandomCodes,
    "residual_vq": Peer,
}


def figures(dataset: str, sizes: dict[str, int], part: str, row: str, seed: int, fit_only: bool) -> Figures:
    """All figures of one tokenizer and seed; of the part 'val', nothing later is looked at."""
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    graph = load_dataset(dataset, **sizes)
    split = TemporalSplit.of(graph)
    until = split.t_val if part == "val" else split.t_test
    graph = graph.snapshot(split.t_test) if part == "val" else graph
    events, past, ties = graph.events(), graph.snapshot(until), Ties.of(graph)
    seen = events.time < until
    known = _ends(graph, seen)
    codebook_size = default_codebook_size(int(known.sum()), 3)
    before, after = ties.between(None, until), ties.between(until, None)

    def make() -> Tokenizer:
        return ROWS[row](codebook_size=codebook_size, seed=seed)

    cold = make()
    seconds, cpu, _, peak = measure(lambda _: lambda: cold.fit(past, until=until), Path())
    fit = cold.report
    present = _judged(cold.codes_of_fit(graph), ties, before, after)
    out: Figures = {
        "users at the fit": float(known.sum()),
        "codebook size": float(codebook_size),
        "seconds of the fit": seconds,
        "CPU seconds": cpu,
        "peak GiB": peak,
        **{f"perplexity / K, level {level}": value for level, value in enumerate(fit.perplexity, 1)},
        "in collision, before": fit.colliding,
        "in collision, after": fit.resolved_colliding,
        "largest bucket, before": float(fit.largest_bucket),
        **present,
    }
    if fit_only:
        return out

    # In order of time; those of one time as drawn, pair by pair.
    order = _order(past.events().src, past.events().dst, past.events().time)
    fewer = torch.zeros(len(order), dtype=torch.bool)
    fewer[order[: int(len(order) / REFIT_EVENT_RATIO)]] = True
    old = make().fit(_picked(past, fewer), until=until)
    warm = old.refit(past, until=until)
    for name, new in {"warm": warm, "cold": cold}.items():
        out |= {f"drift, {name}, level {level}": share for level, share in enumerate(code_drift(old, new), 1)}
    verdict = _judged(warm.codes_of_fit(graph), ties, before, after)
    out |= {f"warm refit, {name}": value for name, value in verdict.items()}

    hosts = cold
    first, later = _of_newcomers(graph, ties, seen)
    if int(later.sum()) < MIN_SCORED_TIES:
        drawn = known.nonzero().squeeze(1)
        drawn = drawn[torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))]
        known[drawn[: len(drawn) // KEPT_OUT]] = False
        seen = seen & known[events.src] & known[events.dst]
        before = before & known[ties.src] & known[ties.dst]
        hosts = make().fit(_picked(graph, seen), until=until)
        present = _judged(hosts.codes_of_fit(graph), ties, before, after)
        first, later = _of_newcomers(graph, ties, seen)
    came = (_ends(graph, first) & ~known).nonzero().squeeze(1)
    codes = hosts.codes_of_fit(graph)
    codes[came] = hosts.encode(_picked(graph, seen | first), came)
    verdict = _judged(codes, ties, before, later)
    out |= {"newcomers": float(len(came)), "newcomers, ties": verdict.pop("ties")}
    for name, value in verdict.items():
        base = present[name]
        out[f"newcomers / present, {name}"] = value / base if value is not None and base else None
    return out


def _judged(codes: Tensor, ties: Ties, past: Tensor, judged: Tensor) -> Figures:
    verdict = score_ties(codes, ties, past=past, scored=judged, generator=torch.Generator().manual_seed(0))
    out: Figures = {"ties": float(verdict.num_ties)}
    for kind, auc in verdict.auc.items():
        names = [f"homophily {length}, {kind}" for length in range(1, codes.size(1) + 1)]
        values = [*verdict.homophily[kind], auc]
        for name, one in zip([*names, f"AUC, {kind}"], values, strict=True):
            out[name] = None if one is None else one.value
    return out


def _ends(graph: FriendGraph, kept: Tensor) -> Tensor:
    """Who is in some events [E] bool: [N] bool."""
    out = torch.zeros(graph.num_users, dtype=torch.bool)
    out[graph.events().src[kept]] = out[graph.events().dst[kept]] = True
    return out


def _order(src: Tensor, dst: Tensor, time: Tensor) -> Tensor:
    order = hashed(torch.minimum(src, dst), torch.maximum(src, dst)).argsort(stable=True)
    return order[time[order].argsort(stable=True)]


def _of_newcomers(graph: FriendGraph, ties: Ties, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Events [E] bool to encode newcomers by, who have none among those seen, and ties [P] bool to judge.

    Events are of ties among the first 3 of every newcomer in them, until the third; ties among nobody's.
    """
    events, new, order = graph.events(), ~_ends(graph, seen), _order(ties.src, ties.dst, ties.time)
    user, rank = torch.cat([ties.src[order], ties.dst[order]]), torch.arange(len(ties)).repeat(2)
    end = new[user].nonzero().squeeze(1)
    end = end[(user[end] * len(ties) + rank[end]).argsort()]
    user, tie = user[end], order[rank[end]]
    early = torch.arange(len(user)) - run_starts(user) < FIRST_TIES
    third = torch.full((graph.num_users,), -1).index_reduce_(0, user[early], ties.time[tie[early]], "amax")
    limit = torch.full((len(ties),), torch.iinfo(torch.int64).max)
    limit.index_reduce_(0, tie, torch.where(early, third[user], -1), "amin")
    theirs, judged = torch.zeros(2, len(ties), dtype=torch.bool)
    theirs[tie] = judged[tie] = True
    judged[tie[early]] = False
    key = [torch.stack([of.src, of.dst]).sort(dim=0).values for of in (ties, events)]
    known, place = (key[0][0] * graph.num_users + key[0][1]).sort()
    number = place[torch.searchsorted(known, key[1][0] * graph.num_users + key[1][1])]
    return theirs[number] & (events.time <= limit[number]), judged


def _picked(graph: FriendGraph, kept: Tensor) -> FriendGraph:
    """The graph with some of its events [E] bool alone, and all users."""
    log = graph.events()
    src, dst, time, action = (of[kept] for of in (log.src, log.dst, log.time, log.action))
    out = FriendGraph.from_events(EventLog(src, dst, time, action, graph.actions, graph.user_ids))
    out[USER].update(graph[USER])
    return out


def main() -> None:
    """Fit, judge and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.tokenizers", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--dataset", metavar="NAME")
    source.add_argument("--users", type=int, metavar="N", help="simulated, with ten events each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=["val", "test"], default="val")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--fit-only", action="store_true", help="leave out newcomers and refits")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    sizes = {"num_users": options.users, "num_events": 10 * options.users} if options.users else {}
    dataset = options.dataset or "Synthetic"
    name = "-".join([dataset, *map(str, sizes.values()), options.part, *["fit"] * options.fit_only])
    if "residual_vq" in options.only and importlib.util.find_spec(PEER) is None:
        print(f"no row residual_vq: {PEER} is not here (pip install vector-quantize-pytorch)")
        options.only = [row for row in options.only if row != "residual_vq"]
    columns: list[list[Figures]] = []
    for row in options.only or parser.error("there is no row left"):
        columns.append([])
        for seed in options.seeds:
            file = options.out / f"{name}-{row}-{seed}.json"
            if not file.exists():
                what = (dataset, sizes, options.part, row, seed, options.fit_only)
                file.write_text(json.dumps(in_own_process(figures, *what), indent=1) + "\n")
                print(f"{row}, seed {seed}: done", flush=True)
            columns[-1].append(json.loads(file.read_text()))
    body = [[key, *(_mean([one[key] for one in column]) for column in columns)] for key in columns[0][0]]
    print(tabulate(body, headers=[name, *options.only], disable_numparse=True))


def _mean(values: list[float | None]) -> str:
    """Mean and standard deviation over the seeds that have a figure."""
    known = [value for value in values if value is not None]
    spread = f" ± {np.std(known, ddof=1):,.3f}" if len(known) > 1 else ""
    return f"{np.mean(known):,.3f}{spread}" if known else "unknown"


if __name__ == "__main__":
    main()
