"""Where a bundle in memory stands to the one on disk."""

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
    """Where a bundle stands on disk; `save` moves it on.

    Attributes:
        rules: a value, or those of a folder, as they are at each moment.
        rules_before: a value's: what it was made from; `save` writes the difference.
        versions: digests of the versions that the bundle is, or was made from; those it may replace.
        digest: names the version that the bundle is, unchanged; empty, if it is in no folder as it is.
        forgotten: people whom `save` takes out of the rules.
        users: the ids [N] of the version that the bundle was made from; None, if it is in no folder.
    """

    rules: Rules | RuleStore
    rules_before: Rules = NO_RULES
    versions: frozenset[str] = frozenset()
    digest: str = ""
    forgotten: tuple[Id, ...] = ()
    users: pa.Array | None = None
    _compared: tuple[str, frozenset[str]] = field(default=("", frozenset()), repr=False)

    @classmethod
    def of(cls, version: manifest.Version, users: pa.Array) -> Origin:
        """Stand at a version of users [N]. Raises DataError where its rules cannot be read."""
        store = RuleStore(version.path.parent)
        store.current()
        return cls(store, versions=frozenset({version.digest}), digest=version.digest, users=users)

    @property
    def current_rules(self) -> Rules:
        """The rules at this moment."""
        return self.rules.current() if isinstance(self.rules, RuleStore) else self.rules

    @property
    def enforced_rules(self) -> Rules:
        """The rules at this moment; whom the folder has forgotten since counts as opted out."""
        rules = self.current_rules  # first: a forgotten person's rules are the last to go
        gone = self.forgotten_since()
        return Rules(rules.blocked, rules.opted_out | gone) if gone else rules

    def forgotten_since(self) -> frozenset[str]:
        """The ids, as text, that the version the bundle was made from had, and the one in the folder has not.

        Raises:
            DataError: the folder no longer says which version it holds.
        """
        if not isinstance(self.rules, RuleStore) or self.users is None:
            return frozenset()
        folder = self.rules.path.parent
        found = manifest.current_digest(folder)
        if found in self.versions:
            return frozenset()
        if found != self._compared[0]:
            try:
                self._compared = manifest.read(folder, self._compare)
            except FileNotFoundError as error:
                raise DataError(f"{error}; whom it has forgotten is not known") from None
        return self._compared[1]

    def _compare(self, version: manifest.Version) -> tuple[str, frozenset[str]]:
        return version.digest, frozenset(_missing(pa.chunked_array([self.users]), version))

    def write_rules(self, store: RuleStore, *, is_new: bool) -> None:
        """Add what these rules have in addition to those of a folder, and remove what was removed."""
        rules, before = self.current_rules, self.rules_before
        if isinstance(self.rules, RuleStore):
            before = rules if self.rules.path == store.path else NO_RULES
        if is_new:
            store.create()
        if rules == before:
            store.current()  # whether they can be read
        else:
            store.change(add=rules - before, remove=before - rules)

    def forgetting(self, version: manifest.Version | None) -> dict[str, str]:
        """What a manifest says of a change to a version that forgets people: which version has them."""
        if version is None or version.digest not in self.versions or not self.forgotten:
            return {}
        return {"forgets_of": version.digest}

    def move(self, digest: str, store: RuleStore, users: pa.Array) -> None:
        """Stand at the version of users [N] that was just written; its rules forget whom it forgot.

        Older versions are deleted after that: as long as one is there, `finish_changes` knows whom.
        """
        self.digest, self.versions, self.users = digest, self.versions | {digest}, users
        if self.forgotten:
            try:
                store.change(forget=self.forgotten)
            except OSError as error:
                names = ", ".join(map(repr, self.forgotten))
                raise OSError(
                    f"{store.path}: the bundle has forgotten {names}, and the next change of it makes the "
                    f"rules do so, which still name them ({error})"
                ) from None
        manifest.delete_stale(store.path.parent)
        self.forgotten, self.rules_before = (), NO_RULES
        if isinstance(self.rules, Rules):
            self.rules = store


def finish_changes(folder: Path) -> None:
    """Finish what a killed writer left: rules forget whom its version forgot; old versions are deleted."""
    version = manifest.current(folder)
    forgot = version and version.content.get("forgets_of")
    old = manifest.old_version(folder, forgot) if forgot else None
    if version is not None and old is not None:
        with suppress(DataError):  # its files are being deleted, which comes after
            RuleStore(folder).change(forget=_missing(pq.read_table(old.file(IDS))["user"], version))
    manifest.delete_stale(folder)


def _missing(users: pa.ChunkedArray, version: manifest.Version) -> list[str]:
    """The ids, as text, that a version does not have."""
    there = pq.read_table(version.file(IDS))["user"].cast(pa.string())
    users = users.cast(pa.string())
    return list(users.filter(pc.invert(pc.is_in(users, value_set=there))).to_pylist())
