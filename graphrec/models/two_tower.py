"""Two-tower retrieval by UserID, mixed with the people of the temporal neighbourhood."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from graphrec.data import Query
from graphrec.data.checks import check_flags, check_time
from graphrec.data.draws import below, hashed
from graphrec.data.precision import single_precision
from graphrec.models.neighborhood import Asked, Everyone, NeighborhoodModel
from graphrec.models.saved import uncompiled
from graphrec.nn import (
    PRESENCE,
    SOURCES,
    STRUCTURE,
    Activation,
    Candidates,
    History,
    Interaction,
    Timelines,
    TwoTowerNet,
    sampled_log_softmax,
)
from graphrec.temporal import Reach

LEARNED: dict[str, tuple[str, ...]] = {
    "two_tower": (PRESENCE,),
    "two_tower_pointer": ("pointer", PRESENCE),
    "two_tower_mixture": (*SOURCES, PRESENCE, STRUCTURE),
}
"""The sources of the two-tower, by the name of its row."""


class TwoTower(NeighborhoodModel):
    """A two-tower model whose user tower reads the whole timeline, mixed with the neighbourhood.

    Everyone is reached by a softmax over the user table; for the rest see `NeighborhoodModel`.

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

    network: TwoTowerNet

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
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(known_sources=LEARNED["two_tower_mixture"], arguments=arguments)
        check_flags(in_batch=in_batch)
        if not in_batch and num_rand_negs < 1:
            raise ValueError("there are no negatives where in_batch is False and num_rand_negs is 0")
        self.name = next(
            (name for name, given in LEARNED.items() if set(given) == set(sources)),
            "_".join(["two_tower", *(sources or ["embeddings"])]),
        )
        self.num_rand_negs, self.in_batch = num_rand_negs, in_batch

    def _build(self, *, num_known: int) -> TwoTowerNet:
        columns = self._profile_columns
        return TwoTowerNet(num_known, len(self.graph.actions), profile_columns=columns, **self.sizes)

    def _kept(self, rows: Tensor) -> TwoTowerNet:
        out = copy.deepcopy(uncompiled(self.network))
        rows = torch.cat([rows.new_zeros(1), rows]).to(self._device)
        for table in (out.actor, out.target, out.bias):
            table.weight = nn.Parameter(table.weight.detach()[rows])
            table.num_embeddings = len(rows)
        return out

    def _actors(self, user: Tensor, tick: Tensor) -> Tensor:
        out: Tensor = self.network.actor(self._rows_at(user, tick).to(self._device))
        return out

    def _others(self, acts: Timelines) -> Tensor:
        out: Tensor = self.network.actor(self._row[acts.other].to(self._device))
        return out

    def _everyone(self, asked: Asked, target: Tensor, draw: Tensor) -> Everyone:
        draws = hashed(draw, torch.arange(self.num_rand_negs))
        random = self._in_order[below(draws, len(self._in_order))]
        candidates = Candidates.of(target, random, self._share, in_batch=self.in_batch)
        user, drawn = asked.query.user[:, None], candidates.user
        return _Table(
            candidates,
            scores=self._table_logits(asked, candidates.user),
            place=candidates.place(target),
            never=(drawn == user) | (drawn == target[:, None]) | ~candidates.drawn,
        )

    def _log_everyone(self, asked: Asked) -> Tensor:
        return self._table_logits(asked, None).log_softmax(1)

    # Vectors, for an index

    @single_precision()
    @torch.no_grad()
    def query_vectors(self, query: Query) -> Tensor:
        """What `user_vectors` are multiplied with: [B, W] float32, on the CPU."""
        self._check(query)
        asked = self._ask_now(query)
        parts = [asked.vector, *([] if asked.asker is None else [asked.asker])]
        return torch.cat([*parts, torch.ones_like(asked.vector[:, :1])], dim=1).cpu()

    @single_precision()
    @torch.no_grad()
    def user_vectors(self, time: int) -> Tensor:
        """Where everyone is for queries at a time (s) after training: [N, W] float32, on the CPU.

        The inner product with a query's vector is the logit of the user embeddings, biases and profiles;
        what else the model mixes is left out.
        """
        self._check_fitted()
        time = check_time("time", time)
        rows, network = self._row.to(self._device), self.network
        embedding, bias = network.target(rows), network.bias(rows)
        if network.profile is None or self._profiles is None:
            return torch.cat([embedding, bias], dim=1).cpu()
        everyone = torch.arange(self.graph.num_users)
        more = self._profile(network.profile.person, everyone, torch.full_like(everyone, time))
        own = torch.cat([embedding, more.new_zeros(len(more), more.size(1) - embedding.size(1) - 1), bias], 1)
        return (own + more).cpu()

    def vectors_change(self) -> Tensor:
        """After which times (s), ascending, `user_vectors` are others: int64."""
        self._check_fitted()
        if self._profiles is None:
            return torch.empty(0, dtype=torch.int64)
        since = self._profiles.since
        out: Tensor = since[since >= self._until].unique()
        return out

    def _rows_at(self, user: Tensor, tick: Tensor) -> Tensor:
        """Table rows of users at ticks: the stranger's until their first event."""
        return torch.where(self._timeline.first_tick[user] < tick, self._row[user], 0)

    def _table_logits(self, asked: Asked, users: Tensor | None) -> Tensor:
        """[B, C] logits of users [C], or of everyone; those not yet seen at a query's tick are strangers."""
        tick, vector = asked.tick[:, None], asked.vector
        seen = self._timeline.first_tick
        rows, first = (self._row, seen) if users is None else (self._row[users], seen[users])
        out = self.network.logits(vector, rows.to(self._device))
        if tick.numel() and bool((first[rows > 0] >= tick.min()).any()):
            stranger = self.network.logits(vector, torch.zeros(1, dtype=torch.int64, device=self._device))
            out = torch.where((first < tick).to(self._device), out, stranger)
        return self._person_logits(out, asked, users, self.network.presence)


@dataclass(frozen=True)
class _Table:
    """The softmax over the user table, estimated from candidates.

    Attributes:
        candidates: C of them.
        scores: [B, C] logits.
        place: [B] int64, where the targets are among them.
        never: [B, C] bool, who is no negative.
    """

    candidates: Candidates
    scores: Tensor
    place: Tensor
    never: Tensor

    @property
    def _goal(self) -> Tensor:
        return self.scores.gather(1, self.place[:, None].to(self.scores.device)).squeeze(1)

    def log_p(self, rows: Tensor, people: tuple[Tensor, Tensor] | None) -> Tensor:
        """See `Everyone`."""
        barred, device = self.never, self.scores.device
        if people is not None:
            barred = barred | self.candidates.members(people, len(barred))
        barred, log_q, rows = barred[rows].to(device), self.candidates.log_q.to(device), rows.to(device)
        return sampled_log_softmax(self._goal[rows], self.scores[rows], log_q, barred)

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """Where the targets rank among the candidates."""
        others = self.scores.masked_fill(self.never.to(self.scores.device), -torch.inf)
        above = (others > self._goal[:, None]).sum(1).float()
        return {
            "accuracy": (above == 0).float().mean(),
            "mrr": (1.0 / (1.0 + above)).mean(),
            "mean_rank": 1.0 + above.mean(),
        }
