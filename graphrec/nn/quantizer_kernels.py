"""A kernel of the quantizer: the two nearest codes that still have room."""

from __future__ import annotations

import numpy as np

from graphrec.jit import kernel


@kernel
def find_two_nearest(
    distance: np.ndarray,
    group: np.ndarray,
    room: np.ndarray,
    limit: np.ndarray,
    code: np.ndarray,
    margin: np.ndarray,
) -> None:
    """Fill the nearest code with room of each vector, and how much farther the second-nearest is.

    Args:
        distance: [n, K] float32, of vectors to codes.
        group: [n] int64, of the vectors.
        room: [G, K] int64, what each code has left in each group.
        limit: [K] int64, what it has left over all groups, ignored where no code of a group has any left.
        code: [n] int64, filled; the first of equally near ones.
        margin: [n] float32, filled; infinite where one code has room, NaN where none has.
    """
    num_codes = distance.shape[1]
    for i in range(len(code)):
        near, far, best = np.float32(np.inf), np.float32(np.inf), -1
        for is_soft in (False, True):
            if best >= 0:
                break
            for k in range(num_codes):
                value = distance[i, k]
                if value < far and room[group[i], k] > 0 and (is_soft or limit[k] > 0):
                    if value < near:
                        near, far, best = value, near, k
                    else:
                        far = value
        code[i] = max(best, 0)
        margin[i] = far - near if num_codes > 1 else np.float32(0)
