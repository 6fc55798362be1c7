"""Which targets are still found when only some groups of users are searched, by groups, routes and share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Part, Query, TemporalSplit
from graphrec.evaluate import SAMPLE_SIZE
from graphrec.models import BoundClusterHead, ClusterIndex, MixtureRecommender
from graphrec.nn import CLUSTERS_PER_USER
from graphrec.temporal import contains
from graphrec.tokenizer import ResidualKMeans, TokenizerQualityWarning

SLICES = ("all", "repeat", "reply", "new")
BATCH = 64
OWN = "in-model clusters"

BESIDES = {"off": 3, "pointer": 2, "around": 1}
"""Which of those around are proposed besides, by their kind in `Kept`."""


def judged_events(graph: FriendGraph, part: Part, split: TemporalSplit) -> Tensor:
    """Those of the protocol, or 6,000 of them."""
    ids = split.event_ids(part).numpy()
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(ids)[:SAMPLE_SIZE]))


class Kept:
    """What stands above the targets of events in a model's ranking, worked out once for all smaller searches.

    Attributes:
        query, tick, target: [n], of the events.
        slices: [n] bool each.
        above: who scores as high as the target, or higher.
        around: the people around.
        log_next: [n, C], the model's next cluster among all beyond those around.
        vector: [n, D].
    """

    def __init__(self, model: MixtureRecommender[BoundClusterHead], event_id: Tensor) -> None:
        self.model, self.query = model, Query.of_events(model.graph, event_id)
        self.tick, self.target = (
            model.view.timeline.tick(self.query.time),
            model.view.timeline.events.dst[event_id],
        )
        parts = [self._part(rows) for rows in torch.arange(len(event_id)).split(BATCH)]
        of = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self.log_next, self.log_beyond, self.vector = of["next"], of["beyond"], of["vector"]
        self.slices = {name: of[name] for name in SLICES[1:]}
        self.above = {name: of[f"above_{name}"] for name in ("row", "user", "weight", "own", "kind")}
        self.around = {name: of[f"around_{name}"] for name in ("row", "user", "p", "own", "kind")}
        self.goal_kind = of["goal_kind"]

    def _part(self, rows: Tensor) -> dict[str, Tensor]:
        model, timeline, tick, goal = self.model, self.model.view.timeline, self.tick[rows], self.target[rows]
        query, everyone = self.query[rows], torch.arange(len(rows))
        scores = model.score(query)
        with torch.no_grad():
            asked = model.encode_query(query)
            log_next = model.head.next_cluster(asked)[0]
        approached, met = (pairs.before(query.user, tick) for pairs in (timeline.acted_on, timeline.contacts))
        repeat = contains(approached, goal)
        reply = contains(met, goal) & ~repeat
        new = ~repeat & ~reply
        kind = torch.zeros(scores.shape, dtype=torch.int8)  # 2: contacts around, 1: others around
        p, beyond = torch.zeros(0), torch.ones(len(rows))
        if (around := asked.neighbors) is not None:
            p, beyond = around.shares()
            kind[around.row, around.user] = 1 + around.contact.to(torch.int8)
        row, user = kind.nonzero(as_tuple=True)
        barred = torch.zeros(scores.shape, dtype=torch.bool)
        for people, inside in ((approached, reply), (met, new)):
            barred[people[0], people[1]] |= inside[people[0]]
        own = scores.gather(1, goal[:, None])
        high = scores >= own
        high[everyone, goal] = high[everyone, query.user] = barred[everyone, goal] = False
        at, who = high.nonzero(as_tuple=True)
        return {
            "next": log_next,
            "beyond": beyond.log(),
            "vector": asked.vector.detach(),
            "repeat": repeat,
            "reply": reply,
            "new": new,
            "goal_kind": kind[everyone, goal],
            "above_row": rows[at],
            "above_user": who,
            "above_kind": kind[at, who],
            "above_weight": torch.where(scores[at, who] > own[at, 0], 1.0, 0.5),
            "above_own": ~barred[at, who],
            "around_row": rows[row],
            "around_user": user,
            "around_kind": kind[row, user],
            "around_p": p,
            "around_own": ~barred[row, user],
        }

    def whole(self) -> dict[str, float]:
        """MRR by slice, and Hits@50 of all, when everyone is searched."""
        everyone = torch.ones_like(self.above["row"], dtype=torch.bool)
        return self._judged([(everyone, torch.ones_like(self.target, dtype=torch.bool))] * 2)

    def searched(self, groups: Groups, share: float, besides: str) -> dict[str, float]:
        """The same when at most a share of the users is; whoever is not searched is not found."""
        found, total = [], []
        for own in (False, True):
            probed, size = self._probed(groups, share, besides, own)
            parts = (
                (self.above["row"], self.above["user"], self.above["kind"]),
                (
                    torch.arange(len(self.target)),
                    self.target,
                    self.goal_kind,
                ),
            )
            inside = [
                self._inside(groups.clusters, probed, row, user) | (kind >= BESIDES[besides])
                for row, user, kind in parts
            ]
            found.append((inside[0], inside[1]))
            total.append(float(size.mean()) / self.model.graph.num_users)
        return {"searched": max(total)} | self._judged(found)

    def _judged(self, found: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        reciprocal = []
        for (above, goal), counts in zip(found, (torch.tensor(True), self.above["own"]), strict=True):
            weight = self.above["weight"] * above * counts
            rank = torch.ones(len(goal)).index_add_(0, self.above["row"], weight)
            reciprocal.append(torch.where(goal, 1.0 / rank, 0.0))
        out = {"all": float(reciprocal[0].mean())}
        for name, inside in self.slices.items():
            if bool(inside.any()):
                out[name] = float(reciprocal[1][inside].mean())
        return out | {"hits@50": float((reciprocal[0] >= 1 / 50).float().mean())}

    def _probed(self, groups: Groups, share: float, besides: str, own: bool) -> tuple[Tensor, Tensor]:
        """Which groups are searched [n, C], and how many people are in all [n]."""
        clusters = groups.clusters
        size = clusters.sizes(self.tick)
        log_p = groups.route(self, besides, own)
        order = log_p.masked_fill(size == 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
        row, user, kind = (self.around[name] for name in ("row", "user", "kind"))
        placed = clusters.since[user] < self.tick[row]
        proposed = placed & (kind >= BESIDES[besides])
        row, user = row[proposed], user[proposed]
        seen = torch.searchsorted(self.model.view.timeline.first_tick.sort().values, self.tick)
        lobby = seen - clusters.num_assigned(self.tick)
        least = lobby.float().index_add_(0, row, torch.ones(len(row)))
        for slot in range(CLUSTERS_PER_USER):  # who is proposed anyway does not count again in a group
            at = row * clusters.num_clusters + clusters.cluster[user, slot]
            size.view(-1).index_add_(0, at, -(clusters.share[user, slot] > 0).float())
        left = share * self.model.graph.num_users - least
        if share >= 1.0:  # whoever is in two clusters counts twice, so the last ones would be left out
            left = torch.full_like(left, torch.inf)
        fits = size.gather(1, order).cumsum(1) <= left[:, None]
        probed = torch.zeros_like(size, dtype=torch.bool).scatter(1, order, fits)
        return probed, least + (size * probed).sum(1)

    def _inside(self, clusters: ClusterIndex, probed: Tensor, row: Tensor, user: Tensor) -> Tensor:
        """Whether people [M] of rows [M] are in a group that is searched, or in none."""
        out = clusters.since[user] >= self.tick[row]
        for slot in range(CLUSTERS_PER_USER):
            out |= probed[row, clusters.cluster[user, slot]] & (clusters.share[user, slot] > 0)
        return out


@dataclass(frozen=True)
class Groups:
    """Groups of people, and how queries are routed to them: by log-probabilities of groups [n, C], `log_p`.

    Where `weighs` says so, groups come in the order of their likeliest member instead: of those around, but
    who is proposed anyway or is no candidate of the event's slice, or of the others, over whom what `log_p`
    leaves to the group is spread evenly.
    """

    clusters: ClusterIndex
    log_p: Callable[[Kept], Tensor]
    weighs: bool

    def route(self, kept: Kept, besides: str, own: bool) -> Tensor:
        """Of groups, [n, C], higher first; `own` is for candidates of the event's own slice."""
        log_p, around = self.log_p(kept), kept.around
        if not self.weighs:
            return log_p
        row, user = around["row"], around["user"]
        counts = (around["kind"] < BESIDES[besides]) & (self.clusters.since[user] < kept.tick[row])
        p = around["p"] * (counts & around["own"] if own else counts)
        size, num_groups = self.clusters.sizes(kept.tick), self.clusters.num_clusters
        out = (kept.log_beyond[:, None] + log_p.log_softmax(1)).exp() / size.clamp(min=1)
        for slot in range(CLUSTERS_PER_USER):
            at = row * num_groups + self.clusters.cluster[user, slot]
            member = p * self.clusters.share[user, slot]
            out = out.flatten().scatter_reduce(0, at, member, "amax").view_as(out)
        return out


def groups_of(model: MixtureRecommender[BoundClusterHead], seed: int) -> dict[str, Groups]:
    """Groups by name, as many everywhere."""
    own, head = model.head.index, model.head
    known, size = model.view.row > 0, head.table.num_clusters
    vectors = torch.cat([head.vectors, head.biases[:, None]], dim=1)

    def plain(group: Tensor) -> ClusterIndex:
        cluster = group[:, None].repeat(1, CLUSTERS_PER_USER)
        share = torch.eye(CLUSTERS_PER_USER)[0].repeat(len(group), 1)
        return ClusterIndex(model.view.timeline, cluster, share, known & (group >= 0), size)

    def by_mean(clusters: ClusterIndex) -> Callable[[Kept], Tensor]:
        group = clusters.cluster[known, 0]
        total = torch.zeros(size, vectors.size(1)).index_add_(0, group, vectors[known])
        mean = total / torch.bincount(group, minlength=size).clamp(min=1)[:, None]
        return lambda kept: kept.vector @ mean[:, :-1].T + mean[:, -1]

    means = faiss.Kmeans(vectors.size(1), size, niter=20, seed=seed, min_points_per_centroid=1)
    means.train(vectors[known].numpy())
    near = plain(torch.from_numpy(means.index.search(vectors.numpy(), 1)[1][:, 0]))
    coarse = faiss.IndexFlatIP(vectors.size(1))
    index = faiss.IndexIVFFlat(coarse, vectors.size(1), size, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[known].numpy())
    inverted = plain(torch.from_numpy(coarse.search(vectors.numpy(), 1)[1][:, 0]))
    center = torch.from_numpy(coarse.reconstruct_n(0, size))
    codes = ResidualKMeans(num_codebooks=2, codebook_size=size, unique=False, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TokenizerQualityWarning)
        codes.fit(model.graph, until=model.view.period.until)
    stus = plain(codes.codes_before(model.graph, model.view.period.until)[:, 0])
    chance = plain(torch.randint(size, (len(known),), generator=torch.Generator().manual_seed(seed)))
    return {
        OWN: Groups(own, lambda kept: kept.log_next, weighs=True),
        f"{OWN}, next cluster alone": Groups(own, lambda kept: kept.log_next, weighs=False),
        "k-means": Groups(near, by_mean(near), weighs=False),
        "k-means, people around weighed": Groups(near, by_mean(near), weighs=True),
        "STU prefixes": Groups(stus, by_mean(stus), weighs=False),
        "STU prefixes, people around weighed": Groups(stus, by_mean(stus), weighs=True),
        "random groups": Groups(chance, by_mean(chance), weighs=False),
        "random groups, people around weighed": Groups(chance, by_mean(chance), weighs=True),
        "faiss IVF": Groups(
            inverted, lambda kept: kept.vector @ center[:, :-1].T + center[:, -1], weighs=False
        ),
    }
