"""The default tokenizer: a graph neural network and a quantiser that learn from ties that came later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, Query
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.nn import ResidualQuantizer
from graphrec.nn.graph_encoder import GraphEncoder
from graphrec.sampler import REVERSE, Timeline
from graphrec.tokenizer.tokenizer import Before, Tokenizer, default_codebook_size
from graphrec.tokenizer.views import Pairs, Past, Views, turned
from graphrec.train import train

MIN_TIES, MAX_TIES = 64, 200_000
"""With fewer ties nothing is learned beyond the places; of more, so many are drawn."""

HELD_OUT, MOST_HELD_OUT = 0.1, 1024
"""Pairs that choose the epoch."""

NEWCOMERS = 0.1
"""Share of the seeds that are trained as if they had just come."""

WARM = 0.2
"""Share of the epochs, and of the learning rate, of a refit."""

TEMPERATURE = 0.05
"""Of soft codes, as a squared distance between vectors of length 1."""

MATCHED = 0.8
"""How much the pairs of ends of ties count against pairs of anybody, in the homophily of soft codes."""

TINY = 1e-9

STARTS, SAMPLED = 4, 256
"""Of k-means for the codebook that training starts from, and vectors for each code."""

PROFILE_CHANNELS = 64
"""Principal components that stand for wider features of users."""

RIDGE = 10.0
"""Of the regression of places on features, in users."""

MOST_CONTACTS = 16
"""People last in touch who stand for a newcomer, of whom the network itself makes little."""

NODE_CHANNELS, AGE_CHANNELS = 4, 3
EMBEDDED = 2048
"""Users embedded at once."""


class GNNRQVAE(Tokenizer):
    """Residual quantisation of what a graph neural network learns from the ties that came later.

    The network is inductive. It starts from spectral embeddings of the contact graph
    (`graphrec.sampler.Structure`), smoothed once over contacts, and moves everybody by how present they are,
    by their features and by a sample of their contacts, of which action, direction and age are known
    (`graphrec.nn.graph_encoder`). In training it looks at the graph as it was at several moments, and at the
    pairs who first came into contact between one moment and the next (`graphrec.tokenizer.views`):

    - each of them is to find the other among the people of the batch, by the inner product of their
      embeddings (sampled softmax, both directions);
    - their first *codes* are to agree, and those of other pairs are not. With p_u the softmax, over the codes
      of a learned codebook, of minus the squared distances to the embedding of u, the loss is

          - log mean_ties p_u . p_v + log mean_others p_u . p_v

      which is the homophily that codes are judged by; others are pairs of anybody, and ends of the batch's
      ties joined anew. The codes are kept in even use.

    Then residual k-means over everybody's embeddings, of which the first level starts from the learned
    codebook. A newcomer stands where their first contacts and their features put them: a part of the seeds is
    trained without a place of their own and with few contacts. A log without an order in time is given one by
    drawing.

    Args:
        dim: D, of the embeddings; fewer where there are fewer users.
        num_neighbors: contacts drawn for each user, one number for each layer.
        epoch_batches, batch_size: batches of an epoch, at most, and ties and pairs in each.
        max_epochs: of training; a refit that starts warm takes a fifth of them.
        lr: learning rate.
        num_codebooks, codebook_size, unique, balanced, seed: as in `Tokenizer`.
        folder: for checkpoints, so that a fit that was interrupted goes on (see `graphrec.train.train`).
        progress: show training.

    Attributes:
        curve: training and validation of the last fit, one row an epoch.
    """

    def __init__(
        self,
        *,
        dim: int = 128,
        num_neighbors: Sequence[int] = (24,),
        epoch_batches: int = 25,
        batch_size: int = 512,
        max_epochs: int = 6,
        lr: float = 3e-3,
        num_codebooks: int = 3,
        codebook_size: int | None = None,
        unique: bool = True,
        balanced: bool = True,
        seed: int = 0,
        folder: str | os.PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            num_codebooks=num_codebooks,
            codebook_size=codebook_size,
            unique=unique,
            balanced=balanced,
            seed=seed,
        )
        if min(dim, epoch_batches, batch_size, max_epochs, *num_neighbors) < 1 or not num_neighbors:
            raise ValueError(
                "dim, num_neighbors, epoch_batches, batch_size and max_epochs must be at least 1, got "
                f"{dim}, {list(num_neighbors)}, {epoch_batches}, {batch_size} and {max_epochs}"
            )
        self.dim, self.num_neighbors, self.lr = dim, list(num_neighbors), lr
        self.epoch_batches, self.batch_size, self.max_epochs = epoch_batches, batch_size, max_epochs
        self.folder, self.progress = folder, progress
        self.curve: list[dict[str, float]] = []
        self.network: _Network | None
        self._shape: tuple[int, int, int]
        self._actions: list[str]
        self._places: Tensor
        self._guess: Tensor
        self._components: Tensor | None
        self._reset()

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor that say what is learned, by name."""
        return {
            name: value for name, value in super().settings().items() if name not in ("folder", "progress")
        }

    def learn(self, graph: FriendGraph, until: int) -> None:
        """Find everybody's place, and train the network and the codebooks on the ties that came later."""
        past, profile = Past.of(graph, seed=self.seed), self._profile(graph)
        before, places = self._places, past.places(min(self.dim, graph.num_users))
        if self.before is not None and before.size(1) == places.size(1):
            there = (self.before >= 0) & (self.before < len(before))
            places = turned(places, torch.where(there[:, None], before[self.before * there], 0.0))
        self._places, self._guess = places, _regressed(places, profile)
        shape = (places.size(1), len(graph.actions), profile.size(1))
        if self.network is None or self._shape != shape:
            self._shape, self._actions = shape, sorted(graph.actions)
            self.network = _Network(*shape, len(self.num_neighbors))
        size = self.codebook_size or default_codebook_size(graph.num_users, self.num_codebooks)
        warm = len(self.network.objective.codebook) == size
        if not warm:
            vectors = self._embedded(graph, torch.arange(graph.num_users), until)
            self.network.objective.codebook = nn.Parameter(self._codebook(vectors, size))
        views = Views.of(past, places)
        ties = Pairs.of(views)
        ties = ties.take(torch.randperm(len(ties))[:MAX_TIES])
        self.curve = []
        if len(ties) >= MIN_TIES:
            self._train(views, ties, profile, until, warm=warm)

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Where the network moves users, all of the graph in view; newcomers are amid contacts: [n, D]."""
        past, profile = Past.of(graph, seed=self.seed), self._profile(graph)
        places = self._places.new_zeros(1, graph.num_users, self._places.size(1))
        places[0, : len(self._places)] = self._places
        moved = self._moved(past, places, profile, users)
        fresh = (~places[0, users].any(1)).nonzero().squeeze(1)
        tick = past.timeline.tick(torch.tensor(past.end)).expand(len(fresh))
        row, contact = past.timeline.last_contacts(users[fresh], tick, MOST_CONTACTS)
        other = past.timeline.halves.other[contact].long()
        placed = places[0, other].any(1)
        row, other = row[placed], other[placed]
        met, at = other.unique(return_inverse=True)
        amid = torch.zeros(len(fresh), moved.size(1))
        amid.index_add_(0, row, self._moved(past, places, profile, met)[at])
        amid = F.normalize(amid, dim=1)
        moved[fresh] = torch.where(amid.any(1, keepdim=True), amid, moved[fresh])
        return moved

    def _moved(self, past: Past, places: Tensor, profile: Tensor, users: Tensor) -> Tensor:
        """The network's output for users [n], [n, D]."""
        assert self.network is not None
        if not len(users):
            return places.new_zeros(0, places.size(2))
        loader = QueryLoader(
            past.graph,
            Query.of(past.graph, users, past.end),
            self.num_neighbors,
            strategy="uniform",
            seed=self.seed,
            batch_size=EMBEDDED,
            generator=torch.Generator(),
        )
        out = []
        for batch in loader:
            view = torch.zeros_like(batch.input_id)
            inputs = self._inputs(batch, past.timeline, places, view, profile)
            out.append(self.network.encoder(*inputs.of_encoder)[: len(view)])
        return torch.cat(out)

    def quantise(
        self,
        vectors: Tensor,
        codebook_size: int,
        generator: torch.Generator,
        before: Before | None = None,
    ) -> ResidualQuantizer:
        """Residual k-means, of which the first level starts from the codebook that was learned."""
        assert self.network is not None
        if before is not None:
            return super().quantise(vectors, codebook_size, generator, before)
        first = ResidualQuantizer(vectors.size(1), num_codebooks=1, codebook_size=codebook_size)
        first.codebooks[0] = self.network.objective.codebook.detach()
        new = torch.full((len(vectors), 1), -1)
        code = first.initialise(vectors, generator, balanced=self.balanced, keep=new)
        if self.num_codebooks == 1:
            return first
        dim, length = vectors.size(1), self.num_codebooks
        out = ResidualQuantizer(dim, num_codebooks=length, codebook_size=codebook_size)
        rest = ResidualQuantizer(dim, num_codebooks=length - 1, codebook_size=codebook_size)
        rest.initialise(vectors - first.decode(code), generator, balanced=self.balanced)
        for name, value in out.named_buffers():
            value.copy_(torch.cat([getattr(first, name), getattr(rest, name)]))
        return out

    # What is known

    def _profile(self, graph: FriendGraph) -> Tensor:
        """Features of users, [N, Fp], as principal components where there are many."""
        x = graph[USER].get("x")
        if x is None:
            return torch.zeros(graph.num_users, 0)
        if self._components is None or len(self._components) != x.size(1):
            mean, scale = x.mean(0), x.std(0, unbiased=False).clamp(min=1e-3)
            basis = torch.eye(x.size(1))
            if x.size(1) > PROFILE_CHANNELS:
                basis = torch.svd_lowrank((x - mean) / scale, q=PROFILE_CHANNELS)[2]
            spread = (((x - mean) / scale) @ basis).std(0, unbiased=False).clamp(min=1e-3)
            self._components = torch.cat([mean[:, None], (basis / scale[:, None]) / spread], dim=1)
        mean, basis = self._components[:, 0], self._components[:, 1:]
        out: Tensor = ((x - mean) @ basis).clamp(-8.0, 8.0)
        return out

    def _codebook(self, vectors: Tensor, codebook_size: int) -> Tensor:
        """The best of several codebooks [K, D] of a sample of vectors [M, D]; k-means follows its start."""
        sample = vectors[torch.randperm(len(vectors))[: SAMPLED * codebook_size]]
        found = []
        for start in range(STARTS):
            generator = torch.Generator().manual_seed(self.seed + start)
            one = ResidualQuantizer(vectors.size(1), num_codebooks=1, codebook_size=codebook_size)
            code = one.initialise(sample, generator, balanced=self.balanced)
            found.append((float((sample - one.decode(code)).square().sum()), start, one.codebooks[0]))
        return min(found)[2]

    # Training

    def _train(self, views: Views, ties: Pairs, profile: Tensor, until: int, *, warm: bool) -> None:
        assert self.network is not None
        network = self.network.train()
        judged = min(MOST_HELD_OUT, int(HELD_OUT * len(ties)))
        order = torch.arange(len(ties))
        held_out = ties.take(order[:judged]).with_random_pairs(views)
        trained = ties.take(order[judged:]).with_random_pairs(views)
        batches = TimelineBatches(
            torch.ones(len(trained), dtype=torch.int64),
            budget=self.batch_size,
            most=self.epoch_batches,
            seed=self.seed,
        )
        loader = trained.loader(views, self.num_neighbors, seed=self.seed, batch_sampler=batches)
        judge = held_out.loader(views, self.num_neighbors, seed=self.seed, batch_size=len(held_out))

        def losses(seeds: Pairs, batch: HeteroData) -> dict[str, Tensor]:
            view, met = seeds.view[batch.input_id], seeds.met[batch.input_id]
            inputs, size = (
                self._inputs(batch, views.past.timeline, views.places, view, profile),
                2 * len(view),
            )
            if network.training:
                inputs = _as_newcomers(inputs, size)
            z, people = network.encoder(*inputs.of_encoder)[:size], batch[USER].n_id[:size]
            terms: dict[str, Tensor] = network.objective(z, people, met)
            return terms | {"events": met.sum().float()}

        def validate() -> dict[str, float]:
            (batch,) = judge
            return {"val_score": -float(losses(held_out, batch)["loss"])}

        share = WARM if warm else 1.0
        run = f"{until}-warm" if warm else str(until)
        self.curve = train(
            network,
            loader,
            losses=lambda batch, _: losses(trained, batch),
            validate=validate,
            steps_per_epoch=len(batches),
            max_epochs=max(1, round(share * self.max_epochs)),
            patience=self.max_epochs,
            lr=share * self.lr,
            seed=self.seed,
            folder=None if self.folder is None else Path(self.folder) / run,
            progress=self.progress,
        )

    def _inputs(
        self, batch: HeteroData, timeline: Timeline, places: Tensor, view: Tensor, profile: Tensor
    ) -> _Inputs:
        """What there is to read in a batch whose seeds look at these views [B] of places [V, N, D]."""
        user, tree = batch[USER].n_id, batch[USER].batch
        tick = timeline.tick(batch.seed_time)[tree]
        guess = profile[user] @ self._guess
        place = places.flatten(0, 1)[view[tree] * places.size(1) + user]
        kinds, parts = self._kinds(), []
        for _, name, _ in batch.edge_types:
            edges = batch[USER, name, USER]
            column, row = edges.edge_index
            age = tick[row] - timeline.tick(edges.time)
            kind = torch.zeros(len(row), len(kinds))
            if name in kinds:
                kind[:, kinds[name]] = 1.0
            share = age / tick[row]
            edge = torch.cat([torch.stack([share, share.sqrt(), age.log1p()], dim=1), kind], dim=1)
            parts.append((row, column, edge))
        row, column, edge = (torch.cat(part) for part in zip(*parts, strict=True))
        return _Inputs(
            place=torch.where(place.any(1, keepdim=True), place, guess),
            guess=guess,
            node=_presence(timeline, user, tick),
            profile=profile[user],
            row=row,
            column=column,
            edge=edge,
        )

    def _kinds(self) -> dict[str, int]:
        """Which column of an edge's features says that it is of a type."""
        names = [prefix + name for name in self._actions for prefix in ("", REVERSE)]
        return {name: number for number, name in enumerate(names)}

    def drop(self, stays: Tensor) -> None:
        """The places of whoever goes."""
        self._places = self._places[stays[: len(self._places)]]

    # On disk, and before a fit

    def _reset(self) -> None:
        """Forget what was learned."""
        self.network, self._shape, self._actions = None, (0, 0, 0), []
        self._places = self._guess = torch.empty(0, 0)
        self._components = None

    def get_extra_state(self) -> Any:
        """What is saved beside parameters."""
        codebook_size = 0 if self.network is None else len(self.network.objective.codebook)
        return {
            "shape": list(self._shape),
            "actions": self._actions,
            "codebook_size": codebook_size,
            "places": self._places,
            "guess": self._guess,
            "components": self._components,
        }

    def set_extra_state(self, state: Any) -> None:
        """What was saved beside parameters."""
        self._shape, self._actions = tuple(state["shape"]), list(state["actions"])
        self._places, self._guess = state["places"], state["guess"]
        self._components = state["components"]
        self.network = _Network(*self._shape, len(self.num_neighbors))
        empty = torch.zeros(state["codebook_size"], self._shape[0])
        self.network.objective.codebook = nn.Parameter(empty)


class _Inputs(NamedTuple):
    """A batch of M nodes and E edges, from `column` to `row`; `guess` is the place that features suggest."""

    place: Tensor
    guess: Tensor
    node: Tensor
    profile: Tensor
    row: Tensor
    column: Tensor
    edge: Tensor

    @property
    def of_encoder(self) -> tuple[Tensor, ...]:
        """What `GraphEncoder` takes."""
        return self.place, *self[2:]


class _Network(nn.Module):
    """What is trained."""

    def __init__(self, dim: int, num_actions: int, profile_channels: int, num_layers: int) -> None:
        super().__init__()
        self.encoder = GraphEncoder(
            dim,
            edge_channels=AGE_CHANNELS + 2 * num_actions,
            node_channels=NODE_CHANNELS,
            profile_channels=profile_channels,
            num_layers=num_layers,
        )
        self.objective = _Objective(dim)


class _Objective(nn.Module):
    """Ties told from other pairs, by embeddings and by the first codes they would have; see `GNNRQVAE`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(0, dim))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, z: Tensor, people: Tensor, met: Tensor) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            z: [2 B, D], the one ends of B pairs, then the others.
            people: [2 B] int64, who they are.
            met: [B] bool, which pairs are ties; the others are random.
        """
        if int(met.sum()) < 2 or bool(met.all()):  # a last batch may have too few of either
            nothing = 0.0 * z.sum()
            return {"loss": nothing, "finding": nothing, "agreeing": nothing}
        one, other = people.view(2, -1)[:, met]
        barred = (one[:, None] == other) | (other[:, None] == other)
        barred.fill_diagonal_(False)
        finding, agreeing = self._finding(z, met, barred), self._agreeing(z, met, barred)
        return {"loss": finding + agreeing, "finding": finding, "agreeing": agreeing}

    def _finding(self, z: Tensor, met: Tensor, barred: Tensor) -> Tensor:
        """How hard it is for the ends of ties to find each other among the ends of the batch's ties."""
        one, other = z.view(2, len(met), -1)[:, met]
        score = (self.log_scale.exp() * one @ other.T).masked_fill(barred, -1e4)
        goal = torch.arange(len(one), device=z.device)
        return (F.cross_entropy(score, goal) + F.cross_entropy(score.T, goal)) / 2

    def _agreeing(self, z: Tensor, met: Tensor, barred: Tensor) -> Tensor:
        """Minus the log of the homophily of soft codes, and how unevenly these are used."""
        distance = self.codebook.square().sum(1) - 2.0 * z @ self.codebook.T
        one, other = (-distance / TEMPERATURE).softmax(1).view(2, len(met), -1)
        apart = ~barred & ~torch.eye(len(barred), dtype=torch.bool, device=z.device)
        alike = (one[met] * other[met]).sum(1).mean()
        matched = (one[met] @ other[met].T * apart).sum() / apart.sum().clamp(min=1)
        uniform = one[~met].mean(0) @ other[~met].mean(0)
        chance = MATCHED * (matched + TINY).log() + (1.0 - MATCHED) * (uniform + TINY).log()
        use = torch.cat([one[~met], other[~met]]).mean(0)
        out: Tensor = chance - (alike + TINY).log() + (use * (len(use) * use + TINY).log()).sum()
        return out


def _presence(timeline: Timeline, user: Tensor, tick: Tensor) -> Tensor:
    """How present users [M] were before ticks [M]: [M, NODE_CHANNELS]."""
    activity = timeline.activity(user, tick)
    seen = timeline.tick(torch.maximum(activity.last_act, activity.last_received))
    counts = (activity.num_acts, activity.num_received, activity.degree)
    unseen = (tick - seen) / tick.clamp(min=1)
    return torch.stack([*(count.float().log1p() for count in counts), unseen.sqrt()], dim=1)


def _as_newcomers(inputs: _Inputs, size: int) -> _Inputs:
    """Some of the seeds, the first `size` nodes, without a place of their own and with few contacts."""
    fresh = torch.zeros(len(inputs.place), dtype=torch.bool)
    fresh[:size] = torch.rand(size) < NEWCOMERS
    share = torch.where(fresh, torch.rand(len(fresh)).square(), 1.0)
    kept = torch.rand(len(inputs.row)) < share[inputs.row]
    return inputs._replace(
        place=torch.where(fresh[:, None], inputs.guess, inputs.place),
        node=share[:, None] * inputs.node,
        row=inputs.row[kept],
        column=inputs.column[kept],
        edge=inputs.edge[kept],
    )


def _regressed(places: Tensor, profile: Tensor) -> Tensor:
    """Weights [Fp, D] by which features [N, Fp] tell places [N, D], as far as they do (ridge regression)."""
    x, width = profile.double(), profile.size(1)
    gram = x.T @ x + RIDGE * torch.eye(width, dtype=torch.float64)
    out: Tensor = torch.linalg.solve(gram, x.T @ places.double())
    return out.float()
