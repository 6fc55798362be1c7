"""A calibrated probability that an initiation is replied to, learned with delayed labels."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import (
    MAX_TIME,
    check_count,
    check_dropout,
    check_flags,
    check_graph,
    check_index,
    check_query,
    check_seed,
    check_until,
)
from graphrec.data.draws import hashed
from graphrec.data.precision import single_precision
from graphrec.data.saved import (
    load_errors_as_data_error,
    make_folder,
    read_manifest,
    write_manifest,
)
from graphrec.evaluate import Initiations, ReplyDelayCurve
from graphrec.features import Profiles, initiation_features
from graphrec.models.manifest import read_config, uncompiled
from graphrec.models.rerank.reply_training import Examples, ReplyBatches, calibrate, delayed_reply_loss
from graphrec.nn import ReplyNet
from graphrec.temporal import ReplyHistory, ReplyIndex, Timeline
from graphrec.temporal.replies import Role
from graphrec.threads import one_intra_op_thread
from graphrec.train import train

FORMAT, MANIFEST, TENSORS = "graphrec.ReplyModel/1", "reply_model.json", "reply_model.pt"

WEEK = 7 * 86_400
"""In seconds."""


@dataclass(frozen=True)
class ReplyConfig:
    """The configuration of a `ReplyModel`.

    Attributes:
        reply_window: seconds within which a reply counts.
        hidden_channels, dropout: of `ReplyNet`.
        batch_size: initiations in a training step; fewer if an epoch would have less than twenty steps.
        max_epochs, patience: number of epochs at most, and epochs without a better validation score after
            which training stops.
        naive: count every reply that has not come yet as a negative; only a baseline for comparison.
        seed: fixes initial weights, order and dropout.
    """

    reply_window: int = WEEK
    hidden_channels: int = 32
    dropout: float = 0.3
    batch_size: int = 256
    max_epochs: int = 20
    patience: int = 4
    naive: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        window = check_count("reply_window", self.reply_window, maximum=MAX_TIME)
        object.__setattr__(self, "reply_window", window)
        for name in ("hidden_channels", "batch_size", "max_epochs", "patience"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        object.__setattr__(self, "dropout", check_dropout(self.dropout))
        check_flags(naive=self.naive)
        object.__setattr__(self, "seed", check_seed(self.seed))


@dataclass(frozen=True)
class _Fitted:
    """A network bound to a graph.

    Attributes:
        graph: the graph.
        profiles_until: seconds.
        network: None before it is trained.
        follows: whether the index is shared with the models that follow appends together.
    """

    graph: FriendGraph
    profiles_until: int
    network: ReplyNet | None
    follows: bool = False

    @cached_property
    def timeline(self) -> Timeline:
        """The index of the graph."""
        return Timeline.of(self.graph, follows=self.follows)

    @cached_property
    def replies(self) -> ReplyIndex:
        """The index of initiations and replies."""
        roles = self.graph.roles
        return ReplyIndex(self.timeline, wanted=None if roles.all_ordinary else roles.wanted)

    @cached_property
    def profiles(self) -> Profiles | None:
        """Users' features, standardized on those known before `profiles_until`; None if there are none."""
        return Profiles.of(self.graph, until=self.profiles_until)


class ReplyModel:
    """P(v replies to u within a window | u initiates), from events strictly before the initiation.

    An *initiation* is the first event between two people, a reply the first one back. Features are
    `initiation_features`, the action and, where the graph has them, both users' profiles.

    A young initiation without a reply may still get one, so it is neither left out nor counted as a negative.
    With m(a) the fraction of replies that arrive within a delay of a (`ReplyDelayCurve`), an initiation of
    age a has no reply yet with probability 1 - P m(a). The log-likelihood that is maximized has the term

        log P for initiations with a reply, log(1 - P m(a)) for the others,

    as in Chapelle 2014 (https://doi.org/10.1145/2623330.2623634), with the product-limit curve in place of an
    exponential delay. Scale and shift of the logits are then calibrated on validation data (Platt 1999),
    since the reply rate of a network drifts.

    Args:
        reply_window, hidden_channels, dropout, batch_size, max_epochs, patience, naive, seed: see
            `ReplyConfig`.
        progress: show training progress.
    """

    def __init__(
        self,
        *,
        reply_window: int = WEEK,
        hidden_channels: int = 32,
        dropout: float = 0.3,
        batch_size: int = 256,
        max_epochs: int = 20,
        patience: int = 4,
        naive: bool = False,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.config = ReplyConfig(
            reply_window=reply_window,
            hidden_channels=hidden_channels,
            dropout=dropout,
            batch_size=batch_size,
            max_epochs=max_epochs,
            patience=patience,
            naive=naive,
            seed=seed,
        )
        check_flags(progress=progress)
        self.progress = progress
        self.curve: list[dict[str, float]] = []
        self.fitted_until: int | None = None
        self._fitted: _Fitted | None = None

    @single_precision()
    @one_intra_op_thread()
    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Fit on initiations before `until` and the replies known by then.

        Args:
            graph: the whole graph.
            until: seconds; training uses strictly older events.
            validate_until: seconds; initiations from `until` to before this time, with the replies known by
                then, choose the epoch. By default the last tenth of the initiations is held out for that.

        Raises:
            TypeError: a time is not a whole number of seconds.
            ValueError: a time is beyond the year 9999; validation would end before it begins; or there is no
                initiation to train on.
        """
        check_graph(graph)
        config = self.config
        until, validate_until = check_until(until, validate_until)
        fitted_until, self.fitted_until = until, None
        pairs = Initiations.of(graph)
        times = pairs.initiation_time
        opened = np.sort(times[(times < until) & (times != pairs.reply_time)])
        if not len(opened):
            raise ValueError(f"the reply model: there is no initiation before until={until} to fit on")
        self._fitted = _Fitted(graph, until, None)
        known, end = until, until if validate_until is None else validate_until
        if validate_until is None:
            until = int(opened[len(opened) * 9 // 10])
        train_on = self._examples(pairs, None, until, known=known)
        judged = self._examples(pairs, until, end, known=end)
        if not len(train_on.replied) or not len(judged.replied):  # too few to split
            train_on = judged = self._examples(pairs, None, end, known=end)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            network = ReplyNet(
                train_on.features.size(1), hidden_channels=config.hidden_channels, dropout=config.dropout
            )
        size = min(config.batch_size, max(16, len(train_on.replied) // 20))
        batches = ReplyBatches(train_on, size=size, seed=config.seed)

        def loss(batch: Examples) -> Tensor:
            return delayed_reply_loss(network(batch.features), batch.replied, batch.maturity)

        self.curve = train(
            network,
            batches,
            losses=lambda batch, _: {"loss": loss(batch), "events": torch.tensor(float(len(batch.replied)))},
            validate=lambda: {"val_score": -float(loss(judged))},
            steps_per_epoch=len(batches),
            max_epochs=config.max_epochs,
            patience=config.patience,
            lr=2e-3,
            weight_decay=0.1,
            seed=config.seed,
            progress=self.progress,
        )
        network.eval()
        calibrate(network, judged)
        self._fitted = _Fitted(graph, fitted_until, network)
        self.fitted_until = fitted_until
        return self

    @property
    def graph(self) -> FriendGraph:
        """The graph that the model is bound to."""
        return self._state.graph

    @property
    def network(self) -> ReplyNet:
        """The network. Raises RuntimeError before a fit."""
        network = self._state.network
        if network is None:
            raise RuntimeError("the reply model has to be fitted first: call fit(graph, until=time)")
        return network

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters; 0 before a fit."""
        if self._fitted is None or self._fitted.network is None:
            return 0
        return sum(parameter.numel() for parameter in self._fitted.network.parameters())

    @property
    def _state(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("the reply model has to be fitted first: call fit(graph, until=time)")
        return self._fitted

    def on(self, graph: FriendGraph) -> Self:
        """Return this model, with its parameters, on another graph with the same actions and features."""
        if graph.actions != self.graph.actions:
            raise ValueError(
                f"the model knows the actions {self.graph.actions}, the graph has {graph.actions}"
            )
        return self._with(_Fitted(graph, self._state.profiles_until, self.network))

    def follow(self, graph: FriendGraph) -> None:
        """Read a graph that has grown from this one, in place; its replies are indexed when needed."""
        self._fitted = replace(self._state, graph=graph, follows=True)

    def _with(self, fitted: _Fitted) -> Self:
        """Copy this model with another network or graph."""
        out = type(self)(**asdict(self.config), progress=self.progress)
        out.curve, out.fitted_until, out._fitted = self.curve, self.fitted_until, fitted
        return out

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the fitted state: JSON, and tensors that load with `weights_only=True`."""
        network = self.network
        content = {
            "config": asdict(self.config),
            "actions": list(self.graph.actions),
            "profiles_until": self._state.profiles_until,
            "fitted_until": self.fitted_until,
        }
        folder = make_folder(folder)
        write_manifest(folder / MANIFEST, FORMAT, content)
        torch.save(uncompiled(network).state_dict(), folder / TENSORS)

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """Load the model that `save` wrote, on a graph with the same actions and features.

        Raises:
            DataError: the folder holds something else, or the graph has other actions or features.
        """
        folder = Path(folder)
        with load_errors_as_data_error(cls, folder):
            content = read_manifest(folder / MANIFEST, FORMAT)
            if graph.actions != tuple(content["actions"]):
                raise ValueError(
                    f"the model knows the actions {content['actions']}, the graph has {graph.actions}"
                )
            config = read_config(ReplyConfig, content["config"])
            out = cls(**asdict(config), progress=False)
            out.fitted_until = content["fitted_until"]
            out._fitted = _Fitted(graph, content["profiles_until"], None)
            weights = torch.load(folder / TENSORS, weights_only=True)
            num_features = weights["linear.weight"].size(1)
            none = torch.zeros(1, dtype=torch.int64)
            query = Query(none, none, none)
            found = out.features(query, query.user).size(1)
            if found != num_features:
                raise ValueError(f"the model knows {num_features} features, this graph gives {found}")
            network = ReplyNet(num_features, hidden_channels=config.hidden_channels)
            network.load_state_dict(weights)
        return out._with(_Fitted(graph, content["profiles_until"], network.eval()))

    @single_precision()
    def probability(self, query: Query, person: Tensor) -> Tensor:
        """P(reply within the window | initiation) for B initiations.

        Args:
            query: B queries, whose users initiate.
            person: [B] int64, the users that they act on.

        Returns:
            [B] float64.

        Raises:
            IndexError: a user, person or action is not in the graph.
            ValueError: `person` is not [B].
        """
        graph = self.graph
        check_query(graph, query)
        person = check_index("person", person, graph.num_users)
        if len(person) != len(query):
            raise ValueError(f"{len(query)} queries need as many people, got {list(person.shape)}")
        with torch.no_grad():
            logit: Tensor = self.network(self.features(query, person)).double()
        return logit.sigmoid()

    def history(self, user: Tensor, time: Tensor, role: Role) -> ReplyHistory:
        """The initiations by users [M], or to them, and their replies, strictly before times [M] (s)."""
        return self._state.replies.history(user, self._state.timeline.tick(time), role)

    def features(self, query: Query, person: Tensor) -> Tensor:
        """Features of M initiations, from the queries' users to people [M] int64: [M, F] float32."""
        fitted = self._state
        timeline, replies, window = fitted.timeline, fitted.replies, self.config.reply_window
        parts = [
            initiation_features(timeline, replies, query, person, reply_window=window),
            F.one_hot(query.action, len(fitted.graph.actions)).float(),
        ]
        if fitted.profiles is not None:
            one, other = (
                fitted.profiles.x[side] * fitted.profiles.known(side, query.time)[:, None]
                for side in (query.user, person)
            )
            parts += [one, other, one * other]
        return torch.cat(parts, dim=1)

    def _examples(self, pairs: Initiations, low: int | None, high: int, *, known: int) -> Examples:
        """The initiations from `low` to before `high` (s), with the replies known by `known` (s)."""
        times, actions = pairs.initiation_time, pairs.initiation_action
        inside = (times < high) & (times != pairs.reply_time)
        if low is not None:
            inside &= times >= low
        rows = np.flatnonzero(inside)
        user, person, time, action = (
            torch.from_numpy(part[rows]) for part in (pairs.initiator, pairs.recipient, times, actions)
        )
        features = self.features(Query(user, time, action), person)
        # Tied initiations in an order of their features, never of ids.
        key = hashed(*features.view(torch.int32).long().unbind(1)).numpy()
        order = np.lexsort((key, actions[rows], times[rows]))
        rows, features = rows[order], features[torch.from_numpy(order)]
        window = self.config.reply_window
        replied = pairs.reply_labels(until=known, reply_window=window)[rows] == 1
        maturity = np.ones(len(rows))
        if not self.config.naive:
            curve = ReplyDelayCurve.of(pairs, until=known, reply_window=window)
            maturity = curve.arrived_fraction(known - times[rows])
        return Examples(features, torch.from_numpy(replied), torch.from_numpy(maturity).float())
