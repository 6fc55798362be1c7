"""What models share that mix the people of a temporal neighbourhood with a source that reaches everyone."""

from __future__ import annotations

import copy
import json
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from graphrec.data import USER, DataError, FriendGraph, Query, UserIds, digest_graph
from graphrec.data.checks import check_until
from graphrec.data.draws import hashed
from graphrec.data.precision import single_precision
from graphrec.evaluate import StreamingRanks, rank_events
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.models.favours import CHOICES, TINY, Favouring, Favours, Kept
from graphrec.models.hyperparameters import PARTS, check_hyperparameters
from graphrec.models.recommender import CHUNK, Recommender, listed, of_rows
from graphrec.models.saved import made_folder, reading, uncompiled
from graphrec.nn import (
    CIRCLES,
    PRESENCE,
    SOURCES,
    STRUCTURE,
    Presence,
    Profiles,
    Timelines,
    UserTower,
    Votes,
    pair_features,
    path_features,
    person_features,
    presence_features,
    query_features,
)
from graphrec.temporal import (
    Neighborhood,
    Reach,
    SpectralEmbeddings,
    SpectralQuery,
    Timeline,
    contains,
    popularity_half_life,
)
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer import Tokenizer
from graphrec.tokenizer.id_positions import id_positions
from graphrec.train import num_processes, train

STRUCTURE_DIM = 32
SNAPSHOTS, MAX_ROWS = 16, 10**7
"""The network is embedded anew after each such part of the training events, or fewer with many users."""

ALONE = 0.03
"""How much the likelihood under each source alone counts beside the mixture's, so that each ranks well where
the gate errs (deep supervision; Lee et al. 2015, https://arxiv.org/abs/1409.5185)."""

JUDGED_SCORES = 25_000_000
"""Events times users judged after each epoch, about."""

JUDGED: dict[str, Any] = {"part": "val", "trained_until": 0, "progress": False, "in_sample": True}
"""How the ranks of validation are asked for."""

SIZES = (*PARTS, "embedding_dim", "hidden_channels", "num_layers", "num_heads", "window", "dropout")
"""Arguments that are the user tower's."""

NOT_TRAINED_BY = ("folder", "progress", "beam_size", "search_share")
"""Arguments that change nothing of what is trained."""

FORMAT, MANIFEST, TENSORS = "graphrec.NeighborhoodModel/3", "model.json", "model.pt"


@dataclass(frozen=True)
class Asked:
    """B queries as the user tower has read them.

    Attributes:
        query: in order of time where everyone is to be scored.
        tick: [B] int64.
        vector: [B, D], the user tower's output.
        features: [B, Q], standardised.
        asker: [B, R], of profiles, where there are any.
        stands: where the users do, where that counts.
        around: what the sources say of the people around, where there are sources.
    """

    query: Query
    tick: Tensor
    vector: Tensor
    features: Tensor
    asker: Tensor | None
    stands: SpectralQuery | None
    around: Votes | None


class Everyone(Protocol):
    """How likely the targets of a training step are under the source that reaches everyone."""

    def log_p(self, rows: Tensor, people: tuple[Tensor, Tensor] | None) -> Tensor:
        """[n] of queries `rows` [n] int64, where people (row [M], user [M]) are no candidates."""

    def metrics(self) -> dict[str, Tensor]:
        """What there is to log."""


class NeighborhoodModel(Recommender):
    """P(v | u, t, action) as a gated mixture: one source for everyone, others for the people around u.

    The sources around are those of `NeighborhoodMixture`; a subclass adds the one for everyone. Each factor
    is learned, all together, by the likelihood of the mixture.

    Candidates of the loss are those of the event's own slice: every event is judged among all, a reply also
    among people not acted upon, a new tie also among strangers. A slice counts as the root of its share of
    the events, so that a rare one is not lost.

    Where the graph has features of users (`graph["user"].x`), whoever is known by them at a query's time (see
    `Profiles`) is placed by them too, with or without a history.

    Args:
        known_sources: what `sources` may be.
        arguments: all those of the subclass's constructor, by name.
    """

    dtype = torch.float32
    network: UserTower

    def __init__(
        self,
        *,
        known_sources: Collection[str],
        arguments: dict[str, Any],
    ) -> None:
        check_hyperparameters(arguments, known_sources)
        sources, reach = arguments["sources"], arguments["reach"]
        sizes = {name: arguments[name] for name in SIZES}
        self.sources = tuple(name for name in SOURCES if name in sources)
        self.has_structure, self.has_presence = STRUCTURE in sources, PRESENCE in sources
        self.has_circles = CIRCLES in sources
        self.reach = reach or Reach()
        if set(self.sources) <= {"pointer"} and not self.has_circles:
            self.reach = replace(self.reach, middles=0, recent_window=0)
        self.sizes: dict[str, Any] = {"sources": sources, **sizes}
        self.arguments = arguments
        self.temporal_weight: float = arguments["temporal_weight"]
        self.max_queries: int = arguments["max_queries"]
        self.epoch_batches: int = arguments["epoch_batches"]
        self.batch_acts: int = arguments["batch_acts"]
        self.max_epochs: int = arguments["max_epochs"]
        self.patience: int = arguments["patience"]
        self.seed: int = arguments["seed"]
        self.folder: Path | None = None if arguments["folder"] is None else Path(arguments["folder"])
        self.progress: bool = arguments["progress"]
        self._curve: list[dict[str, float]] = []
        self._favours = CHOICES[0]

    # What a subclass says

    def _before(self, *, num_known: int) -> None:  # there may be nothing
        """What is to be fitted before the network is built, on what is older than `_until`."""

    @abstractmethod
    def _build(self, *, num_known: int) -> UserTower:
        """The network, of initial values drawn from torch's global generator."""

    @abstractmethod
    def _kept(self, rows: Tensor) -> UserTower:
        """The network with some rows alone of those it has of each known user: [n] int64, from 1 on."""

    @abstractmethod
    def _actors(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embeddings [B, D] of asking users [B] before ticks [B]."""

    @abstractmethod
    def _others(self, acts: Timelines) -> Tensor:
        """Embeddings [M, D] of the other sides of M acts."""

    @abstractmethod
    def _everyone(self, asked: Asked, target: Tensor, draw: Tensor) -> Everyone:
        """In training: the source for everyone, at targets [B]; `draw` [] int64 fixes what is random."""

    @abstractmethod
    def _log_everyone(self, asked: Asked) -> Tensor:
        """Log-probabilities [B, N] of everyone under that source."""

    # Fitting

    @property
    def curve(self) -> list[dict[str, float]]:
        """Training and validation, one row an epoch."""
        return self._curve

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        self._check_fitted()
        return sum(parameter.numel() for parameter in self.network.parameters())

    @single_precision()
    def prepare(self, graph: FriendGraph, *, until: int) -> QueryLoader:
        """Index the graph, number the known users, build the network; the loader of training timelines."""
        until = self._check_past(graph, until)
        timeline, self._until = Timeline.of(graph), until
        tick = timeline.tick(torch.tensor(until))
        everyone = torch.arange(graph.num_users)
        lengths = timeline.half_edges.count(everyone, tick.expand(len(everyone)))
        # Rows follow what people did and are, never their index: first appearance, activity, profile.
        known = self._by_profile(graph)
        known = known[lengths[known] > 0]
        past = tick.expand(len(known))
        for quantity in (timeline.num_acts, timeline.last_received, timeline.last_act):
            known = known[quantity(known, past).argsort(stable=True)]
        known = known[timeline.first_tick[known].argsort(stable=True)]
        train_events = int(torch.searchsorted(timeline.event_tick, tick))
        self._warm = int(timeline.events.time[train_events // 10])
        parts = max(1, min(SNAPSHOTS, MAX_ROWS // graph.num_users))
        self._every = max(1, train_events // parts)
        self._half_life = popularity_half_life(int(timeline.instants[0]), until)
        self._read(graph, known)
        first, met = (
            int(torch.searchsorted(pairs.chronological[0], tick)) / train_events
            for pairs in (timeline.acted_on, timeline.contacts)
        )
        # A contact is one of both sides; what opens a direction but no contact is a reply.
        shares = {"all": 1.0, "repeat": 1.0 - first, "reply": first - met / 2, "new": met / 2}
        self._weight_of = {name: max(share, TINY) ** 0.5 for name, share in shares.items()}
        share = torch.bincount(timeline.events.dst[:train_events], minlength=graph.num_users)
        self._share = share.double() / train_events
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._before(num_known=len(known))
            self.network = self._build(num_known=len(known))
        batches = TimelineBatches(
            lengths[known], events_per_batch=self.batch_acts, max_batches=self.epoch_batches, seed=self.seed
        )
        return QueryLoader.of_timelines(
            graph, until=until, users=known, batch_sampler=batches, seed=self.seed
        )

    def _by_profile(self, graph: FriendGraph) -> Tensor:
        """An order of users, [N] int64, in which their indices say nothing where they have profiles."""
        self._profiles = Profiles.of(graph, until=self._until)
        everyone = torch.arange(graph.num_users)
        return everyone if self._profiles is None else self._profiles.key(self._until).argsort(stable=True)

    def _read(self, graph: FriendGraph, known: Tensor, *, since: int = 0) -> None:
        """Index a graph whose users known [n] int64 have the rows 1..n, for queries from `since` (s) on."""
        self._graph, self._timeline = graph, Timeline.of(graph)
        order = self._by_profile(graph)
        self._row = torch.zeros_like(order)
        self._row[known] = torch.arange(1, known.numel() + 1)
        self._in_order = torch.cat([known, order[self._row[order] == 0]])
        self._structure = None
        if self.has_structure:
            start = torch.randn(
                graph.num_users, STRUCTURE_DIM, generator=torch.Generator().manual_seed(self.seed)
            )
            start = torch.empty_like(start).index_copy_(0, self._in_order, start)
            tick = int(self._timeline.tick(torch.tensor(since)))
            self._structure = SpectralEmbeddings(self._timeline, start, every=self._every, since=tick)

    def _settle(self, graph: FriendGraph, known: Tensor) -> None:
        """Read a graph for queries that come after training, as after a fit, so elsewhere."""
        self._read(graph, known, since=self._until)

    @single_precision()
    @one_intra_op_thread()
    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Train on events before `until`.

        Args:
            graph: the whole graph.
            until: seconds; training sees what is strictly older.
            validate_until: events from `until` to before this time choose the epoch; by default the last
                tenth of training is set aside for it.

        Raises:
            TypeError: a time is not in whole seconds.
            ValueError: a time lies beyond the year 9999, or validation would end before it begins; nothing is
                older, or nothing is left of it without that tenth.
        """
        until, validate_until = check_until(until, validate_until)
        self._check_past(graph, until)
        fitted_until, self.fitted_until = until, None
        if validate_until is None:
            time = graph.events().time
            size = int(torch.searchsorted(time, until))
            validate_until, until = until, int(time[size * 9 // 10]) if size else until
            if size and until == int(time[0]):
                wanted = "it trains on earlier ones and chooses the epoch by later ones"
                found = f"nine tenths of the events before {validate_until} are of one time"
                raise ValueError(f"{self.name}: {found}: {wanted}")
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
            key=None if self.folder is None else self._run_key(graph, validate_until),
            progress=self.progress,
        )
        self._settle(graph, self._known)
        if self.sources:
            self._choose_favours(judged)
        self.fitted_until = fitted_until
        return self

    def _run_key(self, graph: FriendGraph, validate_until: int) -> dict[str, Any]:
        """What a training run is known by (see `graphrec.train.train`)."""
        key: dict[str, Any] = {}
        for name, value in self.arguments.items():
            if isinstance(value, Tokenizer):
                key[name] = {"class": type(value).__qualname__, "settings": value.settings()}
            elif name not in NOT_TRAINED_BY:
                key[name] = value if name == "sources" else getattr(self, name, value)
        key |= {"sources": sorted(self.arguments["sources"]), "reach": vars(self.reach)}
        key |= {"graph": digest_graph(graph), "until": self._until, "validate_until": validate_until}
        return key | {"model": type(self).__qualname__, "codes": self._fitted_codes()}

    def _fitted_codes(self) -> Tensor | None:
        """The codes that `_before` has fitted, [S, N, L] int64; None where training reads none."""
        return None

    @single_precision()
    def losses(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """Likelihood of every own act on the batch's timelines, each from its own past."""
        timeline, device = self._timeline, self._device  # the index is on the CPU, the network perhaps not
        acts = Timelines.of_batch(batch, self.graph.actions)
        own, weight = self._drawn(acts, batch, epoch)
        user = batch[USER].n_id[acts.row[own]]
        query = Query(user, acts.time[own], acts.kind[own] // 2)
        target = acts.other[own]
        asked = self._ask(query, acts, acts.before(acts.row[own], query.time))
        source = self._everyone(asked, target, hashed(self.seed, epoch, batch.input_id[0]))

        met = timeline.contacts.before(user, asked.tick)
        approached = timeline.acted_on.before(user, asked.tick)
        is_first = ~contains(approached, target)
        is_new = is_first & ~contains(met, target)
        slices = (torch.ones_like(is_new), None), (is_first & ~is_new, approached), (is_new, met)
        weight, loss = weight.to(device), asked.vector.new_zeros(())
        sizes = (self._weight_of[name] for name in ("all", "reply", "new"))
        for size, (inside, people) in zip(sizes, slices, strict=True):
            rows = inside.nonzero().squeeze(1)
            log_p = source.log_p(rows, people)
            log_p = asked.vector.new_zeros(len(query)).index_put((rows.to(device),), log_p)
            if asked.around is not None:
                if people is not None:
                    people = people[0].to(device), people[1].to(device)
                log_p, alone = asked.around.log_likelihood(target.to(device), people, log_p)
                log_p = log_p + ALONE * alone
            log_p = torch.where(inside.to(device), weight * log_p, 0.0)
            loss = loss - log_p.sum() / (size * weight.sum().clamp(min=1.0))
        return {"loss": loss, **source.metrics(), "events": torch.tensor(float(len(query)))}

    def _drawn(self, acts: Timelines, batch: HeteroData, epoch: int) -> tuple[Tensor, Tensor]:
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

    # Elsewhere

    @single_precision()
    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`.

        Raises:
            ValueError: the graph's actions or features are not those of the fit.
        """
        actions = self.graph.actions
        if graph.actions != actions:
            raise ValueError(f"{self.name} knows the actions {actions}, the graph has {graph.actions}")
        out = copy.copy(self)
        there = id_positions(UserIds(self.graph[USER].raw_id[self._known]), graph.user_ids)
        out.network = self._kept(1 + (there >= 0).nonzero().squeeze(1))
        out._settle(graph, there[there >= 0])
        if out._profile_columns != self._profile_columns:
            columns = f"{self._profile_columns} columns, the graph has {out._profile_columns}"
            raise ValueError(f"{self.name} knows features of {columns}")
        return out

    @property
    def _known(self) -> Tensor:
        """The users of rows 1..n, in their order: [n] int64."""
        return self._in_order[: int((self._row > 0).sum())]

    @property
    def _profile_columns(self) -> int:
        return 0 if self._profiles is None else self._profiles.x.size(1)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`."""
        self._check_fitted()
        folder = made_folder(folder)
        raw = self.graph[USER].raw_id[self._known]
        network = {name: value.cpu() for name, value in uncompiled(self.network).state_dict().items()}
        torch.save({"known": raw, "network": network}, folder / TENSORS)
        content = {
            "format": FORMAT,
            "class": type(self).__name__,
            "arguments": self._saved_arguments(),
            "actions": list(self.graph.actions),
            "until": self._until,
            "fitted_until": self.fitted_until,
            "every": self._every,
            "half_life": self._half_life,
            "favours": self._favours,
        }
        (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n")

    def _saved_arguments(self) -> dict[str, Any]:
        """The arguments of the constructor as JSON can hold them."""
        out = {**self.arguments, "sources": list(self.arguments["sources"]), "reach": vars(self.reach)}
        return {name: value for name, value in out.items() if name not in ("folder", "progress")}

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        folder = Path(folder)
        with reading(cls, folder):
            content = json.loads((folder / MANIFEST).read_text())
            if (content["format"], content["class"]) != (FORMAT, cls.__name__):
                raise DataError(f"it holds {content['class']!r} as {content['format']!r}")
            if tuple(content["actions"]) != graph.actions:
                raise DataError(f"it knows the actions {content['actions']}, the graph has {graph.actions}")
            tensors = torch.load(folder / TENSORS, weights_only=True)
            out = cls(**cls._read_arguments(folder, content["arguments"]))
            out._until, out._every = content["until"], content["every"]
            out.fitted_until = content.get("fitted_until")
            out._half_life = content["half_life"]
            power, factor = content["favours"]
            out._favours = Favours(float(power), float(factor))
            known = id_positions(UserIds(tensors["known"]), graph.user_ids)
            if bool((known < 0).any()):
                raise DataError(f"it knows {int((known < 0).sum())} people who are not in the graph")
            out._settle(graph, known)
            with torch.random.fork_rng():
                out.network = out._build(num_known=len(known)).eval()
            out.network.load_state_dict(tensors["network"])
        return out

    @classmethod
    def _read_arguments(cls, folder: Path, saved: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor from what `_saved_arguments` gave."""
        return saved | {"reach": Reach(**saved["reach"]), "progress": False}

    # Asking

    @single_precision()
    @torch.no_grad()
    def _score_in_order(self, query: Query) -> Tensor:
        """Log-probabilities of everyone, under the `Favours`, [B, N] float32."""
        if not self.sources:
            return self._log_everyone(self._ask_now(query)).cpu()
        return self._favours.on_everyone(self._probabilities(query), self._timeline, self.reach, query)

    @torch.no_grad()
    def _probabilities(self, query: Query) -> Tensor:
        """Of everyone, with the people around, [B, N] float32."""
        asked = self._ask_now(query)
        assert asked.around is not None
        inside, beyond = asked.around.shares()
        out = self._log_everyone(asked).exp_().mul_(beyond[:, None])
        out[asked.around.row, asked.around.user] += inside
        return out.cpu()

    def _ask_now(self, query: Query) -> Asked:
        """Queries with the histories there are in the index."""
        acts = Timelines.of_index(
            self._timeline, query.user, self._timeline.tick(query.time), self.network.reach
        )
        return self._ask(query, acts, acts.before(torch.arange(len(query)), query.time))

    def _ask(self, query: Query, acts: Timelines, position: Tensor) -> Asked:
        """Queries, each of which comes after an act [B] (-1: none) of the timelines."""
        tick = self._timeline.tick(query.time)
        vector, features, asker = self._query_tower(query, acts, position)
        stands = None if self._structure is None else self._structure.query(query.user, tick)
        around = self._around(query, tick, features, asker, stands) if self.sources else None
        return Asked(query, tick, vector, features, asker, stands, around)

    def _person_logits(
        self, logits: Tensor, asked: Asked, users: Tensor | None, presence: Presence | None
    ) -> Tensor:
        """Logits [B, C] of users [C], or of everyone, with what profiles say and how present people are."""
        query = asked.query
        if self.network.profile is not None and self._profiles is not None and asked.asker is not None:
            people = slice(None) if users is None else users
            x = self._profiles.x[people].to(self._device)
            more = self.network.profile.logits(asked.vector, asked.asker, x)
            logits = logits + more * self._profiles.known(people, query.time[:, None]).to(self._device)
        if presence is None:
            return logits
        blocks = presence_features(self._timeline, query, users, asked.stands)
        return logits + torch.cat([presence(block.to(self._device)) for block in blocks])

    def _query_tower(
        self, query: Query, acts: Timelines, position: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Query vectors [B, D], standardised query features [B, Q], askers [B, R], where the network is."""
        network, device = self.network, self._device
        features = network.standardize_query(query_features(self._timeline, query).to(device))
        other, actor = self._others(acts), self._actors(query.user, self._timeline.tick(query.time))
        asker = None
        if network.profile is not None:
            other = other + self._profile(network.profile.actor, acts.other, acts.time)
            actor = actor + self._profile(network.profile.actor, query.user, query.time)
            asker = self._profile(network.profile.asker, query.user, query.time)
        state = network.state(acts.to(device), other, position.to(device))
        return network.query(state, actor, query.action.to(device), features), features, asker

    def _profile(self, layer: nn.Module | Callable[[Tensor], Tensor], user: Tensor, time: Tensor) -> Tensor:
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

    def _around(
        self, query: Query, tick: Tensor, features: Tensor, asker: Tensor | None, stands: SpectralQuery | None
    ) -> Votes:
        """What the sources say of the people around the queries."""
        timeline, mixture = self._timeline, self.network.mixture
        assert mixture is not None
        around = Neighborhood.of(timeline, query.user, tick, self.reach)
        device = self._device
        pair = pair_features(timeline, query, around.contacts).to(device)
        if not {"paths", "union"} & set(self.sources) and not self.has_circles:
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
            person=person_features(timeline, query, around, now, stands).to(device),
            similarity=similarity,
        )

    # Judging

    def _validate(self, event_id: Tensor) -> dict[str, float]:
        """MRR on validation: all, replies, new ties; their geometric mean, weighed as in the loss."""
        return self._worth([rank_events(self, self.graph, event_id, **JUDGED)], ("all", "reply", "new"))

    def _choose_favours(self, event_id: Tensor) -> None:
        """Take those of `CHOICES` that are best on validation; everyone is scored once for all of them.

        What is judged is every slice and all together, so that none is given up for another.
        """
        found: dict[Favours, list[StreamingRanks]] = {favours: [] for favours in CHOICES}
        for ids in event_id.split(max(1, CHUNK // self.graph.num_users)):
            kept = Kept(self._probabilities)
            for favours, ranks in found.items():
                scorer = Favouring(self.name, favours, kept, self._timeline, self.reach)
                ranks.append(rank_events(scorer, self.graph, ids, **JUDGED))
        self._favours = max(CHOICES, key=lambda one: self._worth(found[one], self._weight_of)["val_score"])

    def _worth(self, ranks: Sequence[StreamingRanks], names: Iterable[str]) -> dict[str, float]:
        """MRR of slices, all parts together; and their geometric mean, each by the root of its share."""
        inside = {name: np.concatenate([part.select(name)[0] for part in ranks]) for name in names}
        scores = {f"val_{name}": float((1.0 / r).mean()) if len(r) else 0.0 for name, r in inside.items()}
        logs = np.log([score or 1.0 for score in scores.values()])
        weights = [len(rank) and self._weight_of[name] for name, rank in inside.items()]
        mean = np.average(logs, weights=weights) if any(weights) else -np.inf
        return scores | {"val_score": float(np.exp(mean))}

    # Searching, where a model need not score everyone

    @single_precision()
    def _searched(
        self,
        query: Query,
        k: int,
        exclude: tuple[Tensor, Tensor] | None,
        exclude_users: Tensor | None,
        chunks: Callable[[], Sequence[Tensor]],
    ) -> tuple[Tensor, Tensor]:
        """What `_search` finds for queries [n] of each chunk; where fewer than k, everyone is scored.

        Args, Returns, Raises: as in `recommend`; the chunks are asked for once the query is known to be one.
        """
        wanted = self._check_wanted(query, k, exclude, exclude_users)
        k, nobody = wanted.k, wanted.exclude_users
        row, user = torch.cat([torch.arange(len(query)), wanted.row]), torch.cat([query.user, wanted.user])
        users = torch.full((len(query), k), -1)
        scores = torch.full((len(query), k), -torch.inf, dtype=torch.float64)
        for rows in chunks():
            barred = of_rows(row, user, rows, len(query))
            users[rows], scores[rows] = self._search(query[rows], k, barred, nobody)
        few = users[:, min(k, self.graph.num_users) - 1] < 0
        if bool(few.any()):
            rows = few.nonzero().squeeze(1)
            barred = of_rows(row, user, rows, len(query))
            users[rows], scores[rows] = Recommender.recommend(
                self, query[rows], k, exclude=barred, exclude_users=nobody
            )
        return users, scores

    def _search(
        self, query: Query, k: int, exclude: tuple[Tensor, Tensor], exclude_users: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The best k that a search finds for B queries: users [B, k] and scores [B, k], padded."""
        raise NotImplementedError(f"{self.name} scores everyone")

    def _listed(
        self,
        asked: Asked,
        row: Tensor,
        user: Tensor,
        log_p: Tensor,
        k: int,
        exclude: tuple[Tensor, Tensor],
        exclude_users: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The best k of distinct people [M] with their log-probabilities [M], under the `Favours`."""
        num_users = self.graph.num_users
        allowed = ~torch.isin(row * num_users + user, exclude[0] * num_users + exclude[1])
        allowed &= ~torch.isin(user, exclude_users)
        row, user = row[allowed], user[allowed]
        log_p = self._favoured(asked, row, user, log_p[allowed])
        if not bool(torch.isfinite(log_p).all()):
            at = int((~torch.isfinite(log_p)).nonzero()[0])
            asking, time = int(asked.query.user[row[at]]), int(asked.query.time[row[at]])
            raise ValueError(
                f"{self.name} gave the score {log_p[at].item()} to user index {int(user[at])} "
                f"for user index {asking} at time {time}"
            )
        return listed(row, user, log_p, (len(asked.query), k), num_users)

    def _favoured(self, asked: Asked, row: Tensor, user: Tensor, log_p: Tensor) -> Tensor:
        """Log-probabilities [M] of people [M] for queries `row` [M], under the `Favours`: [M] float64."""
        if not self.sources:
            return log_p.double()
        return self._favours.on_pairs(log_p, row, user, self._timeline, self.reach, asked.query)
