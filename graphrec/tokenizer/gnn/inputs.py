"""The inputs of the default tokenizer's network: features of users and of their sampled contacts."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from graphrec.data import USER, reverse_of
from graphrec.temporal import Timeline

NEWCOMER_SHARE = 0.1
"""Share of the seeds that are trained as if they were newcomers."""

NODE_CHANNELS, AGE_CHANNELS = 4, 3


class EncoderInputs(NamedTuple):
    """A batch of M nodes and E edges, from `column` to `row`.

    Attributes:
        spectral: [M, D], spectral embedding, or the predicted one of users without any.
        predicted: [M, D], spectral embedding predicted from features.
        node: [M, NODE_CHANNELS], presence features.
        profile: [M, Fp], features of users.
        row: [E] int64, node an edge points to.
        column: [E] int64, node an edge comes from.
        edge: [E, Fe], age, action and direction.
    """

    spectral: Tensor
    predicted: Tensor
    node: Tensor
    profile: Tensor
    row: Tensor
    column: Tensor
    edge: Tensor

    @property
    def encoder_arguments(self) -> tuple[Tensor, ...]:
        """The arguments of `GraphEncoder.forward`."""
        return self.spectral, *self[2:]


def edge_kinds(actions: list[str]) -> dict[str, int]:
    """The one-hot column of each edge type: both directions of all actions."""
    names = [title for name in actions for title in (name, reverse_of(name))]
    return {name: number for number, name in enumerate(names)}


def encoder_inputs(
    batch: HeteroData,
    timeline: Timeline,
    *,
    spectral: Tensor,
    snapshot: Tensor,
    profile: Tensor,
    profile_weights: Tensor,
    kinds: dict[str, int],
) -> EncoderInputs:
    """Read a sampled batch.

    Args:
        batch: neighborhoods of B seeds.
        timeline: the index the batch was sampled from.
        spectral: [V, N, D], spectral embeddings at each snapshot.
        snapshot: [B] int64, snapshot of each seed.
        profile: [N, Fp], features of users.
        profile_weights: [Fp, D], predict spectral embeddings from features.
        kinds: see `edge_kinds`.
    """
    user, tree = batch[USER].n_id, batch[USER].batch
    tick = timeline.tick(batch.seed_time)[tree]
    predicted = profile[user] @ profile_weights
    known = spectral.flatten(0, 1)[snapshot[tree] * spectral.size(1) + user]
    parts = []
    for _, name, _ in batch.edge_types:
        edges = batch[USER, name, USER]
        column, row = edges.edge_index
        age = tick[row] - timeline.tick_of(edges.event_id)
        kind = torch.zeros(len(row), len(kinds))
        if name in kinds:
            kind[:, kinds[name]] = 1.0
        share = age / tick[row]
        edge = torch.cat([torch.stack([share, share.sqrt(), age.log1p()], dim=1), kind], dim=1)
        parts.append((row, column, edge))
    row, column, edge = (torch.cat(part) for part in zip(*parts, strict=True))
    return EncoderInputs(
        spectral=torch.where(known.any(1, keepdim=True), known, predicted),
        predicted=predicted,
        node=presence_features(timeline, user, tick),
        profile=profile[user],
        row=row,
        column=column,
        edge=edge,
    )


def presence_features(timeline: Timeline, user: Tensor, tick: Tensor) -> Tensor:
    """Counts and recency of acts of users [M] before ticks [M] (int64 both): [M, NODE_CHANNELS]."""
    activity, lists = timeline.activity(user, tick), timeline.half_edges.lists
    last = timeline.half_edges.end(user, tick) - 1
    seen = torch.from_numpy(lists.tick)[last.clamp(min=0)]
    seen = torch.where(activity.num_acts + activity.num_received > 0, seen, 0)
    counts = (activity.num_acts, activity.num_received, activity.degree)
    unseen = (tick - seen) / tick.clamp(min=1)
    return torch.stack([*(count.float().log1p() for count in counts), unseen.sqrt()], dim=1)


def simulate_newcomers(inputs: EncoderInputs, size: int) -> EncoderInputs:
    """Turn some of the first `size` nodes into newcomers, with few edges and no spectral embedding."""
    fresh = torch.zeros(len(inputs.spectral), dtype=torch.bool)
    fresh[:size] = torch.rand(size) < NEWCOMER_SHARE
    share = torch.where(fresh, torch.rand(len(fresh)).square(), 1.0)
    kept = torch.rand(len(inputs.row)) < share[inputs.row]
    return inputs._replace(
        spectral=torch.where(fresh[:, None], inputs.predicted, inputs.spectral),
        node=share[:, None] * inputs.node,
        row=inputs.row[kept],
        column=inputs.column[kept],
        edge=inputs.edge[kept],
    )
