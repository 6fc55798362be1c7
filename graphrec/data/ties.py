"""Mutual ties, which follow from the events."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def mutual_ties(src: Tensor, dst: Tensor, time: Tensor, num_users: int) -> tuple[Tensor, Tensor]:
    """Both directions of every pair whose two sides have acted, at the time the second did.

    Args:
        src: [E] int64, who acted, in order of time.
        dst: [E] int64, upon whom.
        time: [E] int64, ascending.
        num_users: N.

    Returns:
        (edge_index [2, M] int64, time [M] int64, ascending).
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
