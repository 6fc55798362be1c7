"""What the network of the default tokenizer reads of users and their contacts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphrec.temporal import Timeline

NEWCOMERS = 0.1
"""Share of the seeds that are trained as if they had just come."""

NODE_CHANNELS, AGE_CHANNELS = 4, 3


class Inputs(NamedTuple):
    """A batch of M nodes and E edges, from `column` to `row`; `guess` is the place that features suggest."""

    place: Tensor
    guess: Tensor
    node: Tensor
    profile: Tensor
    row: Tensor
    column: Tensor
    edge: Tensor

    @property
    def of_encoder(self) -> tuple[Tensor, ...]:
        """What `GraphEncoder` takes."""
        return self.place, *self[2:]


def presence(timeline: Timeline, user: Tensor, tick: Tensor) -> Tensor:
    """How present users [M] were before ticks [M]: [M, NODE_CHANNELS]."""
    activity = timeline.activity(user, tick)
    seen = timeline.tick(torch.maximum(activity.last_act, activity.last_received))
    counts = (activity.num_acts, activity.num_received, activity.degree)
    unseen = (tick - seen) / tick.clamp(min=1)
    return torch.stack([*(count.float().log1p() for count in counts), unseen.sqrt()], dim=1)


def as_newcomers(inputs: Inputs, size: int) -> Inputs:
    """Some of the seeds, the first `size` nodes, without a place of their own and with few contacts."""
    fresh = torch.zeros(len(inputs.place), dtype=torch.bool)
    fresh[:size] = torch.rand(size) < NEWCOMERS
    share = torch.where(fresh, torch.rand(len(fresh)).square(), 1.0)
    kept = torch.rand(len(inputs.row)) < share[inputs.row]
    return inputs._replace(
        place=torch.where(fresh[:, None], inputs.guess, inputs.place),
        node=share[:, None] * inputs.node,
        row=inputs.row[kept],
        column=inputs.column[kept],
        edge=inputs.edge[kept],
    )
