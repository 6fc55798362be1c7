"""What others would do for newcomers: peers of the benchmark `newcomers`, from features and contacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from torch_geometric.nn import SAGEConv

from graphrec.data import FriendGraph, Query
from graphrec.features import Profiles
from graphrec.temporal import Timeline

DIM, HIDDEN, EPOCHS, BATCH, LR = 64, 128, 8, 2048, 3e-3
NUM_ALIKE = 100
"""Users with the most similar features whose contacts are suggested."""


@dataclass(frozen=True)
class Known:
    """What is known before a moment: features, and contacts.

    Attributes:
        timeline: the index.
        x: [N, F] float32, standardized features.
        one, other: [E] int64, contacts before `until`, in both directions.
        degree: [N] float32.
    """

    timeline: Timeline
    x: Tensor
    one: Tensor
    other: Tensor
    degree: Tensor

    @classmethod
    def of(cls, graph: FriendGraph, until: int) -> Self:
        """Read a graph whose users have features."""
        profiles = Profiles.of(graph, until=until)
        assert profiles is not None
        timeline = Timeline.of(graph)
        users = torch.arange(graph.num_users)
        row, other = timeline.contacts.before(users, timeline.tick(torch.tensor(until)).expand(len(users)))
        degree = torch.bincount(row, minlength=graph.num_users).float()
        return cls(timeline, profiles.x[:, :-1].contiguous(), row, other, degree)

    def batches(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All contacts in batches of a random order."""
        out: tuple[Tensor, ...] = torch.randperm(len(self.one), generator=generator).split(BATCH)
        return out


class AlikeContacts:
    """The contacts of the hundred users with the most similar features, weighted by the cosine."""

    name = "contacts of alike users"

    def __init__(self, known: Known, seed: int) -> None:
        del seed
        self.known, self.unit = known, normalize(known.x, dim=1)
        self.present = known.degree > 0

    def score(self, query: Query) -> Tensor:
        """Scores [B, N]."""
        known = self.known
        similar = self.unit[query.user] @ self.unit.T
        similar[:, ~self.present] = 0.0
        similar[torch.arange(len(query)), query.user] = 0.0
        best, user = similar.topk(min(NUM_ALIKE, similar.size(1)), dim=1)
        tick = known.timeline.tick(query.time).repeat_interleave(user.size(1))
        row, contact = known.timeline.contacts.before(user.flatten(), tick)
        out = torch.zeros_like(similar)
        out.index_put_((row // user.size(1), contact), best.clamp(min=0).flatten()[row], accumulate=True)
        return out


def _in_batch_loss(score: Tensor, target: Tensor, degree: Tensor) -> Tensor:
    """Cross-entropy among the targets of a batch [B, B], with the logQ correction of popular ones."""
    again = (target[None] == target[:, None]) & ~torch.eye(len(target), dtype=torch.bool)
    logits = (score - degree[target].log1p()).masked_fill(again, -torch.inf)
    return nn.functional.cross_entropy(logits, torch.arange(len(target)))


class FeatureTowers:
    """A two-tower of multilayer perceptrons on features, with a bias for each user."""

    name = "two-tower on features"

    def __init__(self, known: Known, seed: int) -> None:
        torch.manual_seed(seed)
        size = known.x.size(1)
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(size, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, DIM)) for _ in range(2)
        )
        self.bias = nn.Embedding(len(known.x), 1)
        nn.init.zeros_(self.bias.weight)
        optimizer = torch.optim.Adam([*self.towers.parameters(), *self.bias.parameters()], lr=LR)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(EPOCHS):
            for part in known.batches(generator):
                one, other = known.one[part], known.other[part]
                score = self.towers[0](known.x[one]) @ self.towers[1](known.x[other]).T
                loss = _in_batch_loss(score + self.bias(other).T, other, known.degree)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            self.query, self.target = (tower(known.x) for tower in self.towers)

    def score(self, query: Query) -> Tensor:
        """Scores [B, N]."""
        out: Tensor = self.query[query.user] @ self.target.T + self.bias.weight.detach().T
        return out


class PairRegression:
    """Logistic regression on the products and distances of two users' features, and the contacts of one."""

    name = "logistic regression on pairs"

    def __init__(self, known: Known, seed: int) -> None:
        self.x, self.popularity = known.x, known.degree.log1p()
        generator = torch.Generator().manual_seed(seed)
        size, present = known.x.size(1), (known.degree > 0).nonzero().squeeze(1)
        self.weight = [torch.zeros(size, requires_grad=True) for _ in range(3)]
        self.rest = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([*self.weight, self.rest], lr=LR, weight_decay=1e-4)
        for _ in range(EPOCHS):
            for part in known.batches(generator):
                one, other = known.one[part], known.other[part]
                random = present[torch.randint(len(present), (len(one),), generator=generator)]
                both, target = torch.cat([one, one]), torch.cat([other, random])
                label = torch.cat([torch.ones(len(one)), torch.zeros(len(one))])
                loss = binary_cross_entropy_with_logits(self._pairs(both, target), label)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def _pairs(self, one: Tensor, other: Tensor) -> Tensor:
        product, distance, target = self.weight
        x, y = self.x[one], self.x[other]
        bias, popular = self.rest[0], self.rest[1]
        out: Tensor = (x * y) @ product + (x - y).square() @ distance + y @ target
        return out + popular * self.popularity[other] + bias

    @torch.no_grad()
    def score(self, query: Query) -> Tensor:
        """Scores [B, N]: the square of the distance is written out."""
        product, distance, target = self.weight
        x = self.x[query.user]
        alone = self.x.square() @ distance + self.x @ target + self.rest[1] * self.popularity
        return (x * (product - 2 * distance)) @ self.x.T + (x.square() @ distance)[:, None] + alone


class Sage(nn.Module):
    """Two layers of GraphSAGE (`torch_geometric.nn.SAGEConv`) on features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.first, self.second = SAGEConv(size, HIDDEN), SAGEConv(HIDDEN, DIM)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Embeddings [N, DIM] from features [N, F] and edges [2, E]."""
        out: Tensor = self.second(self.first(x, edges).relu(), edges)
        return out


class GraphSage:
    """GraphSAGE on features, trained to tell contacts from others in the batch, with a bias for each user.

    In each step, the contacts to tell and half of the others are hidden from the network.
    """

    name = "GraphSAGE on features"

    def __init__(self, known: Known, seed: int) -> None:
        torch.manual_seed(seed)
        self.known, self.network = known, Sage(known.x.size(1))
        self.bias = nn.Embedding(len(known.x), 1)
        nn.init.zeros_(self.bias.weight)
        optimizer = torch.optim.Adam([*self.network.parameters(), *self.bias.parameters()], lr=LR)
        generator = torch.Generator().manual_seed(seed)
        edges = torch.stack([known.other, known.one])
        for _ in range(EPOCHS):
            for part in known.batches(generator)[:40]:
                one, other = known.one[part], known.other[part]
                shown = torch.rand(edges.size(1), generator=generator) < 0.5
                shown[part] = False
                z = self.network(known.x, edges[:, shown])
                loss = _in_batch_loss(z[one] @ z[other].T + self.bias(other).T, other, known.degree)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self._tick, self._z = -1, torch.empty(0)

    @torch.no_grad()
    def score(self, query: Query) -> Tensor:
        """Scores [B, N], from all contacts before each query's time."""
        out = torch.empty(len(query), len(self.known.x))
        for time in query.time.unique():
            timeline, rows = self.known.timeline, query.time == time
            users = torch.arange(len(self.known.x))
            tick = timeline.tick(time)
            if int(tick) != self._tick:
                row, other = timeline.contacts.before(users, tick.expand(len(users)))
                self._z = self.network(self.known.x, torch.stack([other, row]))
                self._tick = int(tick)
            z = self._z
            out[rows] = z[query.user[rows]] @ z.T + self.bias.weight.T
        return out


PEERS = (AlikeContacts, FeatureTowers, PairRegression, GraphSage)
"""Built from `Known` and a seed."""
