"""Two-tower retrieval by UserID, with a pointer to the people of the temporal neighbourhood."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, FriendGraph, Query
from graphrec.evaluate import rank_events
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.models.recommender import Recommender
from graphrec.nn import (
    NUM_PAIR_FEATURES,
    NUM_PRESENCE_FEATURES,
    NUM_QUERY_FEATURES,
    HistoryEncoder,
    NeighborPointer,
    Standardize,
    Timelines,
    mlp,
    pair_features,
    presence_features,
    query_features,
    segment_log_softmax,
)
from graphrec.sampler import Contacts, Timeline, contains
from graphrec.sampler.draws import below, hashed
from graphrec.train import train

TINY = 1e-30


class TwoTowerNet(nn.Module):
    """The user tower (actor, history, action) and the table of target embeddings, mixed with the pointer.

    Row 0 of each table is the stranger: everyone without an event in training, and anyone not yet seen at the
    time of a query, so that user indices say nothing.
    """

    def __init__(
        self,
        num_known: int,
        num_actions: int,
        *,
        embedding_dim: int,
        hidden_channels: int,
        num_layers: int,
        num_heads: int,
        window: int,
        dropout: float,
        pointer: bool,
    ) -> None:
        super().__init__()
        self.actor = nn.Embedding(num_known + 1, embedding_dim)
        self.target = nn.Embedding(num_known + 1, embedding_dim)
        self.bias = nn.Embedding(num_known + 1, 1)
        self.action = nn.Embedding(num_actions, embedding_dim)
        self.history = HistoryEncoder(
            2 * num_actions,
            embedding_dim,
            hidden_channels,
            num_layers=num_layers,
            num_heads=num_heads,
            window=window,
            dropout=dropout,
        )
        self.project = nn.Linear(hidden_channels, embedding_dim)
        self.no_history = nn.Parameter(torch.zeros(embedding_dim))
        self.standardize_query = Standardize(NUM_QUERY_FEATURES)
        self.features = nn.Linear(NUM_QUERY_FEATURES, embedding_dim)
        self.standardize_presence = Standardize(NUM_PRESENCE_FEATURES)
        self.presence = mlp(NUM_PRESENCE_FEATURES, 16, 1)
        self.interact = nn.Sequential(
            nn.Linear(6 * embedding_dim, 2 * embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * embedding_dim, embedding_dim),
        )
        if pointer:
            self.standardize_pair = Standardize(NUM_PAIR_FEATURES)
            self.pointer = NeighborPointer(NUM_PAIR_FEATURES, NUM_QUERY_FEATURES)
            self.gate = mlp(NUM_QUERY_FEATURES, 32, 2)
        self.initialize()

    def initialize(self) -> None:
        """All initial values that differ from torch's own."""
        for table in (self.actor, self.target):
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)

    def state(self, timelines: Timelines, rows: Tensor, position: Tensor) -> Tensor:
        """What queries know of their histories.

        Args:
            timelines: M acts.
            rows: [M] int64, table rows of the other sides.
            position: [B] int64, each query's last act, or -1 where there is none.

        Returns:
            [B, D]: the mean over the acts tied with the last, or a learned vector where there is none.
        """
        encoded = self.project(self.history(timelines, self.actor(rows)))  # [M, D]
        if not len(timelines):
            return self.no_history.expand(position.numel(), -1)
        opens = torch.ones_like(timelines.row, dtype=torch.bool)
        opens[1:] = (timelines.row.diff() != 0) | (timelines.time.diff() != 0)
        tie = opens.cumsum(0) - 1
        mean = encoded.new_zeros(int(tie[-1]) + 1, encoded.size(1)).index_add(0, tie, encoded)
        mean = mean / torch.bincount(tie)[:, None]
        at = tie[position.clamp(min=0)]
        return torch.where((position >= 0)[:, None], mean[at], self.no_history)

    def towers(self, state: Tensor, actor: Tensor, action: Tensor, features: Tensor) -> Tensor:
        """Query vectors [B, D] from [actor, history, action, actor x history, actor x action, features]."""
        a, c = self.actor(actor), self.action(action)
        out: Tensor = self.interact(torch.cat([a, state, c, a * state, a * c, self.features(features)], 1))
        return out

    def logits(self, vector: Tensor, rows: Tensor) -> Tensor:
        """Dot products with table rows [C], and their biases: [B, C]."""
        out: Tensor = vector @ self.target(rows).T + self.bias(rows).squeeze(1)
        return out


class TwoTower(Recommender):
    """A two-tower model whose user tower reads the whole timeline, mixed with a neighbour pointer.

    P(v | u, t, action) = g P_pointer(v) + (1 - g) P_table(v). P_table is a softmax over the user table and
    how present each person is, trained on sampled candidates; P_pointer is a softmax over the latest distinct
    contacts, by the state of the pair. The user tower joins actor, history and action with latent crosses
    (Beutel et al. 2018, https://doi.org/10.1145/3159652.3159727).

    Candidates of the loss are those of the event's own slice: every event is judged among all; a first act
    also among people not acted upon, a new tie also among strangers.

    Args:
        pointer: mix in the neighbour pointer.
        embedding_dim: D, width of the user tables.
        hidden_channels, num_layers, num_heads, window: of the `HistoryEncoder`.
        dropout: in the encoder and the towers.
        num_contacts: people the pointer chooses among.
        contact_window: half-edges it looks back for them.
        num_rand_negs: random users beside the in-batch ones as candidates of a training step.
        temporal_weight: weight of all acts of a timeline but the last one's.
        batch_acts: acts on the timelines of a batch.
        max_queries: prefixes of a batch that are asked about.
        epoch_batches: the most batches of an epoch; each epoch draws others.
        max_epochs, patience: the most epochs, and how many without a better validation end training.
        seed: fixes initial values, order, negatives and dropout.
        folder: for checkpoints; an interrupted fit goes on from there.
        progress: show training.
    """

    def __init__(
        self,
        *,
        pointer: bool = True,
        embedding_dim: int = 64,
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 64,
        dropout: float = 0.1,
        num_contacts: int = 64,
        contact_window: int = 256,
        num_rand_negs: int = 512,
        temporal_weight: float = 1.0,
        batch_acts: int = 4096,
        max_queries: int = 512,
        epoch_batches: int = 64,
        max_epochs: int = 20,
        patience: int = 3,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool = True,
    ) -> None:
        self.name = "two_tower_pointer" if pointer else "two_tower"
        self.pointer = pointer
        self.sizes: dict[str, Any] = {
            "embedding_dim": embedding_dim,
            "hidden_channels": hidden_channels,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "window": window,
            "dropout": dropout,
            "pointer": pointer,
        }
        self.reach = num_layers * window
        self.num_contacts, self.contact_window = num_contacts, contact_window
        self.num_rand_negs, self.temporal_weight = num_rand_negs, temporal_weight
        self.max_queries, self.epoch_batches = max_queries, epoch_batches
        self.batch_acts, self.max_epochs, self.patience = batch_acts, max_epochs, patience
        self.seed, self.folder, self.progress = seed, folder, progress
        self._curve: list[dict[str, float]] = []

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
        has_events = timeline.halves.count(everyone, torch.full_like(everyone, len(timeline.instants))) > 0
        self._first_tick = torch.full_like(everyone, len(timeline.instants))
        first_event = timeline.event[timeline.halves.ptr[:-1][has_events]].long()
        self._first_tick[has_events] = timeline.event_tick[first_event]
        known = (lengths > 0).nonzero().squeeze(1)
        if not known.numel():
            raise ValueError(f"{self.name}: there is no event before until={until} to fit on")
        # Rows follow what people did, never their index: first appearance, then activity.
        past = tick.expand(len(known))
        for quantity in (timeline.num_acts, timeline.last_received, timeline.last_act):
            known = known[quantity(known, past).argsort(stable=True)]
        known = known[self._first_tick[known].argsort(stable=True)]
        self._row = torch.zeros_like(everyone)
        self._row[known] = torch.arange(1, known.numel() + 1)
        self._in_order = torch.cat([known, (self._row == 0).nonzero().squeeze(1)])
        train_events = int(torch.searchsorted(timeline.event_tick, tick))
        self._warm = int(timeline.events.time[train_events // 10])
        share = torch.bincount(timeline.events.dst[:train_events], minlength=graph.num_users)
        self._share = share.double() / train_events
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = TwoTowerNet(known.numel(), len(graph.actions), **self.sizes)
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
        if len(judged) > 1000:
            picked = torch.randperm(len(judged), generator=torch.Generator().manual_seed(self.seed))[:1000]
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
        return self

    def losses(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """Likelihood of every own act on the batch's timelines, each from its own past."""
        timeline = self._timeline
        acts = Timelines.of_batch(batch, self.graph.actions)
        own = ((acts.kind % 2 == 1) & (acts.time >= self._warm)).nonzero().squeeze(1)
        if len(own) > self.max_queries:
            owner, other = self._row[batch[USER].n_id[acts.row[own]]], self._row[acts.other[own]]
            lot = hashed(self.seed, epoch, acts.time[own], acts.kind[own], owner, other)
            own = own[lot.argsort()[: self.max_queries].sort().values]
        user = batch[USER].n_id[acts.row[own]]
        query = Query(user, acts.time[own], acts.kind[own] // 2)
        target, tick = acts.other[own], timeline.tick(query.time)
        position = acts.before(acts.row[own], query.time)
        vector, features = self._towers(query, tick, acts, position)

        # Candidates: the batch's targets and random users, each with the probability of being among them.
        draws = hashed(self.seed, epoch, batch.input_id[0], torch.arange(self.num_rand_negs))
        drawn = self._in_order[below(draws, len(self._in_order))]
        candidates = torch.unique(torch.cat([target, drawn]))
        expected = len(target) * self._share[candidates] + self.num_rand_negs / len(self._row)
        log_q = torch.log1p(-torch.exp(-expected)).float()  # Horvitz-Thompson, so that the sum is unbiased
        scores = self._table_logits(vector, candidates, query)
        goal = scores.gather(1, torch.searchsorted(candidates, target)[:, None]).squeeze(1)
        logits = scores - log_q
        met = timeline.contacts.before(user, tick)
        approached = timeline.approached.before(user, tick)
        is_first = ~contains(approached, target)
        is_new = is_first & ~contains(met, target)
        never = (candidates == user[:, None]) | (candidates == target[:, None])

        pointed = self._point(query, tick, features) if self.pointer else None
        total = vector.new_zeros(len(query))
        for inside, people, bars in (
            (torch.ones_like(is_first), None, lambda c: torch.zeros_like(c.row, dtype=torch.bool)),
            (is_first, approached, lambda c: c.num_out > 0),
            (is_new, met, lambda c: torch.ones_like(c.row, dtype=torch.bool)),
        ):
            excluded = never if people is None else never | _members(people, candidates, len(query))
            table = goal - torch.logaddexp(goal, logits.masked_fill(excluded, -torch.inf).logsumexp(1))
            total = total - torch.where(inside, self._mixed(table, pointed, target, bars, features), 0.0)
        last = torch.ones_like(user, dtype=torch.bool)
        last[:-1] = acts.row[own].diff() != 0
        weight = torch.where(last, 1.0, self.temporal_weight)
        size = weight.sum().clamp(min=1.0)
        with torch.no_grad():
            above = (scores.masked_fill(never, -torch.inf) > goal[:, None]).sum(1).float()
        return {
            "loss": (total * weight).sum() / size,
            "accuracy": (above == 0).float().mean(),
            "mrr": (1.0 / (1.0 + above)).mean(),
            "mean_rank": 1.0 + above.mean(),
            "events": torch.tensor(float(len(query))),
        }

    def score_all(self, query: Query) -> Tensor:
        """Log-probabilities of everyone, [B, N] float32."""
        num_users = self.graph.num_users
        if not len(query):
            return torch.empty(0, num_users)
        order = query.time.argsort(stable=True)
        scores = self._score_in_order(query[order])
        return torch.empty_like(scores).index_copy_(0, order, scores)

    def _score_in_order(self, query: Query) -> Tensor:
        timeline = self._timeline
        tick = timeline.tick(query.time)
        with torch.no_grad():
            acts = Timelines.of_index(timeline, query.user, tick, self.reach)
            position = acts.before(torch.arange(len(query)), query.time)
            vector, features = self._towers(query, tick, acts, position)
            table = self._table_logits(vector, None, query).log_softmax(1)
            if not self.pointer:
                return table
            contacts, logits = self._point(query, tick, features)
            some = torch.bincount(contacts.row, minlength=len(query)) > 0
            gate = self._gate(features, some)
            share = segment_log_softmax(logits, contacts.row, len(query)).exp()
            out = table.exp_().mul_(gate[:, 1:].exp())
            out[contacts.row, contacts.user] += gate[contacts.row, 0].exp() * share
            return out.clamp_(min=TINY).log_()

    def _towers(self, query: Query, tick: Tensor, acts: Timelines, position: Tensor) -> tuple[Tensor, Tensor]:
        """Query vectors [B, D] and standardised query features [B, Q]."""
        network = self.network
        features = network.standardize_query(query_features(self._timeline, query))
        state = network.state(acts, self._row[acts.other], position)
        return network.towers(state, self._rows_at(query.user, tick), query.action, features), features

    def _rows_at(self, user: Tensor, tick: Tensor) -> Tensor:
        """Table rows of users at ticks: the stranger's until their first event."""
        return torch.where(self._first_tick[user] < tick, self._row[user], 0)

    def _table_logits(self, vector: Tensor, users: Tensor | None, query: Query) -> Tensor:
        """[B, C] logits of users [C], or of everyone; those not yet seen at a query's tick are strangers."""
        tick = self._timeline.tick(query.time)[:, None]
        presence = presence_features(self._timeline, query, users)
        rows, first = (
            (self._row, self._first_tick) if users is None else (self._row[users], self._first_tick[users])
        )
        logits = self.network.logits(vector, rows)
        stranger = self.network.logits(vector, torch.zeros(1, dtype=torch.int64))
        present = self.network.presence(self.network.standardize_presence(presence)).squeeze(2)
        out: Tensor = torch.where(first < tick, logits, stranger) + present
        return out

    def _point(self, query: Query, tick: Tensor, features: Tensor) -> tuple[Contacts, Tensor]:
        """The people to point at, and their logits [M]."""
        contacts = self._timeline.distinct_contacts(
            query.user, tick, k=self.num_contacts, window=self.contact_window
        )
        pair = self.network.standardize_pair(pair_features(self._timeline, query, contacts))
        return contacts, self.network.pointer(pair, features[contacts.row])

    def _gate(self, features: Tensor, some: Tensor) -> Tensor:
        """Log-shares of pointer and table, [B, 2]; the table's alone where there is nobody to point at."""
        logits = self.network.gate(features) + torch.tensor([2.0, 0.0])  # the pointer leads at first
        nobody = torch.stack([~some, torch.zeros_like(some)], dim=1)
        out: Tensor = logits.masked_fill(nobody, -1e9).log_softmax(1)
        return out

    def _mixed(
        self,
        table: Tensor,
        pointed: tuple[Contacts, Tensor] | None,
        target: Tensor,
        bars: Callable[[Contacts], Tensor],
        features: Tensor,
    ) -> Tensor:
        """Log-likelihood of the targets under the mixture, [B], with some contacts barred."""
        if pointed is None:
            return table
        contacts, logits = pointed
        left = ~bars(contacts)
        row, user, logits = contacts.row[left], contacts.user[left], logits[left]
        some = torch.bincount(row, minlength=len(table)) > 0
        share = segment_log_softmax(logits, row, len(table))
        hit = user == target[row]
        pointer = table.new_full((len(table),), -1e9).index_put((row[hit],), share[hit])
        gate = self._gate(features, some)
        return torch.logaddexp(gate[:, 0] + pointer, gate[:, 1] + table)

    def _validate(self, event_id: Tensor) -> dict[str, float]:
        """MRR on validation events: all, and new ties; their geometric mean decides."""
        ranks = rank_events(self, self.graph, event_id, part="val", trained_until=0, progress=False)
        scores = {
            f"val_{name}": float((1.0 / ranks.of(name)[0]).mean()) if len(ranks.of(name)[0]) else 0.0
            for name in ("all", "new")
        }
        both = [value for value in scores.values() if value]
        return scores | {"val_score": float(np.prod(both) ** (1.0 / max(len(both), 1)))}


def _members(people: tuple[Tensor, Tensor], candidates: Tensor, num_rows: int) -> Tensor:
    """Which candidates (ascending, [C]) are among each row's people: [B, C] bool."""
    row, user = people
    at = torch.searchsorted(candidates, user).clamp(max=len(candidates) - 1)
    found = candidates[at] == user
    out = torch.zeros(num_rows, len(candidates), dtype=torch.bool)
    out[row[found], at[found]] = True
    return out
