"""Writing the files of an index part by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graphrec.data.saved import write_manifest
from graphrec.temporal.append import entries_room, headroom
from graphrec.temporal.columns import LAST_PLACE, IndexColumns
from graphrec.temporal.files import FORMAT, MANIFEST
from graphrec.temporal.long_lists import full_long_lists
from graphrec.temporal.lookups import link_appearances
from graphrec.temporal.out_of_core.column_file import ColumnFile

HALF_EDGE_COLUMNS = ("other", "tick", "code", "num_acts", "last_opposite", "next_tick")
LISTS = ("contacts", "acted_on")


class IndexWriter:
    """The files that `save_index` writes, in an order that never holds a whole column.

    Args:
        folder: an existing folder.
        length: [N] int64, half-edges of each user.
        num_events: E.
    """

    def __init__(self, folder: Path, length: np.ndarray, *, num_events: int) -> None:
        self._folder = folder
        self._length = length
        self._start = np.cumsum(length) - length
        self._num_events = num_events
        self._last_time: int | None = None
        self._files: dict[str, ColumnFile] = {}
        for column in HALF_EDGE_COLUMNS:
            self._file(f"half_edges.{column}", np.int32)
        for name in LISTS:
            self._file(f"{name}.other", np.int32)
            self._file(f"{name}.tick", np.int32)
        self._file("pair", np.int32, 4)
        for name in ("src", "dst", "time", "action"):
            self._file(name, np.int64)
        self._file("event_tick", np.int32)
        self._file("following", np.int32, 2)
        self._file("instants", np.int64)
        self._list_length = np.zeros((len(LISTS), len(length)), np.int32)
        self._pair_parts: list[ColumnFile] = []

    def _file(self, name: str, dtype: type, width: int | None = None) -> None:
        self._files[name] = ColumnFile(self._folder, name, dtype, width)

    @property
    def num_events(self) -> int:
        """The number of events written so far."""
        return self._files["src"].end

    def append_events(
        self, src: np.ndarray, dst: np.ndarray, time: np.ndarray, action: np.ndarray
    ) -> np.ndarray:
        """Write the next events [n] in order of time, and return their ticks: [n] int32."""
        for name, values in (("src", src), ("dst", dst), ("time", time), ("action", action)):
            self._files[name].append(values)
        opens = np.empty(len(time), bool)
        opens[0] = time[0] != self._last_time
        opens[1:] = time[1:] != time[:-1]
        tick = (self._files["instants"].end - 1 + np.cumsum(opens)).astype(np.int32)
        self._files["instants"].append(time[opens])
        self._files["event_tick"].append(tick)
        self._last_time = int(time[-1])
        return tick

    def append_piece(self, first_user: int, built: IndexColumns) -> None:
        """Write the columns of the next piece, whose owners are the users from `first_user` on."""
        at = int(self._start[first_user])
        for column in HALF_EDGE_COLUMNS:
            self._files[f"half_edges.{column}"].write(at, getattr(built.half_edges, column))
        for lengths, name in zip(self._list_length, LISTS, strict=True):
            part = getattr(built, name)
            lengths[first_user : first_user + len(part.length)] = part.length
            self._files[f"{name}.other"].append(part.other)
            self._files[f"{name}.tick"].append(part.tick)
        pairs = ColumnFile(self._folder.parent, f"pair-{len(self._pair_parts)}", np.int32, 4)
        pairs.append(built.pair)
        self._pair_parts.append(pairs)

    def join_pairs(self, piece_of: np.ndarray, rows: int) -> None:
        """Write the pair state of all events in chunks; each is read from the piece of its acting user."""
        read = np.zeros(len(self._pair_parts), np.int64)
        for first in range(0, self._num_events, rows):
            src = self._files["src"].read(first, min(rows, self._num_events - first))
            piece = piece_of[src]
            size = np.bincount(piece, minlength=len(read))
            parts = [self._pair_parts[p].read(read[p], size[p]) for p in np.flatnonzero(size).tolist()]
            read += size
            pair = np.empty((len(src), 4), np.int32)
            pair[np.argsort(piece, kind="stable")] = np.concatenate(parts)
            self._files["pair"].append(pair)
        for part in self._pair_parts:
            part.path.unlink()

    def link_appearances(self, rows: int) -> None:
        """Write the next appearances of the users of all events, so many at once, from the last one back."""
        latest = np.full(len(self._length), LAST_PLACE, np.int64)
        for first in range((self._num_events - 1) // rows * rows, -1, -rows):
            size = min(rows, self._num_events - first)
            src, dst = (self._files[name].read(first, size) for name in ("src", "dst"))
            out = np.empty(2 * size, np.int32)
            link_appearances(src, dst, first, latest, out)
            self._files["following"].write(first, out.reshape(size, 2))

    def finish(self, *, num_actions: int) -> None:
        """Write the columns of users, all headers, and last the manifest, without which nothing opens."""
        files = self._files
        events = headroom(self._num_events)
        entries = entries_room(events, int(self._length.max()))
        sizes: dict[str, list[int]] = {}
        lists = [self._length.astype(np.int32), *self._list_length]
        rooms = []
        for name, length in zip(("half_edges", *LISTS), lists, strict=True):
            wide = length.astype(np.int64)
            start = np.cumsum(wide) - wide
            moves = full_long_lists(start, length, length, int(wide.sum()))
            start, room = moves.moved(start, length)
            rooms.append(room)
            self._whole(f"{name}.start", start, sizes)
            self._whole(f"{name}.length", length, sizes)
            for column in HALF_EDGE_COLUMNS if name == "half_edges" else ("other", "tick"):
                files[f"{name}.{column}"].move(moves)
                sizes[f"{name}.{column}"] = files[f"{name}.{column}"].finish(entries)
        for name in ("pair", "src", "dst", "time", "action", "event_tick", "following", "instants"):
            sizes[name] = files[name].finish(events)
        used = [files[name].end for name in ("src", "instants", "half_edges.other")]
        used += [files[f"{name}.other"].end for name in LISTS]
        self._whole("used", np.array(used, np.int64), sizes)
        self._whole("room", np.stack(rooms), sizes)
        self._whole("removed", np.empty(0, np.int64), sizes)
        write_manifest(self._folder / MANIFEST, FORMAT, {"num_actions": num_actions, "sizes": sizes})

    def _whole(self, name: str, values: np.ndarray, sizes: dict[str, list[int]]) -> None:
        np.save(self._folder / f"{name}.npy", values)
        sizes[name] = list(values.shape)
