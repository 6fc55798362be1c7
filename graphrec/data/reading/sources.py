"""Files by path, folder, pattern or address."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from graphrec.data.errors import DataError

FilePath: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = FilePath | Sequence[FilePath]
"""A file, a folder, a pattern such as `logs/*.csv`, an address such as `s3://bucket/logs`, or several."""

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
GLOB_CHARACTERS = re.compile(r"[*?\[]")
CONNECT_SECONDS = 10
"""Time without an answer after which an address is given up."""

RETRY_SECONDS = 4
"""Time after which Google's client starts no new attempt; its pauses double, so 10 would become 24."""


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes:
        filesystem: its file system.
        path: its path there.
        name: its name in messages.
        size: bytes.
        keys: values of the folders above it, by name: `action=sms/` gives {"action": "sms"}.
    """

    filesystem: pafs.FileSystem
    path: str
    name: str
    size: int
    keys: dict[str, str] = field(default_factory=dict)


def find_files(paths: Paths, filesystem: Any = None) -> list[SourceFile]:
    """Find the files of paths, in order of their full paths.

    Files and folders with names that begin with `.` or `_` are left out of folders and patterns.

    Args:
        paths: see `Paths`.
        filesystem: the file system: one of `pyarrow.fs` or of fsspec; by default the local one, or that of
            the address.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: an address cannot be reached, a folder holds no file, or a file is named twice.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not given:
        raise DataError("no file is given")
    common = _common_folder([os.fspath(path) for path in given])
    files = [file for path in given for file in _expand(os.fspath(path), filesystem, common)]
    files.sort(key=lambda file: file.path)
    for before, after in pairwise(files):
        if before.path == after.path and before.filesystem.equals(after.filesystem):
            raise DataError(f"{after.name}: is given twice")
    return files


def describe(paths: Paths) -> str:
    """Return a name for all files together, for messages."""
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    more = f" and {len(given) - 1} more" if len(given) > 1 else ""
    return f"{os.fspath(given[0])}{more}"


def _common_folder(paths: list[str]) -> str | None:
    """The common folder of several local paths; folders below it may be keys such as `action=sms`."""
    if len(paths) < 2 or any(ADDRESS.match(path) for path in paths):
        return None
    return os.path.commonpath([os.path.abspath(path) for path in paths])


def _expand(given: str, filesystem: Any, common: str | None) -> list[SourceFile]:
    if "\0" in given or not given:
        raise DataError(f"{given!r} is not a path")
    where, path = _locate(given, filesystem)
    try:
        info = where.get_file_info(path)
        if info.type == pafs.FileType.NotFound and GLOB_CHARACTERS.search(path):
            return _matches(given, where, path)
        if info.type == pafs.FileType.NotFound:
            raise FileNotFoundError(f"no such file: {given}")
        if info.type == pafs.FileType.Directory:
            found = where.get_file_info(pafs.FileSelector(path, recursive=True))
            files = _select(found, where, path, given, lambda _: True)
            if not files:
                raise DataError(f"{given}: the folder holds no files")
            return files
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{given}: cannot be reached ({_first_line(error)})") from None
    if info.type != pafs.FileType.File:
        raise DataError(
            f"{given}: is a pipe or a device, which can be read only once; save it as a file first"
        )
    below = os.path.relpath(os.path.abspath(given), common) if common else os.path.basename(path)
    return [SourceFile(where, path, given, info.size, _keys(below))]


def _locate(given: str, filesystem: Any) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or an address, and the path in it."""
    if filesystem is not None:
        if isinstance(filesystem, pafs.FileSystem):
            return filesystem, given.rstrip("/")
        if hasattr(filesystem, "protocol"):
            return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), given.rstrip("/")
        raise DataError(
            f"filesystem is a {type(filesystem).__name__}; it must be one of pyarrow.fs or of fsspec"
        )
    if not ADDRESS.match(given):
        return pafs.LocalFileSystem(), given
    scheme = given.split("://")[0].lower()
    if scheme not in SCHEMES:
        raise DataError(
            f"{given}: addresses of {scheme}:// cannot be read, those of {', '.join(SCHEMES)} can; "
            "download the file, or pass filesystem="
        )
    try:
        return _connect(scheme, given)
    except (OSError, ValueError, pa.ArrowException, NotImplementedError) as error:
        raise DataError(f"{given}: cannot be reached ({_first_line(error)})") from None


def _connect(scheme: str, address: str) -> tuple[pafs.FileSystem, str]:
    parts = urlsplit(address)
    path = unquote(f"{parts.netloc}{parts.path}").rstrip("/")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    known = {"region", "endpoint_override", "scheme"}
    if scheme == "s3" and "@" not in parts.netloc and options.keys() <= known:
        retries = pafs.AwsStandardS3RetryStrategy(max_attempts=2)
        limits = {"connect_timeout": CONNECT_SECONDS, "request_timeout": 6 * CONNECT_SECONDS}
        return pafs.S3FileSystem(retry_strategy=retries, **limits, **options), path
    if scheme in ("gs", "gcs") and "@" not in parts.netloc and not options:
        return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=RETRY_SECONDS)), path
    if scheme == "file" and not parts.netloc:
        return pafs.LocalFileSystem(), unquote(parts.path)
    where, path = pafs.FileSystem.from_uri(address)
    return where, path


def _matches(given: str, where: pafs.FileSystem, pattern: str) -> list[SourceFile]:
    parts = PurePosixPath(pattern).parts
    first = next(number for number, part in enumerate(parts) if GLOB_CHARACTERS.search(part))
    base = str(PurePosixPath(*parts[:first])) if first else ""
    selector = pafs.FileSelector(base, allow_not_found=True, recursive=True)
    wanted = parts[first:]
    files = _select(
        where.get_file_info(selector), where, base, given, lambda below: _fits(below.split("/"), wanted)
    )
    if not files:
        raise FileNotFoundError(f"no file fits the pattern {given}")
    return files


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether a path fits a pattern, part by part; `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _select(
    found: Iterable[pafs.FileInfo], where: pafs.FileSystem, base: str, given: str, wanted: Any
) -> list[SourceFile]:
    """The files below `base` that are wanted, without the hidden ones."""
    address = given.split("://")[0] + "://" if ADDRESS.match(given) else ""
    files = []
    for info in found:
        below = info.path[len(base) :].lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in below.split("/"))
        if info.type == pafs.FileType.File and not hidden and wanted(below):
            files.append(SourceFile(where, info.path, address + info.path, info.size, _keys(below)))
    return files


def _keys(below: str) -> dict[str, str]:
    folders = [part.partition("=") for part in below.split("/")[:-1]]
    return {unquote(name): unquote(value) for name, equals, value in folders if name and equals}


def _first_line(error: Exception) -> str:
    line = str(error).split("\n")[0].split(" Detail: ")[0].rstrip(".")
    return line if len(line) <= 200 else f"{line[:200]}..."
