"""What an approach looks like just before it is made, and how likely that makes an answer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from graphrec.data import Query
from graphrec.data.checks import check_counts, check_dropout
from graphrec.nn.features import LATELY, query_features
from graphrec.nn.layers import Standardize, mlp
from graphrec.temporal import ReplyIndex, Timeline

NUM_APPROACH_FEATURES = 56
RECENT_APPROACHES = 500
"""Decided approaches of the network from which its present answer rate is read."""

PRIOR = 2.0
"""So many approaches that went as the network's do are added to each person's own."""

DAY = 86_400


def approach_features(
    timeline: Timeline, answers: ReplyIndex, query: Query, person: Tensor, *, wait: int
) -> Tensor:
    """Both timelines, their records of asking and answering, the common neighbourhood, the hour.

    Everything is read strictly before the query's time.

    Args:
        timeline: the index.
        answers: of the same graph.
        query: who approaches, when, by which action: M of them.
        person: [M] int64, whom.
        wait: how long an answer is waited for, seconds.

    Returns:
        [M, NUM_APPROACH_FEATURES] float32.
    """
    user, time = query.user, query.time
    tick, before = timeline.tick(time), timeline.tick(time - wait)
    rate = answers.recent_reply_rate(time, reply_window=wait, count=RECENT_APPROACHES)
    columns = [rate]
    for who in (user, person):
        for role in ("initiator", "recipient"):
            now, decided = (answers.history(who, moment, role) for moment in (tick, before))
            columns += [
                now.num_initiations.double().log1p(),
                now.num_replies.double().log1p(),
                (now.num_replies + PRIOR * rate) / (now.num_initiations + PRIOR),
                (now.num_initiations - decided.num_initiations).double().log1p(),
                (now.sum_log_delay + math.log(wait)) / (now.num_replies + 1),
            ]

    row, middle = timeline.common_contacts(user, person, tick)
    weight = 1.0 / timeline.degree(middle, tick[row]).clamp(min=2).double().log()
    none = torch.zeros(len(user), dtype=torch.float64)
    common = none.index_add(0, row, torch.ones_like(weight))
    met = timeline.degree(user, tick) + timeline.degree(person, tick)
    columns += [common.log1p(), none.index_add(0, row, weight).log1p(), common / (met - common).clamp(min=1)]

    seen = torch.searchsorted(timeline.event_tick, tick)
    last = len(timeline.event_tick) - 1
    for size in LATELY:
        since = timeline.event_tick[(seen - size).clamp(min=0, max=last)]
        for who in (user, person):
            both = zip(timeline.counts(who, tick), timeline.counts(who, since), strict=True)
            columns += [(now - then).clamp(min=0).double().log1p() for now, then in both]
    for period in (DAY, 7 * DAY):
        phase = (time % period).double() * (2 * math.pi / period)
        columns += [phase.sin(), phase.cos()]
    sides = (query_features(timeline, Query(who, time, query.action)) for who in (user, person))
    return torch.cat([torch.stack(columns, dim=1).float(), *sides], dim=1)


class AnswerNet(nn.Module):
    """The logit of an answer: a linear part, a small network that corrects it from zero on, a calibration.

    Args:
        num_features: F.
        hidden_channels: of the small network.
        dropout: on its input and its hidden layers.

    Shapes:
        forward: [M, F] -> [M].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_features: int, *, hidden_channels: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        check_counts(num_features=num_features, hidden_channels=hidden_channels)
        check_dropout(dropout)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))
        self.standardize = Standardize(num_features)
        self.linear = nn.Linear(num_features, 1)
        first, second, third, fourth, last = mlp(num_features, hidden_channels, 1)
        drop = nn.Dropout(dropout)
        self.correction = nn.Sequential(drop, first, second, drop, third, fourth, drop, last)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits."""
        x = self.standardize(features)
        out: Tensor = (self.linear(x) + self.correction(x)).squeeze(1)
        return self.scale * out + self.shift
