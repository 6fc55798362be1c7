"""The default tokenizer: a graph neural network and a quantiser that learn from ties that came later."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, Query, digest_graph, reverse_of
from graphrec.data.checks import check_count, check_counts, check_flags, check_folder, check_number
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.nn import ResidualQuantizer
from graphrec.nn.graph_encoder import GraphEncoder
from graphrec.temporal import Timeline
from graphrec.tokenizer.inputs import AGE_CHANNELS, NODE_CHANNELS, Inputs, as_newcomers, presence
from graphrec.tokenizer.objective import Objective
from graphrec.tokenizer.residual_kmeans import MAX_DIM
from graphrec.tokenizer.tokenizer import Before, Tokenizer, default_codebook_size
from graphrec.tokenizer.views import Pairs, Past, Views, turned
from graphrec.train import train

MIN_TIES, MAX_TIES = 64, 200_000
"""With fewer ties nothing is learned beyond the places; of more, so many are drawn."""

HELD_OUT, MOST_HELD_OUT = 0.1, 1024
"""Pairs that choose the epoch."""

WARM = 0.2
"""Share of the epochs, and of the learning rate, of a refit."""

STARTS, SAMPLED = 4, 256
"""Of k-means for the codebook that training starts from, and vectors for each code."""

PROFILE_CHANNELS = 64
"""Principal components that stand for wider features of users."""

RIDGE = 10.0
"""Of the regression of places on features, in users."""

MOST_CONTACTS = 16
"""People last in touch amid whom a newcomer starts."""

MAX_LR = 10.0

EMBEDDED = 2048
"""Users embedded at once."""


class GNNRQVAE(Tokenizer):
    """Residual quantisation of what a graph neural network learns from the ties that came later.

    The network is inductive. It starts from spectral embeddings of the contact graph
    (`graphrec.temporal.SpectralEmbeddings`), smoothed once over contacts, and moves everybody by how present
    they are,
    by their features and by a sample of their contacts, of which action, direction and age are known
    (`graphrec.nn.graph_encoder`). In training it looks at the graph as it was at several moments, and at the
    pairs who first came into contact between one moment and the next (`graphrec.tokenizer.views`):

    - each of them is to find the other among the people of the batch at that moment, by the inner product of
      their embeddings (sampled softmax, both directions);
    - their first *codes* are to agree, and those of other pairs are not. With p_u the softmax, over the codes
      of a learned codebook, of minus the squared distances to the embedding of u, the loss is

          - log mean_ties p_u . p_v + log mean_others p_u . p_v

      which is the homophily that codes are judged by; others are, at one moment, pairs of anybody, and ends
      of the batch's ties joined anew. The codes are kept in even use.

    Then residual k-means over everybody's embeddings, of which the first level starts from the learned
    codebook. A newcomer starts amid their first contacts, or where their features put them: some of the seeds
    are trained without a place of their own and with few contacts. A log without an order in time is given
    one by drawing.

    Args:
        dim: D, of the embeddings; fewer where there are fewer users. With many, coarse codes are of noise.
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
        dim: int = 48,
        num_neighbors: Sequence[int] = (24,),
        epoch_batches: int = 25,
        batch_size: int = 512,
        max_epochs: int = 16,
        lr: float = 6e-3,
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
        check_count("dim", dim, maximum=MAX_DIM)
        check_counts(epoch_batches=epoch_batches, batch_size=batch_size, max_epochs=max_epochs)
        if isinstance(num_neighbors, (str, int)) or not num_neighbors:
            raise ValueError(
                f"num_neighbors must be at least 1 for each layer, such as (24,), got {num_neighbors!r}"
            )
        for number in num_neighbors:
            check_count("num_neighbors", number)
        check_number("lr", lr, above=0.0, maximum=MAX_LR)
        check_flags(progress=progress)
        if folder is not None:
            check_folder(folder)
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
            self._train(graph, views, ties, profile, until, warm=warm)

    def embed(self, graph: FriendGraph, users: Tensor, until: int) -> Tensor:
        """Where the network moves users, all of the graph in view: [n, D].

        Newcomers start amid their contacts, hubs counting less, and are as present as people on average: few
        acts say that somebody came lately, not who it is.
        """
        assert self.network is not None
        past, profile = Past.of(graph, seed=self.seed), self._profile(graph)
        places = self._places.new_zeros(graph.num_users, self._places.size(1))
        places[: len(self._places)] = self._places
        new = self._settle(places, past.timeline)
        loader = QueryLoader(
            past.graph,
            Query.of(past.graph, users, past.end),
            self.num_neighbors,
            strategy="uniform",
            seed=self.seed,
            batch_size=EMBEDDED,
            generator=torch.Generator(),
        )
        out = [places[:0]]
        for batch in loader if len(users) else ():
            view = torch.zeros_like(batch.input_id)
            inputs = self._inputs(batch, past.timeline, places[None], view, profile)
            usual = self.network.encoder.node_scale.mean
            inputs = inputs._replace(node=torch.where(new[batch[USER].n_id, None], usual, inputs.node))
            out.append(self.network.encoder(*inputs.of_encoder)[: len(view)])
        return torch.cat(out)

    def _settle(self, places: Tensor, timeline: Timeline) -> Tensor:
        """Write places [N, D] for those without one amid contacts who have one; who they are: [N] bool."""
        fresh = (~places.any(1)).nonzero().squeeze(1)
        end = torch.tensor(len(timeline.instants))
        row, contact = timeline.last_half_edges(fresh, end.expand(len(fresh)), MOST_CONTACTS)
        other = timeline.half_edges.other[contact].long()
        degree = timeline.activity(other, end.expand(len(other))).degree
        near = places[other] / (1.0 + degree[:, None]).sqrt()
        amid = F.normalize(torch.zeros(len(fresh), places.size(1)).index_add_(0, row, near), dim=1)
        places[fresh] = amid
        new = torch.zeros(len(places), dtype=torch.bool)
        new[fresh] = amid.any(1)
        return new

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

    def _train(
        self, graph: FriendGraph, views: Views, ties: Pairs, profile: Tensor, until: int, *, warm: bool
    ) -> None:
        assert self.network is not None
        network = self.network.train()
        judged = min(MOST_HELD_OUT, int(HELD_OUT * len(ties)))
        order = torch.arange(len(ties))
        held_out = ties.take(order[:judged]).with_random_pairs(views)
        trained = ties.take(order[judged:]).with_random_pairs(views)
        batches = TimelineBatches(
            torch.ones(len(trained), dtype=torch.int64),
            events_per_batch=self.batch_size,
            max_batches=self.epoch_batches,
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
                inputs = as_newcomers(inputs, size)
            z, people = network.encoder(*inputs.of_encoder)[:size], batch[USER].n_id[:size]
            terms: dict[str, Tensor] = network.objective(z, people, met, view)
            return terms | {"events": met.sum().float()}

        def validate() -> dict[str, float]:
            (batch,) = judge
            return {"val_score": -float(losses(held_out, batch)["loss"])}

        key: dict[str, Any] = {}
        if self.folder is not None:
            key |= {"tokenizer": type(self).__qualname__, **self.settings(), "until": until, "warm": warm}
            key |= {"graph": digest_graph(graph), "places": views.places, "profile": profile}
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
            key=key,
            progress=self.progress,
        )

    def _inputs(
        self, batch: HeteroData, timeline: Timeline, places: Tensor, view: Tensor, profile: Tensor
    ) -> Inputs:
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
        return Inputs(
            place=torch.where(place.any(1, keepdim=True), place, guess),
            guess=guess,
            node=presence(timeline, user, tick),
            profile=profile[user],
            row=row,
            column=column,
            edge=edge,
        )

    def _kinds(self) -> dict[str, int]:
        """Which column of an edge's features says that it is of a type."""
        names = [title for name in self._actions for title in (name, reverse_of(name))]
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
        self.objective = Objective(dim)


def _regressed(places: Tensor, profile: Tensor) -> Tensor:
    """Weights [Fp, D] by which features [N, Fp] tell places [N, D], as far as they do (ridge regression)."""
    x, width = profile.double(), profile.size(1)
    gram = x.T @ x + RIDGE * torch.eye(width, dtype=torch.float64)
    out: Tensor = torch.linalg.solve(gram, x.T @ places.double())
    return out.float()
