"""The loss of a training step: negative log-likelihood of events, each given only its own past."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import USER, Query
from graphrec.data.draws import hashed
from graphrec.features import Timelines
from graphrec.models.heads.head import BoundHead
from graphrec.models.heads.optional import Refreshes
from graphrec.models.mixture.config import TrainConfig
from graphrec.models.mixture.encoder import QueryEncoder
from graphrec.models.mixture.plan import TrainingPlan
from graphrec.temporal import contains
from graphrec.train import num_processes

SOURCE_LOSS_WEIGHT = 0.03
"""Weight of the likelihood under each component and the head alone beside that under the mixture, so that
each ranks well where the gate errs (deep supervision; Lee et al. 2015, https://arxiv.org/abs/1409.5185)."""


@dataclass
class TrainingLoss:
    """Computes the terms of the loss for a batch.

    Candidates are those of the event's slice: each event has a loss term over all users; a reply has a second
    one over the users not yet acted on, a new contact one over the users without earlier contact. The weight
    of a slice is the square root of its share of the events, so that rare slices count.

    Attributes:
        encoder: encodes queries with the network in training.
        head: the distribution over all users.
        plan: weights of the slices.
        config: of training.
        epoch: the latest epoch started; -1 before the first.
    """

    encoder: QueryEncoder
    head: BoundHead
    plan: TrainingPlan
    config: TrainConfig
    epoch: int = -1

    def __call__(self, batch: HeteroData, epoch: int) -> dict[str, Tensor]:
        """The loss of a batch of timelines.

        Args:
            batch: of `QueryLoader.of_timelines`.
            epoch: counted from 0.

        Returns:
            'loss' to minimize, a mean over 'events' (their number), and terms to log: [] each.
        """
        if epoch != self.epoch and isinstance(self.head, Refreshes):
            self.head.start_epoch(epoch, self.config.max_epochs)
        self.epoch = epoch
        view = self.encoder.view
        timeline, device = view.timeline, self.encoder.network.device
        timelines = Timelines.of_batch(batch, view.graph.actions)
        own, weight = self._sampled_events(timelines, batch, epoch)
        user = batch[USER].n_id[timelines.row[own]]
        query = Query(user, timelines.time[own], timelines.kind[own] // 2)
        target = timelines.other[own]
        position = timelines.before(timelines.row[own], query.time)
        encoded = self.encoder.encode(query, timelines, position, query.action)
        source = self.head.likelihood(encoded, target, hashed(self.config.seed, epoch, batch.input_id[0]))

        met = timeline.contacts.before(user, encoded.tick)
        acted_on = timeline.acted_on.before(user, encoded.tick)
        is_first = ~contains(acted_on, target)
        is_new = is_first & ~contains(met, target)
        slices = {
            "all": (torch.ones_like(is_new), None),
            "reply": (is_first & ~is_new, acted_on),
            "new": (is_new, met),
        }
        loss = encoded.vector.new_zeros(())
        for name, (inside, excluded) in slices.items():
            rows = inside.nonzero().squeeze(1)
            log_p = source.log_p(rows, excluded)
            if encoded.neighbors is not None:
                log_p, alone = encoded.neighbors.log_likelihood(rows, target[rows], excluded, log_p)
                log_p = log_p + SOURCE_LOSS_WEIGHT * alone
            share = weight[rows] / (self.plan.slice_weight[name] * weight.sum().clamp(min=1.0))
            loss = loss - (share.to(device) * log_p).sum()
        terms = source.metrics()
        for name, factor in source.loss_weights.items():
            loss = loss + factor * terms[name]
        return {"loss": loss, **terms, "events": torch.tensor(float(len(query)))}

    def _sampled_events(self, timelines: Timelines, batch: HeteroData, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw the owners' acts to train on: positions [n] int64 and loss weights [n] float32."""
        config, row = self.config, self.encoder.view.row
        first_time = max(self.plan.first_time, self.head.first_time)
        is_own = (timelines.kind % 2 == 1) & (timelines.time >= first_time)
        roles = self.encoder.view.graph.roles
        if not roles.all_ordinary:  # the others are history alone
            is_own &= roles.wanted[timelines.kind // 2]
        own = is_own.nonzero().squeeze(1)
        last = torch.ones_like(own, dtype=torch.bool)
        last[:-1] = timelines.row[own].diff() != 0
        weight = torch.where(last, 1.0, config.history_loss_weight)
        own, weight = own[weight > 0], weight[weight > 0]
        most = max(1, config.max_queries // num_processes())
        if len(own) > most:
            owner, other = row[batch[USER].n_id[timelines.row[own]]], row[timelines.other[own]]
            draw = hashed(config.seed, epoch, timelines.time[own], timelines.kind[own], owner, other)
            chosen = draw.argsort()[:most].sort().values
            own, weight = own[chosen], weight[chosen]
        return own, weight
