"""Terms of embeddings and logits from users' profiles and recent activity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphrec.features import presence_features
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.view import GraphView
from graphrec.nn import MixtureNetwork, PresenceScore, ProfileNet


def map_profiles(
    view: GraphView,
    network: ProfileNet,
    layer: Callable[[Tensor], Tensor],
    user: Tensor,
    time: Tensor,
) -> Tensor:
    """Apply a layer to the profiles of users, as known at given times.

    Args:
        view: a graph with profiles.
        network: reads profiles.
        layer: [n, W] -> [n, C], of the network, from rows of `ProfileNet.table`.
        user: [n] int64.
        time: [n] int64 seconds.

    Returns:
        [n, C]; 0 for users whose profiles are not yet known at that time.
    """
    assert view.profiles is not None
    table = network.table(view.profiles.x)
    known = view.profiles.known(user, time).to(table.device)
    return layer(table[user.to(table.device)]) * known[:, None]


def map_people(view: GraphView, network: ProfileNet, user: Tensor, time: Tensor) -> Tensor:
    """Apply `ProfileNet.person` to the profiles of users [n] at times [n] (s): [n, D + K + 2].

    The bias of users without an event before the time holds the popularity expected from their features.
    """
    assert view.profiles is not None
    out = map_profiles(view, network, network.person, user, time)
    without = (view.timeline.first_tick[user] >= view.timeline.tick(time)) & view.profiles.known(user, time)
    expected = network.popularity(network.table(view.profiles.x)[user.to(out.device)])
    out[:, -1] += expected * without.to(out.device)
    return out


def add_person_logits(
    view: GraphView,
    network: MixtureNetwork,
    logits: Tensor,
    encoded: EncodedQuery,
    users: Tensor | None,
    presence: PresenceScore | None,
) -> Tensor:
    """Add the profile terms and the presence score of users to their logits.

    Args:
        view: the graph.
        network: holds the profile layers.
        logits: [B, C].
        encoded: B queries.
        users: [C] int64; None for all N users.
        presence: scores recent activity (`presence_features`); None if it is not used.

    Returns:
        [B, C].
    """
    logits = add_profile_logits(view, network, logits, encoded, users)
    if presence is None:
        return logits
    blocks = presence_features(view.timeline, encoded.query, users, encoded.spectral)
    return logits + torch.cat([presence(block.to(network.device)) for block in blocks])


def add_profile_logits(
    view: GraphView, network: MixtureNetwork, logits: Tensor, encoded: EncodedQuery, users: Tensor | None
) -> Tensor:
    """Add the profile terms of users to their logits; arguments as in `add_person_logits`."""
    if network.profile is None or view.profiles is None or encoded.profile is None:
        return logits
    people = slice(None) if users is None else users
    rows = network.profile.table(view.profiles.x)[people]
    more = network.profile.logits(encoded.vector, encoded.profile, rows)
    first = view.timeline.first_tick[people]
    without = (first >= encoded.tick[:, None]).to(network.device)
    more = more + without * network.profile.popularity(rows)
    return logits + more * view.profiles.known(people, encoded.query.time[:, None]).to(network.device)
