"""The recommender that mixes components of the temporal neighborhood with a head that covers all users."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Generic, Self, final

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import DataError, FriendGraph, Query, UserIds
from graphrec.data.checks import check_choice, check_flags, check_folder, check_until
from graphrec.data.precision import single_precision
from graphrec.data.saved import load_errors_as_data_error, make_folder
from graphrec.loader import QueryLoader, TimelineBatches
from graphrec.models.appending import reads_graph
from graphrec.models.heads.head import Bound, Head
from graphrec.models.heads.optional import (
    ReadsIndex,
    Refreshes,
    ScoresPairs,
    Searches,
    check_head,
    fit_head,
    tokenizer_of,
)
from graphrec.models.manifest import uncompiled
from graphrec.models.mixture import checkpoint
from graphrec.models.mixture.config import MixtureConfig
from graphrec.models.mixture.contact_prior import PRIOR_GRID, ContactPrior
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.fitted import FittedMixture
from graphrec.models.mixture.plan import (
    TrainingPlan,
    build_network,
    initial_network,
    plan_training,
    run_key,
    select_user_rows,
)
from graphrec.models.mixture.training_loss import TrainingLoss
from graphrec.models.mixture.validation import choose_prior, epoch_scores, validation_events
from graphrec.models.mixture.view import GraphView
from graphrec.models.mixture.window_loss import WindowLoss, loss_for
from graphrec.models.recommender import MAX_SCORES, Recommender
from graphrec.models.wanted import Wanted
from graphrec.models.windows.grid import TrainingWindows
from graphrec.nn import MixtureNetwork
from graphrec.temporal import Timeline
from graphrec.threads import one_intra_op_thread
from graphrec.tokenizer.id_positions import id_positions
from graphrec.train import train


@final
class MixtureRecommender(Recommender, Generic[Bound]):
    """P(v | u, t, action) as a gated mixture: components for the neighborhood of u, and a head for all users.

    The components are those of `NeighborhoodMixture`. All parts are trained together to maximize the
    likelihood of the mixture (see `TrainingLoss`). Users are ranked by their probability times the factors of
    a `ContactPrior`, which validation chooses.

    Where the graph has features of users (`graph["user"].x`), both towers also read the features known at a
    query's time (see `Profiles`), for users with and without events.

    Args:
        head: gives every user a probability.
        config: components, features, encoder and training.
        name: of the model, in messages and tables; by default from head, components and features.
        folder: for checkpoints, from which an interrupted fit resumes.
        progress: show training progress.

    Raises:
        TypeError: an argument has a wrong type, or the head could not be saved.
        ValueError: the head does not support a feature.
    """

    dtype = torch.float32

    def __init__(
        self,
        head: Head[Bound],
        config: MixtureConfig | None = None,
        *,
        name: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.config = MixtureConfig() if config is None else config
        check_head(head)
        for feature in self.config.features:
            check_choice("feature", feature, head.features)
        check_flags(progress=progress)
        parts = [head.kind, *self.config.components, *self.config.features]
        self.name = "_".join(parts) if name is None else name
        self.folder = None if folder is None else check_folder(folder)
        self.progress = progress
        self.tokenizer = tokenizer_of(head)
        self._head = head
        self._curve: list[dict[str, float]] = []
        self._fitted: FittedMixture[Bound] | None = None
        self._loss: TrainingLoss | WindowLoss | None = None
        self._plan: TrainingPlan | None = None

    @property
    def kind(self) -> str:
        """The kind of its head."""
        return self._head.kind

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve: training and validation values, one row an epoch."""
        return self._curve

    @property
    def fitted(self) -> FittedMixture[Bound]:
        """Graph, network, head, encoder and prior. Raises RuntimeError before a fit."""
        if self._fitted is None:
            raise RuntimeError(f"{self.name} has to be fitted first: call fit(graph, until=time)")
        return self._fitted

    @property
    def head(self) -> Bound:
        """The head on the graph. Raises RuntimeError before a fit."""
        return self.fitted.head

    @property
    def network(self) -> MixtureNetwork:
        """The network; may be set to its `torch.compile`d version. Raises RuntimeError before a fit."""
        return self.fitted.network

    @network.setter
    def network(self, network: MixtureNetwork) -> None:
        encoder = replace(self.fitted.encoder, network=network)
        self._fitted = replace(self.fitted, network=network, encoder=encoder)

    @property
    def view(self) -> GraphView:
        """The graph as the model reads it. Raises RuntimeError before a fit."""
        return self.fitted.view

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    # Fitting

    @single_precision()
    def prepare(self, graph: FriendGraph, *, until: int) -> QueryLoader:
        """Index the graph, fit the head (such as its tokenizer), and build the network.

        Args:
            graph: the whole graph.
            until: seconds; only events strictly before it are used.

        Returns:
            The loader of training timelines.
        """
        config = self.config
        view, plan = plan_training(graph, self._check_past(graph, until), config)
        with torch.random.fork_rng():
            torch.manual_seed(config.train.seed)
            head = fit_head(self._head, view)
            network = initial_network(head, view, config)
        self._bind(head, view, network, PRIOR_GRID[0], training=True)
        self._plan, self._loss = plan, loss_for(self.fitted.encoder, self.head, plan, config.train)
        batches = TimelineBatches(
            plan.lengths,
            events_per_batch=config.train.events_per_batch,
            max_batches=config.train.epoch_batches,
            seed=config.train.seed,
        )
        return QueryLoader.of_timelines(
            graph, until=view.period.until, users=view.known, batch_sampler=batches, seed=config.train.seed
        )

    def _bind(
        self,
        head: Head[Bound],
        view: GraphView,
        network: MixtureNetwork,
        prior: ContactPrior,
        *,
        training: bool = False,
    ) -> None:
        """Bind a head and a network to a graph, and use them for all later queries."""
        self._fitted = FittedMixture.bind(
            self.name, head, view, network, self.config, prior, training=training
        )
        self._graph, self.tokenizer = view.graph, tokenizer_of(self.head.head)

    @single_precision()
    def losses(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """The terms of the loss of a batch of `prepare`'s loader; see `TrainingLoss`."""
        if self._loss is None:
            raise RuntimeError(f"{self.name} has to be prepared first: call prepare(graph, until=time)")
        return self._loss(batch, epoch)

    @single_precision()
    @one_intra_op_thread()
    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Train on events before `until`.

        Args:
            graph: the whole graph.
            until: seconds; training uses strictly older events.
            validate_until: seconds; the events from `until` to before this time choose the epoch. By default
                the last tenth of the training events is held out for that.

        Raises:
            TypeError: a time is not a whole number of seconds.
            ValueError: a time is beyond the year 9999, validation ends before it begins, or no event is left.
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
        config = self.config.train
        loader = self.prepare(graph, until=until)
        assert self._plan is not None
        weight, asks_windows = self._plan.slice_weight, config.targets == "windows"
        judged = validation_events(graph, until, validate_until, seed=config.seed)
        windows = TrainingWindows.between(graph, until, validate_until) if asks_windows else None
        key = run_key(self.head.head, self.config, graph, until, validate_until) if self.folder else None
        self._curve = train(
            self.network,
            loader,
            losses=self.losses,
            validate=lambda: self._validate(windows or judged, weight),
            steps_per_epoch=len(loader),
            max_epochs=config.max_epochs,
            patience=config.patience,
            seed=config.seed,
            folder=self.folder,
            key=key,
            progress=self.progress,
        )
        self._loss = self._plan = None
        view = self._view_of(graph, self.view.known, self.view)
        self._bind(self.head.head, view, self.network, PRIOR_GRID[0])
        if self.config.components and not asks_windows:
            prior = choose_prior(
                self.name,
                graph,
                judged,
                probabilities=self.fitted.probabilities,
                neighborhood=self.fitted.encoder.neighborhood,
                weight=weight,
                batch_size=max(1, MAX_SCORES // graph.num_users),
            )
            self._fitted = replace(self.fitted, prior=prior)
        self.fitted_until = fitted_until
        return self

    def _view_of(self, graph: FriendGraph, known: Tensor, old: GraphView) -> GraphView:
        """View a graph for queries after the training period of `old`, with known users [n] int64."""
        return GraphView.of(
            graph,
            known,
            old.period,
            spectral="spectral" in self.config.features,
            seed=self.config.train.seed,
            since=old.period.until,
        )

    def _validate(self, judged: Tensor | TrainingWindows, weight: dict[str, float]) -> dict[str, float]:
        """See `epoch_scores`."""
        if isinstance(self.head, Refreshes):
            self.head.refresh()
        return epoch_scores(self, self.graph, judged, weight=weight, seed=self.config.train.seed)

    # On another graph, saved, loaded

    @single_precision()
    def on(self, graph: FriendGraph) -> Self:
        """See `Recommender.on`.

        Raises:
            ValueError: the graph's actions or features are not those of the fit.
        """
        old, actions = self.fitted, self.graph.actions
        if graph.actions != actions:
            raise ValueError(f"{self.name} knows the actions {actions}, the graph has {graph.actions}")
        there = id_positions(UserIds(old.view.raw_ids), graph.user_ids)
        view = self._view_of(graph, there[there >= 0], old.view)
        if view.profile_columns != old.view.profile_columns:
            columns = f"{old.view.profile_columns} columns, the graph has {view.profile_columns}"
            raise ValueError(f"{self.name} knows features of {columns}")
        head, rows = old.head.head, 1 + (there >= 0).nonzero().squeeze(1)
        out = self._like()
        network = select_user_rows(head, uncompiled(old.network), view, self.config, rows, len(there))
        out._bind(head, view, network, old.prior)
        return out

    def reading(self, timeline: Timeline, changed: Tensor) -> Self | None:
        """See `Recommender.reading`: the head has to be a `ReadsIndex`."""
        if not isinstance(self.fitted.head, ReadsIndex):
            return None
        out = copy(self)
        out._fitted = self.fitted.reading(timeline, changed)
        return out

    @single_precision()
    def follow(self, graph: FriendGraph) -> None:
        """See `Recommender.follow`: spectral embeddings and STUs are renewed at their regular moments."""
        self._fitted = self.fitted.follow(graph)
        self._graph, self.tokenizer = graph, tokenizer_of(self.head.head)

    def _like(self) -> Self:
        """Copy the recommender without its graph and fitted state."""
        out = type(self)(self._head, self.config, name=self.name, folder=self.folder, progress=self.progress)
        out._curve, out.fitted_until = self._curve, self.fitted_until
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """See `Recommender.save`."""
        fitted = self.fitted
        checkpoint.write(
            make_folder(folder),
            checkpoint.Manifest(
                name=self.name,
                config=self.config,
                actions=self.graph.actions,
                period=fitted.view.period,
                prior=fitted.prior,
                fitted_until=self.fitted_until,
            ),
            fitted.head.head,
            fitted.network,
            fitted.view.raw_ids,
        )

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """See `Recommender.load`."""
        path = Path(folder)
        with load_errors_as_data_error(cls, path):
            manifest, head = checkpoint.read(path, graph.actions)
            tensors = checkpoint.read_tensors(path)
            known = id_positions(UserIds(tensors.known), graph.user_ids)
            if bool((known < 0).any()):
                raise DataError(f"it knows {int((known < 0).sum())} people who are not in the graph")
            out = cls(head, manifest.config, name=manifest.name, progress=False)
            out.fitted_until = manifest.fitted_until
            train, period = manifest.config.train, manifest.period
            spectral = "spectral" in manifest.config.features
            view = GraphView.of(graph, known, period, spectral=spectral, seed=train.seed, since=period.until)
            with torch.random.fork_rng():
                network = build_network(head, view, manifest.config).eval()
            network.load_state_dict(tensors.network)
            out._bind(head, view, network, manifest.prior)
        return out

    @reads_graph
    @single_precision()
    @torch.no_grad()
    def encode_query(self, query: Query) -> EncodedQuery:
        """Encode B queries for the methods of the head."""
        self._check(query)
        return self.fitted.encoder.encode_query(query)

    @single_precision()
    def _score_in_order(self, query: Query) -> Tensor:
        return self.fitted.log_scores(query)

    @reads_graph
    @single_precision()
    def score_pairs(self, query: Query, row: Tensor, user: Tensor) -> Tensor:
        """See `Recommender.score_pairs`; the cost grows with M, not N, if the head `ScoresPairs`."""
        row, user = self._check_pairs(query, row, user)
        head = self.head
        if isinstance(head, ScoresPairs):
            return self.fitted.log_scores_of_pairs(head, query, row, user)
        return super().score_pairs(query, row, user)

    @single_precision()
    def _recommend(self, query: Query, wanted: Wanted) -> tuple[Tensor, Tensor]:
        """If the head implements `Searches`, score the users that it finds; if they are fewer than k, all."""
        head, k = self.head, wanted.k
        if not isinstance(head, Searches):
            return super()._recommend(query, wanted)
        users, scores = self.fitted.search(head, query, k, wanted.with_own(query), wanted.exclude_users)
        few = users[:, min(k, self.graph.num_users) - 1] < 0
        if bool(few.any()):
            rows = few.nonzero().squeeze(1)
            users[rows], scores[rows] = super()._recommend(query[rows], wanted.select(rows, len(query)))
        return users, scores
