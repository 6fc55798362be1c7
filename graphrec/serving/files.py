"""The files that a server keeps beside a bundle: the log of writes, its lock, rows for the next fit."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from graphrec.data.errors import DataError
from graphrec.service.manifest import sync

_ROWS_NAME = re.compile(r"rows-([0-9]{12})-([0-9]{12})\.csv")
_COLUMNS = ("src", "dst", "timestamp", "action")


@dataclass(frozen=True)
class ServingFiles:
    """The folder `BUNDLE.serving` beside a bundle's folder.

    Attributes:
        bundle: the bundle's folder.
    """

    bundle: Path

    @property
    def folder(self) -> Path:
        """The folder of these files."""
        real = self.bundle.resolve()
        return real.with_name(f"{real.name}.serving")

    @property
    def log(self) -> Path:
        """The log of writes."""
        return self.folder / "writes.log"

    @contextmanager
    def only_server(self) -> Iterator[None]:
        """Be the only server of the bundle.

        Raises:
            DataError: another process serves it.
        """
        self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / "server.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataError(f"{self.bundle}: another process serves this bundle already") from None
        try:
            yield
        finally:
            lock.release()

    def write_rows(self, first: int, end: int, rows: Sequence[tuple[str, str, int, str]]) -> None:
        """Write rows for the next fit: those of writes at the positions from `first` to before `end`.

        Files of later positions are of a run that was cut short, and are deleted.
        """
        for path, begin, _ in self._row_files():
            if begin >= first:
                path.unlink()
        if rows:
            self._write(self.folder / f"rows-{first:012d}-{end:012d}.csv", rows)

    def forget(self, positions: Mapping[str, int]) -> None:
        """Delete the rows that name some users, of writes before the position at which each was forgotten.

        `write_rows` is given no such rows of the writes that it is called for; later ones stay.
        """
        for path, _, end in self._row_files() if positions else ():
            gone = {user for user, position in positions.items() if end <= position}
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            kept = [(row[0], row[1], int(row[2]), row[3]) for row in rows if gone.isdisjoint(row[:2])]
            if len(kept) < len(rows):
                self._write(path, kept)

    def _row_files(self) -> list[tuple[Path, int, int]]:
        named = ((path, _ROWS_NAME.fullmatch(path.name)) for path in sorted(self.folder.iterdir()))
        return [(path, int(name[1]), int(name[2])) for path, name in named if name]

    def _write(self, path: Path, rows: Sequence[tuple[str, str, int, str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *rows])
        new = path.with_suffix(".new")
        with new.open("w", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        sync(self.folder)
