"""Rules in a bundle's folder: an SQLite file beside the manifest that every reader queries.

It is not part of a version: rules are changed without a model or graph, by any number of writers, take effect
at once in a service that has the bundle in memory, and survive every save.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from graphrec.data.errors import DataError
from graphrec.data.ids import Id, id_text
from graphrec.service.manifest import RULES, full_disk_errors_named
from graphrec.service.rules import DIGEST_MODULUS, Rules, digest_of

APPLICATION_ID = 0x67725275
SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0
"""Seconds that a change waits for other writers."""

USERS_PER_QUERY = 500

SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE blocked (user TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (user, other)) WITHOUT ROWID;
CREATE INDEX blocked_other ON blocked (other);
CREATE TABLE opted_out (user TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE state (digest TEXT NOT NULL);
INSERT INTO state VALUES ('{empty:064x}');
COMMIT;
"""


class RuleStore:
    """The current rules of a bundle's folder.

    Args:
        folder: the folder of the bundle.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(folder)) / RULES
        self._known: tuple[str, Rules] | None = None

    def __repr__(self) -> str:
        return f"RuleStore({str(self.path.parent)!r})"

    def create(self) -> None:
        """Make an empty store, unless there is one."""
        if self.path.exists():
            return
        begun = self.path.with_name(f"{RULES}.new")
        for left in (begun, begun.with_name(f"{begun.name}-journal")):  # by one that was killed
            left.unlink(missing_ok=True)
        with self._errors(), closing(sqlite3.connect(begun, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.executescript(SCHEMA.format(empty=digest_of(Rules())))
        os.replace(begun, self.path)

    def current(self) -> Rules:
        """The rules now; read only if they have changed since the last call.

        Raises:
            DataError: the file is missing or damaged; rules that cannot be read are never ignored.
        """
        with self._connection() as connection:
            connection.execute("BEGIN")
            digest = _digest(connection)
            if self._known is not None and self._known[0] == digest:
                return self._known[1]
            rules = Rules(
                frozenset(connection.execute("SELECT user, other FROM blocked")),
                frozenset(one for (one,) in connection.execute("SELECT user FROM opted_out")),
            )
            if rules.digest != digest:
                raise sqlite3.DatabaseError("its rules are not those that were written")
        self._known = digest, rules
        return rules

    def of_users(self, users: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
        """The digest of the rules now, and the blocked pairs with some users; it reads these alone.

        Args:
            users: raw ids as text.

        Raises:
            DataError: the file is missing or damaged.
        """
        pairs: list[tuple[str, str]] = []
        with self._connection() as connection:
            connection.execute("BEGIN")
            digest = _digest(connection)
            for begin in range(0, len(users), USERS_PER_QUERY):
                part = users[begin : begin + USERS_PER_QUERY]
                marks = ", ".join("?" * len(part))
                for column in ("user", "other"):
                    query = f"SELECT user, other FROM blocked WHERE {column} IN ({marks})"
                    pairs += connection.execute(query, part)
        return digest, pairs

    def opted_out(self) -> frozenset[str]:
        """The users who opted out now, as text. Raises DataError as `of_users`."""
        with self._connection() as connection:
            return frozenset(one for (one,) in connection.execute("SELECT user FROM opted_out"))

    def change(
        self, *, add: Rules | None = None, remove: Rules | None = None, forget: Iterable[Id] = ()
    ) -> None:
        """Remove rules, then add rules, in one transaction that is on the disk when this returns.

        Args:
            add: rules to add.
            remove: rules to remove; missing ones are ignored.
            forget: users whose rules are all removed, before rules are added.

        Raises:
            DataError: the file is missing or damaged.
            OSError: it cannot be written; nothing was changed.
        """
        add, remove = add or Rules(), remove or Rules()
        with self._connection() as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("BEGIN IMMEDIATE")
            total = int(_digest(connection), 16)
            for name in (id_text(one) for one in forget):
                query = "SELECT user, other FROM blocked WHERE user = ?1 OR other = ?1"
                remove = Rules(
                    remove.blocked.union(connection.execute(query, (name,))), remove.opted_out | {name}
                )
            for rules, sign, blocked, opted_out in (
                (
                    remove,
                    -1,
                    "DELETE FROM blocked WHERE user = ? AND other = ?",
                    "DELETE FROM opted_out WHERE user = ?",
                ),
                (
                    add,
                    1,
                    "INSERT OR IGNORE INTO blocked VALUES (?, ?)",
                    "INSERT OR IGNORE INTO opted_out VALUES (?)",
                ),
            ):
                pairs = [pair for pair in rules.blocked if connection.execute(blocked, pair).rowcount]
                people = [one for one in rules.opted_out if connection.execute(opted_out, (one,)).rowcount]
                total += sign * digest_of(Rules(frozenset(pairs), frozenset(people)))
            connection.execute("UPDATE state SET digest = ?", (f"{total % DIGEST_MODULUS:064x}",))
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use: nothing to be shared by threads or carried into a fork.

        Readers may write, where the file system lets them: what a killed writer began is to be rolled back.
        """
        if not self.path.is_file():
            raise DataError(
                f"{self.path}: the file is missing, and with it all blocks and opt-outs; put it back "
                "from a backup, or if there were none, call graphrec.service.RuleStore(FOLDER).create()"
            )
        address = f"{self.path.as_uri()}?mode=rw"
        with (
            self._errors(),
            closing(
                sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
            ) as connection,
        ):
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            if found != APPLICATION_ID:
                raise sqlite3.DatabaseError("it holds no rules of graphrec")
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with full_disk_errors_named(self.path):
                yield
        except sqlite3.Error as error:
            text, code = str(error), getattr(error, "sqlite_errorcode", 0)
            if code == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_WRITE:
                raise OSError(f"no space left: {self.path}; nothing was changed") from None
            if code == sqlite3.SQLITE_READONLY_ROLLBACK:
                raise PermissionError(
                    f"{self.path}: a change was cut short, and only who may write here can undo it; any "
                    "command that reads or changes the rules does"
                ) from None
            if code & 0xFF == sqlite3.SQLITE_READONLY:
                raise PermissionError(f"{self.path}: no permission to write") from None
            if code & 0xFF == sqlite3.SQLITE_BUSY:
                raise TimeoutError(
                    f"{self.path}: other processes have kept it locked for {BUSY_SECONDS:g} s"
                ) from None
            if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
                raise PermissionError(f"{self.path}: cannot be opened ({text})") from None
            raise DataError(f"{self.path}: damaged, or not the rules of a bundle ({text})") from None


def _digest(connection: sqlite3.Connection) -> str:
    found = connection.execute("SELECT digest FROM state").fetchall()
    if len(found) != 1 or not isinstance(found[0][0], str):
        raise sqlite3.DatabaseError("it does not say which rules it holds")
    digest: str = found[0][0]
    if re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise sqlite3.DatabaseError("it does not say which rules it holds")
    return digest
