"""Positions of raw ids among other raw ids, so that users are recognized across graphs."""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data import UserIds


def id_positions(ids: UserIds, among: UserIds) -> Tensor:
    """The position of each id among other ids, [n] int64; -1 for ids that are not among them."""
    wanted, values = _common_type(ids.values, among.values)
    found = pc.fill_null(pc.index_in(wanted, value_set=values), -1)
    return torch.from_numpy(found.to_numpy(zero_copy_only=False).astype(np.int64))


def append_ids(ids: UserIds, raw: Tensor) -> UserIds:
    """The ids followed by further raw ids.

    Args:
        ids: M ids.
        raw: [n] int64, or [n, width] characters, as in `UserIds.raw`.

    Returns:
        M + n ids.
    """
    if not len(raw):
        return ids
    if ids.raw.dim() == raw.dim() == 1:
        return UserIds(torch.cat([ids.raw, raw]))
    return UserIds.from_values(pa.concat_arrays(_common_type(ids.values, UserIds(raw).values)))


def _common_type(one: pa.Array, other: pa.Array) -> list[pa.Array]:
    """Both arrays as integers if both are, otherwise both as text."""
    if one.type == other.type:
        return [one, other]
    return [cast(pa.Array, values.cast(pa.string())) for values in (one, other)]
