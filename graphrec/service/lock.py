"""Who may write into a bundle's folder: one process at a time, for as long as a change takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # not a POSIX system: readers do without the shared lock
    fcntl = None  # type: ignore[assignment]

LOCK = "writer.lock"

PATIENCE = 2.0
"""Seconds of waiting before it is said why nothing happens."""

log = logging.getLogger(__name__)

_held = threading.local()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Be the only writer of a folder. The operating system takes the lock from a process that dies.

    Raises:
        RuntimeError: this thread holds it already, and would wait for itself.
    """
    path = (folder / LOCK).resolve()
    held: set[Path] = _held.__dict__.setdefault("paths", set())
    if path in held:
        raise RuntimeError(
            f"{folder} is being changed by this thread: return the bundle from the change, do not save it"
        )
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
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
def keeping_writers_out(folder: Path) -> Iterator[None]:
    """Read while nobody writes, where the lock can be opened; that takes no permission to write."""
    with ExitStack() as stack:
        with suppress(OSError):
            if fcntl is not None:
                fcntl.flock(stack.enter_context((folder / LOCK).open("rb")), fcntl.LOCK_SH)
        yield
