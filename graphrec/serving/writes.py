"""What clients write: events, feedback, and users to forget, as values and as the content of a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any, Literal, TypeAlias, get_args

from graphrec.data.errors import DataError

FeedbackKind = Literal["shown", "dismissed"]
FEEDBACK_KINDS: tuple[FeedbackKind, ...] = get_args(FeedbackKind)


@dataclass(frozen=True)
class EventsWrite:
    """Events, in the order in which they were sent; one entry of each column for each.

    Attributes:
        src: raw ids as text, who acts.
        dst: raw ids as text, on whom.
        time: seconds.
        action: names.
        weight: of each event; None without weights.
    """

    src: tuple[str, ...]
    dst: tuple[str, ...]
    time: tuple[int, ...]
    action: tuple[str, ...]
    weight: tuple[float, ...] | None = None

    def __len__(self) -> int:
        return len(self.src)

    def kept(self, mask: Sequence[bool]) -> EventsWrite:
        """Those events where a mask is True."""
        return EventsWrite(
            tuple(compress(self.src, mask)),
            tuple(compress(self.dst, mask)),
            tuple(compress(self.time, mask)),
            tuple(compress(self.action, mask)),
            None if self.weight is None else tuple(compress(self.weight, mask)),
        )


@dataclass(frozen=True)
class FeedbackWrite:
    """What users did with suggestions; one entry of each column for each.

    Attributes:
        user: raw ids as text, to whom persons were suggested.
        person: raw ids as text.
        time: seconds.
        kind: 'shown' or 'dismissed'.
    """

    user: tuple[str, ...]
    person: tuple[str, ...]
    time: tuple[int, ...]
    kind: tuple[FeedbackKind, ...]

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class ForgetWrite:
    """A user to be forgotten, by raw id as text."""

    user: str


@dataclass(frozen=True)
class RulesDeletedWrite:
    """The rules of a forgotten user, by raw id as text, have been deleted: later ones stay."""

    user: str


Write: TypeAlias = EventsWrite | FeedbackWrite | ForgetWrite | RulesDeletedWrite

_KINDS: dict[str, type[Write]] = {
    "events": EventsWrite,
    "feedback": FeedbackWrite,
    "forget": ForgetWrite,
    "rules_deleted": RulesDeletedWrite,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True)
class Key:
    """The key by which a repeated request is recognized, and what was asked under it.

    Attributes:
        name: 64-bit hash of the key that the client chose.
        content: 64-bit hash of the write.
    """

    name: int
    content: int

    @classmethod
    def of(cls, text: str, write: Write, given: Any = None) -> Key:
        """The key of a request.

        Args:
            text: as the client chose it.
            write: what it asks for.
            given: plain values as they were sent, if the write has more (such as the time of arrival).
        """
        return cls.of_values(text, asdict(write) if given is None else given)

    @classmethod
    def of_values(cls, text: str, given: Any) -> Key:
        """The key of a request that was sent as plain values."""
        return cls(_hash64(text), _hash64(json.dumps(given, sort_keys=True)))


@dataclass(frozen=True)
class KeyedWrite:
    """A write, and the key of its request if it has one."""

    write: Write
    key: Key | None = None


def encode_writes(writes: Sequence[KeyedWrite]) -> bytes:
    """The content of a record of some writes."""
    rows = []
    for one in writes:
        columns = {name: value for name, value in vars(one.write).items() if value is not None}
        head: dict[str, Any] = {"write": _NAMES[type(one.write)]}
        if one.key is not None:
            head["key"] = [one.key.name, one.key.content]
        rows.append(head | columns)
    return json.dumps(rows, separators=(",", ":")).encode()


def decode_writes(content: bytes) -> list[KeyedWrite]:
    """The writes of a record. Raises DataError if they are not those of this version of graphrec."""
    try:
        return [_decode(row) for row in json.loads(content)]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"a record holds no writes of this version of graphrec ({error})") from None


def _decode(row: dict[str, Any]) -> KeyedWrite:
    kind, key = _KINDS[row.pop("write")], row.pop("key", None)
    columns: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return KeyedWrite(kind(**columns), None if key is None else Key(*key))


def _hash64(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())
