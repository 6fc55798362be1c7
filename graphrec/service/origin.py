"""The relation of a bundle in memory to the versions on disk."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graphrec.data.errors import DataError
from graphrec.data.ids import Id
from graphrec.service import manifest
from graphrec.service.rule_changes import IDS
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules

NO_RULES = Rules()


@dataclass
class Origin:
    """The versions on disk that a bundle comes from, and its rules; `save` updates them.

    Attributes:
        rules: fixed rules, or the store of a folder, whose rules may change at any time.
        rules_before: the rules that fixed rules were derived from; `save` writes the difference.
        versions: digests of the versions that the bundle is, or was made from; it may replace them.
        digest: of the version that equals the bundle; empty if none does.
        forgotten: users whom `save` deletes from the rules.
        users: raw ids [N] of the version that the bundle was made from; None without a folder.
        log_position: position in the log of a server's writes after those in the bundle; None without one.
        adds_to: digest of the version that the next one only adds events to; empty if it does not.
    """

    rules: Rules | RuleStore
    rules_before: Rules = NO_RULES
    versions: frozenset[str] = frozenset()
    digest: str = ""
    forgotten: tuple[Id, ...] = ()
    users: pa.Array | None = None
    log_position: int | None = None
    adds_to: str = ""
    _compared: tuple[str, frozenset[str]] = field(default=("", frozenset()), repr=False)

    @classmethod
    def of(cls, version: manifest.Version, users: pa.Array) -> Origin:
        """The origin of a bundle loaded from a version of users [N].

        Raises:
            DataError: its rules cannot be read.
        """
        store = RuleStore(version.path.parent)
        store.current()
        position = version.content.get("log_position")
        return cls(
            store,
            versions=frozenset({version.digest}),
            digest=version.digest,
            users=users,
            log_position=position,
        )

    @property
    def current_rules(self) -> Rules:
        """The rules now."""
        return self.rules.current() if isinstance(self.rules, RuleStore) else self.rules

    @property
    def enforced_rules(self) -> Rules:
        """The rules now; users whom the folder has forgotten since count as opted out."""
        rules = self.current_rules  # first: the rules of a forgotten user are deleted last
        gone = self.forgotten_since()
        return Rules(rules.blocked, rules.opted_out | gone) if gone else rules

    def forgotten_since(self) -> frozenset[str]:
        """The ids, as text, of users of the bundle's version who are not in the folder's current version.

        Raises:
            DataError: the folder no longer has a manifest.
        """
        if not isinstance(self.rules, RuleStore) or self.users is None:
            return frozenset()
        folder = self.rules.path.parent
        version = manifest.current_version(folder)
        found = None if version is None else version.digest
        if version is not None and version.content.get("adds_to") in self.versions:
            self.versions |= {version.digest}
        if found in self.versions:
            return frozenset()
        if found != self._compared[0]:
            try:
                self._compared = manifest.read_current(folder, self._compare)
            except FileNotFoundError as error:
                raise DataError(f"{error}; the users it has forgotten are unknown") from None
        return self._compared[1]

    def _compare(self, version: manifest.Version) -> tuple[str, frozenset[str]]:
        return version.digest, frozenset(_missing(pa.chunked_array([self.users]), version))

    def accept(self, digest: str, users: pa.Array) -> None:
        """Take a version of users [N], written by another process from what the bundle holds, for its own."""
        self.versions, self.users = self.versions | {digest}, users

    def write_rules(self, store: RuleStore, *, is_new: bool) -> None:
        """Write the difference from `rules_before` to the rules of a folder.

        Args:
            store: of the folder.
            is_new: the folder has no version yet.
        """
        rules, before = self.current_rules, self.rules_before
        if isinstance(self.rules, RuleStore):
            before = rules if self.rules.path == store.path else NO_RULES
        if is_new:
            store.create()
        if rules == before:
            store.current()  # raises if they cannot be read
        else:
            store.change(add=rules - before, remove=before - rules)

    def forgetting(self, version: manifest.Version | None) -> dict[str, str]:
        """Manifest content of a version that forgets users: the digest of the version that has them."""
        if version is None or version.digest not in self.versions or not self.forgotten:
            return {}
        return {"forgets_of": version.digest}

    def advance_to(self, digest: str, store: RuleStore, users: pa.Array) -> None:
        """Set the version of users [N] just written, and delete forgotten users from its rules.

        Older versions are deleted last: from them `finish_changes` knows the forgotten users.
        """
        self.digest, self.versions, self.users = digest, self.versions | {digest}, users
        if self.forgotten:
            try:
                store.change(forget=self.forgotten)
            except OSError as error:
                names = ", ".join(map(repr, self.forgotten))
                raise OSError(
                    f"{store.path}: users {names} were removed from the bundle, but the rules still name "
                    f"them ({error}); the next change of the bundle removes them there too"
                ) from None
        manifest.delete_stale(store.path.parent)
        self.forgotten, self.rules_before = (), NO_RULES
        if isinstance(self.rules, Rules):
            self.rules = store


def finish_changes(folder: Path) -> None:
    """Finish the change of a killed writer: delete forgotten users from the rules, and old versions."""
    version = manifest.current_version(folder)
    forgot = version and version.content.get("forgets_of")
    old = manifest.old_version(folder, forgot) if forgot else None
    if version is not None and old is not None:
        with suppress(DataError):  # its files are being deleted, which comes after
            RuleStore(folder).change(forget=_missing(pq.read_table(old.file(IDS))["user"], version))
    manifest.delete_stale(folder)


def _missing(users: pa.ChunkedArray, version: manifest.Version) -> list[str]:
    """The ids [N], as text, of users who are not in a version."""
    there = pq.read_table(version.file(IDS))["user"].cast(pa.string())
    users = users.cast(pa.string())
    return list(users.filter(pc.invert(pc.is_in(users, value_set=there))).to_pylist())
