"""Mutual ties, derived from the events."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mutual_ties(src: Tensor, dst: Tensor, time: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
    """Find the pairs in which both users have acted on each other, in both directions.

    Args:
        src: [E] int64, acting users, in order of time.
        dst: [E] int64, targets.
        time: [E] int64 seconds, ascending.
        num_users: N.

    Returns:
        (edge_index [2, M] int64, time [M] int64 seconds of the later of the two first acts, ascending).
    """
    pair, first = np.unique((src * num_users + dst).numpy(), return_index=True)  # first act, events in order
    u, v = np.divmod(pair, num_users)
    back = v * num_users + u
    where = np.minimum(np.searchsorted(pair, back), max(len(pair) - 1, 0))
    mutual = pair[where] == back if len(pair) else np.zeros(0, dtype=bool)
    moment = time.numpy()
    became = np.maximum(moment[first], moment[first[where]])[mutual] if len(pair) else moment
    u, v = u[mutual], v[mutual]
    order = np.argsort(became, kind="stable")
    return torch.from_numpy(np.stack([u[order], v[order]])), torch.from_numpy(became[order])
