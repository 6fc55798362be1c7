"""Terms of embeddings and logits from users' profiles and recent activity."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphrec.features import presence_features
from graphrec.models.mixture.encoded import EncodedQuery
from graphrec.models.mixture.view import GraphView
from graphrec.nn import MixtureNetwork, PresenceScore


def map_profiles(
    view: GraphView, layer: Callable[[Tensor], Tensor], user: Tensor, time: Tensor, device: torch.device
) -> Tensor:
    """Apply a linear layer to the profiles of users, as known at given times.

    Args:
        view: a graph with profiles.
        layer: [n, F + 1] -> [n, K], on the device.
        user: [n] int64.
        time: [n] int64 seconds.
        device: of the layer.

    Returns:
        [n, K]; 0 for users whose profiles are not yet known at that time.
    """
    assert view.profiles is not None
    distinct, at = user.unique(return_inverse=True)
    known = view.profiles.known(user, time).to(device)
    return layer(view.profiles.x[distinct].to(device))[at.to(device)] * known[:, None]


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
    x = view.profiles.x[people].to(network.device)
    more = network.profile.logits(encoded.vector, encoded.profile, x)
    return logits + more * view.profiles.known(people, encoded.query.time[:, None]).to(network.device)
