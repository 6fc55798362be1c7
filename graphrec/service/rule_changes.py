"""Changes of the rules in a bundle's folder, without reading its model or graph."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graphrec.data.errors import DataError
from graphrec.data.ids import id_text
from graphrec.service import manifest
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules

IDS = "ids.parquet"
"""File of a version with the raw ids of its users, in order of their indices."""


def change_rules(
    folder: str | os.PathLike[str], *, add: Rules | None = None, remove: Rules | None = None
) -> list[str]:
    """Add and remove rules; they take effect at once, also in services that have the bundle in memory.

    Args:
        folder: of the bundle.
        add: rules to add.
        remove: rules to remove.

    Returns:
        the ids in the added rules that are not users of the bundle, sorted; these rules take effect as soon
        as they are.

    Raises:
        FileNotFoundError: there is no bundle.
        DataError: it is damaged.
        OSError: the rules cannot be written; nothing was changed.
    """
    known = manifest.read_current(Path(folder), lambda version: pq.read_table(version.file(IDS))["user"])
    RuleStore(folder).change(add=add, remove=remove)
    names = pa.array(sorted(add.names if add else ()), type=pa.string())
    return list(names.filter(pc.invert(pc.is_in(names, value_set=known.cast(pa.string())))).to_pylist())


def read_id_rows(path: str | os.PathLike[str], columns: Sequence[str]) -> list[list[str]]:
    """Read the ids in some columns of a CSV file with a header.

    Args:
        path: of the file.
        columns: names of the columns.

    Returns:
        for each row, the ids of these columns as text.

    Raises:
        DataError: the file is not such a CSV file; names the file, line (the header is line 1) and column.
    """
    out: list[list[str]] = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(
                    f"{path}: there is no column {missing[0]!r}; the first line must be {','.join(columns)}"
                )
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise DataError(f"{where}: {len(row)} fields, where the first line has {len(header)}")
                out.append([_id_text(row[header.index(name)], where, name) for name in columns])
                if len(set(out[-1])) < len(columns):
                    raise DataError(f"{where}: {out[-1][0]!r} cannot be blocked from themselves")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason})") from None
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error})") from None
    return out


def _id_text(value: str, where: str, column: str) -> str:
    try:
        return id_text(value)
    except ValueError as error:
        raise DataError(f"{where}, column {column!r}: {error}") from None
