"""A bundle in service: answers, durable writes, saving them in the bundle, and taking over a new version."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq

from graphrec.service import Bundle, RuleStore, current_digest
from graphrec.service import manifest as manifests
from graphrec.service.rule_changes import IDS
from graphrec.serving.committer import Committer, Receipt, read_state
from graphrec.serving.compaction import Compaction, catch_up, compact, contained, contained_in
from graphrec.serving.engine import Engine
from graphrec.serving.files import ServingFiles
from graphrec.serving.live_bundle import LiveBundle
from graphrec.serving.record_file import DISK, RecordFile, Start, Storage
from graphrec.serving.replay import append_nothing, with_rules_left
from graphrec.serving.rule_writer import RuleWriter
from graphrec.serving.side_state import REST_SECONDS, RestingPairs, SideState
from graphrec.serving.writes import ForgetWrite, KeyedWrite, Write, decode_writes

CHECK_SECONDS = 0.5
"""Seconds between two looks at whether writes are to be saved in the bundle."""

RETRY_SECONDS = 60.0
"""Seconds after which saving is tried again when it has failed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServingConfig:
    """How a bundle is served.

    Attributes:
        rest: seconds for which a dismissed person is not suggested again to the user.
        save_bytes: size of the log from which its writes are saved in the bundle.
        save_seconds: age of the oldest unsaved write from which they are, however few.
        forget_seconds: time for which users may be hidden, before writes are saved to delete them.
        storage: how the log is written.
    """

    rest: int = REST_SECONDS
    save_bytes: int = 32 * 2**20
    save_seconds: float = 3600.0
    forget_seconds: float = 300.0
    storage: Storage = DISK


class ServedBundle:
    """A bundle in service, by one process at a time.

    Args:
        folder: of the bundle.
        config: how it is served.
        on_batch: as in `Engine`.

    Raises:
        FileNotFoundError, DataError: there is no bundle, or it or its log is damaged; or another process
            serves it.

    Attributes:
        folder: as given.
        engine: answers requests.
        committer: makes writes durable.
        rules: changes blocks and opt-outs.
        num_saves, num_failed_saves, num_reloads, num_failed_reloads: since the start.
    """

    def __init__(
        self,
        folder: Path,
        config: ServingConfig | None = None,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.folder, self._config, self._files = folder, config or ServingConfig(), ServingFiles(folder)
        self.num_saves = self.num_failed_saves = self.num_reloads = self.num_failed_reloads = 0
        gc.collect()
        gc.freeze()  # the modules: a full collection would look at all of them
        with ExitStack() as stack:
            if manifests.current_version(folder) is None:
                raise FileNotFoundError(f"no such file: {folder / manifests.MANIFEST}")
            stack.enter_context(self._files.only_server())
            bundle = Bundle.load(folder)
            file, self._state = self._open_log(bundle)
            stack.callback(file.close)
            if not contained(bundle, self._files.log)[1]:
                compact(folder)  # so that it says from now on what it contains
                bundle = Bundle.load(folder)
            self._saved_until = contained(bundle, self._files.log)[0]
            applied, position = catch_up(bundle, self._files.log)
            logged = _writes(file)
            RuleStore(folder).change(forget=with_rules_left(logged))  # those forgotten just before a crash
            live = LiveBundle(applied.bundle, position, _copied(self._state.resting))
            _warm_up(live.bundle)
            self.engine = Engine(live, on_batch)
            stack.callback(self.engine.close)
            self.committer = Committer(file, self._state, self.engine.deliver)
            stack.callback(self.committer.close)
            self.rules = RuleWriter(lambda: RuleStore(folder))
            stack.callback(self.rules.close)
            self._unsaved_since: float | None = None
            self._hidden_since: float | None = (
                time.monotonic() if any(isinstance(one, ForgetWrite) for one in logged) else None
            )
            self._failed_at = -RETRY_SECONDS
            self._wanted = threading.Event()
            self._process: subprocess.Popen[str] | None = None
            self._save_now = self._reload_now = self._closed = False
            self._keeper = threading.Thread(target=self._keep, name="graphrec-keeper", daemon=True)
            self._keeper.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, entry: KeyedWrite) -> Future[Receipt]:
        """Make a write durable; see `Committer.submit`."""
        return self.committer.submit(entry)

    def forget(self, user: str) -> Future[Receipt]:
        """Forget a user: they are hidden at once, and soon deleted from the bundle, the log and the rules."""
        out = self.committer.submit(KeyedWrite(ForgetWrite(user)))
        out.add_done_callback(lambda done: self._delete_soon() if done.exception() is None else None)
        return out

    def _delete_soon(self) -> None:
        if self._hidden_since is None:
            self._hidden_since = time.monotonic()

    def save_soon(self) -> None:
        """Save the writes in the bundle soon, in a process beside."""
        self._save_now = True
        self._wanted.set()

    def reload_soon(self) -> None:
        """Load the version in the folder soon, beside the one in service, and go on with it."""
        self._reload_now = True
        self._wanted.set()

    @property
    def is_reloading(self) -> bool:
        """Whether a version is to be loaded, or is being loaded."""
        return self._reload_now

    @property
    def saved_position(self) -> int:
        """Position after the last write in the bundle on the disk."""
        return self._saved_until

    @property
    def is_alive(self) -> bool:
        """Whether the threads that answer and write are running."""
        return self.engine.is_alive and self.committer.is_alive and self.rules.is_alive

    def close(self) -> None:
        """Make and answer what waits, and stop. The writes stay in the log."""
        if self._closed:
            return
        self._closed = True
        self._wanted.set()
        if (process := self._process) is not None:
            process.terminate()  # a version that is half written does not count
        self._keeper.join()
        self._stack.close()

    def save(self) -> None:
        """Save the writes in the bundle, in a process beside, and begin a new log without them.

        Raises:
            OSError, DataError: it failed; the log stays as it is.
        """
        self._save_now, hidden_since, self._hidden_since = False, self._hidden_since, None
        command = [sys.executable, "-m", "graphrec.serving.compaction", str(self.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            self._process = process
            out, errors = process.communicate()
        self._process = None
        if process.returncode:
            self._hidden_since = hidden_since or self._hidden_since
            raise OSError(errors.strip().splitlines()[-1] if errors.strip() else "the process was killed")
        found = Compaction(**json.loads(out.splitlines()[-1]))
        users = manifests.read_current(
            self.folder, lambda version: pq.read_table(version.file(IDS))["user"].combine_chunks()
        )
        now = self.engine.call(lambda live: live.now).result()

        def accept(live: LiveBundle) -> bool:
            live.expire(now)
            is_known = found.replaced in live.bundle.origin.versions
            if is_known and current_digest(self.folder) == found.digest:
                live.bundle.origin.accept(found.digest, users)
            return is_known and not live.gone

        is_same = self.engine.call(accept).result()
        self.committer.between(lambda: self._state.resting.expire(now)).result()
        self.committer.rotate(found.position).result()
        self._saved_until, self._unsaved_since = found.position, None
        self.num_saves += 1
        self._reload_now |= not is_same

    def reload(self) -> None:
        """Load the version in the folder, let it take in the writes since, and go on with it.

        Raises:
            FileNotFoundError, DataError, OSError: it cannot be loaded; the bundle in service stays.
        """
        version = manifests.current_version(self.folder)
        if version is None:
            raise FileNotFoundError(f"no such file: {self.folder / manifests.MANIFEST}")
        if not contained_in(version.digest, version.content.get("log_position"), self._files.log)[1]:
            self.save()  # so that it says from now on what it contains
        position = self.engine.keep_records().result()
        self._reload_now = False
        loaded = Bundle.load(self.folder)
        applied, end = catch_up(loaded, self._files.log, position)
        _warm_up(applied.bundle)
        self.engine.replace(applied.bundle, end).result()
        self.num_reloads += 1
        del loaded, applied
        gc.collect()  # the bundle before is a cycle

    def _open_log(self, bundle: Bundle) -> tuple[RecordFile, SideState]:
        path = self._files.log
        if not path.exists():
            position = bundle.origin.log_position or 0
            state = SideState()
            state.base = bundle.digest
            RecordFile.create(path, Start(position, state.plain()), iter(()), self._config.storage).close()
        file = RecordFile(path, self._config.storage)
        return file, read_state(file, self._config.rest)

    def _keep(self) -> None:
        """Save and reload when it is time, in a thread of its own."""
        while not self._closed:
            self._wanted.wait(CHECK_SECONDS)
            self._wanted.clear()
            if self._closed:
                return
            if self._is_due():
                try:
                    self.save()
                except Exception as error:
                    self.num_failed_saves += 1
                    self._failed_at = time.monotonic()
                    log.error("writes could not be saved in the bundle; they stay in the log: %s", error)
            if self._reload_now:
                try:
                    self.reload()
                except Exception as error:
                    self._reload_now = False
                    self.engine.drop_records()
                    self.num_failed_reloads += 1
                    log.error("the bundle could not be reloaded; the one in service stays: %s", error)

    def _is_due(self) -> bool:
        if self._save_now:
            return True
        now = time.monotonic()
        if now - self._failed_at < RETRY_SECONDS:
            return False
        if self._hidden_since is not None and now - self._hidden_since > self._config.forget_seconds:
            return True  # also when all is saved: a kill may have left the log and the rows as they were
        if self.committer.position <= self._saved_until:
            return False
        if self._unsaved_since is None:
            self._unsaved_since = now
        return (
            now - self._unsaved_since > self._config.save_seconds
            or self.committer.num_bytes > self._config.save_bytes
        )


def _writes(file: RecordFile) -> list[Write]:
    """The writes in a log."""
    contents = file.read(file.start.position)
    return [entry.write for content in contents for entry in decode_writes(content)]


def _warm_up(bundle: Bundle) -> None:
    """Answer and append once, so that what is made at the first request, or the first event, is there."""
    append_nothing(bundle)
    for size in (1, 8):
        bundle.suggest(bundle.graph.events().src[-size:], k=1)


def _copied(resting: RestingPairs) -> RestingPairs:
    out = RestingPairs(resting.rest)
    out.restore(resting.plain())
    return out
