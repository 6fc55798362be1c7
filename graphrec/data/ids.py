"""Raw user ids and the indices 0..N-1 that stand for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from operator import index
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from graphrec.data.errors import DataError

MAX_ID_BYTES = 255


class UserIds:
    """A two-way map between raw ids (all integers, or all strings) and indices.

    The map is one tensor, so that it lives in a node store, follows PyG's subgraph operations and is
    saved without pickled objects.

    Args:
        raw: [N] int64 for integer ids, or [N, L] uint8 for strings: UTF-8, padded with zeros.
    """

    def __init__(self, raw: Tensor) -> None:
        if (raw.dim(), raw.dtype) not in ((1, torch.int64), (2, torch.uint8)):
            raise DataError(f"raw ids must be [N] int64 or [N, L] uint8, got {list(raw.shape)} {raw.dtype}")
        self.raw = raw

    @classmethod
    def from_values(cls, values: pa.Array) -> UserIds:
        """Build the map from distinct Arrow values, int64 or string, in index order."""
        if pa.types.is_integer(values.type):
            return cls(torch.from_numpy(values.cast(pa.int64()).to_numpy(zero_copy_only=False).copy()))
        texts = [value.encode() for value in values.to_pylist()]
        longest = max(len(text) for text in texts)
        if any(b"\0" in text for text in texts):
            raise DataError("a user id contains a zero byte")
        if longest > MAX_ID_BYTES:
            raise DataError(f"a user id has {longest} bytes, more than the {MAX_ID_BYTES} allowed")
        encoded = np.array(texts, dtype=f"S{longest}")
        return cls(torch.from_numpy(encoded.view(np.uint8).reshape(len(texts), longest)))

    @cached_property
    def values(self) -> pa.Array:
        """The ids as an Arrow array in index order, int64 or string."""
        raw = self.raw.cpu().numpy()
        if raw.ndim == 1:
            return pa.array(raw)
        strings = np.ascontiguousarray(raw).view(f"S{raw.shape[1]}").ravel()
        return pa.array([value.decode() for value in strings.tolist()], type=pa.string())

    def __len__(self) -> int:
        return self.raw.size(0)

    def __repr__(self) -> str:
        kind = "integer" if self.raw.dim() == 1 else "string"
        return f"UserIds({len(self)} {kind} ids)"

    def index(self, ids: Iterable[int | str]) -> Tensor:
        """Indices of raw ids.

        Returns:
            [n] int64.

        Raises:
            KeyError: an id is not among the users; the message names it.
        """
        wanted = list(ids)
        kind = self.values.type
        try:
            if pa.types.is_string(kind):
                asked = pa.array([str(i) for i in wanted], type=kind)
            else:
                asked = pa.array([int(i) if isinstance(i, str) else index(i) for i in wanted], type=kind)
        except (TypeError, ValueError, OverflowError, pa.ArrowInvalid):
            raise KeyError(f"this graph's user ids are integers, got {wanted[:5]!r}") from None
        found = pc.index_in(asked, value_set=self.values)
        if found.null_count:
            unknown = [wanted[row] for row in np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))]
            raise KeyError(
                f"unknown user id {unknown[0]!r} ({len(unknown)} of {len(wanted)} ids are unknown)"
            )
        return torch.from_numpy(found.to_numpy(zero_copy_only=False).astype(np.int64))

    def find(self, ids: Iterable[int | str]) -> Tensor:
        """Indices of raw ids, also of another type than these: [n] int64; -1 for those there are not."""
        wanted = pa.array([str(i) for i in ids], type=pa.string())
        found = pc.index_in(wanted, value_set=self.values.cast(pa.string()))
        return torch.from_numpy(pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64))

    def lookup(self, indices: Tensor | Sequence[int]) -> list[int | str]:
        """Raw ids of user indices, in the order given."""
        rows = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).cpu().numpy()
        return cast(list[int | str], self.values.take(pa.array(rows)).to_pylist())


def plain_ids(values: pa.Array) -> pa.Array:
    """Integer ids where every string is the plain decimal form of one; the strings otherwise.

    "007" or "+7" stay strings, and so keep apart from "7".
    """
    if not pa.types.is_string(values.type):
        return values.cast(pa.int64())
    try:
        integers = values.cast(pa.int64())
    except pa.ArrowInvalid:
        return values
    return integers if integers.cast(pa.string()).equals(values) else values
