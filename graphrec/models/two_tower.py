"""Two-tower retrieval by UserID, mixed with the people of the temporal neighbourhood."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, Query
from graphrec.evaluate import rank_events
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.models.recommender import Recommender
from graphrec.nn import (
    PRESENCE,
    SOURCES,
    STRUCTURE,
    Activation,
    Candidates,
    History,
    Interaction,
    Profiles,
    Timelines,
    TwoTowerNet,
    Votes,
    pair_features,
    path_features,
    person_features,
    presence_features,
    query_features,
    sampled_log_softmax,
)
from graphrec.sampler import Neighborhood, Reach, Structure, Timeline, contains
from graphrec.sampler.draws import below, hashed
from graphrec.train import num_processes, train

TINY = 1e-30
STRUCTURE_DIM = 32
SNAPSHOTS, MAX_ROWS = 16, 10**7
"""The network is embedded anew after each such part of the training events, or fewer with many users."""

ALONE = 0.03
"""How much the likelihood under each source alone counts beside the mixture's, so that each ranks well where
the gate errs (deep supervision; Lee et al. 2015, https://arxiv.org/abs/1409.5185)."""

WAITING, NEWCOMERS = 2.7, 0.1
"""What a contact's probability is multiplied by who waits for an answer, and the power of 1 + the acts a
contact received that it is divided by (see `TwoTower._favour`)."""

FAVOURS = (0.0, 0.5, 1.0)
"""Powers of these factors that validation chooses from."""

JUDGED_SCORES = 25_000_000
"""Events times users judged after each epoch, about."""

LEARNED: dict[str, tuple[str, ...]] = {
    "two_tower": (PRESENCE,),
    "two_tower_pointer": ("pointer", PRESENCE),
    "two_tower_mixture": (*SOURCES, PRESENCE, STRUCTURE),
}
"""The sources of the two-tower, by the name of its row."""

PARTS = {
    "history": get_args(History),
    "interaction": get_args(Interaction),
    "activation": get_args(Activation),
}
"""What its parts may be."""


class TwoTower(Recommender):
    """A two-tower model whose user tower reads the whole timeline, mixed with the neighbourhood.

    P(v | u, t, action) is a gated mixture: a softmax over the user table for everyone, and the sources of
    `NeighborhoodMixture` for the people around u. Each factor is learned, all together, by the likelihood of
    the mixture.

    Candidates of the loss are those of the event's own slice: every event is judged among all, a reply also
    among people not acted upon, a new tie also among strangers. A slice counts as the root of its share of
    the events, so that a rare one is not lost.

    Where the graph has features of users (`graph["user"].x`), whoever is known by them at a query's time (see
    `Profiles`) is placed by them too, with or without a history.

    Args:
        sources: what is joined with the user embeddings: any of 'pointer', 'paths', 'union' (see
            `NeighborhoodMixture`), 'presence', how present a person is, and 'structure', how near a person
            stands in the network.
        reach: how far the neighbourhood reaches.
        history: how a timeline is encoded: 'transformer' (`HistoryEncoder`), 'pooled' (`PooledHistory`) or
            'mean' (`MeanHistory`).
        interaction: how the parts of the user tower meet: 'mlp', or 'moe', a mixture of experts.
        activation: 'gelu' or 'swiglu', in encoder and user tower.
        embedding_dim: D, width of the user tables.
        hidden_channels, num_layers, num_heads, window: of the encoder.
        dropout: in the encoder and the towers.
        num_rand_negs: random users as negatives of a training step.
        in_batch: whether the targets of a step are negatives of each other.
        temporal_weight: weight of all acts of a timeline but the last one; 0 trains on the last ones alone.
        batch_acts: acts on the timelines of a batch.
        max_queries: prefixes of a batch that are asked about.
        epoch_batches: the most batches of an epoch; each epoch draws others.
        max_epochs, patience: the most epochs, and how many without a better validation end training.
        seed: fixes initial values, order, negatives and dropout.
        folder: for checkpoints; an interrupted fit goes on from there.
        progress: show training.
    """

    dtype = torch.float32

    def __init__(
        self,
        *,
        sources: Collection[str] = LEARNED["two_tower_mixture"],
        reach: Reach | None = None,
        history: History = "transformer",
        interaction: Interaction = "mlp",
        activation: Activation = "gelu",
        embedding_dim: int = 64,
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 32,
        dropout: float = 0.1,
        num_rand_negs: int = 512,
        in_batch: bool = True,
        temporal_weight: float = 1.0,
        batch_acts: int = 1024,
        max_queries: int = 64,
        epoch_batches: int = 50,
        max_epochs: int = 6,
        patience: int = 3,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
    ) -> None:
        known = LEARNED["two_tower_mixture"]
        unknown = [name for name in sources if name not in known]
        if unknown:
            raise ValueError(f"unknown source {unknown[0]!r}; there are {', '.join(known)}")
        parts = {"history": history, "interaction": interaction, "activation": activation}
        for part, given in parts.items():
            if given not in PARTS[part]:
                raise ValueError(f"unknown {part} {given!r}; there are {', '.join(PARTS[part])}")
        if not in_batch and num_rand_negs < 1:
            raise ValueError("there are no negatives where in_batch is False and num_rand_negs is 0")
        self.name = next(
            (name for name, given in LEARNED.items() if set(given) == set(sources)),
            "_".join(["two_tower", *(sources or ["embeddings"])]),
        )
        self.sources = tuple(name for name in SOURCES if name in sources)
        self.has_structure = STRUCTURE in sources
        self.reach = reach or Reach()
        if set(self.sources) <= {"pointer"}:
            self.reach = replace(self.reach, middles=0, recent_window=0)
        self.sizes: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "sources": sources,
            **parts,
            "hidden_channels": hidden_channels,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "window": window,
            "dropout": dropout,
        }
        self.num_rand_negs, self.in_batch, self.temporal_weight = num_rand_negs, in_batch, temporal_weight
        self.max_queries, self.epoch_batches = max_queries, epoch_batches
        self.batch_acts, self.max_epochs, self.patience = batch_acts, max_epochs, patience
        self.seed, self.folder, self.progress = seed, folder, progress
        self._curve: list[dict[str, float]] = []
        self._power = 0.0

    @property
    def curve(self) -> list[dict[str, float]]:
        """Training and validation, one row an epoch."""
        return self._curve

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def prepare(self, graph: FriendGraph, *, until: int) -> QueryLoader:
        """Index the graph, number the known users, build the network; the loader of training timelines."""
        self._graph, self._timeline = graph, Timeline.of(graph)
        timeline = self._timeline
        tick = timeline.tick(torch.tensor(until))
        everyone = torch.arange(graph.num_users)
        lengths = timeline.halves.count(everyone, tick.expand(len(everyone)))
        if not lengths.any():
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")
        self._profiles = Profiles.of(graph, until=until)
        # Rows follow what people did and are, never their index: first appearance, activity, profile.
        order = everyone if self._profiles is None else self._profiles.key(until).argsort(stable=True)
        known, strangers = order[lengths[order] > 0], order[lengths[order] == 0]
        past = tick.expand(len(known))
        for quantity in (timeline.num_acts, timeline.last_received, timeline.last_act):
            known = known[quantity(known, past).argsort(stable=True)]
        known = known[timeline.first_tick[known].argsort(stable=True)]
        self._row = torch.zeros_like(everyone)
        self._row[known] = torch.arange(1, known.numel() + 1)
        self._in_order = torch.cat([known, strangers])
        train_events = int(torch.searchsorted(timeline.event_tick, tick))
        self._warm = int(timeline.events.time[train_events // 10])
        self._structure = None
        if self.has_structure:
            start = torch.randn(
                graph.num_users, STRUCTURE_DIM, generator=torch.Generator().manual_seed(self.seed)
            )
            start = torch.empty_like(start).index_copy_(0, self._in_order, start)
            parts = max(1, min(SNAPSHOTS, MAX_ROWS // graph.num_users))
            every = max(1, train_events // parts)
            self._structure = Structure(timeline, start, every=every)
        first, met = (
            int(torch.searchsorted(pairs.chronological[0], tick)) / train_events
            for pairs in (timeline.approached, timeline.contacts)
        )
        # A contact is one of both sides; what opens a direction but no contact is a reply.
        self._slice_sizes = [max(share, TINY) ** 0.5 for share in (1.0, first - met / 2, met / 2)]
        share = torch.bincount(timeline.events.dst[:train_events], minlength=graph.num_users)
        self._share = share.double() / train_events
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            columns = 0 if self._profiles is None else self._profiles.x.size(1)
            self.network = TwoTowerNet(
                known.numel(), len(graph.actions), profile_columns=columns, **self.sizes
            )
        batches = TimelineBatches(
            lengths[known], budget=self.batch_acts, most=self.epoch_batches, seed=self.seed
        )
        return QueryLoader.of_timelines(
            graph, until=until, users=known, batch_sampler=batches, seed=self.seed
        )

    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Train on events before `until`.

        Args:
            graph: the whole graph.
            until: seconds; training sees what is strictly older.
            validate_until: events from `until` to before this time choose the epoch; by default the last
                tenth of training is set aside for it.
        """
        if validate_until is None:
            events = graph.events()
            size = int(torch.searchsorted(events.time, until))
            validate_until, until = until, int(events.time[size * 9 // 10]) if size else until
        loader = self.prepare(graph, until=until)
        ids = torch.searchsorted(self._timeline.events.time, torch.tensor([until, validate_until]))
        judged = torch.arange(int(ids[0]), int(ids[1]))
        size = min(4000, max(500, JUDGED_SCORES // graph.num_users))
        if len(judged) > size:
            picked = torch.randperm(len(judged), generator=torch.Generator().manual_seed(self.seed))[:size]
            judged = judged[picked.sort().values]
        self._curve = train(
            self.network,
            loader,
            losses=self.losses,
            validate=lambda: self._validate(judged),
            steps_per_epoch=len(loader),
            max_epochs=self.max_epochs,
            patience=self.patience,
            seed=self.seed,
            folder=self.folder,
            progress=self.progress,
        )
        if self.sources:
            scores = {}
            for self._power in FAVOURS:
                with torch.no_grad():
                    scores[self._power] = self._validate(judged)["val_score"]
            self._power = max(scores, key=scores.__getitem__)
        return self

    def losses(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """Likelihood of every own act on the batch's timelines, each from its own past."""
        timeline = self._timeline
        acts = Timelines.of_batch(batch, self.graph.actions)
        own, weight = self._asked(acts, batch, epoch)
        user = batch[USER].n_id[acts.row[own]]
        query = Query(user, acts.time[own], acts.kind[own] // 2)
        target, tick = acts.other[own], timeline.tick(query.time)
        position = acts.before(acts.row[own], query.time)
        vector, features, asker = self._query_tower(query, acts, position)

        draws = hashed(self.seed, epoch, batch.input_id[0], torch.arange(self.num_rand_negs))
        random = self._in_order[below(draws, len(self._in_order))]
        candidates = Candidates.of(target, random, self._share, in_batch=self.in_batch)
        scores = self._table_logits(vector, asker, candidates.user, query)
        device = self._device  # the index and its masks are on the CPU, what the network computes is here
        log_q, weight = candidates.log_q.to(device), weight.to(device)
        goal = scores.gather(1, candidates.place(target)[:, None].to(device)).squeeze(1)
        never = (candidates.user == user[:, None]) | (candidates.user == target[:, None]) | ~candidates.drawn

        met = timeline.contacts.before(user, tick)
        approached = timeline.approached.before(user, tick)
        everyone = torch.ones_like(user, dtype=torch.bool)
        is_first = ~contains(approached, target)
        is_new = is_first & ~contains(met, target)
        around = self._around(query, tick, features, asker) if self.sources else None
        loss = vector.new_zeros(())
        slices = (everyone, None), (is_first & ~is_new, approached), (is_new, met)
        for size, (inside, people) in zip(self._slice_sizes, slices, strict=True):
            barred = never if people is None else never | candidates.members(people, len(query))
            rows = inside.nonzero().squeeze(1)
            barred, rows = barred[rows].to(device), rows.to(device)
            table = sampled_log_softmax(goal[rows], scores[rows], log_q, barred)
            table = vector.new_zeros(len(query)).index_put((rows,), table)
            if people is not None:
                people = people[0].to(device), people[1].to(device)
            log_p = table
            if around is not None:
                log_p, alone = around.log_likelihood(target.to(device), people, table)
                log_p = log_p + ALONE * alone
            log_p = torch.where(inside.to(device), weight * log_p, 0.0)
            loss = loss - log_p.sum() / (size * weight.sum().clamp(min=1.0))
        never = never.to(device)
        with torch.no_grad():
            above = (scores.masked_fill(never, -torch.inf) > goal[:, None]).sum(1).float()
        return {
            "loss": loss,
            "accuracy": (above == 0).float().mean(),
            "mrr": (1.0 / (1.0 + above)).mean(),
            "mean_rank": 1.0 + above.mean(),
            "events": torch.tensor(float(len(query))),
        }

    def _asked(self, acts: Timelines, batch: HeteroData, epoch: int) -> tuple[Tensor, Tensor]:
        """Own acts of a batch's timelines that are asked about, [n] int64, and their weights [n]."""
        own = ((acts.kind % 2 == 1) & (acts.time >= self._warm)).nonzero().squeeze(1)
        last = torch.ones_like(own, dtype=torch.bool)
        last[:-1] = acts.row[own].diff() != 0
        weight = torch.where(last, 1.0, self.temporal_weight)
        own, weight = own[weight > 0], weight[weight > 0]
        most = max(1, self.max_queries // num_processes())
        if len(own) > most:
            owner, other = self._row[batch[USER].n_id[acts.row[own]]], self._row[acts.other[own]]
            lot = hashed(self.seed, epoch, acts.time[own], acts.kind[own], owner, other)
            chosen = lot.argsort()[:most].sort().values
            own, weight = own[chosen], weight[chosen]
        return own, weight

    def _score_in_order(self, query: Query) -> Tensor:
        """Log-probabilities of everyone, tilted by `_favour`, [B, N] float32."""
        timeline = self._timeline
        tick = timeline.tick(query.time)
        with torch.no_grad():
            acts = Timelines.of_index(timeline, query.user, tick, self.network.reach)
            position = acts.before(torch.arange(len(query)), query.time)
            vector, features, asker = self._query_tower(query, acts, position)
            table = self._table_logits(vector, asker, None, query).log_softmax(1)
            if not self.sources:
                return table.cpu()
            around = self._around(query, tick, features, asker)
            inside, beyond = around.shares()
            out = table.exp_().mul_(beyond[:, None])
            out[around.row, around.user] += inside
            row, user, favour = self._favour(query.user, tick)
            out[row, user] *= favour
            return out.clamp_(min=TINY).log_().cpu()

    def _favour(self, user: Tensor, tick: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By what factor contacts of users [B] are preferred to what is likely: (row [M], user [M], [M]).

        Whoever approached the user and waits for an answer already wants the tie; and of two who are as
        likely, the one whom fewer people have turned to gains more. Validation has chosen how much it counts.
        """
        timeline = self._timeline
        contacts = timeline.distinct_contacts(
            user, tick, k=self.reach.contacts, window=self.reach.contact_window
        )
        received = timeline.num_received(contacts.user, tick[contacts.row]).float()
        favour = torch.where(contacts.num_out == 0, WAITING, 1.0) * (1.0 + received) ** -NEWCOMERS
        favour = favour**self._power
        return contacts.row.to(self._device), contacts.user.to(self._device), favour.to(self._device)

    def _query_tower(
        self, query: Query, acts: Timelines, position: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Query vectors [B, D], standardised query features [B, Q], askers [B, R], where the network is."""
        network, device = self.network, self._device
        features = network.standardize_query(query_features(self._timeline, query).to(device))
        other = network.actor(self._row[acts.other].to(device))
        actor = network.actor(self._rows_at(query.user, self._timeline.tick(query.time)).to(device))
        asker = None
        if network.profile is not None:
            other = other + self._profile(network.profile.actor, acts.other, acts.time)
            actor = actor + self._profile(network.profile.actor, query.user, query.time)
            asker = self._profile(network.profile.asker, query.user, query.time)
        state = network.state(acts.to(device), other, position.to(device))
        return network.query(state, actor, query.action.to(device), features), features, asker

    def _profile(self, layer: nn.Module, user: Tensor, time: Tensor) -> Tensor:
        """A linear map of the profiles of users [n] at times [n]: [n, K], 0 for whoever is not known yet."""
        assert self._profiles is not None
        who, at = user.unique(return_inverse=True)
        known = self._profiles.known(user, time).to(self._device)
        out: Tensor = layer(self._profiles.x[who].to(self._device))[at.to(self._device)] * known[:, None]
        return out

    @property
    def _device(self) -> torch.device:
        """Where the network is; the index is on the CPU."""
        return self.network.no_history.device

    def _rows_at(self, user: Tensor, tick: Tensor) -> Tensor:
        """Table rows of users at ticks: the stranger's until their first event."""
        return torch.where(self._timeline.first_tick[user] < tick, self._row[user], 0)

    def _table_logits(
        self, vector: Tensor, asker: Tensor | None, users: Tensor | None, query: Query
    ) -> Tensor:
        """[B, C] logits of users [C], or of everyone; those not yet seen at a query's tick are strangers."""
        tick = self._timeline.tick(query.time)[:, None]
        seen = self._timeline.first_tick
        rows, first = (self._row, seen) if users is None else (self._row[users], seen[users])
        out = self.network.logits(vector, rows.to(self._device))
        if tick.numel() and bool((first[rows > 0] >= tick.min()).any()):
            stranger = self.network.logits(vector, torch.zeros(1, dtype=torch.int64, device=self._device))
            out = torch.where((first < tick).to(self._device), out, stranger)
        if self.network.profile is not None and self._profiles is not None and asker is not None:
            people = slice(None) if users is None else users
            more = self.network.profile.logits(vector, asker, self._profiles.x[people].to(self._device))
            out = out + more * self._profiles.known(people, query.time[:, None]).to(self._device)
        if self.network.presence is None:
            return out
        blocks = presence_features(self._timeline, query, users, self._structure)
        return out + torch.cat([self.network.presence(block.to(self._device)) for block in blocks])

    def _around(self, query: Query, tick: Tensor, features: Tensor, asker: Tensor | None) -> Votes:
        """What the sources say of the people around the queries."""
        timeline, mixture = self._timeline, self.network.mixture
        assert mixture is not None
        around = Neighborhood.of(timeline, query.user, tick, self.reach)
        device = self._device
        pair = pair_features(timeline, query, around.contacts).to(device)
        if not {"paths", "union"} & set(self.sources):
            return mixture.vote(around.to(device), features, pair)
        now = timeline.activity(around.user, tick[around.row])
        similarity = None
        if self.network.profile is not None and asker is not None:
            person = self._profile(self.network.profile.person, around.user, query.time[around.row])
            similarity = self.network.profile.similarity(asker[around.row.to(device)], person)
        kinds = [around.contacts.half_edge[around.first], around.second.half_edge]
        return mixture.vote(
            around.to(device),
            features,
            pair,
            path=path_features(timeline, query, around, now).to(device),
            kinds=torch.stack([timeline.kind(half_edge) for half_edge in kinds], dim=1).to(device),
            person=person_features(timeline, query, around, now, self._structure).to(device),
            similarity=similarity,
        )

    def _validate(self, event_id: Tensor) -> dict[str, float]:
        """MRR on validation: all, replies, new ties; their geometric mean, weighed as in the loss."""
        ranks = rank_events(self, self.graph, event_id, part="val", trained_until=0, progress=False)
        names = ("all", "reply", "new")
        inside = {name: ranks.of(name)[0] for name in names}
        scores = {f"val_{name}": float((1.0 / r).mean()) if len(r) else 0.0 for name, r in inside.items()}
        logs = np.log([score or 1.0 for score in scores.values()])
        pairs = zip(inside.values(), self._slice_sizes, strict=True)
        weights = [len(rank) and size for rank, size in pairs]
        mean = np.average(logs, weights=weights) if any(weights) else -np.inf
        return scores | {"val_score": float(np.exp(mean))}
