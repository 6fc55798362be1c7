"""People known by their raw ids, whichever graph they are in."""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data import UserIds


def positions(ids: UserIds, among: UserIds) -> Tensor:
    """Where each of the ids stands among others, [n] int64; -1 where it does not."""
    wanted, values = _alike(ids.values, among.values)
    found = pc.fill_null(pc.index_in(wanted, value_set=values), -1)
    return torch.from_numpy(found.to_numpy(zero_copy_only=False).astype(np.int64))


def joined(ids: UserIds, raw: Tensor) -> UserIds:
    """The ids, and more after them."""
    if not len(raw):
        return ids
    if ids.raw.dim() == raw.dim() == 1:
        return UserIds(torch.cat([ids.raw, raw]))
    return UserIds.from_values(pa.concat_arrays(_alike(ids.values, UserIds(raw).values)))


def _alike(one: pa.Array, other: pa.Array) -> list[pa.Array]:
    """Both as integers, or both as text."""
    if one.type == other.type:
        return [one, other]
    return [cast(pa.Array, values.cast(pa.string())) for values in (one, other)]
