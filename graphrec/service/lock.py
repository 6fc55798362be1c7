"""Locks of a bundle's folder: one writer at a time, for the duration of a change."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # not a POSIX system: readers take no shared lock
    fcntl = None  # type: ignore[assignment]

LOCK = "writer.lock"

QUIET_WAIT_SECONDS = 2.0
"""Seconds of waiting before a message is logged."""

log = logging.getLogger(__name__)

_held = threading.local()


@contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Hold the only write lock of a folder; the operating system releases that of a dead process.

    Raises:
        RuntimeError: this thread already holds it, and would wait for itself.
    """
    path = (folder / LOCK).resolve()
    held: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in held:
        raise RuntimeError(
            f"{folder} is being changed by this thread: return the bundle from the change, do not save it"
        )
    lock = FileLock(path)
    try:
        lock.acquire(timeout=QUIET_WAIT_SECONDS)
    except Timeout:
        log.warning("waiting for another process that writes %s", folder)
        lock.acquire()
    held.add(path)
    try:
        yield
    finally:
        held.discard(path)
        lock.release()


@contextmanager
def read_lock(folder: Path) -> Iterator[None]:
    """Keep writers out while reading, if the lock can be opened; needs no permission to write."""
    with ExitStack() as stack:
        with suppress(OSError):
            if fcntl is not None:
                fcntl.flock(stack.enter_context((folder / LOCK).open("rb")), fcntl.LOCK_SH)
        yield
