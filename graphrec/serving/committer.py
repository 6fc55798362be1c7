"""The thread that makes writes durable: those that wait together are one record, and share one flush."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TypeVar

from graphrec.serving.record_file import RecordFile, Start
from graphrec.serving.side_state import SideState
from graphrec.serving.writes import Key, KeyedWrite, Write, decode_writes, encode_writes

MAX_WAITING = 4096
"""Writes that may wait; more are refused."""

MAX_ENTRIES_PER_RECORD = 1024
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")
log = logging.getLogger(__name__)


class RefusedWriteError(Exception):
    """A write that was not made; it may be sent again."""


class OverloadedError(RefusedWriteError):
    """Too many requests wait already."""


class DiskFullError(RefusedWriteError):
    """The disk is full."""


class DiskFailedError(RefusedWriteError):
    """The disk cannot be written."""


class KeyReusedError(Exception):
    """A key was used before, for another write."""


@dataclass(frozen=True)
class Receipt:
    """A write that is on the disk.

    Attributes:
        position: of its record; of the last one, if the write was repeated.
        repeated: it was made before, under the same key, and not again.
    """

    position: int
    repeated: bool = False


@dataclass
class _Waiting:
    entry: KeyedWrite
    future: Future[Receipt]


class Committer:
    """Appends writes to a file, in the order in which they come.

    Args:
        file: open for appending; the committer closes it.
        state: of the writes in the file, which the committer keeps up to date.
        on_commit: called with the position and the writes of each record when it is on the disk, before any
            of them is acknowledged.
    """

    def __init__(
        self, file: RecordFile, state: SideState, on_commit: Callable[[int, Sequence[Write]], None]
    ) -> None:
        self._file, self._state, self._on_commit = file, state, on_commit
        self._queue: Queue[_Waiting | Callable[[], None] | None] = Queue(MAX_WAITING)
        self._closed = False
        self.num_flushes = 0
        self._thread = threading.Thread(target=self._run, name="graphrec-committer", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def position(self) -> int:
        """That the next record will have."""
        return self._file.position

    @property
    def num_bytes(self) -> int:
        """Of the file."""
        return self._file.num_bytes

    @property
    def num_waiting(self) -> int:
        """Writes that wait, about."""
        return self._queue.qsize()

    @property
    def num_keys(self) -> int:
        """Keys that are remembered."""
        return len(self._state.keys)

    def receipt_of(self, key: Key) -> Receipt | None:
        """The receipt of a write that was made under a key; None if there was none, or another one."""
        return Receipt(self._file.position - 1, repeated=True) if self._state.keys.find(key) else None

    def submit(self, entry: KeyedWrite) -> Future[Receipt]:
        """Ask for a write.

        Returns:
            the receipt, when the write is on the disk; or the error KeyReusedError or RefusedWriteError.

        Raises:
            OverloadedError: too many writes wait, or the committer is closed.
        """
        future: Future[Receipt] = Future()
        future.set_running_or_notify_cancel()  # a client that hangs up cancels nothing
        if self._closed:
            raise OverloadedError("the server is stopping")
        try:
            self._queue.put_nowait(_Waiting(entry, future))
        except Full:
            raise OverloadedError("too many writes wait to be made") from None
        return future

    def between(self, action: Callable[[], T]) -> Future[T]:
        """Call something in the committer's thread, between two records."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def call() -> None:
            try:
                future.set_result(action())
            except BaseException as error:
                future.set_exception(error)

        self._queue.put(call)
        return future

    def rotate(self, position: int) -> Future[None]:
        """Begin a new file without the records before a position, which are in the bundle."""

        def replace_file() -> None:
            old = self._file
            if position <= old.start.position:
                return
            records, state = old.read(position), self._state.plain()
            self._file = RecordFile.create(old.path, Start(position, state), iter(records), old.storage)
            old.close()

        return self.between(replace_file)

    def close(self) -> None:
        """Make the writes that wait, and close the file."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            self._file.close()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Waiting] = []
            item = self._queue.get()
            while True:
                if isinstance(item, _Waiting):
                    batch.append(item)
                else:
                    self._commit(batch)
                    batch = []
                    if item is None:
                        is_open = False
                    else:
                        item()
                if len(batch) >= MAX_ENTRIES_PER_RECORD:
                    break
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
            self._commit(batch)

    def _commit(self, batch: list[_Waiting]) -> None:
        new: dict[int, int] = {}
        made, repeated = [], []
        for one in batch:
            key = one.entry.key
            same = None if key is None else self._state.keys.find(key)
            if key is not None and same is None and key.name in new:
                same = new[key.name] == key.content
            if same is False:
                one.future.set_exception(
                    KeyReusedError("this idempotency key was used before, with another content")
                )
            elif same:
                repeated.append(one)
            else:
                if key is not None:
                    new[key.name] = key.content
                made.append(one)
        try:
            if made:
                entries = [one.entry for one in made]
                position = self._file.append(encode_writes(entries))
                self.num_flushes += 1
                self._state.add(entries)
                self._on_commit(position, [one.write for one in entries])
        except Exception as error:
            refused = _refusal(error)
            for one in made + repeated:
                one.future.set_exception(refused)
            return
        for one in made:
            one.future.set_result(Receipt(position))
        for one in repeated:
            one.future.set_result(Receipt(self._file.position - 1, repeated=True))


def _refusal(error: Exception) -> RefusedWriteError:
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return DiskFullError("no space left on the disk; nothing was written")
    log.error("a write could not be made", exc_info=error)
    return DiskFailedError("the disk cannot be written; nothing was written")


def read_state(file: RecordFile, rest: int) -> SideState:
    """The state after all writes in a file."""
    state = SideState(rest)
    state.restore(file.start.state)
    for content in file.read(file.start.position):
        state.add(decode_writes(content))
    return state
