"""Preparation of a fit: the indexed graph, the slices' weights, the network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from graphrec.data import OUTCOMES, FriendGraph, digest_graph, digest_source
from graphrec.features import Profiles
from graphrec.models.heads.head import Head
from graphrec.models.heads.optional import run_key_of
from graphrec.models.mixture.config import MixtureConfig
from graphrec.models.mixture.profile_affinity import fit_affinity
from graphrec.models.mixture.view import GraphView, TrainingPeriod, users_by_profile
from graphrec.nn import HasUserRows, MixtureNetwork, NeighborhoodMixture, ProfileNet, UserTower
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
    num_events = int(timeline.num_events_before(tick))
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
    num_questions = len(OUTCOMES) if config.train.targets == "windows" else num_actions
    tower = UserTower(num_actions, config.encoder, num_questions)
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


def initial_network(head: Head[Any], view: GraphView, config: MixtureConfig) -> MixtureNetwork:
    """The network of `build_network`, with the affinity of profiles already trained (see `fit_affinity`)."""
    network = build_network(head, view, config)
    if network.profile is not None:
        fit_affinity(network.profile, view, seed=config.train.seed)
    return network


def run_key(
    head: Head[Any], config: MixtureConfig, graph: FriendGraph, until: int, validate_until: int
) -> dict[str, Any]:
    """Return everything that identifies a training run; see `graphrec.train.train`.

    Args:
        head: the fitted head.
        config: configuration of the model.
        graph: the whole graph.
        until: seconds; training sees events strictly before it.
        validate_until: seconds; the end of validation.
    """
    key: dict[str, Any] = {"head": head.kind, **asdict(config.encoder), **asdict(config.train)}
    key |= {"components": config.components, "features": config.features}
    key |= {"neighborhood": asdict(config.searched_neighborhood), "graph": digest_graph(graph)}
    key |= {"until": until, "validate_until": validate_until}
    if code := digest_source(type(head)):
        key["head_code"] = code
    return key | {f"head.{name}" if name in key else name: value for name, value in run_key_of(head).items()}


def select_user_rows(
    head: Head[Any],
    network: MixtureNetwork,
    view: GraphView,
    config: MixtureConfig,
    rows: Tensor,
    num_rows: int,
) -> MixtureNetwork:
    """Copy a trained network for a graph with only some of the users known in training.

    Args:
        head: the fitted head.
        network: the trained network; it is not changed.
        view: the graph.
        config: configuration of the model.
        rows: [n] int64, the rows of users to keep, from 1 on (see `GraphView`), renumbered 1..n.
        num_rows: number of users known in training.

    Raises:
        TypeError: the head's module has parameters in rows of users, but no `with_rows`.
    """
    module = network.head
    if isinstance(module, HasUserRows):
        return network.with_head(module.with_rows(rows))
    if len(rows) == num_rows:
        return network.with_head(module)
    with torch.random.fork_rng():
        state = head.build(view, config.encoder, config.features).state_dict()
    for name, value in module.state_dict().items():
        if name not in state or state[name].shape != value.shape:
            raise TypeError(
                f"{type(module).__name__} of the head {head.kind!r} changes its shape with the users of the "
                f"graph ({name}): give it with_rows(rows), which keeps the rows of the users that are left"
            )
    return network.with_head(module)
