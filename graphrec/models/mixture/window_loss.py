"""The loss of a training step on windows: log-likelihood of all initiations of a window at its start."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import OUTCOMES, USER, Query
from graphrec.data.draws import hashed
from graphrec.features import Timelines
from graphrec.models.heads.head import BoundHead
from graphrec.models.heads.optional import Refreshes
from graphrec.models.mixture.config import TrainConfig
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.models.mixture.plan import TrainingPlan
from graphrec.models.mixture.training_loss import SOURCE_LOSS_WEIGHT, TrainingLoss
from graphrec.models.windows.grid import TrainingWindows
from graphrec.temporal import contains
from graphrec.train import num_processes


def loss_for(
    encoder: QueryEncoder, head: BoundHead, plan: TrainingPlan, config: TrainConfig
) -> TrainingLoss | WindowLoss:
    """Make the loss of a configuration, for the training period of the encoder's view."""
    if config.targets == "next_acts":
        return TrainingLoss(encoder, head, plan, config)
    return WindowLoss(
        encoder, head, config, TrainingWindows.of(encoder.view.graph, encoder.view.period.until)
    )


@dataclass
class WindowLoss:
    """Computes the terms of the loss for a batch of timelines.

    Whom a user begins contact with in a window is asked for at the start of the window, among the users
    without earlier contact: once for the outcome 'initiation', and for 'tie' where it is answered. A query
    sees what is strictly before the window.

    Attributes:
        encoder: encodes queries with the network in training.
        head: the distribution over all users.
        config: of training.
        windows: of the training period.
        epoch: the latest epoch started; -1 before the first.
    """

    encoder: QueryEncoder
    head: BoundHead
    config: TrainConfig
    windows: TrainingWindows
    epoch: int = -1

    def __call__(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """The loss of a batch; see `TrainingLoss`."""
        if epoch != self.epoch and isinstance(self.head, Refreshes):
            self.head.start_epoch(epoch, self.config.max_epochs)
        self.epoch = epoch
        view = self.encoder.view
        timelines = Timelines.of_batch(batch, view.graph.actions)
        place, window, outcome = self._initiations(timelines, batch, epoch)
        user, target = batch[USER].n_id[timelines.row[place]], timelines.other[place]
        query = Query(user, self.windows.start[window], timelines.kind[place] // 2)
        position = timelines.before(timelines.row[place], query.time)
        encoded = self.encoder.encode(query, timelines, position, outcome)
        source = self.head.likelihood(encoded, target, hashed(self.config.seed, epoch, batch.input_id[0]))
        rows, met = torch.arange(len(query)), view.timeline.contacts.before(user, encoded.tick)
        log_p = source.log_p(rows, met)
        if encoded.neighbors is not None:
            log_p, alone = encoded.neighbors.log_likelihood(rows, target, met, log_p)
            log_p = log_p + SOURCE_LOSS_WEIGHT * alone
        loss = -log_p.sum() / max(len(query), 1)
        terms = source.metrics() if len(query) else {}
        for name, factor in source.loss_weights.items():
            if name in terms:
                loss = loss + factor * terms[name]
        return {"loss": loss, **terms, "events": torch.tensor(float(len(query)))}

    def _initiations(
        self, timelines: Timelines, batch: HeteroData, epoch: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Draw initiations by the owners of timelines, in windows that are asked about.

        Returns:
            Positions in the timelines, windows and outcomes, [n] int64 each; one that is answered is there
            twice.
        """
        view, windows, outcomes = self.encoder.view, self.windows, self.windows.outcomes
        own = (timelines.kind % 2 == 1).nonzero().squeeze(1)
        if not len(windows):  # all events have one time
            none = own[:0]
            return none, none, none
        window = torch.searchsorted(windows.start, timelines.time[own], right=True) - 1
        inside = (window >= 0) & (timelines.time[own] < windows.end[window])
        inside &= windows.start[window] >= self.head.first_time
        own, window = own[inside], window[inside]
        user, other = batch[USER].n_id[timelines.row[own]], timelines.other[own]
        key = (window * outcomes.num_users + user) * outcomes.num_users + other
        at, found = outcomes.find(key.numpy())
        acted_on = view.timeline.acted_on.before(user, view.timeline.tick(timelines.time[own]))
        first = torch.from_numpy(found) & ~contains(acted_on, other)
        first[1:] &= ~((key[1:] == key[:-1]) & (timelines.time[own].diff() == 0))  # twice in one second
        rows = first.nonzero().squeeze(1)
        most = max(1, self.config.max_queries // num_processes())
        if len(rows) > most:
            sides = view.row[user[rows]], view.row[other[rows]]
            draw = hashed(self.config.seed, epoch, timelines.time[own[rows]], *sides)
            rows = rows[draw.argsort()[:most].sort().values]
        replied = rows[torch.from_numpy(outcomes.replied[at])[rows]] if len(outcomes.key) else rows
        outcome = torch.zeros(len(rows) + len(replied), dtype=torch.int64)
        outcome[len(rows) :] = OUTCOMES.index("tie")
        both = torch.cat([rows, replied])
        return own[both], window[both], outcome
