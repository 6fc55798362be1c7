"""Who must not be shown to whom, whatever a model thinks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from graphrec.data import DataError, Id, UserIds, id_list, id_pairs, id_text


@dataclass(frozen=True)
class Rules:
    """Blocks and opt-outs. They name people by raw ids, also such as are not in the graph, or not yet.

    Attributes:
        blocked: pairs; neither is suggested to the other, nor named to the other in a reason.
        opted_out: people who are suggested to nobody, and named to nobody in a reason.
    """

    blocked: frozenset[tuple[str, str]] = frozenset()
    opted_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, blocked: Iterable[tuple[Id, Id]] = (), opted_out: Iterable[Id] = ()) -> Self:
        """Rules for raw ids."""
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

    def indices(self, ids: UserIds) -> tuple[Tensor, Tensor]:
        """Those that are among the users: blocked [2, P] and opted_out [O], int64."""
        pairs = sorted(self.blocked)
        blocked = torch.stack([ids.find(side) for side in ([a for a, _ in pairs], [b for _, b in pairs])])
        opted_out = ids.find(sorted(self.opted_out))
        return blocked[:, (blocked >= 0).all(0)], opted_out[opted_out >= 0]

    def save(self, path: Path) -> None:
        """Write JSON."""
        content = {"blocked": sorted(self.blocked), "opted_out": sorted(self.opted_out)}
        path.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises DataError naming the file."""
        try:
            content = json.loads(path.read_text())
            return cls.of(((a, b) for a, b in content["blocked"]), content["opted_out"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not rules as they were saved ({error})") from None


def _pair(user: Id, other: Id) -> tuple[str, str]:
    one, two = sorted((id_text(user), id_text(other)))
    if one == two:
        raise ValueError(f"{one!r} cannot be blocked from {one!r}: a pair is of two people")
    return one, two
