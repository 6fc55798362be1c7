"""The past as it was at several moments, and who first came into contact after each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor

from graphrec.data import USER, FriendGraph, Query
from graphrec.data.draws import hashed
from graphrec.loader import EventLoader
from graphrec.temporal import SpectralEmbeddings, Timeline

VIEWS = 6
"""Moments at which the past is looked at; the first third of them only warm up the places."""

MAX_PLACES, MIN_VIEWS = 3_000_000, 3
"""Places held at once over all views: there are fewer views of a large network."""

FEW_MOMENTS = 4 * VIEWS
"""A log with fewer distinct times has no order to learn from and is given one, drawn pair by pair."""

HALF_LIFE = 0.35
"""Of a contact's weight in places, as a share of the history."""

ITERATIONS = 16
"""Of the places that everybody has in the end; a quarter as many do not converge on a large network."""

RANDOM_PAIRS = 0.2
"""Pairs of anybody with anybody, for each tie."""


@dataclass(frozen=True)
class Past:
    """A graph to learn from, without features: in its own order, or in one that was drawn.

    Attributes:
        graph: the events.
        timeline: their index.
        half_life: of a contact's weight in places; infinite in a drawn order, which means nothing.
    """

    graph: FriendGraph
    timeline: Timeline
    half_life: float

    @classmethod
    def of(cls, graph: FriendGraph, *, seed: int) -> Self:
        """A graph's events; all of a pair stay together where the order is drawn, by (seed, pair)."""
        events = graph.events()
        lean = graph.snapshot(int(events.time[-1]) + 1)
        for key in ("x", "join_time"):
            lean[USER].pop(key, None)
        if len(events.time.unique_consecutive()) >= FEW_MOMENTS:
            return cls(lean, Timeline.of(lean), HALF_LIFE)
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
        """The second after the last event."""
        return int(self.timeline.instants[-1]) + 1

    def places(self, dim: int) -> Tensor:
        """Where everybody stands in the end, [N, dim]: spectral embeddings, smoothed over contacts."""
        num_events = len(self.timeline.events)
        start = torch.randn(self.timeline.num_users, dim)
        structure = SpectralEmbeddings(
            self.timeline, start, every=num_events, half_life=self.half_life, iterations=ITERATIONS
        )
        return _smoothed(structure.embedding[-1], self.timeline, len(self.timeline.instants))


@dataclass(frozen=True)
class Views:
    """The past at V moments.

    Attributes:
        past: all of it.
        tick: [V] int64, ascending; view v knows what is older than tick[v].
        places: [V, N, D], where people stood, turned to where they stand in the end.
    """

    past: Past
    tick: Tensor
    places: Tensor

    @classmethod
    def of(cls, past: Past, places: Tensor) -> Self:
        """Views of a past whose places in the end are known."""
        timeline = past.timeline
        number = max(MIN_VIEWS, min(VIEWS, MAX_PLACES // len(places)))
        every = max(1, len(timeline.events) // number)
        structure = SpectralEmbeddings(
            timeline, torch.randn_like(places), every=every, half_life=past.half_life
        )
        skipped = len(structure.tick) // 3
        tick, embedding = structure.tick[1 + skipped :], structure.embedding[1 + skipped :]
        for view, moment in enumerate(tick.tolist()):
            embedding[view] = turned(_smoothed(embedding[view], timeline, moment), places)
        return cls(past, tick, embedding)


@dataclass(frozen=True)
class Pairs:
    """Pairs [P] int64, each judged at a view [P]: who met after it (`met` [P] bool), and anybody."""

    src: Tensor
    dst: Tensor
    view: Tensor
    met: Tensor

    @classmethod
    def of(cls, views: Views) -> Self:
        """Who first came into contact between a view and the next, and was known at the view."""
        timeline = views.past.timeline
        tick, src, dst = timeline.contacts.chronological
        view = torch.searchsorted(views.tick, tick, right=True) - 1
        since = views.tick[view.clamp(min=0)] if len(views.tick) else torch.zeros_like(view)
        known = (timeline.first_tick[src] < since) & (timeline.first_tick[dst] < since)
        # Each contact is one of both people; which of them comes first is drawn.
        drawn = hashed(torch.minimum(src, dst), torch.maximum(src, dst)) & 1 == 0
        kept = (view >= 0) & known & (drawn == (src < dst))
        return cls(src[kept], dst[kept], view[kept], torch.ones(int(kept.sum()), dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.src)

    def take(self, rows: Tensor) -> Self:
        """Some of them."""
        return type(self)(self.src[rows], self.dst[rows], self.view[rows], self.met[rows])

    def with_random_pairs(self, views: Views) -> Self:
        """And, at the same views, pairs of anybody who was known with anybody."""
        timeline = views.past.timeline
        view = self.view[torch.randint(len(self), (2 + int(RANDOM_PAIRS * len(self)),))]
        pair = torch.randint(timeline.num_users, (2, len(view)))
        kept = (timeline.first_tick[pair] < views.tick[view]).all(0) & (pair[0] != pair[1])
        return type(self)(
            torch.cat([self.src, pair[0, kept]]),
            torch.cat([self.dst, pair[1, kept]]),
            torch.cat([self.view, view[kept]]),
            torch.cat([self.met, torch.zeros(int(kept.sum()), dtype=torch.bool)]),
        )

    def loader(self, views: Views, num_neighbors: Sequence[int], **kwargs: Any) -> EventLoader:
        """Batches of the neighbourhoods of both ends, as they were at the views."""
        instants = views.past.timeline.instants
        query = Query(self.src, instants[views.tick[self.view] - 1] + 1, torch.zeros_like(self.src))
        return EventLoader(views.past.graph, query, self.dst, num_neighbors, strategy="uniform", **kwargs)


def turned(places: Tensor, goal: Tensor) -> Tensor:
    """Places [N, D], turned so that those with a goal [N, D] that is not 0 come to lie on it (Procrustes)."""
    both = places.any(1) & goal.any(1)
    left, _, right = torch.linalg.svd(places[both].double().T @ goal[both].double())
    out: Tensor = places @ (left @ right).float()
    return out


def _smoothed(places: Tensor, timeline: Timeline, tick: int) -> Tensor:
    """Places [N, D], each moved half-way to those of the contacts before a tick, hubs counting less."""
    size = int(torch.searchsorted(timeline.event_tick, tick))
    events, num_users = timeline.events, timeline.num_users
    src, dst = events.src[:size].numpy(), events.dst[:size].numpy()
    weight = csr_array((np.ones(size, dtype=np.float32), (src, dst)), shape=(num_users, num_users))
    weight = (weight + weight.T).tocsr()
    weight.data = np.log1p(weight.data)
    degree = np.asarray(weight.sum(axis=1)).ravel()
    weight.data /= np.sqrt(degree + degree[degree > 0].mean())[weight.indices]
    around = torch.from_numpy(weight @ places.numpy())
    return F.normalize(places + F.normalize(around, dim=1), dim=1)
