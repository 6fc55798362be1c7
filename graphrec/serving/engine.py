"""The thread that owns the bundle: it answers what waits together at once, and takes in writes between."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

from graphrec.data import DataError
from graphrec.explain import Explanation
from graphrec.service import Bundle
from graphrec.serving.committer import OverloadedError
from graphrec.serving.live_bundle import LiveBundle
from graphrec.serving.questions import Answer, Asked, NotSuggestedError, UnavailableError
from graphrec.serving.writes import Write
from graphrec.threads import one_intra_op_thread

MAX_WAITING = 1024
"""Requests that may wait; more are refused."""

MAX_BATCH = 256
"""Users answered at once, at most."""

BATCH_SECONDS = 0.025
"""Seconds that users of long requests may add to a batch while short ones come in, which wait for it."""

QUIET_SECONDS = 1.0
"""Seconds without a short request, after which batches are as large as they may be."""

SHORT = 8
"""Users of a request that goes before those for more."""

LONG_SHARE = 16
"""Users of a batch that are left for long requests, while one waits."""

LINGER_SECONDS = 0.05
"""Seconds after which writes are taken in that no request has asked to be."""

T = TypeVar("T")
Result = list[Answer | None]
log = logging.getLogger(__name__)


@dataclass
class _Request:
    """A request, and the answers so far: one for each user up to `done`."""

    users: Sequence[str]
    asked: Asked
    future: Future[Result]
    answers: Result = field(default_factory=list)
    done: int = 0


@dataclass(frozen=True)
class _Part:
    """Some users of a request, answered in one batch."""

    request: _Request
    begin: int
    end: int


class Engine:
    """Answers requests and takes in writes, in one thread.

    Args:
        live: the bundle; nobody else uses it.
        on_batch: called with the number of users of a batch and the seconds that it took.
        max_waiting: requests that may wait.
    """

    def __init__(
        self,
        live: LiveBundle,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.live, self._on_batch, self._max_waiting = live, on_batch, max_waiting
        self._changed = threading.Condition()
        self._short: deque[_Request] = deque()
        self._long: deque[_Request] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._slow: deque[Callable[[], None]] = deque()
        self._records: list[tuple[int, Sequence[Write]]] = []
        self._kept: list[tuple[int, Sequence[Write]]] | None = None
        self._oldest_record = self._last_short = self._user_seconds = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="graphrec-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return len(self._short) + len(self._long) + len(self._tasks) + len(self._slow)

    @property
    def lag_seconds(self) -> float:
        """Seconds that the oldest write waits to be taken in; 0 if none does."""
        began = self._oldest_record
        return time.monotonic() - began if began else 0.0

    def deliver(self, position: int, writes: Sequence[Write]) -> None:
        """Take in a record of writes, before any request that comes later is answered."""
        with self._changed:
            self._records.append((position, writes))
            if self._kept is not None:
                self._kept.append((position, writes))
            self._oldest_record = self._oldest_record or time.monotonic()
            self._changed.notify()

    def ask(self, users: Sequence[str], asked: Asked) -> Future[Result]:
        """Ask for the suggestions to some users.

        Returns:
            for each user an answer, or None if they are unknown; or an error of `LiveBundle.answer`, or
            UnavailableError.

        Raises:
            OverloadedError: too many requests wait.
        """
        request = _Request(users, asked, Future())
        request.future.set_running_or_notify_cancel()
        queue = self._short if len(users) <= SHORT else self._long
        with self._changed:
            self._check_room()
            queue.append(request)
            self._changed.notify()
        return request.future

    def explain(self, user: str, candidate: str, asked: Asked) -> Future[Explanation]:
        """Ask for an explanation; errors are those of `LiveBundle.explain`, or as in `ask`."""
        return self.call(lambda live: live.explain(user, candidate, asked), bounded=True, slow=True)

    def call(
        self, action: Callable[[LiveBundle], T], *, bounded: bool = False, slow: bool = False
    ) -> Future[T]:
        """Call something with the bundle, between two batches, after all writes that were delivered.

        Args:
            action: what to call.
            bounded: refuse it if too many requests wait.
            slow: it takes so long that a batch is answered before the next one.

        Raises:
            OverloadedError: too many requests wait.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def call() -> None:
            try:
                future.set_result(action(self.live))
            except Exception as error:
                future.set_exception(_told(error))

        with self._changed:
            if bounded:
                self._check_room()
            (self._slow if slow else self._tasks).append(call)
            self._changed.notify()
        return future

    def keep_records(self) -> Future[int]:
        """Keep the writes from now on, for a bundle that will take this one's place.

        Returns:
            their first position.
        """

        def keep(live: LiveBundle) -> int:
            with self._changed:
                self._kept = list(self._records)
            return live.position

        return self.call(keep)

    def drop_records(self) -> None:
        """Keep writes no longer: the other bundle did not come."""
        with self._changed:
            self._kept = None

    def replace(self, bundle: Bundle, position: int) -> Future[None]:
        """Go on with another bundle, one that has all writes before the position of `keep_records`."""

        def take(live: LiveBundle) -> None:
            with self._changed:
                kept, self._kept = self._kept or [], None
            live.replace(bundle, position)
            live.take_in(kept)

        return self.call(take)

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _check_room(self) -> None:
        if self._closed:
            raise OverloadedError("the server is stopping")
        if self.num_waiting >= self._max_waiting:
            raise OverloadedError("too many requests wait to be answered")

    def _run(self) -> None:
        with one_intra_op_thread():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._has_work() or self._records)
                    self._changed.wait_for(self._has_work, LINGER_SECONDS)
                    records, self._records, self._oldest_record = self._records, [], 0.0
                    tasks, self._tasks = self._tasks, deque()
                    if self._slow:
                        tasks.append(self._slow.popleft())
                    parts = self._next_parts()
                    if self._closed and not (records or tasks or parts):
                        return
                self._take_in(records)
                for task in tasks:
                    task()
                if parts:
                    self._answer(parts)

    def _has_work(self) -> bool:
        return self.num_waiting > 0 or self._closed

    def _take_in(self, records: list[tuple[int, Sequence[Write]]]) -> None:
        try:
            if records:
                self.live.take_in(records)
        except Exception:
            log.exception("writes could not be taken in; they are in the log, and a restart takes them in")

    def _next_parts(self) -> list[_Part]:
        room, now = MAX_BATCH, time.monotonic()
        parts = []
        while self._short and len(self._short[0].users) <= room - (LONG_SHARE if self._long else 0):
            request = self._short.popleft()
            room -= len(request.users)
            parts.append(_Part(request, 0, len(request.users)))
            self._last_short = now
        if now - self._last_short < QUIET_SECONDS and self._user_seconds:
            in_time = int(BATCH_SECONDS / self._user_seconds) - (MAX_BATCH - room)
            room = min(room, max(LONG_SHARE, in_time))
        while self._long and room > 0:
            request = self._long[0]
            if request.future.done():  # it failed in an earlier batch
                self._long.popleft()
                continue
            begin, end = request.done, min(len(request.users), request.done + room)
            parts.append(_Part(request, begin, end))
            request.done, room = end, room - (end - begin)
            if end == len(request.users):
                self._long.popleft()
        return parts

    def _answer(self, parts: list[_Part]) -> None:
        order = {
            asked: place for place, asked in enumerate(dict.fromkeys(one.request.asked for one in parts))
        }
        parts = sorted(parts, key=lambda one: order[one.request.asked])
        for asked, group in groupby(parts, key=lambda one: one.request.asked):
            self._answer_alike(asked, list(group))

    def _answer_alike(self, asked: Asked, parts: list[_Part]) -> None:
        users = [user for one in parts for user in one.request.users[one.begin : one.end]]
        began = time.perf_counter()
        try:
            answers = self.live.answer(users, asked)
        except Exception as error:
            told = _told(error)
            for one in parts:
                if not one.request.future.done():
                    one.request.future.set_exception(told)
            return
        finally:
            seconds = time.perf_counter() - began
            self._on_batch(len(users), seconds)
            self._user_seconds += (seconds / max(len(users), LONG_SHARE) - self._user_seconds) / 16
        begin = 0
        for one in parts:
            request, size = one.request, one.end - one.begin
            request.answers += answers[begin : begin + size]
            begin += size
            if one.end == len(request.users) and not request.future.done():
                request.future.set_result(request.answers)


def _told(error: Exception) -> Exception:
    """The error that a client is told of: one of its own question, or that there is no answer now."""
    if isinstance(error, KeyError | NotSuggestedError):
        return error
    if isinstance(error, ValueError | TypeError) and not isinstance(error, DataError):
        return error
    log.error("a request could not be answered", exc_info=error)
    return UnavailableError("the bundle cannot answer now")
