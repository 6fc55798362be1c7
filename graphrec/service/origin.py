"""Where a bundle in memory stands to the one on disk."""

from __future__ import annotations

from dataclasses import dataclass

from graphrec.data.ids import Id
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
    """

    rules: Rules | RuleStore
    rules_before: Rules = NO_RULES
    versions: frozenset[str] = frozenset()
    digest: str = ""
    forgotten: tuple[Id, ...] = ()

    @property
    def current_rules(self) -> Rules:
        """The rules at this moment."""
        return self.rules.current() if isinstance(self.rules, RuleStore) else self.rules

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

    def move(self, digest: str, store: RuleStore) -> None:
        """Stand at the version that was just written; its rules forget whom it forgot."""
        self.digest, self.versions = digest, self.versions | {digest}
        if self.forgotten:
            store.change(forget=self.forgotten)
        self.forgotten, self.rules_before = (), NO_RULES
        if isinstance(self.rules, Rules):
            self.rules = store
