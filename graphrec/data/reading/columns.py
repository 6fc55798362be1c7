"""Roles of the columns of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from graphrec.data.errors import DataError
from graphrec.data.reading.tables import FileColumns
from graphrec.data.table import require_column

USUAL_NAMES = {
    "src": "from source sender src_id source_id user user_id user_a user1 user_1 actor follower caller "
    "author fromnodeid u",
    "dst": "to target recipient receiver dst_id target_id friend friend_id user_b user2 user_2 followee "
    "followed callee destination tonodeid v",
    "time": "time timestamp ts datetime date created_at sent_at unixts unixtime unix_time when t",
}
"""Common names of columns of each role, suggested in errors where a column is missing."""


@dataclass(frozen=True)
class ColumnNames:
    """Names of the columns of each role; None for the default."""

    src: str | None
    dst: str | None
    time: str | None
    action: str | None
    weight: str | None

    @classmethod
    def of(cls, **given: str | int | None) -> ColumnNames:
        """Make them from names, or numbers from 1."""
        for role, name in given.items():
            if not isinstance(name, str | int | None) or isinstance(name, bool):
                raise DataError(f"{role} is {name!r}; it must be the name of a column, or its number")
        return cls(**{role: None if name is None else str(name) for role, name in given.items()})

    def header_names(self) -> list[str]:
        """Return the names that a header must have."""
        return [
            self.src or "src",
            self.dst or "dst",
            *(n for n in (self.time, self.action, self.weight) if n),
        ]

    def numbered(self, first: FileColumns, files: Sequence[FileColumns]) -> ColumnNames:
        """Fill in the defaults of files without a header, whose columns are "1", "2", ...

        Raises:
            DataError: the column of the time is unknown, or a name is not a number.
        """
        if not files:
            raise DataError(
                f"{first.where}: a Parquet file names its own columns, so the header cannot be missing"
            )
        width = len(files[0].own_names)
        if self.time is None and width != 3:
            raise DataError(
                f"{first.where}: {width} columns without a header, so the number of the time must be given: "
                "time=4 (on the command line: --time 4)"
            )
        return replace(self, src=self.src or "1", dst=self.dst or "2", time=self.time or "3")


def require_columns(
    file: FileColumns, roles: Mapping[str, str], hint: Callable[[Sequence[str]], str]
) -> None:
    """Raise DataError unless a file has each column once."""
    for name in dict.fromkeys(roles.values()):
        if name in file.keys and name in file.own_names:
            raise DataError(
                f"{file.where}: column {name!r} is in the file and in the name of a folder, {name}=..."
            )
        require_column(file.names, name, file.where, hint(file.names) if name not in file.names else "")


def hint_of_names(columns: Sequence[str], given: ColumnNames) -> str:
    """Return the hint for an error about missing columns: the arguments to give, with likely names."""
    likely = {}
    for role, usual in USUAL_NAMES.items():
        known = role in columns or (role == "time" and "timestamp" in columns)
        if getattr(given, role) is None and not known:
            plain = {column.strip().lower().replace(" ", "_"): column for column in reversed(columns)}
            likely[role] = next((plain[name] for name in usual.split() if name in plain), None)
    missing = [role for role, name in likely.items() if name is None]
    if not likely:
        return ""
    shown = {role: name or "COLUMN" for role, name in likely.items()}
    python = ", ".join(f"{role}={name!r}" for role, name in shown.items())
    options = " ".join(
        f"--{role} {name!r}" if " " in name else f"--{role} {name}" for role, name in shown.items()
    )
    sure = "say which they are" if missing else "if these are meant, say so"
    return f"; {sure}: {python} (on the command line: {options})"
