"""Rules on which users not to show, whatever the score: blocks and opt-outs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from graphrec.data.ids import Id, id_list, id_pairs, id_text

if TYPE_CHECKING:  # rules are changed without torch, which takes seconds to import
    from torch import Tensor

    from graphrec.data.ids import UserIds


@dataclass(frozen=True)
class Rules:
    """Blocks and opt-outs by raw id, also of ids that are not in the graph, or not yet.

    Ids are parsed by `graphrec.data.ids.parse_id`, and kept as text.

    Attributes:
        blocked: sorted pairs; neither is suggested to the other, nor named to the other in an explanation.
        opted_out: users who are never suggested, and never named in an explanation.
    """

    blocked: frozenset[tuple[str, str]] = frozenset()
    opted_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, blocked: Iterable[tuple[Id, Id]] = (), opted_out: Iterable[Id] = ()) -> Self:
        """Rules for raw ids.

        Raises:
            TypeError, DataError: a value is not an id, as in `parse_id`.
            ValueError: a user would be blocked from themselves.
        """
        return cls(
            frozenset(_pair(*pair) for pair in id_pairs(blocked)),
            frozenset(id_text(one) for one in id_list(opted_out, "opted_out")),
        )

    def block(self, user: Id, other: Id) -> Rules:
        """Return rules with one more blocked pair."""
        return Rules(self.blocked | {_pair(user, other)}, self.opted_out)

    def unblock(self, user: Id, other: Id) -> Rules:
        """Return rules without a blocked pair; unchanged if it is not blocked."""
        return Rules(self.blocked - {_pair(user, other)}, self.opted_out)

    def opt_out(self, user: Id) -> Rules:
        """Return rules with one more opt-out."""
        return Rules(self.blocked, self.opted_out | {id_text(user)})

    def opt_in(self, user: Id) -> Rules:
        """Return rules without a user's opt-out; unchanged if there is none."""
        return Rules(self.blocked, self.opted_out - {id_text(user)})

    def without(self, user: Id) -> Rules:
        """Return the rules that do not name a user."""
        name = id_text(user)
        return Rules(frozenset(pair for pair in self.blocked if name not in pair), self.opted_out - {name})

    def __sub__(self, other: Rules) -> Rules:
        return Rules(self.blocked - other.blocked, self.opted_out - other.opted_out)

    def __bool__(self) -> bool:
        return bool(self.blocked or self.opted_out)

    @property
    def names(self) -> frozenset[str]:
        """All ids in the rules."""
        return self.opted_out.union(*self.blocked)

    @property
    def digest(self) -> str:
        """A digest of the rules, 64 hexadecimal digits, independent of their order."""
        return f"{digest_of(self):064x}"

    def indices(self, ids: UserIds) -> tuple[Tensor, Tensor]:
        """Indices of the rules' users who are among some ids: blocked [2, P] and opted_out [O], int64."""
        import torch

        pairs = sorted(self.blocked)
        blocked = torch.stack([ids.find(side) for side in ([a for a, _ in pairs], [b for _, b in pairs])])
        opted_out = ids.find(sorted(self.opted_out))
        return blocked[:, (blocked >= 0).all(0)], opted_out[opted_out >= 0]

    def allows(self, user: Id, person: Id) -> bool:
        """Whether a person may be suggested to a user."""
        one, two = sorted((str(user), str(person)))
        return (one, two) not in self.blocked and str(person) not in self.opted_out


DIGEST_MODULUS = 2**256


def digest_of(rules: Rules) -> int:
    """The sum of the SHA-256 digests of the rules, so that adding or removing one needs no other."""
    parts = [f"blocked\0{a}\0{b}" for a, b in rules.blocked] + [
        f"opted_out\0{one}" for one in rules.opted_out
    ]
    digests = (int.from_bytes(hashlib.sha256(part.encode()).digest()) for part in parts)
    return sum(digests) % DIGEST_MODULUS


def _pair(user: Id, other: Id) -> tuple[str, str]:
    one, two = sorted((id_text(user), id_text(other)))
    if one == two:
        raise ValueError(f"{one!r} cannot be blocked from {one!r}: a pair is of two people")
    return one, two
