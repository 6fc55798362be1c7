"""The file of durable records: torn ends, damaged middles, full disks."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data.errors import DataError
from graphrec.serving.record_file import DISK, RecordFile, Start, read_records

CONTENTS = [b'{"a": 1}', b"", b"x" * 300, b"last"]


class FullDisk:
    """A disk that takes so many bytes more, and then is full."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, file: BinaryIO, content: bytes) -> None:
        part = content[: self.room]
        DISK.write(file, part)
        self.room -= len(part)
        if len(part) < len(content):
            raise OSError(errno.ENOSPC, "No space left on device")

    def sync(self, file: BinaryIO) -> None:
        DISK.sync(file)


def written(path: Path, contents: list[bytes], position: int = 7) -> list[int]:
    """Write a file, and return the number of bytes after its start and after each record."""
    file = RecordFile.create(path, Start(position, {"a": [1]}), iter(()))
    sizes = [file.num_bytes]
    for number, content in enumerate(contents):
        assert file.append(content) == position + number
        sizes.append(file.num_bytes)
    file.close()
    return sizes


def test_records_are_read_back_with_their_positions(tmp_path: Path) -> None:
    path = tmp_path / "writes.log"
    written(path, CONTENTS)
    file = RecordFile(path)
    assert (file.start, file.position, file.cut_bytes) == (Start(7, {"a": [1]}), 11, 0)
    assert file.read(7) == CONTENTS
    assert file.read(9) == CONTENTS[2:]
    assert file.read(11) == []
    assert file.append(b"more") == 11
    file.close()
    assert read_records(path, 10) == ([b"last", b"more"], 12)
    assert read_records(path, 8, 10) == (CONTENTS[1:3], 10)


def test_a_torn_end_is_cut_off_at_every_byte(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "writes.log"
    sizes = written(path, CONTENTS)
    whole = path.read_bytes()
    for size in range(sizes[0], len(whole) + 1):
        path.write_bytes(whole[:size])
        complete = sum(end <= size for end in sizes[1:])
        caplog.clear()
        file = RecordFile(path)
        assert file.read(7) == CONTENTS[:complete]
        assert file.cut_bytes == size - sizes[complete]
        assert bool(caplog.messages) == bool(file.cut_bytes)
        file.append(b"after")
        file.close()
        assert read_records(path, 7)[0] == [*CONTENTS[:complete], b"after"]


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xf7gRw"])
def test_a_torn_end_may_hold_anything(tmp_path: Path, filling: bytes) -> None:
    path = tmp_path / "writes.log"
    written(path, CONTENTS)
    path.write_bytes(path.read_bytes() + filling * 100)
    file = RecordFile(path)
    assert file.read(7) == CONTENTS
    assert file.cut_bytes == 100 * len(filling)
    file.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_middle_is_an_error_that_names_the_place(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "writes.log"
    sizes = written(path, CONTENTS)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, sizes[-2] - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"writes\.log: (damaged at byte|is no file)"):
        RecordFile(path)
    assert path.read_bytes() == content  # nothing is cut off


@pytest.mark.parametrize("room", range(0, 60, 7))
def test_a_full_disk_refuses_the_record_and_keeps_the_others(tmp_path: Path, room: int) -> None:
    path = tmp_path / "writes.log"
    disk = FullDisk(10**6)
    file = RecordFile.create(path, Start(0, {}), iter([b"first"]), disk)
    disk.room = room
    with pytest.raises(OSError, match="No space left"):
        file.append(b"y" * 60)
    assert path.stat().st_size == file.num_bytes
    disk.room = 10**6
    assert file.append(b"second") == 1
    file.close()
    assert read_records(path, 0)[0] == [b"first", b"second"]


def test_a_record_that_could_not_be_cut_off_is_cut_off_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "writes.log"
    disk = FullDisk(10**6)
    file = RecordFile.create(path, Start(0, {}), iter(()), disk)
    disk.room, failing = 20, True
    real = os.fsync

    def sync(number: int) -> None:
        if failing:
            raise OSError(errno.EIO, "Input/output error")
        real(number)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"z" * 60)
    disk.room = 10**6
    with pytest.raises(OSError, match="Input/output error"):
        file.append(b"still failing")
    failing = False
    assert file.append(b"good") == 0
    file.close()
    assert read_records(path, 0)[0] == [b"good"]


def test_a_new_file_replaces_the_older_one_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "writes.log"
    written(path, CONTENTS)
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        RecordFile.create(path, Start(9, {}), iter(CONTENTS), FullDisk(100))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    file = RecordFile.create(path, Start(9, {}), iter(CONTENTS[2:]))
    assert file.append(b"new") == 11
    file.close()
    assert read_records(path, 9)[0] == [*CONTENTS[2:], b"new"]


def test_a_file_of_another_time_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "writes.log"
    written(path, CONTENTS)
    with pytest.raises(
        DataError, match="begins at position 7, but the bundle contains only what came before 3"
    ):
        read_records(path, 3)
    with pytest.raises(DataError, match="ends at position 11, but the bundle contains what came before 20"):
        read_records(path, 20)


@pytest.mark.parametrize("content", [b"", b"src,dst\n1,2\n", b"\xf7gRw"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "writes.log"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no file of graphrec's writes"):
        RecordFile(path)
