"""Files of saved objects: a JSON manifest with the format, and errors that name the folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graphrec.data.checks import check_folder
from graphrec.data.errors import DataError


def make_folder(folder: str | os.PathLike[str]) -> Path:
    """Make a folder to save in, unless it exists. Returns its path; raises TypeError if it is not a path."""
    path = check_folder(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def write_manifest(path: Path, format_name: str, content: dict[str, Any]) -> None:
    """Write content as JSON, with the name of its format."""
    path.write_text(json.dumps({"format": format_name, **content}, indent=2) + "\n")


def read_manifest(path: Path, format_name: str) -> dict[str, Any]:
    """Read the content that `write_manifest` wrote.

    Raises:
        DataError: it has another format, such as that of an older version.
    """
    content: dict[str, Any] = json.loads(path.read_text())
    if content["format"] != format_name:
        raise DataError(f"it holds {content['format']!r}, not {format_name!r}: fit the model again")
    return content


@contextmanager
def load_errors_as_data_error(kind: type, folder: Path) -> Iterator[None]:
    """Turn any error while reading a saved `kind` into one DataError that names the folder."""
    try:
        yield
    except Exception as error:  # damaged files fail in ways that cannot be listed
        raise DataError(f"{folder}: not a {kind.__name__} as it was saved, or damaged ({error})") from None
