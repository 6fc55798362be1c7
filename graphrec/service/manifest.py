"""A versioned folder whose manifest lists every file of the current version, with its size and checksum.

The files of a version are in a folder `version-N`, and the manifest names the current version. The manifest
is replaced last, atomically, when all files are on the disk: after a crash or on a full disk the old version
remains. Each version holds a copy of its manifest, so that exactly the files of an old version are deleted,
and no other file in the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from graphrec.data.checksum import file_digest
from graphrec.data.errors import DataError
from graphrec.service.lock import LOCK, read_lock

FORMAT, FORMAT_VERSION = "graphrec.Bundle", 3
MANIFEST = "manifest.json"
RULES = "rules.sqlite"

RULES_MIGRATION = {
    1: "; add its blocks and opt-outs, in rules.json, with `graphrec block` and `opt-out --file`",
    2: f"; copy its {RULES} into that folder first, to keep blocks and opt-outs",
}
"""How to keep the rules of a bundle of an older format version."""

INCOMPLETE_MANIFEST = {"format": FORMAT, "state": "being written"}
"""Content of the manifest inside a version that is not complete."""

MAX_READ_ATTEMPTS, ATTEMPTS_WITHOUT_LOCK = 10, 3
"""Attempts of a reader whose version is replaced while it reads: in all, and before it keeps writers out."""

VERSION_NAME = re.compile(r"version-([1-9][0-9]*)")
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class StaleBundleError(DataError):
    """Another writer has replaced the version that a bundle was made from."""


@dataclass(frozen=True)
class Version:
    """The current version, as its manifest describes it.

    Attributes:
        path: folder of its files.
        content: of the manifest.
        digest: SHA-256 of the content, which identifies the version.
    """

    path: Path
    content: dict[str, Any]
    digest: str

    def file(self, name: str) -> Path:
        """The path of a file of the version, after checking its size and checksum.

        Raises:
            DataError: it is damaged, truncated or missing.
        """
        path, known = self.path / name, self.content["files"].get(name)
        if known is None or not path.is_file():
            raise DataError(f"{path}: the file is missing")
        size = path.stat().st_size
        if size != known["bytes"]:
            raise DataError(f"{path}: truncated or replaced: {size:,} bytes, {known['bytes']:,} were written")
        if file_digest(path) != known["sha256"]:
            raise DataError(f"{path}: damaged or replaced: its content is not what was written")
        return path

    def check(self) -> None:
        """Check the size and checksum of all files. Raises DataError that names a wrong one."""
        for name in self.content["files"]:
            self.file(name)
        inside = self.path / MANIFEST
        if not inside.is_file() or _parse(inside)[1] != self.digest:
            raise DataError(f"{inside}: damaged or missing: not the manifest of {self.path.parent}")


def check_target(folder: Path) -> None:
    """Check that a bundle can be written to a folder, before any work is done.

    Raises:
        DataError: the folder holds something else, or is a file.
        FileNotFoundError: its parent is missing.
        PermissionError: there is no permission to write.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; a bundle is a folder, give another name")
    if not folder.exists() and not folder.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {folder.parent}; make it first")
    outer = enclosing_bundle(folder)
    if outer is not None:
        raise DataError(f"{folder}: lies in the bundle {outer}; give another place")
    writable = folder if folder.exists() else folder.parent
    if not os.access(writable, os.W_OK | os.X_OK):
        raise PermissionError(f"{writable}: no permission to write here")
    if not folder.exists() or current_version(folder) is not None:
        return
    foreign = [path for path in folder.iterdir() if not _is_own(path)]
    if foreign:
        raise DataError(
            f"{folder}: holds other files ({foreign[0].name}), and no {MANIFEST}; give a new folder"
        )


def enclosing_bundle(path: Path) -> Path | None:
    """The folder of the bundle that a path is in; None if it is in none."""
    above = Path(os.path.realpath(path)).parents
    return next((one for one in above if (one / MANIFEST).is_file() and (one / RULES).is_file()), None)


def current_version(folder: Path) -> Version | None:
    """The current version, its files not yet checked; None without a manifest.

    Raises:
        DataError: the manifest is damaged, not of graphrec, or of another format version.
    """
    path = folder / MANIFEST
    try:
        content, found = _parse(path)
    except FileNotFoundError:
        return None
    if VERSION_NAME.fullmatch(str(content.get("folder"))) is None or "files" not in content:
        raise DataError(f"{path}: damaged (it names no version)")
    return Version(folder / content["folder"], content, found)


def current_digest(folder: str | os.PathLike[str]) -> str | None:
    """The digest of the current version of a bundle in a folder; None without a bundle."""
    version = current_version(Path(folder))
    return None if version is None else version.digest


def read_current(folder: Path, reader: Callable[[Version], T]) -> T:
    """Read the current version; if a writer replaces it meanwhile, read the next one.

    Needs no permission to write. After a few attempts writers are kept out.

    Args:
        folder: of the bundle.
        reader: reads a version; called again if its files are replaced.

    Returns:
        the result of the reader.

    Raises:
        FileNotFoundError: there is no manifest.
        DataError: it is damaged, or errors of the reader.
    """
    for attempt in range(MAX_READ_ATTEMPTS):
        with read_lock(folder) if attempt >= ATTEMPTS_WITHOUT_LOCK else nullcontext():
            version = current_version(folder)
            if version is None:
                raise FileNotFoundError(
                    f"no such file: {folder / MANIFEST}; {folder} is no bundle of graphrec"
                )
            try:
                return reader(version)
            except Exception:
                if attempt == MAX_READ_ATTEMPTS - 1 or current_digest(folder) in (None, version.digest):
                    raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def write_version(folder: Path, head: dict[str, Any], fill: Callable[[Path], None]) -> str:
    """Write a version and make it the current one; older ones stay. The caller holds the write lock.

    Args:
        folder: one that `check_target` allows.
        head: the content of the manifest besides the files, plain values.
        fill: writes the files into the empty folder that it is given.

    Returns:
        the digest of the version.

    Raises:
        OSError: the disk is full, or cannot be written; the half-written version is removed, nothing changed.
    """
    numbers = [int(one[1]) for path in folder.iterdir() if (one := VERSION_NAME.fullmatch(path.name))]
    inside = folder / f"version-{max(numbers, default=0) + 1}"
    with _removed_on_failure(folder, inside), full_disk_errors_named(inside):
        inside.mkdir()
        _write_json(inside / MANIFEST, INCOMPLETE_MANIFEST)
        fill(inside)
        files = sorted(path for path in inside.rglob("*") if path.is_file() and path != inside / MANIFEST)
        for path in files:
            sync(path)
        for path in (inside, *(path for path in inside.rglob("*") if path.is_dir())):
            sync(path)
        content = {"format": FORMAT, "format_version": FORMAT_VERSION, **head} | {
            "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "folder": inside.name,
            "files": {
                path.relative_to(inside).as_posix(): {
                    "bytes": path.stat().st_size,
                    "sha256": file_digest(path),
                }
                for path in files
            },
        }
        found = _digest_of(content)
        for place in (inside, folder):
            new = inside / f"{MANIFEST}.new"
            _write_json(new, content | {"digest": found})
            os.replace(new, place / MANIFEST)
            sync(place)
    return found


def old_version(folder: Path, digest: str) -> Version | None:
    """The version of a digest in a folder, whether or not it is the current one; None if it is deleted."""
    for path in filter(_is_version, folder.iterdir()):
        with suppress(DataError):  # what is half-written
            content, found = _parse(path / MANIFEST)
            if found == digest:
                return Version(path, content, found)
    return None


def delete_stale(folder: Path) -> None:
    """Delete old and incomplete versions, but no file that graphrec did not write.

    A warning reports versions that cannot be deleted, or that hold other files.
    """
    version = current_version(folder)
    for path in sorted(folder.iterdir()):
        if (version is None or path != version.path) and _is_version(path):
            try:
                if path.is_symlink():
                    raise OSError(f"it is a link to {os.path.realpath(path)}; delete that and the link")
                _delete_version(path)
            except OSError as error:
                warnings.warn(f"{path}: an old version that could not be deleted ({error})", stacklevel=2)


@contextmanager
def full_disk_errors_named(folder: Path) -> Iterator[None]:
    """Turn errors of a full disk, or of a limit on file sizes, into one OSError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise _no_space(error.filename or _latest(folder), error.errno) from None
    except RuntimeError as error:
        if "inline_container" not in str(error) and "PytorchStreamWriter" not in str(error):
            raise  # torch's writer raises these without the reason
        raise _no_space(_latest(folder), errno.ENOSPC) from None


def _no_space(path: object, number: int) -> OSError:
    found = OSError(
        f"no space left: {path} (the disk is full, or the file larger than allowed); nothing was changed"
    )
    found.errno = number
    return found


def _latest(folder: Path) -> Path:
    """The file that was written last."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=folder)


@contextmanager
def _removed_on_failure(folder: Path, inside: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        version = current_version(folder)
        if version is None or version.path != inside:  # an interrupt may come just after the replacement
            shutil.rmtree(inside, ignore_errors=True)
        raise


def _is_own(path: Path) -> bool:
    """Whether graphrec made this file or folder before there was a manifest."""
    if VERSION_NAME.fullmatch(path.name) and path.is_dir() and not any(path.iterdir()):
        return True  # the writer was killed before the first file
    rules = {f"{RULES}{begun}{journal}" for begun in ("", ".new") for journal in ("", "-journal")}
    return path.name in {LOCK, *rules} or _is_version(path)


def _is_version(path: Path) -> bool:
    """Whether a folder is a version of graphrec, by its name and manifest."""
    if VERSION_NAME.fullmatch(path.name) is None or not path.is_dir():
        return False
    try:
        return bool(json.loads((path / MANIFEST).read_text())["format"] == FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _delete_version(path: Path) -> None:
    files = json.loads((path / MANIFEST).read_text()).get("files")
    if files is None:  # never the current one: all files are of the writer that was killed
        shutil.rmtree(path)
        return
    links = [path / name for name in files if (path / name).is_symlink()]
    if links:
        raise OSError(f"{links[0].name} is a link to {os.path.realpath(links[0])}; delete that and the link")
    for name in (*files, f"{MANIFEST}.new"):  # a writer may have been killed just before it counted
        (path / name).unlink(missing_ok=True)
    foreign = [other for other in path.rglob("*") if not other.is_dir() and other != path / MANIFEST]
    if foreign:
        raise OSError(f"graphrec did not write {foreign[0].name} in it")
    for below in sorted((other for other in path.rglob("*") if other.is_dir()), reverse=True):
        below.rmdir()
    (path / MANIFEST).unlink(missing_ok=True)
    path.rmdir()


def _parse(path: Path) -> tuple[dict[str, Any], str]:
    """The content of a manifest and its digest. Raises DataError if it is damaged."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no plain file; {path.parent} is no bundle of graphrec")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise DataError(f"{path}: not a bundle of graphrec")
        number = content.get("format_version", content.get("version"))
        if number != FORMAT_VERSION:
            raise DataError(
                f"{path}: a bundle of format version {number}; this graphrec reads version {FORMAT_VERSION}: "
                "fit the log anew into a new folder" + RULES_MIGRATION.get(number, "")
            )
        found = content.pop("digest")
        if found != _digest_of(content):
            raise ValueError("its content is not what was written")
    except (FileNotFoundError, PermissionError, DataError):
        raise
    except NotADirectoryError:
        raise DataError(f"{path.parent}: is a file; a bundle of graphrec is a folder") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged, or not a bundle of graphrec ({error})") from None
    return content, str(found)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with path.open("w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
