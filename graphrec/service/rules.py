"""Who must not be shown to whom, whatever a model thinks: rules as a value."""

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
    """Blocks and opt-outs. They name people by raw ids, also such as are not in the graph, or not yet.

    Ids are read as everywhere (`graphrec.data.ids.parse_id`), and kept as text.

    Attributes:
        blocked: pairs; neither is suggested to the other, nor named to the other in a reason.
        opted_out: people who are suggested to nobody, and named to nobody in a reason.
    """

    blocked: frozenset[tuple[str, str]] = frozenset()
    opted_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, blocked: Iterable[tuple[Id, Id]] = (), opted_out: Iterable[Id] = ()) -> Self:
        """Rules for raw ids.

        Raises:
            TypeError, DataError: what no id can be, as `parse_id`.
            ValueError: somebody would be blocked from themselves.
        """
        return cls(
            frozenset(_pair(*pair) for pair in id_pairs(blocked)),
            frozenset(id_text(one) for one in id_list(opted_out, "opted_out")),
        )

    def block(self, user: Id, other: Id) -> Rules:
        """One pair more."""
        return Rules(self.blocked | {_pair(user, other)}, self.opted_out)

    def unblock(self, user: Id, other: Id) -> Rules:
        """One pair less, if it was blocked."""
        return Rules(self.blocked - {_pair(user, other)}, self.opted_out)

    def opt_out(self, user: Id) -> Rules:
        """One more who opted out."""
        return Rules(self.blocked, self.opted_out | {id_text(user)})

    def opt_in(self, user: Id) -> Rules:
        """One less, if the user had opted out."""
        return Rules(self.blocked, self.opted_out - {id_text(user)})

    def without(self, user: Id) -> Rules:
        """The rules that do not name a user."""
        name = id_text(user)
        return Rules(frozenset(pair for pair in self.blocked if name not in pair), self.opted_out - {name})

    def __sub__(self, other: Rules) -> Rules:
        return Rules(self.blocked - other.blocked, self.opted_out - other.opted_out)

    def __bool__(self) -> bool:
        return bool(self.blocked or self.opted_out)

    @property
    def names(self) -> frozenset[str]:
        """Whom the rules name."""
        return self.opted_out.union(*self.blocked)

    @property
    def digest(self) -> str:
        """Names these rules: equal for equal ones, in whatever order they were made."""
        return f"{digest_of(self):064x}"

    def indices(self, ids: UserIds) -> tuple[Tensor, Tensor]:
        """Those that are among the users: blocked [2, P] and opted_out [O], int64."""
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
    """The sum of the rules' SHA-256 digests: a rule is added or taken away without reading the others."""
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
