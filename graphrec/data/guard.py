"""A guard between the threads that read a growing graph and the one that appends to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class ReadWriteGuard:
    """Lets any number of threads read at once, or one write.

    A thread that reads may begin to read again inside; one that writes may do both. New readers wait for a
    writer that waits, so that queries cannot keep an append out. A copied or unpickled guard is a new one.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = self._waiting = 0
        self._writer: int | None = None
        self._own = threading.local()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read: no other thread writes meanwhile."""
        depth, me = getattr(self._own, "depth", 0), threading.get_ident()
        if not depth and self._writer != me:
            with self._changed:
                self._changed.wait_for(lambda: self._writer is None and not self._waiting)
                self._readers += 1
        elif not depth:  # the writer itself
            yield
            return
        self._own.depth = depth + 1
        try:
            yield
        finally:
            self._own.depth = depth
            if not depth:
                with self._changed:
                    self._readers -= 1
                    self._changed.notify_all()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write: no other thread reads or writes meanwhile.

        Raises:
            RuntimeError: this thread reads already, and would wait for itself.
        """
        me = threading.get_ident()
        if self._writer == me:
            yield
            return
        if getattr(self._own, "depth", 0):
            raise RuntimeError("events cannot be appended from inside a query of the same graph")
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._writer is None and not self._readers)
                self._writer = me
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._writer = None
                self._changed.notify_all()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReadWriteGuard:
        return type(self)()

    def __reduce__(self) -> tuple[type[ReadWriteGuard], tuple[()]]:
        return type(self), ()
