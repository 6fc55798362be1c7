"""An append-only file of records: each has its length and checksum, and is on the disk when `append` returns.

A record is written by one call and flushed before the next one begins, so that a crash can tear the last
record alone. Records are numbered from the file's start position; their *positions* go on from file to file.
"""

from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from graphrec.data.errors import DataError
from graphrec.service.manifest import sync

FORMAT, FORMAT_VERSION = "graphrec.writes", 1
MAGIC = b"\xf7gRw"
HEADER = struct.Struct("<4sII")
"""Magic, bytes of the content, CRC32 of the content."""

MAX_RECORD_BYTES = 2**28

log = logging.getLogger(__name__)


class Storage(Protocol):
    """The calls that write, to be replaced in tests of disks that fail."""

    def write(self, file: BinaryIO, content: bytes) -> None:
        """Write all of some bytes at the end of a file that is opened without a buffer."""

    def sync(self, file: BinaryIO) -> None:
        """Flush a file to the disk."""


class Disk:
    """Storage that writes to files."""

    def write(self, file: BinaryIO, content: bytes) -> None:
        """See `Storage`."""
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]

    def sync(self, file: BinaryIO) -> None:
        """See `Storage`."""
        os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())


DISK = Disk()


@dataclass(frozen=True)
class Start:
    """The first record of a file.

    Attributes:
        position: of the record that follows; those before it are in the bundle.
        state: plain values that earlier records left behind.
    """

    position: int
    state: dict[str, Any]


def encode_record(content: bytes) -> bytes:
    """A record as it stands in the file. Raises ValueError if it is larger than `MAX_RECORD_BYTES`."""
    if len(content) > MAX_RECORD_BYTES:
        raise ValueError(f"a record has {len(content):,} bytes, more than the {MAX_RECORD_BYTES:,} allowed")
    return HEADER.pack(MAGIC, len(content), zlib.crc32(content)) + content


class RecordFile:
    """A file of records, open for appending; its only writer.

    Args:
        path: of the file.
        storage: how bytes are written.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is damaged before its last record, or holds something else.

    Attributes:
        storage: how bytes are written.
        start: the first record.
        position: that the next record will have.
        num_bytes: of the complete records, which are on the disk.
        cut_bytes: of a torn record at the end that was cut off when the file was opened.
    """

    def __init__(self, path: Path, storage: Storage = DISK) -> None:
        self.path, self.storage = path, storage
        self._file: BinaryIO = path.open("r+b", buffering=0)
        try:
            scan = _scan(path, self._file.read())
            self.start, self.position, self.num_bytes = scan.start, scan.end, scan.num_bytes
            self.cut_bytes = scan.size - scan.num_bytes
            if self.cut_bytes:
                log.warning(
                    "%s: the last record was incomplete, as after a crash: %d bytes after position %d were "
                    "cut off; they had not been acknowledged",
                    path,
                    self.cut_bytes,
                    self.position,
                )
            self._cut_back()
        except BaseException:
            self._file.close()
            raise
        self._is_torn = False

    @classmethod
    def create(
        cls, path: Path, start: Start, records: Iterator[bytes], storage: Storage = DISK
    ) -> RecordFile:
        """Write a new file in one step, in the place of an older one if there is one.

        Args:
            path: of the file.
            start: its first record.
            records: contents of the records that follow.
            storage: how bytes are written.

        Raises:
            OSError: it cannot be written; the older file stays.
        """
        new = path.with_name(f"{path.name}.new")
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "position": start.position}
        try:
            with new.open("wb", buffering=0) as file:
                storage.write(file, encode_record(json.dumps(head | {"state": start.state}).encode()))
                for content in records:
                    storage.write(file, encode_record(content))
                storage.sync(file)
            out = cls(
                new, storage
            )  # open before it counts: no later step may fail and leave the older one open
        except (OSError, DataError):
            new.unlink(missing_ok=True)
            raise
        os.replace(new, path)
        out.path = path
        try:
            sync(path.parent)
        except OSError:
            log.exception("%s: its folder could not be flushed to the disk", path)
        return out

    def append(self, content: bytes) -> int:
        """Append a record, and return its position when it is on the disk.

        Raises:
            OSError: it cannot be written; what was written of it is cut off before the next one.
        """
        record = encode_record(content)
        if self._is_torn:
            self._cut_back()
        self._is_torn = True
        try:
            self.storage.write(self._file, record)
            self.storage.sync(self._file)
        except OSError:
            self._try_cutting_back()
            raise
        self._is_torn = False
        self.num_bytes += len(record)
        self.position += 1
        return self.position - 1

    def _try_cutting_back(self) -> None:
        try:
            self._cut_back()
        except OSError:
            log.exception("%s: an incomplete record could not be cut off yet", self.path)

    def _cut_back(self) -> None:
        self._file.truncate(self.num_bytes)
        self._file.seek(self.num_bytes)
        os.fsync(self._file.fileno())
        self._is_torn = False

    def read(self, first: int) -> list[bytes]:
        """The contents of the records from a position on."""
        return read_records(self.path, first, self.position)[0]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_start(path: Path) -> Start:
    """The first record of a file. Raises FileNotFoundError or DataError as `RecordFile`."""
    return _scan(path, path.read_bytes()).start


def read_records(path: Path, first: int, end: int | None = None) -> tuple[list[bytes], int]:
    """Read records, also while another process appends.

    Args:
        path: of the file.
        first: position of the first record to read.
        end: position after the last one; None for all that are complete.

    Returns:
        their contents, and the position after the last one.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is damaged; or it begins after `first`, or ends before `end`.
    """
    content = path.read_bytes()
    scan = _scan(path, content)
    end = scan.end if end is None else end
    if first < scan.start.position:
        raise DataError(
            f"{path}: begins at position {scan.start.position}, but the bundle contains only what came "
            f"before {first}: an older bundle was put back; put the file of that time back too, or move this "
            "one away to serve the bundle without the writes in it"
        )
    if end > scan.end or first > scan.end:
        raise DataError(
            f"{path}: ends at position {scan.end}, but the bundle contains what came before "
            f"{max(first, end)}: an older file was put back; put the bundle of that time back too, or move "
            "this file away"
        )
    return [content[low:high] for low, high in scan.spans[first - scan.start.position :][: end - first]], end


@dataclass(frozen=True)
class _Scan:
    """What is in a file: its start, the spans of its other records, bytes of complete records and of all."""

    start: Start
    spans: list[tuple[int, int]]
    num_bytes: int
    size: int

    @property
    def end(self) -> int:
        return self.start.position + len(self.spans)


def _scan(path: Path, content: bytes) -> _Scan:
    spans, offset = [], 0
    while (span := _record_at(content, offset)) is not None:
        spans.append(span)
        offset = span[1]
    later = _next_record(content, offset + 1) if offset < len(content) else None
    if later is not None:
        raise DataError(
            f"{path}: damaged at byte {offset:,}: the record there cannot be read, but there are records "
            f"after it, from byte {later:,} on; put the file back from a backup, or "
            "move it away to serve the bundle without the writes in it"
        )
    if not spans:
        raise DataError(f"{path}: is no file of graphrec's writes, or its beginning is damaged")
    return _Scan(_start(path, content[slice(*spans[0])]), spans[1:], offset, len(content))


def _record_at(content: bytes, offset: int) -> tuple[int, int] | None:
    """The span of the content of a whole record at an offset; None if there is none."""
    if len(content) - offset < HEADER.size:
        return None
    magic, size, checksum = HEADER.unpack_from(content, offset)
    begin = offset + HEADER.size
    if magic != MAGIC or size > len(content) - begin:
        return None
    return (
        (begin, begin + size) if zlib.crc32(memoryview(content)[begin : begin + size]) == checksum else None
    )


def _next_record(content: bytes, offset: int) -> int | None:
    """The offset of the next whole record; None if there is none."""
    while (offset := content.find(MAGIC, offset)) >= 0:
        if _record_at(content, offset) is not None:
            return offset
        offset += 1
    return None


def _start(path: Path, content: bytes) -> Start:
    try:
        head = json.loads(content)
        if head["format"] != FORMAT:
            raise ValueError("another format")
        if head["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{path}: of format version {head['format_version']}; this graphrec reads {FORMAT_VERSION}"
            )
        return Start(int(head["position"]), dict(head["state"]))
    except DataError:
        raise
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: is no file of graphrec's writes") from None
