"""Numbers of users in order of their first appearance, from a hash table of their ids."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graphrec.data.ids import plain_ids
from graphrec.jit import inlined, int64, kernel

ID_CHUNK = 2**20
"""Ids that are converted at once."""

BLOCK = 256
"""Ids that are looked up at once."""


class UserNumbers:
    """A growing map from raw ids to numbers 0, 1, ... in order of first appearance.

    Memory is what all ids are long, and about 30 bytes a user.

    Args:
        integers: whether ids are int64; else they are strings.
    """

    def __init__(self, *, integers: bool) -> None:
        self._integers = integers
        self._used = np.zeros(2, np.int64)  # ids, and bytes of them
        self._starts = np.zeros(1, np.int64)
        self._bytes = np.empty(0, np.uint8)
        self._slots = np.full(64, -1, np.int64)

    def __len__(self) -> int:
        return int(self._used[0])

    def number(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Return the numbers of ids, and give new ones to ids not seen before: [n] int32."""
        parts = [self._number(chunk) for chunk in ids.chunks if len(chunk)]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def _number(self, ids: pa.Array) -> np.ndarray:
        size = len(ids)
        if self._integers:
            data = ids.to_numpy(zero_copy_only=False).astype(np.int64).view(np.uint8)
            offsets = np.arange(0, 8 * size + 1, 8, dtype=np.int64)
        else:
            _, starts, content = ids.buffers()
            offsets = np.frombuffer(starts, np.int32)[ids.offset : ids.offset + size + 1].astype(np.int64)
            data = np.empty(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
            data = data[offsets[0] : offsets[-1]].copy()  # writable, as the kernel is compiled for
            offsets -= offsets[0]
        self._reserve(size, len(data))
        out = np.empty(size, np.int32)
        number_ids(offsets, data, self._slots, self._starts, self._bytes, self._used, out)
        return out

    def _reserve(self, more_ids: int, more_bytes: int) -> None:
        num_ids, num_bytes = self._used.tolist()
        if num_ids + more_ids + 1 > len(self._starts):
            self._starts = _grown(self._starts, num_ids + more_ids + 1)
        if num_bytes + more_bytes > len(self._bytes):
            self._bytes = _grown(self._bytes, num_bytes + more_bytes)
        if 3 * (num_ids + more_ids) > 2 * len(self._slots):
            size = len(self._slots)
            while 3 * (num_ids + more_ids) > 2 * size:
                size *= 2
            old, self._slots = self._slots, np.full(size, -1, np.int64)
            del old
            fill_slots(self._slots, self._starts, self._bytes, num_ids)

    def texts(self, first: int, stop: int) -> pa.Array:
        """Return the strings with numbers from `first` to before `stop`."""
        begin, end = int(self._starts[first]), int(self._starts[stop])
        offsets = self._starts[first : stop + 1] - begin
        return pa.LargeStringArray.from_buffers(
            stop - first, pa.py_buffer(offsets), pa.py_buffer(self._bytes[begin:end].copy())
        )

    def sorted_ids(self) -> tuple[pa.Array, np.ndarray]:
        """Return the ids sorted, int64 where all are integers; and the place of each number: [N] int32."""
        ids = self._values()
        order = pc.sort_indices(ids).to_numpy()
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        return ids.take(pa.array(order)), place

    def _values(self) -> pa.Array:
        if self._integers:
            return pa.array(self._bytes[: 8 * len(self)].view(np.int64))
        parts = []
        for first in range(0, len(self), ID_CHUNK):
            texts = self.texts(first, min(first + ID_CHUNK, len(self)))
            integers = plain_ids(texts.cast(pa.string()))
            if pa.types.is_string(integers.type):
                return self.texts(0, len(self))
            parts.append(integers)
        return pa.concat_arrays(parts)


def _grown(array: np.ndarray, least: int) -> np.ndarray:
    out = np.empty(max(least, len(array) + len(array) // 2), array.dtype)
    out[: len(array)] = array
    return out


@inlined
def hash_bytes(data: np.ndarray, begin: int, end: int) -> np.int64:
    """Hash data[begin:end]: FNV-1a, then a mix of its bits; at least 0."""
    out = np.int64(-3750763034362895579)
    for i in range(begin, end):
        out = (out ^ np.int64(data[i])) * np.int64(1099511628211)
    out = (out ^ (out >> np.int64(29))) * np.int64(0x9E3779B97F4A7C1)
    return (out ^ (out >> np.int64(32))) & np.int64(0x7FFFFFFFFFFFFFFF)


@kernel
def number_ids(
    offsets: np.ndarray,
    data: np.ndarray,
    slots: np.ndarray,
    starts: np.ndarray,
    stored: np.ndarray,
    used: np.ndarray,
    out: np.ndarray,
) -> int:
    """Fill the number of each id, and store ids that are new.

    Ids are looked up in blocks, whose memory is touched first: independent reads overlap, and the table is
    larger than any cache.

    Args:
        offsets: [n + 1] int64, where each id begins in `data`.
        data: uint8, the bytes of the ids.
        slots: [S] int64, S a power of two: a hash's upper half and a number in the lower one, or -1.
        starts: int64, where each id begins in `stored`.
        stored: uint8, the bytes of the ids that have numbers.
        used: [2] int64, ids stored and their bytes.
        out: [n] int32, filled.

    Returns:
        A sum of what was touched, so that no compiler leaves it out.
    """
    mask = len(slots) - 1
    upper = np.int64(0x7FFFFFFF00000000)
    hashes, hints = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    touched = int64(0)
    for i in range(len(out)):
        at = i % BLOCK
        if at == 0:
            size = min(BLOCK, len(out) - i)
            for ahead in range(size):
                hashes[ahead] = hash_bytes(data, offsets[i + ahead], offsets[i + ahead + 1])
                hints[ahead] = slots[hashes[ahead] & mask]
            for ahead in range(size):
                hints[ahead] = starts[hints[ahead] & np.int64(0xFFFFFFFF)] if hints[ahead] >= 0 else -1
            for ahead in range(size):
                if hints[ahead] >= 0 and len(stored):
                    touched += stored[min(hints[ahead], len(stored) - 1)]
        begin, end = offsets[i], offsets[i + 1]
        hashed = hashes[at]
        slot = hashed & mask
        number = np.int64(-1)
        while slots[slot] >= 0:
            if slots[slot] & upper == hashed & upper:
                known = slots[slot] & np.int64(0xFFFFFFFF)
                first = starts[known]
                equal = starts[known + 1] - first == end - begin
                if equal:
                    for byte in range(end - begin):
                        equal = equal and stored[first + byte] == data[begin + byte]
                if equal:
                    number = known
                    break
            slot = (slot + 1) & mask
        if number < 0:
            number, first = used[0], used[1]
            for byte in range(end - begin):
                stored[first + byte] = data[begin + byte]
            used[0], used[1] = number + 1, first + end - begin
            starts[number + 1] = used[1]
            slots[slot] = (hashed & upper) | number
        out[i] = number
    return int(touched)


@kernel
def fill_slots(slots: np.ndarray, starts: np.ndarray, stored: np.ndarray, size: int) -> None:
    """Fill an empty table with the ids stored; for the arguments see `number_ids`."""
    mask = len(slots) - 1
    for number in range(size):
        hashed = hash_bytes(stored, starts[number], starts[number + 1])
        slot = hashed & mask
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = (hashed & np.int64(0x7FFFFFFF00000000)) | number
