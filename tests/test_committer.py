"""Durable writes: one flush for those that wait together, keys, kills under load, full disks."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphrec.data.errors import DataError
from graphrec.serving.committer import (
    Committer,
    DiskFailedError,
    DiskFullError,
    KeyReusedError,
    Receipt,
    read_state,
)
from graphrec.serving.record_file import DISK, Disk, RecordFile, Start
from graphrec.serving.side_state import IdempotencyKeys, SideState
from graphrec.serving.writes import (
    EventsWrite,
    FeedbackWrite,
    ForgetWrite,
    Key,
    KeyedWrite,
    RulesDeletedWrite,
    Write,
    decode_writes,
    encode_writes,
)

REST = 100


def event(number: int) -> EventsWrite:
    return EventsWrite((str(number),), ("0",), (number,), ("call",))


def keyed(number: int, key: str) -> KeyedWrite:
    return KeyedWrite(event(number), Key.of(key, event(number)))


class Commits:
    """What was committed, by the callback."""

    def __init__(self) -> None:
        self.found: list[tuple[int, list[Write]]] = []

    def __call__(self, position: int, writes: Sequence[Write]) -> None:
        self.found.append((position, list(writes)))


def opened(path: Path, storage: Disk = DISK) -> tuple[Committer, Commits]:
    if not path.exists():
        RecordFile.create(path, Start(0, {}), iter(())).close()
    file, commits = RecordFile(path, storage), Commits()
    return Committer(file, read_state(file, REST), commits), commits


def numbers_in(path: Path) -> Counter[int]:
    file = RecordFile(path)
    found = Counter(
        entry.write.time[0]
        for content in file.read(file.start.position)
        for entry in decode_writes(content)
        if isinstance(entry.write, EventsWrite)
    )
    file.close()
    return found


class SlowDisk(Disk):
    def sync(self, file: BinaryIO) -> None:
        time.sleep(0.05)


def test_writes_that_wait_together_share_a_flush(tmp_path: Path) -> None:
    committer, commits = opened(tmp_path / "log", SlowDisk())
    futures = [committer.submit(KeyedWrite(event(number))) for number in range(50)]
    assert {one.result(10).repeated for one in futures} == {False}
    assert committer.num_flushes <= 3
    assert [w.time[0] for _, writes in commits.found for w in writes if isinstance(w, EventsWrite)] == list(
        range(50)
    )
    assert [position for position, _ in commits.found] == list(range(committer.num_flushes))
    committer.close()
    assert numbers_in(tmp_path / "log") == Counter(range(50))


def test_a_repeated_key_is_acknowledged_once_more_and_not_written(tmp_path: Path) -> None:
    committer, _ = opened(tmp_path / "log", SlowDisk())
    both = [committer.submit(keyed(5, "a")) for _ in range(3)]
    assert sorted(one.result(10).repeated for one in both) == [False, True, True]
    assert committer.submit(keyed(5, "a")).result(10).repeated
    with pytest.raises(KeyReusedError, match="another content"):
        committer.submit(keyed(6, "a")).result(10)
    committer.submit(KeyedWrite(event(5))).result(10)  # without a key
    assert committer.rotate(1).result(10) is None
    committer.close()
    assert numbers_in(tmp_path / "log") == Counter({5: 1})
    again, _ = opened(tmp_path / "log")
    assert again.submit(keyed(5, "a")).result(10) == Receipt(1, repeated=True)
    with pytest.raises(KeyReusedError):
        again.submit(keyed(6, "a")).result(10)
    assert again.position == 2
    again.close()


def test_a_full_disk_refuses_until_there_is_room(tmp_path: Path) -> None:
    class Full(Disk):
        error: int | None = None

        def sync(self, file: BinaryIO) -> None:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))

    disk = Full()
    committer, commits = opened(tmp_path / "log", disk)
    committer.submit(keyed(1, "one")).result(10)
    disk.error = errno.ENOSPC
    with pytest.raises(DiskFullError, match="no space left"):
        committer.submit(keyed(2, "two")).result(10)
    disk.error = errno.EIO
    with pytest.raises(DiskFailedError, match="cannot be written"):
        committer.submit(keyed(2, "two")).result(10)
    disk.error = None
    assert not committer.submit(keyed(2, "two")).result(10).repeated
    committer.close()
    assert len(commits.found) == 2
    assert numbers_in(tmp_path / "log") == Counter([1, 2])


def test_a_file_that_cannot_be_rotated_stays(tmp_path: Path) -> None:
    class Full(Disk):
        full = False

        def write(self, file: BinaryIO, content: bytes) -> None:
            if self.full and file.name.endswith(".new"):
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(file, content)

    disk = Full()
    committer, _ = opened(tmp_path / "log", disk)
    for number in range(3):
        committer.submit(KeyedWrite(event(number))).result(10)
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        committer.rotate(2).result(10)
    committer.submit(KeyedWrite(event(3))).result(10)
    disk.full = False
    committer.rotate(2).result(10)
    committer.submit(KeyedWrite(event(4))).result(10)
    committer.close()
    assert numbers_in(tmp_path / "log") == Counter([2, 3, 4])


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(
    st.lists(
        st.one_of(
            st.builds(lambda a, b: EventsWrite((a,), (b,), (5,), ("x",)), texts, texts),
            st.builds(lambda a: EventsWrite((a,), ("b",), (5,), ("x",), (0.5,)), texts),
            st.builds(lambda a, b: FeedbackWrite((a,), (b,), (-3,), ("dismissed",)), texts, texts),
            st.builds(ForgetWrite, texts),
            st.builds(RulesDeletedWrite, texts),
        ),
        max_size=5,
    ),
    st.booleans(),
)
def test_writes_come_back_as_they_were(writes: list[Write], has_key: bool) -> None:
    entries = [KeyedWrite(one, Key.of("k", one) if has_key else None) for one in writes]
    assert decode_writes(encode_writes(entries)) == entries


def test_a_record_of_something_else_is_an_error() -> None:
    for content in (b"{", b'[{"write": "other"}]', b'[{"write": "forget", "who": "a"}]', b"5"):
        with pytest.raises(DataError, match="no writes of this version"):
            decode_writes(content)


def test_the_oldest_keys_are_forgotten() -> None:
    keys = IdempotencyKeys(maximum=3)
    for number in range(5):
        keys.add(Key(number, 2**64 - 1 - number))
    assert [keys.find(Key(number, 2**64 - 1 - number)) for number in range(5)] == [
        None,
        None,
        True,
        True,
        True,
    ]
    again = IdempotencyKeys()
    again.restore(keys.plain())
    assert again.find(Key(4, 2**64 - 5))
    assert len(again) == 3


def test_dismissed_persons_rest_and_come_back() -> None:
    state = SideState(rest=REST)
    dismissed = FeedbackWrite(
        ("1", "1", "2"), ("7", "8", "7"), (50, 60, 70), ("dismissed", "shown", "dismissed")
    )
    state.add([KeyedWrite(dismissed)])
    assert state.resting.of("1", 51, before=False) == ["7"]
    assert state.resting.of("1", 50, before=True) == []  # a question of before sees nothing
    assert state.resting.of("1", 50, before=False) == ["7"]
    assert state.resting.of("1", 149, before=True) == ["7"]
    assert state.resting.of("1", 150, before=True) == []
    assert state.resting.of("7", 60, before=False) == []  # the dismissed person may still see the user
    again = SideState(rest=REST)
    again.restore(state.plain())
    assert len(again.resting) == 2
    again.resting.expire(150)
    assert again.resting.plain() == {"2": {"7": 70}}
    again.add([KeyedWrite(ForgetWrite("7"))])
    assert len(again.resting) == 0


WRITER = """
import sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_committer as t
committer, _ = t.opened(Path(sys.argv[1]))
first = int(sys.argv[2])
def write(lane):
    number = first + lane
    while True:
        committer.submit(t.keyed(number, str(number))).result()
        sys.stdout.write(f"{number}\\n"); sys.stdout.flush()
        if number % 7 == 0:
            committer.rotate(0)
        number += 4
for lane in range(4):
    threading.Thread(target=write, args=(lane,)).start()
"""


def test_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    path, draw, acknowledged = tmp_path / "log", random.Random(0), set()
    for attempt in range(6):
        command = [sys.executable, "-c", WRITER, str(path), str(attempt * 10**6), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            threading.Timer(draw.uniform(0, 0.3), process.send_signal, (signal.SIGKILL,)).start()
            lines = [first, *process.stdout]
        acknowledged |= {int(line) for line in lines if line.endswith("\n")}
        found = numbers_in(path)
        assert acknowledged <= set(found)
        assert set(found.values()) == {1}
        # What was sent, and perhaps not acknowledged, is sent again with the same key.
        committer, _ = opened(path)
        for number in range(attempt * 10**6, attempt * 10**6 + 50):
            committer.submit(keyed(number, str(number))).result(10)
        committer.close()
        assert set(numbers_in(path).values()) == {1}
    assert len(acknowledged) > 100
