"""Whether an approach is answered: a calibrated probability, learned from answers that come late."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
    check_counts,
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
from graphrec.evaluate import Initiations, ReplyDelayCurve
from graphrec.models.saved import made_folder, uncompiled
from graphrec.nn import AnswerNet, Profiles, approach_features
from graphrec.temporal import ReplyHistory, ReplyIndex, Timeline
from graphrec.temporal.replies import Role
from graphrec.threads import one_intra_op_thread
from graphrec.train import train

WEEK = 7 * 86_400
TINY = 1e-6


class Reciprocity:
    """P(v answers u within a horizon | u approaches v), from what was known just before the approach.

    An *approach* is the first act between two people, an answer the first act back. Features are those of
    `graphrec.nn.approach_features`, the action and, where the graph has them, both users' profiles.

    An approach of age a that is still unanswered says little while a is small. It is neither left out nor
    called a no: with m(a) the part of the answers that has come by that age
    (`graphrec.evaluate.ReplyDelayCurve`), it has been unanswered so far with probability 1 - P m(a), and the
    likelihood of

        log P for the answered, log(1 - P m(a)) for the others

    is maximised, as by Chapelle 2014 (https://doi.org/10.1145/2623330.2623634) with the product-limit curve
    in place of an exponential delay. Validation then sets scale and level of the logits (Platt 1999), since
    how readily a network answers drifts.

    Args:
        wait: the horizon, seconds.
        hidden_channels, dropout: of `AnswerNet`.
        batch_size: approaches of a step; fewer where an epoch would have less than twenty steps.
        max_epochs, patience: the most epochs, and how many without a better validation end training.
        naive: take every silence for a no, to be measured against; not to be used.
        seed: fixes initial values, order and dropout.
        progress: show training.
    """

    def __init__(
        self,
        *,
        wait: int = WEEK,
        hidden_channels: int = 32,
        dropout: float = 0.3,
        batch_size: int = 256,
        max_epochs: int = 20,
        patience: int = 4,
        naive: bool = False,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        wait = check_count("wait", wait, maximum=MAX_TIME)
        check_counts(
            hidden_channels=hidden_channels, batch_size=batch_size, max_epochs=max_epochs, patience=patience
        )
        check_dropout(dropout)
        check_flags(naive=naive, progress=progress)
        check_seed(seed)
        self.wait, self.naive = wait, naive
        self.hidden_channels, self.dropout = hidden_channels, dropout
        self.batch_size, self.max_epochs, self.patience = batch_size, max_epochs, patience
        self.seed, self.progress = seed, progress
        self._graph: FriendGraph | None = None
        self.fitted_until: int | None = None

    @single_precision()
    @one_intra_op_thread()
    def fit(self, graph: FriendGraph, *, until: int, validate_until: int | None = None) -> Self:
        """Learn from approaches before `until` and what was known of their answers by then.

        Args:
            graph: the whole graph.
            until: seconds; training sees what is strictly older.
            validate_until: approaches from `until` to before this time, with the answers known by then,
                choose the epoch; by default the last tenth of the approaches is set aside for it.

        Raises:
            TypeError: a time is not in whole seconds.
            ValueError: a time lies beyond the year 9999, or validation would end before it begins; there is
                no approach to learn from.
        """
        check_graph(graph)
        until, validate_until = check_until(until, validate_until)
        fitted_until, self.fitted_until = until, None
        pairs = Initiations.of(graph)
        opened = np.sort(
            pairs.initiation_time[
                (pairs.initiation_time < until) & (pairs.initiation_time != pairs.reply_time)
            ]
        )
        if not len(opened):
            raise ValueError(f"the reciprocity model: there is no approach before until={until} to fit on")
        self._on(graph)
        self._profiles_until = until
        self._profiles = Profiles.of(graph, until=until)
        known, end = until, until if validate_until is None else validate_until
        if validate_until is None:
            until = int(opened[len(opened) * 9 // 10])
        train_on = self._examples(pairs, None, until, known=known)
        judged = self._examples(pairs, until, end, known=end)
        if not len(train_on[1]) or not len(judged[1]):  # too few to part
            train_on = judged = self._examples(pairs, None, end, known=end)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.network = AnswerNet(
                train_on[0].size(1), hidden_channels=self.hidden_channels, dropout=self.dropout
            )
        size = min(self.batch_size, max(16, len(train_on[1]) // 20))
        batches = _Batches(train_on, size=size, seed=self.seed)
        self.curve = train(
            self.network,
            batches,
            losses=lambda batch, _: {"loss": self._loss(batch), "events": torch.tensor(float(len(batch[1])))},
            validate=lambda: {"val_score": -float(self._loss(judged))},
            steps_per_epoch=len(batches),
            max_epochs=self.max_epochs,
            patience=self.patience,
            lr=2e-3,
            weight_decay=0.1,
            seed=self.seed,
            progress=self.progress,
        )
        self.network.eval()
        self._calibrate(judged)
        self.fitted_until = fitted_until
        return self

    @property
    def graph(self) -> FriendGraph:
        """The graph it was fitted on."""
        if self._graph is None:
            raise RuntimeError("the reciprocity model has to be fitted first: call fit(graph, until=time)")
        return self._graph

    def on(self, graph: FriendGraph) -> Self:
        """The same model, with what it has learned, on another graph with the same actions and features."""
        if graph.actions != self.graph.actions:
            raise ValueError(
                f"the model knows the actions {self.graph.actions}, the graph has {graph.actions}"
            )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._on(graph)
        other._profiles = Profiles.of(graph, until=self._profiles_until)
        return other

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write what was learned: JSON, and tensors that load with `weights_only=True`."""
        settings = {
            "wait": self.wait,
            "hidden_channels": self.hidden_channels,
            "actions": self.graph.actions,
            "profiles_until": self._profiles_until,
            "fitted_until": self.fitted_until,
        }
        folder = made_folder(folder)
        (folder / "reciprocity.json").write_text(json.dumps(settings) + "\n")
        torch.save(uncompiled(self.network).state_dict(), folder / "reciprocity.pt")

    @classmethod
    @single_precision()
    def load(cls, folder: str | os.PathLike[str], graph: FriendGraph) -> Self:
        """What `save` wrote, on a graph with the same actions and features.

        Raises:
            ValueError: the graph has others.
        """
        folder = Path(folder)
        settings = json.loads((folder / "reciprocity.json").read_text())
        if graph.actions != tuple(settings["actions"]):
            raise ValueError(
                f"the model knows the actions {settings['actions']}, the graph has {graph.actions}"
            )
        model = cls(wait=settings["wait"], hidden_channels=settings["hidden_channels"])
        model._on(graph)
        model.fitted_until = settings.get("fitted_until")
        model._profiles_until = settings["profiles_until"]
        model._profiles = Profiles.of(graph, until=model._profiles_until)
        weights = torch.load(folder / "reciprocity.pt", weights_only=True)
        num_features = weights["linear.weight"].size(1)
        asked = Query(*(torch.zeros(1, dtype=torch.int64) for _ in range(3)))
        found = model.features(asked, asked.user).size(1)
        if found != num_features:
            raise ValueError(f"the model knows {num_features} features, this graph gives {found}")
        model.network = AnswerNet(num_features, hidden_channels=model.hidden_channels)
        model.network.load_state_dict(weights)
        model.network.eval()
        return model

    @single_precision()
    def probability(self, query: Query, person: Tensor) -> Tensor:
        """P(answer within the horizon | approach), where query b's user approaches person b, [B] float64.

        Raises:
            IndexError: a user, person or action is not one of the graph.
            ValueError: there is not one person for each query.
        """
        graph = self.graph
        check_query(graph, query)
        person = check_index("person", person, graph.num_users)
        if len(person) != len(query):
            raise ValueError(f"{len(query)} queries need as many people, got {list(person.shape)}")
        with torch.no_grad():
            logit: Tensor = self.network(self.features(query, person)).double()
        return logit.sigmoid()

    def record(self, user: Tensor, time: Tensor, side: Role) -> ReplyHistory:
        """How approaches of users [M], or to them, had gone strictly before times [M]."""
        return self._answers.history(user, self._timeline.tick(time), side)

    def features(self, query: Query, person: Tensor) -> Tensor:
        """What it sees of approaches, [B, F] float32."""
        seen = approach_features(self._timeline, self._answers, query, person, wait=self.wait)
        parts = [seen, F.one_hot(query.action, len(self.graph.actions)).float()]
        if self._profiles is not None:
            one, other = (
                self._profiles.x[who] * self._profiles.known(who, query.time)[:, None]
                for who in (query.user, person)
            )
            parts += [one, other, one * other]
        return torch.cat(parts, dim=1)

    def _on(self, graph: FriendGraph) -> None:
        self._graph, self._timeline = graph, Timeline.of(graph)
        self._answers = ReplyIndex(self._timeline)

    def _examples(
        self, pairs: Initiations, low: int | None, high: int, *, known: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the approaches made between two times; by `known`, whether answered, and how mature."""
        inside = (pairs.initiation_time < high) & (pairs.initiation_time != pairs.reply_time)
        if low is not None:
            inside &= pairs.initiation_time >= low
        rows = np.flatnonzero(inside)
        user, person, time, action = (
            torch.from_numpy(part[rows])
            for part in (pairs.initiator, pairs.recipient, pairs.initiation_time, pairs.initiation_action)
        )
        features = self.features(Query(user, time, action), person)
        # Tied approaches in an order of what is seen of them, never of ids.
        seen = hashed(*features.view(torch.int32).long().unbind(1)).numpy()
        order = np.lexsort((seen, pairs.initiation_action[rows], pairs.initiation_time[rows]))
        rows, features = rows[order], features[torch.from_numpy(order)]
        answered = pairs.reply_labels(until=known, reply_window=self.wait)[rows] == 1
        part = np.ones(len(rows))
        if not self.naive:
            part = ReplyDelayCurve.of(pairs, until=known, reply_window=self.wait).arrived_fraction(
                known - pairs.initiation_time[rows]
            )
        return features, torch.from_numpy(answered), torch.from_numpy(part).float()

    def _calibrate(self, judged: tuple[Tensor, Tensor, Tensor]) -> None:
        """Set scale and level of the logits by the likelihood of what they were not trained on."""
        features, answered, part = judged
        with torch.no_grad():
            logit = self.network(features)
        line = torch.tensor([1.0, 0.0], requires_grad=True)
        optimizer = torch.optim.LBFGS([line], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            # As if one approach of a hundred still went by the line as it was.
            kept = 0.01 * (line - torch.tensor([1.0, 0.0])).square().sum()
            loss = late_loss(line[0] * logit + line[1], answered, part) + kept
            loss.backward()
            return loss

        optimizer.step(closure)
        scale, shift = line.detach()
        self.network.scale, self.network.shift = scale.clamp(min=0.1), shift

    def _loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        features, answered, part = batch
        return late_loss(self.network(features), answered, part)


def late_loss(logit: Tensor, answered: Tensor, part: Tensor) -> Tensor:
    """Mean negative log-likelihood of answers that come late: logits, bool, and maturities in [0, 1], [M]."""
    silent = (1 - logit.sigmoid() * part).clamp(min=TINY).log()
    silent = torch.where(part == 1, F.logsigmoid(-logit), silent)
    return -torch.where(answered, F.logsigmoid(logit), silent).mean()


class _Batches:
    """Examples in batches, in an order that follows from (seed, epoch)."""

    def __init__(self, examples: tuple[Tensor, Tensor, Tensor], *, size: int, seed: int) -> None:
        self._examples, self._size, self._seed, self._epoch = examples, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._examples[1]) // self._size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        for rows in torch.randperm(len(self._examples[1]), generator=generator).split(self._size):
            features, answered, part = self._examples
            yield features[rows], answered[rows], part[rows]
