"""From Parquet files to an index on disk, without ever holding the log in memory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from graphrec.data import DataError
from graphrec.data.batches import EventBatch, EventBatches
from graphrec.data.checks import check_count, check_folder
from graphrec.data.events import forbid_reserved
from graphrec.data.ids import bad_ids
from graphrec.data.read import ColumnName
from graphrec.data.reading.sources import Paths
from graphrec.data.roles import default_role
from graphrec.jit import kernel
from graphrec.temporal.out_of_core.index_writer import IndexWriter
from graphrec.temporal.out_of_core.pieces import Pieces
from graphrec.temporal.out_of_core.row_file import ROW, RowFile
from graphrec.temporal.out_of_core.user_numbers import UserNumbers

MEMORY = 4 * 2**30
"""Bytes of memory used, about, unless another number is given."""

HALF_EDGE_BYTES = 92
"""Memory of building a piece, for each of its half-edges."""

USER_BYTES = 24
"""Memory of building a piece, for each user of the log."""

MIN_HALF_EDGES = 2**20
"""Half-edges of a piece, at least, however little memory is given."""

BATCH_ROWS = 2**20
"""Rows read at once, at most."""

MAX_EVENTS = 2**30 - 1
"""The largest number of events: 2 x an event + 1 fits into int32."""

USERS_FILE, LOG_FILE = "users.parquet", "log.json"


@dataclass(frozen=True)
class IndexedLog:
    """What an index was built from; kept as `log.json` beside it.

    Attributes:
        num_events: events of the index.
        num_users: users, also those of dropped rows alone.
        num_self_loops: rows with `src` equal to `dst`, which were dropped.
        actions: names of the actions, in the order of their index.
    """

    num_events: int
    num_users: int
    num_self_loops: int
    actions: tuple[str, ...]


def index_parquet(
    paths: Paths,
    folder: str | os.PathLike[str],
    *,
    src: ColumnName | None = None,
    dst: ColumnName | None = None,
    time: ColumnName | None = None,
    action: ColumnName | None = None,
    filesystem: Any = None,
    memory: int = MEMORY,
    num_threads: int = 2,
    progress: Callable[[str], None] | None = None,
) -> IndexedLog:
    """Index a log of Parquet files that is larger than memory, in a new folder that `Timeline.open` maps.

    The index is, byte for byte, what `Timeline(FriendGraph.from_events(read_events(paths))).save(folder)`
    would write. Beside it are `users.parquet`, whose column `user` has the raw id of each index, and
    `log.json`, an `IndexedLog`. Rows may be in any order; a log in order of time is read fastest. Temporary
    files take about 80 bytes an event beside the folder, which appears when it is complete.

    Args:
        paths: files, folders, patterns or addresses, as in `read_events`.
        folder: the folder to make; it must not exist, or be empty.
        src: column of the acting user; for this and the next three see `read_events`.
        dst: column of the target.
        time: column of the time.
        action: column of the action.
        filesystem: as in `read_events`.
        memory: bytes to use, about. Needed in any case are the ids themselves, about 90 bytes for each user,
            and 88 for each event of the most active one.
        num_threads: pieces of the index that are built at the same time.
        progress: called with a line of text after each stage.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: the folder exists and is not empty.
        DataError: a file is not Parquet, or a value cannot be used; the message has the file and, where
            known, the row (from 1) and column.
        OSError: the disk is full.
    """
    target = check_folder(folder)
    check_count("memory", memory, maximum=None)
    check_count("num_threads", num_threads)
    batches = EventBatches.open(paths, src=src, dst=dst, time=time, action=action, filesystem=filesystem)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists already: give a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    with _naming_a_full_disk(target), _folder_beside(target) as made:
        builder = _Builder(made, memory, num_threads, progress)
        found = builder.build(batches)
        if target.exists():
            target.rmdir()
        (made / "index").rename(target)
    return found


@contextmanager
def _naming_a_full_disk(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        fault = "the disk is full; nothing was written. Free some space, or give a folder on another disk"
        raise OSError(error.errno, fault, str(target)) from None


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A folder beside another that is removed at the end, whatever happens."""
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (made / "index").mkdir()
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _one_behind() -> Iterator[Callable[..., None]]:
    """Run calls one after another in a thread, each while the arguments of the next are made.

    An error of a call comes before one of what is done at the same time.
    """
    with ThreadPoolExecutor(1) as thread:
        last: Future[None] | None = None

        def run(function: Callable[..., None], *arguments: Any) -> None:
            nonlocal last
            if last is not None:
                last.result()
            last = thread.submit(function, *arguments)

        try:
            yield run
        finally:
            if last is not None:
                last.result()


class _Builder:
    """The stages of building an index in a folder `index` of a folder for temporary files."""

    def __init__(
        self, folder: Path, memory: int, num_threads: int, progress: Callable[[str], None] | None
    ) -> None:
        self._folder = folder
        self._memory = memory
        self._num_threads = num_threads
        self._progress = progress
        self._start = time.monotonic()
        self._batch_rows = max(1, min(BATCH_ROWS, memory // 1024))
        self._rows = RowFile(folder / "rows", run_rows=max(1, memory // (16 * ROW.itemsize)))

    def _say(self, text: str) -> None:
        if self._progress is not None:
            self._progress(f"{text} ({time.monotonic() - self._start:,.0f} s)")

    def build(self, batches: EventBatches) -> IndexedLog:
        numbers, degree, actions, num_self_loops = self._read(batches)
        order = "in order of time" if self._rows.num_runs == 1 else f"sorted in {self._rows.num_runs} parts"
        self._say(f"{len(self._rows):,} events of {len(numbers):,} users read, {order}")
        place = self._write_users(numbers)
        del numbers
        length = np.empty(len(place), np.int64)
        length[place] = degree
        del degree
        names = tuple(sorted(actions))
        code = np.array([names.index(name) for name in actions], np.int64)
        log = IndexedLog(len(self._rows), len(place), num_self_loops, names)

        writer = IndexWriter(self._folder / "index", length, num_events=len(self._rows))
        pieces = Pieces(self._folder, length, self._half_edges(len(place), 2 * len(self._rows)))
        with _one_behind() as run:
            for rows in self._rows.in_order(self._batch_rows):
                src, dst = (place[rows[side]].astype(np.int64) for side in ("src", "dst"))
                action, times = code[rows["action"]], np.ascontiguousarray(rows["time"])
                first = writer.num_events
                tick = writer.append_events(src, dst, times, action)
                run(pieces.append, src, dst, tick, action, first)
        pieces.end_appends()
        self._rows.path.unlink()
        del place
        self._say(f"events written, half-edges in {len(pieces)} pieces")

        built = self._built(pieces, len(names))
        for piece, first in enumerate(pieces.bounds[:-1].tolist()):
            writer.append_piece(first, next(built))  # nothing holds on to the columns of a piece
            self._say(f"piece {piece + 1} of {len(pieces)} built")
        writer.join_pairs(pieces.piece_of, self._batch_rows)
        writer.link_appearances(self._batch_rows)
        self._say("pairs and appearances written")
        (self._folder / "index" / LOG_FILE).write_text(json.dumps(asdict(log), indent=2) + "\n")
        writer.finish(num_actions=len(names))
        return log

    def _read(self, batches: EventBatches) -> tuple[UserNumbers, np.ndarray, dict[str, int], int]:
        """Read all rows into the file of rows.

        Returns:
            (numbers of the users, their half-edges [N] int64, numbers of the actions, rows dropped).
        """
        numbers = UserNumbers(integers=batches.has_integer_ids)
        degree = np.zeros(0, np.int64)
        actions: dict[str, int] = {}
        num_rows = num_kept = 0

        def take(batch: EventBatch) -> None:
            nonlocal degree, num_rows, num_kept
            src, dst = self._number(batch, numbers, integers=batches.has_integer_ids)
            if len(numbers) > len(degree):
                degree = np.concatenate([degree, np.zeros(len(numbers) - len(degree), np.int64)])
            kept = count_events(src, dst, degree)
            code = np.array([actions.setdefault(name, len(actions)) for name in batch.actions], np.int32)
            rows = np.empty(len(src), ROW)
            rows["time"], rows["src"], rows["dst"], rows["action"] = batch.time, src, dst, code[batch.action]
            self._rows.append(rows if kept == len(rows) else rows[src != dst])
            num_rows += len(rows)
            num_kept += kept
            if num_kept > MAX_EVENTS:
                raise DataError(f"{batches.where}: an index holds at most {MAX_EVENTS:,} events")

        with _one_behind() as run:
            for batch in batches.read(self._batch_rows):
                run(take, batch)
        self._rows.flush()
        if not num_rows:
            raise DataError(f"{batches.where}: there are no events")
        if not num_kept:
            raise DataError(f"{batches.where}: every row has the same user as src and dst")
        for name in actions:
            forbid_reserved(name, f"{batches.where}: the actions")
            if default_role(name) == "impression":
                raise DataError(
                    f"{batches.where}: the action {name!r} is an impression, which no index holds: leave "
                    "these rows out, or give the action another name"
                )
        return numbers, degree, actions, num_rows - num_kept

    def _number(
        self, batch: EventBatch, numbers: UserNumbers, *, integers: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        before = len(numbers)
        src, dst = numbers.number(batch.src), numbers.number(batch.dst)
        if not integers and len(numbers) > before:
            new = numbers.texts(before, len(numbers)).cast(pa.string())
            if bad_ids(new).any() or pc.any(pc.equal(new, "")).as_py():
                batch.check_ids()
        return src, dst

    def _write_users(self, numbers: UserNumbers) -> np.ndarray:
        """Write the ids in the order of their index, and return the index of each number: [N] int32."""
        ids, place = numbers.sorted_ids()
        pa.parquet.write_table(pa.table({"user": ids}), self._folder / "index" / USERS_FILE)
        return place

    def _half_edges(self, num_users: int, total: int) -> int:
        """The number of half-edges of a piece for which there is memory, so that all threads have a piece."""
        free = self._memory - num_users * USER_BYTES * (self._num_threads + 1)
        fit = free // (HALF_EDGE_BYTES * self._num_threads)
        return max(MIN_HALF_EDGES, min(fit, total // self._num_threads + total // 100 + 1))

    def _built(self, pieces: Pieces, num_actions: int) -> Iterator[Any]:
        """Build all pieces, several at a time, and yield their columns in order."""
        with ThreadPoolExecutor(self._num_threads) as threads:
            waiting: deque[Future[Any]] = deque()
            try:
                for piece in range(len(pieces)):
                    if len(waiting) == self._num_threads:
                        yield waiting.popleft().result()
                    waiting.append(threads.submit(pieces.build, piece, num_actions))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


@kernel
def count_events(src: np.ndarray, dst: np.ndarray, degree: np.ndarray) -> int:
    """Count the half-edges of users (int32), and return the number of events that are not self-loops."""
    kept = 0
    for i in range(len(src)):
        if src[i] != dst[i]:
            degree[src[i]] += 1
            degree[dst[i]] += 1
            kept += 1
    return kept
