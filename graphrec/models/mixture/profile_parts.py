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
    query, device = encoded.query, network.device
    if network.profile is not None and view.profiles is not None and encoded.profile is not None:
        people = slice(None) if users is None else users
        x = view.profiles.x[people].to(device)
        more = network.profile.logits(encoded.vector, encoded.profile, x)
        logits = logits + more * view.profiles.known(people, query.time[:, None]).to(device)
    if presence is None:
        return logits
    blocks = presence_features(view.timeline, query, users, encoded.spectral)
    return logits + torch.cat([presence(block.to(device)) for block in blocks])
