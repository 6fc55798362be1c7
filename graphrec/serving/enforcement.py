"""The rules of some users at a time: a request costs the same however many rules there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from graphrec.data import UserIds
from graphrec.service import Rules, RuleStore
from graphrec.service.origin import Origin


class Enforcement:
    """The current blocks and opt-outs of a bundle in service.

    Args:
        origin: of the bundle.

    Attributes:
        gone: users who are hidden besides, as text.
    """

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.gone: frozenset[str] = frozenset()
        self._digest = ""
        self._opted_out: frozenset[str] = frozenset()
        self._names: frozenset[str] = frozenset()
        self._found = torch.empty(0, dtype=torch.int64)
        self._missing: list[str] = []
        self._num_users = 0

    def rules(self, users: Sequence[str]) -> Rules:
        """The blocks of some users, and all who opted out or are hidden.

        Raises:
            DataError: the rules cannot be read.
        """
        rules = self._origin.rules
        if isinstance(rules, RuleStore):
            digest, pairs = rules.of_users(users)  # first: the rules of a forgotten user are deleted last
            if digest != self._digest:
                self._digest, self._opted_out = digest, rules.opted_out()
            opted_out = self._opted_out
        else:
            asked = set(users)
            pairs = [pair for pair in rules.blocked if not asked.isdisjoint(pair)]
            opted_out = rules.opted_out
        gone = self.gone | self._origin.forgotten_since()
        return Rules(frozenset(pairs), opted_out | gone if gone else opted_out)

    def indices(
        self, rules: Rules, users: Sequence[str], ids: UserIds
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Rules as indices.

        Args:
            rules: that `rules` returned for the users.
            users: raw ids as text, of B queries.
            ids: of the graph, to which users are only added.

        Returns:
            the row of the query [M] and the blocked person [M], and those who opted out [O], int64.
        """
        rows = defaultdict(list)
        for row, user in enumerate(users):
            rows[user].append(row)
        pairs = [
            (place, other)
            for one, two in rules.blocked
            for user, other in ((one, two), (two, one))
            for place in rows.get(user, ())
        ]
        person = ids.find([other for _, other in pairs])
        query = torch.tensor([place for place, _ in pairs], dtype=torch.int64)
        return (query[person >= 0], person[person >= 0]), self._hidden(rules.opted_out, ids)

    def _hidden(self, names: frozenset[str], ids: UserIds) -> Tensor:
        """Indices [O] of users who opted out; those who were not there yet are looked up again."""
        if names != self._names:
            self._names, self._missing, self._num_users = names, sorted(names), 0
            self._found = self._found[:0]
        if self._missing and len(ids) != self._num_users:
            found = ids.find(self._missing)
            self._found = torch.cat([self._found, found[found >= 0]])
            self._missing = [
                name for name, place in zip(self._missing, found.tolist(), strict=True) if place < 0
            ]
            self._num_users = len(ids)
        return self._found
