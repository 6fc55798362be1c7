"""An index on disk: flat files that are mapped into memory, so that opening reads nothing.

Each column is a NumPy file with room behind what is used. Room that was never written takes no space on file
systems with sparse files. Mapped pages are shared by all processes that have the index open; a process that
appends gets copies of the pages it changes, and the files stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from graphrec.data.errors import DataError
from graphrec.data.saved import load_errors_as_data_error, make_folder, read_manifest, write_manifest
from graphrec.temporal.append import GrowingIndex, room_after
from graphrec.temporal.columns import HalfEdges, IndexColumns, TimedLists
from graphrec.temporal.long_lists import LongLists, full_long_lists

FORMAT = "graphrec index 1"
MANIFEST = "index.json"
LISTS = ("half_edges", "contacts", "acted_on")


def save_index(folder: Path, index: GrowingIndex, *, events: int, num_actions: int) -> None:
    """Write an index with room for about so many more events.

    Raises:
        FileExistsError: the folder holds an index; other processes may have it mapped.
    """
    make_folder(folder)
    if (folder / MANIFEST).exists():
        raise FileExistsError(f"{folder} holds an index already: save to another folder")
    sizes: dict[str, list[int]] = {}
    room_for, old_used = room_after(index, events), index.used
    index, moves = _with_room_for_long_lists(index)
    for name, column, used, room in _columns(index, room_for):
        shape = (used + room, *column.shape[1:])
        header = {"descr": column.dtype.str, "fortran_order": False, "shape": shape}
        # Written, not mapped: on a full disk a write fails with an error, a mapped page kills the process.
        with (folder / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            begin = file.tell()
            lists, _, field = name.partition(".")
            if lists in LISTS and field not in ("start", "length"):
                column[: old_used[2 + LISTS.index(lists)]].tofile(file)
                for old, length, new in moves[lists].copies():
                    file.seek(begin + new * column.itemsize)
                    column[old : old + length].tofile(file)
            else:
                column[:used].tofile(file)
            file.truncate(begin + int(np.prod(shape)) * column.itemsize)
        sizes[name] = list(shape)
    write_manifest(folder / MANIFEST, FORMAT, {"num_actions": num_actions, "sizes": sizes})


def _with_room_for_long_lists(index: GrowingIndex) -> tuple[GrowingIndex, dict[str, LongLists]]:
    """An index whose long lists start where they have room, and where they are copied from, by lists."""
    moves: dict[str, LongLists] = {}
    parts: dict[str, Any] = {}
    used, rooms = index.used.copy(), index.room.copy()
    for i, name in enumerate(LISTS):
        part = getattr(index.columns, name)
        moves[name] = full_long_lists(part.start, part.length, rooms[i], int(used[2 + i]))
        start, rooms[i] = moves[name].moved(part.start, rooms[i])
        parts[name], used[2 + i] = part._replace(start=start), moves[name].end
    return index._replace(columns=index.columns._replace(**parts), used=used, room=rooms), moves


def open_index(folder: Path) -> tuple[GrowingIndex, int]:
    """Map an index that `save_index` wrote; returns it with its number of actions.

    Raises:
        DataError: the folder holds no index, one of another version, or files of another size.
    """
    if not (folder / MANIFEST).exists():
        raise DataError(f"{folder} holds no index: there is no {MANIFEST}")
    with load_errors_as_data_error(GrowingIndex, folder):
        manifest = read_manifest(folder / MANIFEST, FORMAT)
        columns = {name: _map(folder, name, shape) for name, shape in manifest["sizes"].items()}

        def of(prefix: str, kind: Any) -> Any:
            return kind(*(columns[f"{prefix}.{field}"] for field in kind._fields))

        index = GrowingIndex(
            IndexColumns(
                half_edges=of("half_edges", HalfEdges),
                contacts=of("contacts", TimedLists),
                acted_on=of("acted_on", TimedLists),
                pair=columns["pair"],
            ),
            *(columns[name] for name in GrowingIndex._fields[1:]),
        )
        return index, int(manifest["num_actions"])


def _map(folder: Path, name: str, shape: list[int]) -> np.ndarray:
    array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
    if list(array.shape) != shape:
        raise DataError(f"{name}.npy is {list(array.shape)}, not {shape}")
    return np.asarray(array)


def _columns(index: GrowingIndex, room: dict[str, int]) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """Each column by its name, with the number of its entries in use and of those it gets room for."""
    num_events, num_ticks, *entries = index.used.tolist()
    for name, used in zip(LISTS, entries, strict=True):
        part = getattr(index.columns, name)
        for field, column in zip(part._fields, part, strict=True):
            per_user = field in ("start", "length")
            yield f"{name}.{field}", column, *((len(column), 0) if per_user else (used, room["entries"]))
    yield "pair", index.columns.pair, num_events, room["events"]
    for name in ("src", "dst", "time", "action", "event_tick", "following"):
        yield name, getattr(index, name), num_events, room["events"]
    yield "instants", index.instants, num_ticks, room["events"]
    yield "used", index.used, len(index.used), 0
    yield "room", index.room, len(index.room), 0
    yield "removed", index.removed, len(index.removed), 0
