"""The head of the two-tower: a softmax over a table of users."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from graphrec.data.checks import check_count, check_flags, check_time
from graphrec.data.draws import below, hashed
from graphrec.data.precision import single_precision
from graphrec.features import Candidates
from graphrec.models.heads.head import register_head
from graphrec.models.heads.softmax_search import SoftmaxSearch
from graphrec.models.manifest import read_config
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.profile_parts import add_person_logits, map_people
from graphrec.models.mixture.view import GraphView
from graphrec.nn import EncoderConfig, MixtureNetwork, SampledSoftmax, UserTable
from graphrec.temporal import NEVER


@dataclass(frozen=True)
class SoftmaxConfig:
    """The configuration of a `SoftmaxHead`.

    Attributes:
        num_rand_negs: random users drawn as negatives in each training step.
        in_batch: use the targets of a step as negatives for each other.
        user_table: learn an embedding of each user known in training. Otherwise one embedding stands for
            every user, and features alone tell users apart.
    """

    num_rand_negs: int = 512
    in_batch: bool = True
    user_table: bool = True

    def __post_init__(self) -> None:
        number = check_count("num_rand_negs", self.num_rand_negs, minimum=0)
        object.__setattr__(self, "num_rand_negs", number)
        check_flags(in_batch=self.in_batch, user_table=self.user_table)
        if not self.in_batch and self.num_rand_negs < 1:
            raise ValueError("there are no negatives where in_batch is False and num_rand_negs is 0")


@register_head
@dataclass(frozen=True)
class SoftmaxHead:
    """P(v) as a softmax over dot products of query vectors and user embeddings (`UserTable`).

    Attributes:
        config: negatives in training.
    """

    kind: ClassVar[str] = "two_tower"
    features: ClassVar[tuple[str, ...]] = ("presence", "spectral")

    config: SoftmaxConfig

    def build(self, view: GraphView, encoder: EncoderConfig, features: Collection[str]) -> UserTable:
        """See `Head`."""
        num_known = view.num_known if self.config.user_table else 0
        return UserTable(num_known, encoder.embedding_dim, presence="presence" in features)

    def bind(self, view: GraphView, network: MixtureNetwork, *, training: bool = False) -> BoundSoftmaxHead:
        """See `Head`."""
        assert isinstance(network.head, UserTable)
        return BoundSoftmaxHead(self, view, network, network.head)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """See `Saves`."""
        return asdict(self.config)

    @classmethod
    def load(cls, settings: Mapping[str, Any], folder: Path) -> Self:
        """See `Saves`."""
        return cls(read_config(SoftmaxConfig, settings))


@dataclass(frozen=True)
class BoundSoftmaxHead:
    """A softmax over users on a graph.

    Attributes:
        head: the head.
        view: the graph.
        network: the network.
        table: the head's module in the network.
    """

    head: SoftmaxHead
    view: GraphView
    network: MixtureNetwork
    table: UserTable

    first_time: ClassVar[int] = NEVER

    def reading(self, view: GraphView, changed: Tensor) -> BoundSoftmaxHead:
        """See `ReadsIndex`."""
        return replace(self, view=view)

    def rows(self, user: Tensor) -> Tensor:
        """Rows of users in the table, int64, same shape; 0 for unknown users, and for all without a table."""
        return self.view.row[user] if self.head.config.user_table else torch.zeros_like(user)

    def rows_at(self, user: Tensor, tick: Tensor) -> Tensor:
        """Rows of users before ticks, int64, same shape; also 0 until a user's first event."""
        return self.view.rows_at(user, tick) if self.head.config.user_table else torch.zeros_like(user)

    def embed_users(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`: row 0, for unknown users, until a user's first event."""
        out: Tensor = self.table.actor(self.rows_at(user, tick).to(self.network.device))
        return out

    def embed_others(self, user: Tensor, tick: Tensor) -> Tensor:
        """See `BoundHead`."""
        out: Tensor = self.table.actor(self.rows(user).to(self.network.device))
        return out

    def likelihood(self, encoded: EncodedQuery, target: Tensor, draw: Tensor) -> SampledSoftmax:
        """See `BoundHead`: estimated from candidates."""
        config, order = self.head.config, self.view.order
        draws = hashed(draw, torch.arange(config.num_rand_negs))
        random = order[below(draws, len(order))]
        share = self.view.target_share
        candidates = Candidates.of(target, random, share, in_batch=config.in_batch)
        drawn = candidates.user
        return SampledSoftmax(
            candidates,
            scores=self.logits(encoded, drawn),
            place=candidates.place(target),
            negative_mask=(drawn != encoded.query.user[:, None])
            & (drawn != target[:, None])
            & candidates.drawn,
        )

    def log_probs(self, encoded: EncodedQuery) -> Tensor:
        """See `BoundHead`."""
        return self.logits(encoded, None).log_softmax(1)

    def logits(self, encoded: EncodedQuery, users: Tensor | None) -> Tensor:
        """Logits of users [C] int64, or of all N, for B queries: [B, C].

        Users without an event before the query have row 0, for unknown users.
        """
        out = self.table_logits(encoded, users)
        return add_person_logits(self.view, self.network, out, encoded, users, self.table.presence)

    def table_logits(self, encoded: EncodedQuery, users: Tensor | None) -> Tensor:
        """The part of `logits` from the table of user embeddings: [B, C]."""
        view, device = self.view, self.network.device
        tick, vector = encoded.tick[:, None], encoded.vector
        if not self.head.config.user_table:
            size = view.graph.num_users if users is None else len(users)
            everyone = torch.zeros(1, dtype=torch.int64, device=device)
            return self.table.logits(vector, everyone).expand(-1, size)
        seen = view.timeline.first_tick
        rows, first = (view.row, seen) if users is None else (view.row[users], seen[users])
        out = self.table.logits(vector, rows.to(device))
        if tick.numel() and bool(((rows > 0) & (first >= tick.min())).any()):
            stranger = self.table.logits(vector, torch.zeros(1, dtype=torch.int64, device=device))
            out = torch.where((first < tick).to(device), out, stranger)
        return out

    def follow(self, view: GraphView) -> Self:
        """See `Follows`: the shortlist is kept until the moment of the next."""
        out = replace(self, view=view)
        if "_search" in self.__dict__:
            out.__dict__["_search"] = self._search.follow(out)
        return out

    # Searching

    @cached_property
    def _search(self) -> SoftmaxSearch:
        return SoftmaxSearch(self)

    def query_groups(self, tick: Tensor) -> list[Tensor]:
        """See `Searches`: groups of queries with one shortlist."""
        return self._search.query_groups(tick)

    def search(
        self, encoded: EncodedQuery, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Searches` and `SoftmaxSearch`: exact in networks of at most 4,096 users."""
        return self._search.search(encoded, k, exclude, exclude_users)

    # Vectors, for an index

    @single_precision()
    @torch.no_grad()
    def query_vectors(self, encoded: EncodedQuery) -> Tensor:
        """Vectors of B queries, for inner products with `user_vectors`: [B, W] float32, on the CPU."""
        parts = [encoded.vector, *([] if encoded.profile is None else [encoded.profile])]
        return torch.cat([*parts, torch.ones_like(encoded.vector[:, :1])], dim=1).cpu()

    @single_precision()
    @torch.no_grad()
    def user_vectors(self, time: int) -> Tensor:
        """Vectors of all users for queries at a time (s) after training: [N, W] float32, on the CPU.

        The inner product with a query's vector is the logit from user embeddings, biases and profiles,
        without the presence score and the neighborhood.
        """
        time = check_time("time", time)
        view, network = self.view, self.network
        rows = self.rows(torch.arange(view.graph.num_users)).to(network.device)
        embedding, bias = self.table.target(rows), self.table.bias(rows)
        if network.profile is None:
            return torch.cat([embedding, bias], dim=1).cpu()
        users = torch.arange(len(rows))
        times = torch.full_like(users, time)
        more = map_people(view, network.profile, users, times)
        gap = more.new_zeros(len(more), more.size(1) - embedding.size(1) - 1)
        return (torch.cat([embedding, gap, bias], 1) + more).cpu()

    def vector_changes(self) -> Tensor:
        """Times (s) after which `user_vectors` change: [n] int64, ascending."""
        view = self.view
        if view.profiles is None:
            return torch.empty(0, dtype=torch.int64)
        instants, first = view.timeline.instants, view.timeline.first_tick
        first_events = instants[first[first < len(instants)]]  # before them popularity is expected
        times = torch.cat([view.profiles.since, first_events])
        out: Tensor = times[times >= view.period.until].unique()
        return out
