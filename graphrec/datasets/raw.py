"""Raw files of data sets: found, copied, verified by checksum."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import IO, cast
from urllib.request import urlopen
from uuid import uuid4

from graphrec.data import DataError

_BROKEN_ARCHIVE = (EOFError, zlib.error, tarfile.TarError, zipfile.BadZipFile)
MIRROR_VARIABLE = "GRAPHREC_MIRROR"
TIMEOUT_SECONDS = 60
"""Seconds that a download waits for an answer."""


@dataclass(frozen=True)
class RawFile:
    """One file of a data set.

    Attributes:
        path: its path in a mirror and among the bundled files, such as `snap/CollegeMsg.txt.gz`; in a mirror
            it may also be compressed, with `.gz` appended.
        sha256: checksum of the published file.
        source: its original URL, or that of a page where it can be obtained by hand.
        downloadable: whether `source` is the file itself, or an archive of it.
        archive: whether `source` is a zip or tar archive; the file in it is found by its checksum.
    """

    path: str
    sha256: str
    source: str
    downloadable: bool = True
    archive: bool = False

    @property
    def name(self) -> str:
        """The file's name, without folders."""
        return self.path.rpartition("/")[2]

    def fetch(self, folder: Path, mirror: str | os.PathLike[str] | None = None) -> None:
        """Put a verified copy into `folder`, from the first of these places that has it.

        The places: the files bundled with graphrec; the mirror, given here or by the environment variable
        GRAPHREC_MIRROR; the original URL.

        Raises:
            DataError: no place has it; the message lists the attempts and how to get the file by hand.
        """
        failures = []
        for place in self._places(mirror):
            try:
                with _open(place) as stream, replacing(folder / self.name) as partial:
                    with partial.open("wb") as out:
                        shutil.copyfileobj(self._unpacked(place, stream), out)
                    self._check(partial)
                return
            except (OSError, HTTPException, ValueError, *_BROKEN_ARCHIVE) as error:
                failures.append(f"{place} ({error})")
        tried = "; ".join(failures) or "nothing, because no mirror is given and it has no URL of its own"
        raise DataError(f"{self.name} could not be obtained. Tried: {tried}. {self._by_hand(folder)}")

    def verify(self, folder: Path) -> None:
        """Raise DataError unless the file in `folder` is the published one, byte for byte."""
        try:
            self._check(folder / self.name)
        except DataError as error:
            raise DataError(f"{folder / self.name}: {error}. Delete it. {self._by_hand(folder)}") from None

    def _unpacked(self, place: str, stream: IO[bytes]) -> IO[bytes]:
        if self.archive and place == self.source:
            for content in _members(io.BytesIO(stream.read())):
                if hashlib.sha256(content).hexdigest() == self.sha256:
                    return io.BytesIO(content)
            raise DataError(f"no file in this archive has the SHA-256 {self.sha256}")
        if place.endswith(".gz") and not self.path.endswith(".gz"):
            return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        return stream

    def _check(self, path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise DataError(f"the SHA-256 is {found}, expected {self.sha256}")

    def _by_hand(self, folder: Path) -> str:
        source = f"the archive {self.source}" if self.archive else self.source
        return (
            f"To get it by hand, take {self.name} from {source} (SHA-256 {self.sha256}) and put it at "
            f"{folder / self.name}; or give a mirror, a folder or URL prefix that holds {self.path}, by the "
            f"argument `mirror` or the environment variable {MIRROR_VARIABLE}."
        )

    def _places(self, mirror: str | os.PathLike[str] | None) -> Iterator[str]:
        package = Path(str(resources.files("graphrec")))
        for bundle in (package / "bundled", package.parent / "datasets"):  # in a wheel; in a checkout
            if (bundle / self.path).is_file():
                yield str(bundle / self.path)
        mirror = mirror or os.environ.get(MIRROR_VARIABLE)
        if mirror:
            yield f"{os.fspath(mirror).rstrip('/')}/{self.path}"
            if not self.path.endswith(".gz"):
                yield f"{os.fspath(mirror).rstrip('/')}/{self.path}.gz"
        if self.downloadable:
            yield self.source


def _open(place: str) -> IO[bytes]:
    if "://" in place:
        stream: IO[bytes] = urlopen(place, timeout=TIMEOUT_SECONDS)
        return stream
    return Path(place).expanduser().open("rb")


def _members(archive: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of each file in a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from (opened.read(name) for name in opened.namelist())
    else:
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            yield from (file.read() for member in tar if (file := tar.extractfile(member)))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces it on exit unless there was an error."""
    partial = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
