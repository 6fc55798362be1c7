"""Search for raw ids: in sorted order, and among those that came later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class SortedIds:
    """Raw ids in ascending order; a look-up takes time that grows with the logarithm of their number.

    Args:
        raw: [N] int64, or [N, L] uint8, as in `UserIds`.
    """

    def __init__(self, raw: np.ndarray) -> None:
        keys = raw if raw.ndim == 1 else as_bytes(raw)
        self._order: np.ndarray | None = None
        if not bool((keys[1:] > keys[:-1]).all()):
            self._order = np.argsort(keys, kind="stable")
            keys = keys[self._order]
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """Return the index of each key [n] (int64 or bytes, as the ids): [n] int64, -1 for others."""
        if not len(self._keys):
            return np.full(len(wanted), -1)
        place = np.searchsorted(self._keys, wanted).clip(max=len(self._keys) - 1)
        found = self._keys[place] == wanted
        return np.where(found, place if self._order is None else self._order[place], -1)


def as_bytes(raw: np.ndarray) -> np.ndarray:
    """Text [N, L] uint8, padded with zeros, as byte strings [N]."""
    return np.ascontiguousarray(raw).view(f"S{raw.shape[1]}").ravel()


def search_keys(values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of an Arrow column of int64 or text for `SortedIds.find`.

    Returns:
        keys [n], and [n] bool, False for nulls.
    """
    known = np.asarray(values.is_valid())
    if not pa.types.is_string(values.type):
        return np.asarray(pc.fill_null(values, 0)), known
    texts = [b"" if value is None else value.encode() for value in values.to_pylist()]
    return np.array(texts, dtype=f"S{max(1, *map(len, texts))}" if texts else "S1"), known
