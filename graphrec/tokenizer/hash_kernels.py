"""A kernel of the canonical form: a round of hashing over all events."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel
from graphrec.loader.tree_kernels import mix_number

STEP = 0x1E3779B97F4A7C15
"""Added to each part of `draws.hashed`."""


@kernel
def add_event_hashes(
    src: np.ndarray,
    dst: np.ndarray,
    time: np.ndarray,
    action: np.ndarray,
    names: np.ndarray,
    known: np.ndarray,
    around: np.ndarray,
) -> None:
    """Add to each user's sum a hash of each of their events and of the other user, told apart by direction.

    Args:
        src: [E] int64.
        dst: [E] int64.
        time: [E] int64.
        action: [E] int64.
        names: [A] int64, hashes of the actions' names.
        known: [N] int64, hashes of users.
        around: [N] int64, changed.
    """
    for e in range(len(src)):
        event = mix_number(mix_number(time[e] + np.int64(STEP)) + names[action[e]] + np.int64(STEP))
        around[src[e]] += mix_number(event + known[dst[e]])
        around[dst[e]] += mix_number(~event + known[src[e]])
