"""Snapshots of the past at several moments, and the ties that first form between one and the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data import USER, FriendGraph, Query
from graphrec.data.draws import hashed
from graphrec.evaluate.initiations import Initiations
from graphrec.loader import EventLoader, LoaderOptions
from graphrec.temporal import SpectralEmbeddings, Timeline
from graphrec.temporal.affinity import Affinity

NUM_SNAPSHOTS, MIN_SNAPSHOTS = 6, 3
"""Number of snapshots; no ties are taken from the first third, which warms up the spectral embeddings."""

MAX_SNAPSHOT_ROWS = 3_000_000
"""Rows of spectral embeddings over all snapshots: a large network has fewer snapshots."""

MIN_DISTINCT_TIMES = 4 * NUM_SNAPSHOTS
"""Distinct times of a log with a useful order; with fewer, pairs are put in a random order."""

HALF_LIFE = 0.35
"""Half-life of a contact's weight in spectral embeddings, as a share of the history."""

FINAL_ITERATIONS = 16
"""Iterations of the final spectral embeddings; a quarter as many do not converge on a large network."""

RANDOM_PAIRS_PER_TIE = 0.2

ROWS_PER_BLOCK = 2**16
"""Rows of embeddings that are copied to double precision at once."""


@dataclass(frozen=True)
class TrainingHistory:
    """The events to train on, without features, in their own order or in a random one.

    Attributes:
        graph: the events.
        timeline: their index.
        half_life: of a contact's weight in spectral embeddings, as a share of the history; infinite if the
            order is random.
    """

    graph: FriendGraph
    timeline: Timeline
    half_life: float

    @classmethod
    def of(cls, graph: FriendGraph, *, seed: int) -> Self:
        """The events of a graph; a random order follows from (seed, pair) and keeps pairs together."""
        events = graph.events()
        is_ordered = len(events.time.unique_consecutive()) >= MIN_DISTINCT_TIMES
        # The index of the graph, which its copy shares, is built once however often this is called.
        timeline = Timeline.of(graph) if is_ordered else None
        lean = copy(graph) if is_ordered else graph.snapshot(int(events.time[-1]) + 1)
        for key in ("x", "join_time"):
            lean[USER].pop(key, None)
        if timeline is not None:
            return cls(lean, timeline, HALF_LIFE)
        low, high = torch.minimum(events.src, events.dst), torch.maximum(events.src, events.dst)
        pair, number = torch.stack([low, high]).unique(dim=1, return_inverse=True)
        time = hashed(seed, pair[0], pair[1]).argsort().argsort()[number]
        order = time.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        for name in graph.actions:
            store = lean[USER, name, USER]
            inside = rank[store.event_id].argsort()
            for key, value in store.items():
                store[key] = value[:, inside] if key == "edge_index" else value[inside]
            store.event_id = rank[store.event_id]
            store.time = time[order[store.event_id]]
        return cls(lean, Timeline.of(lean), math.inf)

    @property
    def end(self) -> int:
        """Seconds, one after the last event."""
        return int(self.timeline.instants[-1]) + 1

    def final_embeddings(self, dim: int) -> Tensor:
        """Spectral embeddings of all events, smoothed over contacts: [N, dim]."""
        num_events = len(self.timeline.events)
        start = torch.randn(self.timeline.num_users, dim)
        structure = SpectralEmbeddings(
            self.timeline, start, every=num_events, half_life=self.half_life, iterations=FINAL_ITERATIONS
        )
        return _smooth_over_contacts(structure.embedding[-1], self.timeline, len(self.timeline.instants))


@dataclass(frozen=True)
class Snapshots:
    """Snapshots of a history at V moments.

    Attributes:
        history: the whole history.
        tick: [V] int64, ascending; snapshot v holds events older than tick[v].
        spectral: [V, N, D], spectral embeddings, each rotated to the final ones.
    """

    history: TrainingHistory
    tick: Tensor
    spectral: Tensor

    @classmethod
    def of(cls, history: TrainingHistory, final: Tensor) -> Self:
        """Snapshots of a history whose final spectral embeddings [N, D] are given."""
        timeline = history.timeline
        number = max(MIN_SNAPSHOTS, min(NUM_SNAPSHOTS, MAX_SNAPSHOT_ROWS // len(final)))
        every = max(1, len(timeline.events) // number)
        structure = SpectralEmbeddings(
            timeline, torch.randn_like(final), every=every, half_life=history.half_life
        )
        skipped = len(structure.tick) // 3
        tick, embedding = structure.tick[1 + skipped :], structure.embedding[1 + skipped :]
        for number, moment in enumerate(tick.tolist()):
            smoothed = _smooth_over_contacts(embedding[number], timeline, moment)
            embedding[number] = rotate_to(smoothed, final)
        return cls(history, tick, embedding)


@dataclass(frozen=True)
class SnapshotPairs:
    """P pairs of users, each embedded at a snapshot.

    Attributes:
        src, dst: [P] int64, users.
        snapshot: [P] int64.
        is_tie: [P] bool, pairs with their first contact after the snapshot; the others are random.
    """

    src: Tensor
    dst: Tensor
    snapshot: Tensor
    is_tie: Tensor

    @classmethod
    def of(cls, snapshots: Snapshots) -> Self:
        """Collect the pairs with first contact between two snapshots, both users having earlier events."""
        timeline = snapshots.history.timeline
        tick, src, dst = timeline.contacts.chronological
        snapshot = torch.searchsorted(snapshots.tick, tick, right=True) - 1
        since = torch.zeros_like(snapshot)
        if len(snapshots.tick):
            since = snapshots.tick[snapshot.clamp(min=0)]
        known = (timeline.first_tick[src] < since) & (timeline.first_tick[dst] < since)
        # Each contact is listed for both users; a hash draws which of them comes first.
        drawn = hashed(torch.minimum(src, dst), torch.maximum(src, dst)) & 1 == 0
        kept = (snapshot >= 0) & known & (drawn == (src < dst))
        if not snapshots.history.graph.roles.all_ordinary:
            pairs, size = Initiations.of(snapshots.history.graph), timeline.num_users
            both = pairs.initiator * size + pairs.recipient, pairs.recipient * size + pairs.initiator
            kept &= torch.isin(src * size + dst, torch.from_numpy(np.concatenate(both)))
        return cls(src[kept], dst[kept], snapshot[kept], torch.ones(int(kept.sum()), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.src)

    def take(self, rows: Tensor) -> Self:
        """The pairs at positions [n] int64."""
        return type(self)(self.src[rows], self.dst[rows], self.snapshot[rows], self.is_tie[rows])

    def with_random_pairs(self, snapshots: Snapshots) -> Self:
        """The pairs followed by random pairs of users with events at the same snapshots."""
        timeline = snapshots.history.timeline
        snapshot = self.snapshot[torch.randint(len(self), (2 + int(RANDOM_PAIRS_PER_TIE * len(self)),))]
        pair = torch.randint(timeline.num_users, (2, len(snapshot)))
        kept = (timeline.first_tick[pair] < snapshots.tick[snapshot]).all(0) & (pair[0] != pair[1])
        return type(self)(
            torch.cat([self.src, pair[0, kept]]),
            torch.cat([self.dst, pair[1, kept]]),
            torch.cat([self.snapshot, snapshot[kept]]),
            torch.cat([self.is_tie, torch.zeros(int(kept.sum()), dtype=torch.bool)]),
        )

    def loader(
        self, snapshots: Snapshots, num_neighbors: Sequence[int], **options: Unpack[LoaderOptions]
    ) -> EventLoader:
        """Batches of sampled neighborhoods of both users of each pair, at its snapshot."""
        instants = snapshots.history.timeline.instants
        time = instants[snapshots.tick[self.snapshot] - 1] + 1
        query = Query(self.src, time, torch.zeros_like(self.src))
        options["strategy"] = "uniform"
        return EventLoader(snapshots.history.graph, query, self.dst, num_neighbors, **options)


def rotate_to(vectors: Tensor, target: Tensor) -> Tensor:
    """Rotate vectors [N, D] to a target [N, D] (Procrustes), fitted on rows that are 0 in neither: [N, D]."""
    inner = torch.zeros(vectors.size(1), target.size(1), dtype=torch.float64)
    for rows, wanted in zip(vectors.split(ROWS_PER_BLOCK), target.split(ROWS_PER_BLOCK), strict=True):
        inner += rows.double().T @ wanted.double()  # rows of 0 add nothing
    left, _, right = torch.linalg.svd(inner)
    out: Tensor = vectors @ (left @ right).float()
    return out


def _smooth_over_contacts(vectors: Tensor, timeline: Timeline, tick: int) -> Tensor:
    """Vectors [N, D], each moved half-way to those of contacts before a tick; hubs weigh less: [N, D]."""
    weight = Affinity.of(timeline, tick, math.inf, regularized=True, dtype=np.dtype(np.float32))
    vectors, around = vectors.contiguous(), torch.zeros(vectors.shape)
    weight.multiply(vectors.numpy(), around.numpy())
    return F.normalize(F.normalize(around, dim=1, out=around).add_(vectors), dim=1, out=around)
