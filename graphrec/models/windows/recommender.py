"""A recommender of lists for the coming days: whom will a user turn to, and with whom will a tie begin?"""

from __future__ import annotations

import os
from copy import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self, final

import torch
from torch import Tensor

from graphrec.data import OUTCOMES, DataError, FriendGraph, Outcome, Query, UserIds
from graphrec.data.checks import check_choice, check_kind
from graphrec.data.precision import single_precision
from graphrec.data.saved import load_errors_as_data_error, make_folder, read_manifest, write_manifest
from graphrec.features.window import NUM_WINDOW_FEATURES, WindowFeatures
from graphrec.models.appending import reads_graph
from graphrec.models.manifest import load_submodels, read_config, save_submodels
from graphrec.models.mixture.list_kernel import best_found
from graphrec.models.mixture.plan import MAX_SNAPSHOT_ROWS, known_users
from graphrec.models.mixture.recommender import MixtureRecommender
from graphrec.models.mixture.view import GraphView, TrainingPeriod
from graphrec.models.recommender import Recommender
from graphrec.models.wanted import Wanted
from graphrec.models.windows.examples import collect_examples
from graphrec.models.windows.grid import NUM_WINDOWS, training_reply_window
from graphrec.models.windows.mixed import mix
from graphrec.models.windows.training import WindowConfig, train_window_network
from graphrec.nn.window import WindowNetwork, log_probability
from graphrec.temporal import SpectralEmbeddings, Timeline, ordinary_graph, popularity_half_life
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer.id_positions import id_positions

FORMAT, MANIFEST, TENSORS = "graphrec.ListRanker/4", "model.json", "model.pt"

SPECTRAL_DIM, SPECTRAL_ITERATIONS = 24, 8
"""Fewer dimensions converge better; embeddings that are unconverged or old cost a tenth of precision."""

NO_CANDIDATE, CONTACT = -50.0, -60.0
"""Log-probabilities below those of any candidate: of other users, ordered by popularity, and of contacts."""


@final
class ListRanker(Recommender):
    """P(u begins contact with v within a horizon after t), for lists that are read in the days after.

    Other recommenders are trained on whom a user acts on next, given that they act now. This one is trained
    on the lists themselves: at the starts of windows of the training period it scores people whom a user has
    not met, and learns from what followed in the window. Candidates are contacts of contacts, and the users
    with the highest rates of events and first contacts (see `WindowFeatures`).

    A candidate's score is the log-probability of the query's outcome within its horizon, also that the user
    does nothing at all counted in, so that scores compare between users. Windows have 1/64 of the training
    events; for another horizon, outcomes are taken to come at a constant rate, and the network to keep the
    pace of as long a time before the query. A query without a horizon is answered for one such window and
    the default outcome. Other users come after all candidates, by their rate of first contacts received, and
    contacts last: for questions about known people, ask another recommender. Only ordinary acts are read
    (see `Roles`).

    Args:
        outcome: what lists are for by default: 'initiation' or 'tie' (see `Query`). If None, 'tie' where the
            training events have replies, else 'initiation'.
        config: network and training.
        mixture: a second model, trained on windows, that orders the lists together with the network (see
            `mix`); fitted by `fit`.
        seed: instead of `config.seed`.

    Raises:
        TypeError: an argument has a wrong type.
        ValueError: there is no such outcome, or the mixture has other targets.
    """

    name = "list_ranker"
    comparable_scores = True
    dtype = torch.float32

    def __init__(
        self,
        outcome: Outcome | None = None,
        config: WindowConfig | None = None,
        *,
        mixture: MixtureRecommender[Any] | None = None,
        seed: int | None = None,
    ) -> None:
        if mixture is not None:
            check_kind("mixture", mixture, MixtureRecommender)
            check_choice("targets of the mixture", mixture.config.train.targets, ("windows",))
        self.mixture = mixture
        if outcome is not None:
            check_choice("outcome", outcome, OUTCOMES)
        self.outcome, self.default_outcome = outcome, outcome
        self.config = WindowConfig() if config is None else config
        if seed is not None:
            self.config = replace(self.config, seed=seed)
        self._curve: list[dict[str, float]] = []
        self._network: WindowNetwork | None = None
        self._view: GraphView | None = None
        self._features: WindowFeatures | None = None
        self._window = 1.0

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve: the training loss, one row an epoch."""
        return self._curve

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        own = sum(parameter.numel() for parameter in self.network.parameters())
        return own + (0 if self.mixture is None else self.mixture.num_parameters)

    @property
    def network(self) -> WindowNetwork:
        """The network. Raises RuntimeError before a fit."""
        self._check_fitted()
        assert self._network is not None
        return self._network

    @single_precision()
    @one_intra_op_thread()
    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Train on the windows before `until` (seconds); see `collect_examples`.

        Raises:
            TypeError: the time is not a whole number of seconds.
            ValueError: no event is older.
        """
        acts = ordinary_graph(graph)
        until = self._check_past(acts, until)
        timeline = Timeline.of(acts)
        num_events = int(torch.searchsorted(acts.events().time, until))
        parts = max(1, min(NUM_WINDOWS, MAX_SNAPSHOT_ROWS // graph.num_users))
        half_life = popularity_half_life(int(timeline.instants[0]), until)
        period = TrainingPeriod(until, max(1, num_events // parts), half_life)
        self._window = max(1.0, num_events / NUM_WINDOWS)
        known = known_users(acts, until)
        self._read(graph, known, period, since=0)
        assert self._features is not None
        examples = collect_examples(
            graph,
            self._features,
            until=until,
            generator=torch.Generator().manual_seed(self.config.seed),
        )
        replied = bool((examples.label[:, 1] > 0).any())
        self.default_outcome = self.outcome or ("tie" if replied else "initiation")
        self.default_horizon = training_reply_window(acts.events().time[:num_events], until)
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            self._network = self._new_network()
            self._curve = train_window_network(self._network, examples, self.config)
        self._network.eval()
        self._read(graph, known, period, since=until)
        if self.mixture is not None:
            self.mixture.fit(acts, until=until)
        self.fitted_until = until
        return self

    def _new_network(self) -> WindowNetwork:
        return WindowNetwork(NUM_WINDOW_FEATURES, self.config.hidden_channels, self.config.dropout)

    def _read(self, graph: FriendGraph, known: Tensor, period: TrainingPeriod, *, since: int) -> None:
        """Read a graph, for queries from `since` (s) on."""
        view = GraphView.of(
            ordinary_graph(graph), known, period, spectral=False, seed=self.config.seed, since=since
        )
        start = torch.randn(
            graph.num_users, SPECTRAL_DIM, generator=torch.Generator().manual_seed(self.config.seed)
        )
        spectral = SpectralEmbeddings(
            view.timeline,
            torch.empty_like(start).index_copy_(0, view.order, start),
            every=period.snapshot_events,
            since=int(view.timeline.tick(torch.tensor(since))),
            iterations=SPECTRAL_ITERATIONS,
            regularized=False,
        )
        self._graph, self._view = graph, view
        self._features = WindowFeatures(view.timeline, spectral, self._window, view.order)

    @single_precision()
    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`."""
        self._check_fitted()
        assert self._view is not None
        out = self._like()
        there = id_positions(UserIds(self._view.raw_ids), graph.user_ids)
        out._read(graph, there[there >= 0], self._view.period, since=self._view.period.until)
        if self.mixture is not None:
            out.mixture = self.mixture.on(ordinary_graph(graph))
        return out

    @single_precision()
    @torch.no_grad()
    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: spectral embeddings are renewed at their regular moments.

        Where not all actions are ordinary, the recommender is put `on` the graph.
        """
        if not graph.roles.all_ordinary:
            super().follow(graph)
            return
        assert self._view is not None
        assert self._features is not None
        view = self._view.follow(graph)
        self._features.follow(view.timeline)
        self._graph, self._view = graph, view
        if self.mixture is not None:
            self.mixture.follow(graph)

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`; None where not all actions are ordinary, or the mixture has none.

        Rates of users of the removed events are computed again from the first of these on, others corrected;
        the cost grows with the timelines of the former and the times of removed events.
        """
        if not self.graph.roles.all_ordinary:
            return None
        assert self._view is not None
        assert self._features is not None
        out = copy(self)
        out._view = replace(self._view, timeline=timeline)
        out._features = self._features.reading(timeline, changed)
        if self.mixture is not None:
            out.mixture = self.mixture.reading(timeline, changed)
            return None if out.mixture is None else out
        return out

    def _like(self) -> Self:
        """Copy the recommender without its graph."""
        out = type(self)(self.outcome, self.config, mixture=self.mixture)
        out._network, out._curve, out._window = self._network, self._curve, self._window
        out.default_horizon, out.default_outcome = self.default_horizon, self.default_outcome
        out.fitted_until = self.fitted_until
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`."""
        network, view = self.network, self._view
        assert view is not None
        path = make_folder(folder)
        torch.save({"known": view.raw_ids, "network": network.state_dict()}, path / TENSORS)
        parts: dict[str, Recommender] = {} if self.mixture is None else {"mixture": self.mixture}
        content = {
            "members": save_submodels(parts, path),
            "outcome": self.outcome,
            "default_outcome": self.default_outcome,
            "default_horizon": self.default_horizon,
            "config": asdict(self.config),
            "period": asdict(view.period),
            "window": self._window,
            "fitted_until": self.fitted_until,
        }
        write_manifest(path / MANIFEST, FORMAT, content)

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        path = Path(folder)
        with load_errors_as_data_error(cls, path):
            content = read_manifest(path / MANIFEST, FORMAT)
            tensors = torch.load(path / TENSORS, weights_only=True)
            known = id_positions(UserIds(tensors["known"]), graph.user_ids)
            if bool((known < 0).any()):
                raise DataError(f"it knows {int((known < 0).sum())} people who are not in the graph")
            parts = load_submodels(content["members"], path, ordinary_graph(graph))
            config = read_config(WindowConfig, content["config"])
            mixture = parts.get("mixture")
            if not isinstance(mixture, MixtureRecommender | None):
                raise DataError("its mixture is a model of another kind")
            out = cls(content["outcome"], config, mixture=mixture)
            out._window, out.fitted_until = float(content["window"]), content["fitted_until"]
            out.default_outcome, out.default_horizon = content["default_outcome"], content["default_horizon"]
            check_choice("default_outcome", out.default_outcome, OUTCOMES)
            with torch.random.fork_rng():
                out._network = out._new_network().eval()
            out._network.load_state_dict(tensors["network"])
            period = read_config(TrainingPeriod, content["period"])
            out._read(graph, known, period, since=period.until)
        return out

    @single_precision()
    @torch.no_grad()
    def _score_in_order(self, query: Query) -> Tensor:
        assert self._features is not None
        assert self._view is not None
        timeline = self._view.timeline
        out = torch.empty(len(query), self.graph.num_users, dtype=self.dtype)
        tick = timeline.tick(query.time)
        for moment in tick.unique().tolist():
            rate = self._features.popularity(moment)
            out[tick == moment] = (NO_CANDIDATE + rate / (1.0 + rate)).to(out.dtype)
        row, person = timeline.contacts.before(query.user, tick)
        out[row, person] += CONTACT - NO_CANDIDATE
        row, person, score = self._candidates(query)
        out[row, person] = score.to(out.dtype)
        return out

    @reads_graph
    @single_precision()
    @torch.no_grad()
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """See `Recommender.score_pairs`; the cost grows with M and the queries' candidates, not with N."""
        row, user = self._check_pairs(query, row, user)
        assert self._features is not None
        assert self._view is not None
        timeline, num_users = self._view.timeline, self.graph.num_users
        tick, out = timeline.tick(query.time), torch.empty(len(row), dtype=self.dtype)
        for moment in tick[row].unique().tolist():
            here = (tick[row] == moment).nonzero().squeeze(1)
            rate = self._features.popularity_of(user[here], moment)
            out[here] = (NO_CANDIDATE + rate / (1.0 + rate)).to(out.dtype)
        out[timeline.had_contact(query.user[row], user, tick[row])] += CONTACT - NO_CANDIDATE
        asked = row.unique()
        found, person, score = self._candidates(query[asked])
        key, place = (asked[found] * num_users + person).sort()
        wanted = row * num_users + user
        at = torch.searchsorted(key, wanted).clamp(max=max(len(key) - 1, 0))
        if len(key):
            out = torch.where(key[at] == wanted, score[place[at]].to(out.dtype), out)
        return out

    @single_precision()
    @torch.no_grad()
    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """Rank the candidates; where they are fewer than k, all users."""
        assert self._view is not None
        k, num_users = wanted.k, self._view.timeline.num_users
        row, person, score = self._candidates(query)
        users, scores = best_found(
            self.name,
            query,
            (row, person),
            score,
            k=k,
            num_users=num_users,
            exclude=wanted.with_own(query),
            exclude_users=wanted.exclude_users,
        )
        few = (users[:, min(k, num_users) - 1] < 0).nonzero().squeeze(1)
        if len(few):
            users[few], scores[few] = super()._recommend(query[few], wanted.select(few, len(query)))
        return users, scores

    def _candidates(self, query: Query) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of queries: (row [M] int64, user [M] int64, log-probability [M] float64)."""
        assert self._features is not None
        assert self._view is not None
        tick, length = self._view.timeline.tick(query.time), self._lengths(query)
        column = OUTCOMES.index(query.outcome or self.default_outcome or "tie")
        none = torch.empty(0, dtype=torch.int64)
        parts = [(none, none, torch.empty(0, dtype=torch.float64))]
        for moment in tick.unique().tolist():
            rows = (tick == moment).nonzero().squeeze(1)
            found = self._features.candidates(query.user[rows], moment)
            row = rows[found.row]
            score = log_probability(self.network(found.x)[:, column], length[row])
            parts.append((row, found.user, score))
        row, person, score = (torch.cat(columns) for columns in zip(*parts, strict=True))
        if self.mixture is not None and len(row):
            asked = query if query.outcome else query.within(1, OUTCOMES[column])
            score = mix(score, self.mixture.score_pairs(asked, row, person), row, len(query))
        return row, person, score.clamp(min=NO_CANDIDATE + 1.0)

    def _lengths(self, query: Query) -> Tensor:
        """How many windows the horizons of queries are expected to last: [B] float64, 1 without a horizon.

        The network is expected to keep the pace of as long a time before the query.
        """
        if query.horizon is None:
            return torch.ones(len(query), dtype=torch.float64)
        assert self._view is not None
        timeline = self._view.timeline
        past = (query.time - timeline.instants[0]).clamp(min=1)
        span = torch.minimum(query.horizon, past)
        since, until = (
            timeline.num_events_before(timeline.tick(time)) for time in (query.time - span, query.time)
        )
        return (until - since).clamp(min=1) * (query.horizon / span) / self._window
