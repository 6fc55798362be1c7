"""Preparation of a fit: the indexed graph, the slices' weights, the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphrec.data import FriendGraph
from graphrec.features import Profiles
from graphrec.models.heads.head import Head
from graphrec.models.mixture.config import MixtureConfig
from graphrec.models.mixture.view import GraphView, TrainingPeriod, users_by_profile
from graphrec.nn import MixtureNetwork, NeighborhoodMixture, ProfileNet, UserTower
from graphrec.temporal import Timeline, popularity_half_life

MAX_SNAPSHOTS, MAX_SNAPSHOT_ROWS = 16, 10**7
"""Snapshots of the training period, and users times snapshots: the smaller number of snapshots is made."""

MIN_SHARE = 1e-30


@dataclass(frozen=True)
class TrainingPlan:
    """The training events, and the loss weight of each slice.

    Attributes:
        lengths: [n] int64, number of events on the timeline of each known user.
        first_time: seconds; only events from then on are targets, so that all have a past.
        slice_weight: square root of each slice's share of the training events, by name.
    """

    lengths: Tensor
    first_time: int
    slice_weight: dict[str, float]


def plan_training(graph: FriendGraph, until: int, config: MixtureConfig) -> tuple[GraphView, TrainingPlan]:
    """Index a graph, number the known users, and weigh the slices.

    Args:
        graph: the whole graph.
        until: seconds; only events strictly before it are used; there must be some.
        config: of the model.
    """
    timeline = Timeline.of(graph)
    tick = timeline.tick(torch.tensor(until))
    num_events = int(torch.searchsorted(timeline.event_tick, tick))
    parts = max(1, min(MAX_SNAPSHOTS, MAX_SNAPSHOT_ROWS // graph.num_users))
    period = TrainingPeriod(
        until=until,
        snapshot_events=max(1, num_events // parts),
        half_life=popularity_half_life(int(timeline.instants[0]), until),
    )
    known = known_users(graph, until)
    spectral = "spectral" in config.features
    view = GraphView.of(graph, known, period, spectral=spectral, seed=config.train.seed)
    first, met = (
        int(torch.searchsorted(pairs.chronological[0], tick)) / num_events
        for pairs in (timeline.acted_on, timeline.contacts)
    )
    # A contact is one of both sides; what opens a direction but no contact is a reply.
    shares = {"all": 1.0, "repeat": 1.0 - first, "reply": first - met / 2, "new": met / 2}
    return view, TrainingPlan(
        lengths=timeline.half_edges.count(known, tick.expand(len(known))),
        first_time=int(timeline.events.time[num_events // 10]),
        slice_weight={name: max(share, MIN_SHARE) ** 0.5 for name, share in shares.items()},
    )


def known_users(graph: FriendGraph, until: int) -> Tensor:
    """Users with an event before `until` (s), in the order of their embedding rows: [n] int64.

    The order depends on first event, activity and profile, never on the user index.
    """
    timeline = Timeline.of(graph)
    known = users_by_profile(Profiles.of(graph, until=until), graph.num_users, until=until)
    tick = timeline.tick(torch.tensor(until))
    known = known[timeline.half_edges.count(known, tick.expand(len(known))) > 0]
    past = tick.expand(len(known))
    for quantity in (timeline.num_acts, timeline.last_received, timeline.last_act):
        known = known[quantity(known, past).argsort(stable=True)]
    return known[timeline.first_tick[known].argsort(stable=True)]


def build_network(head: Head[Any], view: GraphView, config: MixtureConfig) -> MixtureNetwork:
    """Build a network with initial weights from torch's global generator, part after part.

    Args:
        head: its part is built last.
        view: the graph.
        config: of the model.
    """
    num_actions = len(view.graph.actions)
    tower = UserTower(num_actions, config.encoder)
    mixture = None
    if config.components:
        mixture = NeighborhoodMixture(
            config.components,
            2 * num_actions,
            has_profiles=view.profiles is not None,
            group_votes="prefix_groups" in config.features,
        )
    profile = None
    if view.profiles is not None:
        profile = ProfileNet(view.profile_columns, config.encoder.embedding_dim)
    return MixtureNetwork(tower, mixture, profile, head.build(view, config.encoder, config.features))
