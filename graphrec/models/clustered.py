"""Retrieval in two steps: the cluster of who comes next, then the person. Clusters are learned with both."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_choice, check_count, check_number
from graphrec.data.draws import below, hashed
from graphrec.data.precision import single_precision
from graphrec.models.favours import TINY
from graphrec.models.neighborhood import Asked, Everyone, NeighborhoodModel
from graphrec.models.recommender import shuffled
from graphrec.models.saved import uncompiled
from graphrec.nn import (
    NOBODY,
    PRESENCE,
    SLOTS,
    SOURCES,
    STRUCTURE,
    Activation,
    Candidates,
    ClusterNet,
    Clusters,
    History,
    Interaction,
    RoutedSoftmax,
    Timelines,
    settled,
)
from graphrec.temporal import Reach
from graphrec.tokenizer import ResidualKMeans, Tokenizer, TokenizerQualityWarning

CLUSTERED: dict[str, tuple[str, ...]] = {
    "clustered": (*SOURCES, PRESENCE, STRUCTURE),
    "clustered_pointer": ("pointer", PRESENCE, STRUCTURE),
    "clustered_only": (PRESENCE, STRUCTURE),
}
"""The sources of the clustered model, by the name of its row."""

Start = Literal["codes", "scratch"]

MEMBERS, MOST_CLUSTERS = 4, 1024
"""Users to a cluster, where they are few; and the most clusters."""

NEXT, BALANCE = 0.1, 1.0
"""How much the next cluster's likelihood alone, and the evenness of the clusters, count in the loss."""

BRIDGE, MOST = 0.25, 3.0
"""From which share on somebody is in a second cluster too; and members of the largest one, over the mean."""

MAX_CLUSTERS = 10_000
"""Clusters that may be asked for: everybody has a score for each."""

LEAST = 100
"""Users searched at least."""

SEARCHED = 256
"""Queries searched for at once."""

FAR = -60.0
"""Log-scores this far below the best of a query count as being there."""


class Clustered(NeighborhoodModel):
    """Says which cluster comes next, then who of it, mixed with the people of the temporal neighbourhood.

    Everyone is reached by P(v) = sum over clusters c of P(c) P(v | c), a class-based softmax (Goodman 2001,
    https://arxiv.org/abs/cs/0108006) whose classes are learned with it: a user embedding's dot products with
    C cluster embeddings make their memberships, in at most two, and the cluster embeddings so weighed are
    part of both towers (see `ClusterNet`). P(c) is a softmax over the table of clusters, which is also told
    in which the user and their contacts are and how busy each has been; P(v | c) one over its members.
    Whoever is in no cluster yet is in the lobby, a class of its own. All this is an exact probability over
    users, and so is its mixture with the sources around (see `NeighborhoodModel`).

    `recommend` searches the likeliest clusters alone, exactly, besides the people around and the lobby.

    The loss also counts the next cluster's likelihood alone, and how evenly people spread (the divergence of
    the mean membership from the uniform one; cf. Shazeer et al. 2017, https://arxiv.org/abs/1701.06538).
    Memberships grow from soft to hard over the epochs. A newcomer joins the clusters of those they meet first
    (see `Clusters`).

    Args:
        num_clusters: C; by default a quarter of the number of users known in training, at most 1,024.
        search_share: the share of users whom `recommend` searches for in clusters, about, at least 100; 1 is
            exact. The one knob; may be set later as an attribute.
        start: how the clusters begin: 'codes', as the first codes of a tokenizer, or 'scratch', drawn.
        first_codes: the tokenizer of 'codes'; by default one level of balanced k-means (`ResidualKMeans`) of
            C codes. A copy is fitted.
        sources, reach, history, interaction, activation, embedding_dim, hidden_channels, num_layers,
            num_heads, window, dropout, num_rand_negs, temporal_weight, batch_acts, max_queries,
            epoch_batches, max_epochs, patience, seed, folder, progress: as in `TwoTower`.
    """

    network: ClusterNet
    clusters: Clusters
    """Who is in which, after the fit."""

    def __init__(
        self,
        *,
        num_clusters: int | None = None,
        search_share: float = 0.1,
        start: Start = "codes",
        first_codes: Tokenizer | None = None,
        sources: Collection[str] = CLUSTERED["clustered"],
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
        check_choice("start", start, get_args(Start))
        if num_clusters is not None:
            check_count("num_clusters", num_clusters, maximum=MAX_CLUSTERS)
        if first_codes is not None and not isinstance(first_codes, Tokenizer):
            raise TypeError(f"first_codes must be a Tokenizer, got a {type(first_codes).__name__}")
        super().__init__(known_sources=CLUSTERED["clustered"], arguments=arguments)
        self.name = next(
            (name for name, given in CLUSTERED.items() if set(given) == set(sources)),
            "_".join(["clustered", *(sources or ["embeddings"])]),
        )
        self.num_clusters, self.num_rand_negs = num_clusters, num_rand_negs
        self.start, self.first_codes, self._first = start, first_codes, None
        self.search_share = search_share

    @property
    def search_share(self) -> float:
        """The share of users searched for in clusters."""
        return self._search_share

    @search_share.setter
    def search_share(self, share: float) -> None:
        self._search_share = check_number("search_share", share, minimum=0.0, maximum=1.0)

    # Fitting

    _first: Tensor | None
    _gathered_for = -1

    @single_precision()
    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """As in `TwoTower`; the first codes are fitted on what is strictly older than `until`, too."""
        super().fit(graph, until=until, validate_until=validate_until)
        self._gather()
        return self

    def _before(self, *, num_known: int) -> None:
        self._first = None
        if self.start == "scratch":
            return
        size = self._num_clusters(num_known)
        codes = copy.deepcopy(self.first_codes)
        if codes is None:
            sizes = {"num_codebooks": 1, "codebook_size": size}
            codes = ResidualKMeans(**sizes, unique=False, balanced=True, seed=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TokenizerQualityWarning)  # they are but what training starts from
            codes.fit(self.graph, until=self._until)
        code = codes.codes_before(self.graph, self._until)
        self._first = code[self._in_order[:num_known], 0] % size

    def _num_clusters(self, num_known: int) -> int:
        return self.num_clusters or min(MOST_CLUSTERS, max(2, num_known // MEMBERS))

    def _build(self, *, num_known: int) -> ClusterNet:
        return ClusterNet(
            num_known,
            len(self.graph.actions),
            num_clusters=self._num_clusters(num_known),
            first=self._first,
            profile_columns=self._profile_columns,
            **self.sizes,
        )

    def losses(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """As in `NeighborhoodModel`, and of the next cluster alone, and of balance."""
        self.network.anneal(epoch, self.max_epochs)
        if self._gathered_for != epoch:
            self._gather()
            self._gathered_for = epoch
        terms = super().losses(batch, epoch)
        loss = terms["loss"] + NEXT * terms["loss_cluster"] + BALANCE * terms["imbalance"]
        return terms | {"loss": loss}

    def _validate(self, event_id: Tensor) -> dict[str, float]:
        self._gather()
        self._gathered_for += 1  # what training goes on from
        return super()._validate(event_id)

    def _choose_favours(self, event_id: Tensor) -> None:
        self._gather()  # by the weights of the best epoch
        super()._choose_favours(event_id)

    @torch.no_grad()
    def _gather(self) -> None:
        """Put people into clusters, by the weights as they are, and newcomers after them."""
        network, known = self.network, self._row > 0
        weight, centre = network.user.weight.detach().cpu(), network.cluster.detach().cpu()
        cluster, share = settled(weight[1:], centre, float(network.temperature), bridge=BRIDGE, most=MOST)
        at = (self._row - 1).clamp(min=0)
        self.clusters = Clusters(
            self._timeline, cluster[at], share[at], known, num_clusters=network.num_clusters
        )
        vector = weight[self._row]
        for slot in range(SLOTS):
            vector += centre[self.clusters.cluster[:, slot]] * self.clusters.share[:, slot, None]
        self._vector = vector.to(self._device)
        self._bias = network.bias.weight.detach().cpu()[self._row, 0].to(self._device)

    # Elsewhere

    def _kept(self, rows: Tensor) -> ClusterNet:
        out = copy.deepcopy(uncompiled(self.network))
        rows = torch.cat([rows.new_zeros(1), rows]).to(self._device)
        for table in (out.user, out.bias):
            table.weight = nn.Parameter(table.weight.detach()[rows])
            table.num_embeddings = len(rows)
        return out

    @single_precision()
    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`; newcomers are placed anew."""
        out = super().on(graph)
        out._gather()
        return out

    def _saved_arguments(self) -> dict[str, Any]:
        more = {"num_clusters": self.network.num_clusters, "search_share": self.search_share}
        return super()._saved_arguments() | more | {"first_codes": None}

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        out = super().load(folder, graph)
        out._gather()
        return out

    @property
    def assignments(self) -> Tensor:
        """The first cluster of each user as of the fit, [N] int64; -1 for whoever was in none."""
        self._check_fitted()
        placed = self.clusters.since < self._timeline.tick(torch.tensor(self._until))
        return torch.where(placed, self.clusters.cluster[:, 0], -1)

    # The towers

    def _embedded(self, user: Tensor, placed: Tensor) -> Tensor:
        """Embeddings [n, D] of users [n], of strangers where they are not placed [n] yet."""
        network, placed = self.network, placed.to(self._device)
        if not network.training:
            user = user.to(self._device)
            return torch.where(placed[:, None], self._vector[user], network.user.weight[0])
        rows = self._row[user].to(self._device) * placed
        own: Tensor = network.user(rows)
        share = network.memberships(network.affinity(own)) * (rows > 0)[:, None]
        return own + share @ network.cluster

    def _actors(self, user: Tensor, tick: Tensor) -> Tensor:
        return self._embedded(user, self.clusters.since[user] < tick)

    def _others(self, acts: Timelines) -> Tensor:
        return self._embedded(acts.other, self.clusters.since[acts.other] <= self._timeline.tick(acts.time))

    def _logits(self, asked: Asked, users: Tensor | None, *, vectors: Tensor, bias: Tensor) -> Tensor:
        """[B, C] scores of users [C], or of everyone, by their vectors [C, D] and biases [C]."""
        network, since = self.network, self.clusters.since
        out = asked.vector @ vectors.T + bias
        placed = (since if users is None else since[users]) < asked.tick[:, None]
        if not bool(placed.all()):
            nobody = torch.zeros(1, dtype=torch.int64, device=self._device)
            stranger = asked.vector @ network.user(nobody).T + network.bias(nobody)[0]
            out = torch.where(placed.to(self._device), out, stranger)
        return self._person_logits(out, asked, users, network.presence)

    def _next_cluster(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the next target's cluster [B, C], and of the lobby [B]."""
        network, index = self.network, self.clusters
        features = index.features(asked.query).to(self._device)
        logits = network.next_cluster(asked.vector, features)
        num_placed = index.num_placed(asked.tick)
        without = self.graph.num_users - num_placed
        placed = network.is_placed(asked.features, without.to(self._device))
        if not network.training:  # nobody is not a class
            logits = torch.where((index.sizes(asked.tick) > 0).to(self._device), logits, NOBODY)
            placed = torch.where((without == 0).to(self._device), 30.0, placed)
            placed = torch.where((num_placed == 0).to(self._device), -30.0, placed)
        return logits.log_softmax(1) + F.logsigmoid(placed)[:, None], F.logsigmoid(-placed)

    def _everyone(self, asked: Asked, target: Tensor, draw: Tensor) -> Everyone:
        draws = hashed(draw, torch.arange(self.num_rand_negs))
        random = self._in_order[below(draws, len(self._in_order))]
        candidates = Candidates.of(target, random, self._share, in_batch=True)
        user, network = candidates.user, self.network
        rows = self._row[user].to(self._device)
        own = network.user(rows)
        affinity = network.affinity(own)
        membership = network.memberships(affinity) * (rows > 0)[:, None]
        log_cluster, log_lobby = self._next_cluster(asked)
        return RoutedSoftmax(
            candidates,
            scores=self._logits(
                asked, user, vectors=own + membership @ network.cluster, bias=network.bias(rows).squeeze(1)
            ),
            placed=(self.clusters.since[user] < asked.tick[:, None]).to(self._device),
            membership=membership,
            spread=affinity[rows > 0].softmax(1).mul(self._weight(candidates)[rows > 0]).sum(0),
            log_cluster=log_cluster,
            log_lobby=log_lobby,
            place=candidates.place(target).to(self._device),
            never=((user == asked.query.user[:, None]) | (user == target[:, None])).to(self._device),
        )

    def _weight(self, candidates: Candidates) -> Tensor:
        """Weights [C, 1] with which sums over candidates stand for everyone."""
        return (-candidates.log_q).exp()[:, None].to(self._device)

    # Asking

    def _log_everyone(self, asked: Asked) -> Tensor:
        index, device = self.clusters, self._device
        log_cluster, log_lobby = self._next_cluster(asked)
        weight = self._logits(asked, None, vectors=self._vector, bias=self._bias)
        weight = weight.sub_(weight.amax(1, keepdim=True)).clamp_(min=FAR).exp_()
        placed = (index.since < asked.tick[:, None]).to(device)
        inside, cluster, share = weight * placed, index.cluster.to(device), index.share.to(device)
        mass = torch.zeros_like(log_cluster)
        for slot in range(SLOTS):
            mass.index_add_(1, cluster[:, slot], inside * share[:, slot])
        rate = torch.where(mass > 0, log_cluster.exp() / mass, 0.0)
        each = rate[:, cluster[:, 0]] * share[:, 0]
        for slot in range(1, SLOTS):
            each += rate[:, cluster[:, slot]] * share[:, slot]
        outside = weight - inside
        lobby = log_lobby.exp() / outside.sum(1).clamp(min=TINY)
        return (inside * each + outside * lobby[:, None]).clamp_(min=TINY).log_()

    def probed(self, query: Query) -> Tensor:
        """The clusters that are searched for B queries, [B, C] bool: the likeliest, up to `search_share`."""
        self._check(query)
        with torch.no_grad(), single_precision():
            asked = self._ask_now(query)
            return self._probed(self._next_cluster(asked)[0], asked.tick)

    def _probed(self, log_cluster: Tensor, tick: Tensor) -> Tensor:
        # All where all are asked for: whoever is in two clusters counts twice.
        most = max(LEAST, self.search_share * self.graph.num_users) if self.search_share < 1.0 else math.inf
        size = self.clusters.sizes(tick)
        order = log_cluster.cpu().argsort(dim=1, descending=True, stable=True)
        before = size.gather(1, order).cumsum(1) - size.gather(1, order)
        return torch.zeros_like(size, dtype=torch.bool).scatter(1, order, before < most) & (size > 0)

    def recommend(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None = None,
        exclude_users: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The k best people for each query of those who are searched; never the asking user.

        Searched are the people around, the members of the likeliest clusters, up to `search_share`, and the
        lobby. Where fewer than k are found, everyone is scored.

        Args, Returns, Raises: as in `Recommender.recommend`; scores are those of `score`, or less where
        somebody is also in a cluster that was not searched.
        """

        def chunks() -> list[Tensor]:
            return list(torch.arange(len(query)).split(SEARCHED)) if len(query) else []

        return self._searched(query, k, exclude, exclude_users, chunks)

    def _search(
        self, query: Query, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            asked, num_users = self._ask_now(query), self.graph.num_users
            log_cluster, log_lobby = self._next_cluster(asked)
            probed = self._probed(log_cluster, asked.tick)
            found = [self._lobby(asked, log_lobby, k, exclude, exclude_users)]
            for cluster in probed.any(0).nonzero().squeeze(1).tolist():
                rows = probed[:, cluster].nonzero().squeeze(1)
                found.append(self._members(asked, rows, cluster, log_cluster[rows, cluster]))
            row, user, p = (torch.cat(parts) for parts in zip(*found, strict=True))
            if asked.around is not None:
                inside, beyond = asked.around.shares()
                row, user = (
                    torch.cat([row, asked.around.row.cpu()]),
                    torch.cat([user, asked.around.user.cpu()]),
                )
                p = torch.cat([p * beyond.cpu()[row[: len(p)]], inside.cpu()])
            key, at = (row * num_users + user).unique(return_inverse=True)
            p = torch.zeros(len(key)).index_add_(0, at, p).clamp_(min=TINY)
            row, user = key // num_users, key % num_users
            return self._listed(asked, row, user, p.log(), k, exclude, exclude_users)

    def _members(
        self, asked: Asked, rows: Tensor, cluster: int, log_cluster: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Members of a cluster for some of the queries: (row [M], user [M], probability [M])."""
        user, share = self.clusters.members(cluster)
        scores = self._logits(_rows(asked, rows), user, vectors=self._vector[user], bias=self._bias[user])
        placed = self.clusters.since[user] < asked.tick[rows, None]
        scores = scores.cpu() + share.log()
        p = (scores.masked_fill(~placed, -torch.inf).log_softmax(1) + log_cluster.cpu()[:, None]).exp()
        at, column = placed.nonzero(as_tuple=True)
        return rows[at], user[column], p[at, column]

    def _lobby(
        self,
        asked: Asked,
        log_lobby: Tensor,
        k: int,
        exclude: tuple[Tensor, Tensor],
        exclude_users: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Whoever of the lobby may be among the best k: (row [M], user [M], probability [M]).

        Of people who are all alike, as nothing is known of them, as many as may be needed.
        """
        since, first, tick = self.clusters.since, self._timeline.first_tick, asked.tick
        user, more = (since >= tick.min()).nonzero().squeeze(1), 0
        if self._profiles is None:
            order = shuffled(self.graph.num_users)
            never = order[first[order] >= tick.max()]
            wanted = k + int(torch.bincount(exclude[0], minlength=1).max())
            alike = never[~torch.isin(never, exclude_users)][:wanted]
            alike = alike if len(alike) else never[:1]  # one stands for all of them
            more = len(never) - len(alike)
            user = torch.cat([user[first[user] < tick.max()], alike])
        if not len(user):
            return user, user, torch.zeros(0)
        scores = self._logits(asked, user, vectors=self._vector[user], bias=self._bias[user]).cpu()
        scores = scores.masked_fill(since[user] < tick[:, None], -torch.inf)
        weight = torch.zeros(len(user))
        weight[-1] = math.log1p(more)
        p = (scores - (scores + weight).logsumexp(1, keepdim=True) + log_lobby.cpu()[:, None]).exp()
        row, column = (scores > -torch.inf).nonzero(as_tuple=True)
        return row, user[column], p[row, column]


def _rows(asked: Asked, rows: Tensor) -> Asked:
    """Some of the queries, without the people around."""
    where = rows.to(asked.vector.device)
    return replace(
        asked,
        query=asked.query[rows],
        tick=asked.tick[rows],
        vector=asked.vector[where],
        features=asked.features[where],
        asker=None if asked.asker is None else asked.asker[where],
        stands=None if asked.stands is None else asked.stands[rows],
        around=None,
    )
