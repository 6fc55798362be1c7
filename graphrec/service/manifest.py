"""A folder that is whole or refused: its manifest names every file, with its size and checksum.

The files lie in a folder of their own inside, numbered on at every writing, and the manifest says which one
counts. It is written last, in one step: whoever is killed on the way leaves what was there before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from graphrec.data import DataError

MANIFEST = "manifest.json"


def write(folder: Path, head: dict[str, Any], fill: Callable[[Path], None]) -> None:
    """Replace what is sealed in a folder, or begin one; what was sealed before is deleted.

    Args:
        folder: it may exist if it is sealed or empty.
        head: what the manifest says beside the files, plain values.
        fill: writes the files into the empty folder that it is given.

    Raises:
        DataError: the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / MANIFEST).exists() and not _only_begun(folder):
        raise DataError(f"{folder}: holds other files, and no {MANIFEST}; give a new folder")
    inside = folder / str(max(_numbers(folder), default=0) + 1)
    inside.mkdir()
    fill(inside)
    files = sorted(path for path in inside.rglob("*") if path.is_file())
    content = head | {
        "folder": inside.name,
        "files": {
            path.relative_to(inside).as_posix(): {"bytes": path.stat().st_size, "sha256": digest(path)}
            for path in files
        },
    }
    written = inside / MANIFEST
    written.write_text(json.dumps(content | {"seal": _digest_of(content)}, indent=2) + "\n")
    os.replace(written, folder / MANIFEST)
    delete_stale(folder)


def read(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the files and the manifest, all found to be as they were written.

    Raises:
        FileNotFoundError: there is no manifest.
        DataError: naming the file that is damaged, truncated or missing.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        content = json.loads(path.read_text())
        seal = content.pop("seal")
        if seal != _digest_of(content):
            raise ValueError("its content is not what was written")
        inside, files = folder / content["folder"], content["files"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error})") from None
    for name, known in files:
        one = inside / name
        if not one.is_file():
            raise DataError(f"{one}: the file is missing")
        size = one.stat().st_size
        if size != known["bytes"]:
            raise DataError(f"{one}: truncated or replaced: {size:,} bytes, {known['bytes']:,} were written")
        if digest(one) != known["sha256"]:
            raise DataError(f"{one}: damaged or replaced: its content is not what was written")
    return inside, content | {"seal": seal}


def delete_stale(folder: Path) -> None:
    """Delete what does not count: what was sealed before, and what a killed writing has left."""
    counts = json.loads((folder / MANIFEST).read_text())["folder"]
    for number in _numbers(folder):
        if str(number) != counts:
            shutil.rmtree(folder / str(number))


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal()]


def _only_begun(folder: Path) -> bool:
    """Whether nothing is there but the files of a first writing that was killed."""
    return len(_numbers(folder)) == len(list(folder.iterdir()))


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
