"""The thread that changes blocks and opt-outs: changes that wait together are one transaction."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, Full, Queue

from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules
from graphrec.serving.committer import DiskFailedError, DiskFullError, OverloadedError, RefusedWriteError

NO_RULES = Rules()
MAX_WAITING = 1024
MAX_TOGETHER = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuleChange:
    """Rules to add or to remove, or a user whose rules are all removed.

    Attributes:
        add: rules to add.
        remove: rules to remove.
        forget: a user, by raw id as text.
    """

    add: Rules = NO_RULES
    remove: Rules = NO_RULES
    forget: str | None = None


class RuleWriter:
    """Changes the rules of a bundle's folder, in the order in which the changes come.

    Args:
        store: returns the store of the folder.
    """

    def __init__(self, store: Callable[[], RuleStore]) -> None:
        self._store = store
        self._queue: Queue[tuple[RuleChange, Future[None]] | None] = Queue(MAX_WAITING)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="graphrec-rules", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def submit(self, change: RuleChange) -> Future[None]:
        """Ask for a change.

        Returns:
            nothing, when it is on the disk; or the error RefusedWriteError.

        Raises:
            OverloadedError: too many changes wait.
        """
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()
        if self._closed:
            raise OverloadedError("the server is stopping")
        try:
            self._queue.put_nowait((change, future))
        except Full:
            raise OverloadedError("too many changes of rules wait to be made") from None
        return future

    def close(self) -> None:
        """Make the changes that wait, and end the thread."""
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = []
            item = self._queue.get()
            while item is not None:
                batch.append(item)
                if len(batch) == MAX_TOGETHER:
                    break
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
            is_open = item is not None
            if batch:
                self._make([change for change, _ in batch], [future for _, future in batch])

    def _make(self, changes: Sequence[RuleChange], futures: Sequence[Future[None]]) -> None:
        try:
            net = net_change(changes)
            forgotten = sorted({one.forget for one in changes if one.forget is not None})
            self._store().change(add=net.add, remove=net.remove, forget=forgotten)
        except Exception as error:
            refused = _refusal(error)
            for future in futures:
                future.set_exception(refused)
            return
        for future in futures:
            future.set_result(None)


def net_change(changes: Sequence[RuleChange]) -> RuleChange:
    """One change with the outcome of several: what is to be added in the end, and what removed."""
    blocked: dict[tuple[str, str], bool] = {}
    opted_out: dict[str, bool] = {}
    for one in changes:
        for rules, is_added in ((one.remove, False), (one.add, True)):
            blocked |= dict.fromkeys(rules.blocked, is_added)
            opted_out |= dict.fromkeys(rules.opted_out, is_added)
        if one.forget is not None:
            blocked |= dict.fromkeys((pair for pair in blocked if one.forget in pair), False)
            opted_out |= {one.forget: False} if one.forget in opted_out else {}
    added, removed = (
        Rules(
            frozenset(pair for pair, is_added in blocked.items() if is_added == wanted),
            frozenset(user for user, is_added in opted_out.items() if is_added == wanted),
        )
        for wanted in (True, False)
    )
    return RuleChange(added, removed)


def _refusal(error: Exception) -> RefusedWriteError:
    if isinstance(error, OSError) and "no space left" in str(error):
        return DiskFullError("no space left on the disk; nothing was changed")
    log.error("rules could not be changed", exc_info=error)
    return DiskFailedError("the rules cannot be changed now; nothing was changed")
