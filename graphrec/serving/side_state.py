"""What writes leave behind beside the bundle: keys of requests, and dismissed suggestions that rest."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np

from graphrec.serving.writes import FeedbackWrite, ForgetWrite, Key, KeyedWrite, Write

MAX_KEYS = 200_000
"""Keys that are remembered, the latest ones; about 25 MB."""

REST_SECONDS = 30 * 86_400
"""Seconds for which a dismissed person is not suggested again to the user, by default."""


class IdempotencyKeys:
    """The keys of the latest requests.

    Args:
        maximum: keys that are remembered.
    """

    def __init__(self, maximum: int = MAX_KEYS) -> None:
        self._maximum = maximum
        self._content: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._content)

    def find(self, key: Key) -> bool | None:
        """Whether a request of this key was the same; None if there was none."""
        content = self._content.get(key.name)
        return None if content is None else content == key.content

    def add(self, key: Key) -> None:
        """Remember a key, and forget the oldest if there are too many."""
        self._content[key.name] = key.content
        while len(self._content) > self._maximum:
            del self._content[next(iter(self._content))]

    def plain(self) -> str:
        """The keys as text."""
        pairs = np.array(list(self._content.items()), dtype="<u8")
        return base64.b64encode(pairs.tobytes()).decode()

    def restore(self, text: str) -> None:
        """Add the keys in a text that `plain` returned."""
        pairs = np.frombuffer(base64.b64decode(text), dtype="<u8").reshape(-1, 2)
        for name, content in pairs.tolist():
            self.add(Key(name, content))


class RestingPairs:
    """Dismissed suggestions: a person who is not suggested again to a user for a while.

    Args:
        rest: seconds after a dismissal.
    """

    def __init__(self, rest: int = REST_SECONDS) -> None:
        self.rest = rest
        self._since: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._since.values()))

    def add(self, write: FeedbackWrite) -> None:
        """Let the dismissed ones rest."""
        for user, person, time, kind in zip(write.user, write.person, write.time, write.kind, strict=True):
            if kind == "dismissed":
                known = self._since.setdefault(user, {})
                known[person] = max(time, known.get(person, time))

    def of(self, user: str, time: int, *, before: bool) -> list[str]:
        """The persons who rest for a user.

        Args:
            user: raw id as text.
            time: seconds, of the question.
            before: count only dismissals before `time`; otherwise all that have been made.
        """
        known = self._since.get(user)
        if not known:
            return []
        return [
            person
            for person, since in known.items()
            if time < since + self.rest and (since < time or not before)
        ]

    def forget(self, user: str) -> None:
        """Delete what names a user."""
        self._since.pop(user, None)
        for known in self._since.values():
            known.pop(user, None)

    def expire(self, time: int) -> None:
        """Delete those whose rest is over at a time."""
        for user in list(self._since):
            left = {one: since for one, since in self._since[user].items() if time < since + self.rest}
            if left:
                self._since[user] = left
            else:
                del self._since[user]

    def plain(self) -> dict[str, dict[str, int]]:
        """The pairs as plain values."""
        return {user: dict(known) for user, known in self._since.items()}

    def restore(self, since: dict[str, dict[str, int]]) -> None:
        """Add pairs that `plain` returned."""
        for user, known in since.items():
            self._since.setdefault(user, {}).update(known)


class SideState:
    """Keys and resting pairs, as they are after some writes.

    Args:
        rest: seconds after a dismissal.

    Attributes:
        keys: of requests.
        resting: dismissed suggestions.
        base: digest of the bundle that the first log was begun for.
    """

    def __init__(self, rest: int = REST_SECONDS) -> None:
        self.base = ""
        self.keys, self.resting = IdempotencyKeys(), RestingPairs(rest)

    def add(self, writes: Iterable[KeyedWrite]) -> None:
        """Take over what writes leave behind."""
        for one in writes:
            if one.key is not None:
                self.keys.add(one.key)
            self._add_write(one.write)

    def _add_write(self, write: Write) -> None:
        if isinstance(write, FeedbackWrite):
            self.resting.add(write)
        elif isinstance(write, ForgetWrite):
            self.resting.forget(write.user)

    def plain(self) -> dict[str, Any]:
        """The state as plain values."""
        return {"base": self.base, "keys": self.keys.plain(), "resting": self.resting.plain()}

    def restore(self, state: dict[str, Any]) -> None:
        """Add a state that `plain` returned."""
        self.base = state.get("base", "")
        self.keys.restore(state.get("keys", ""))
        self.resting.restore(state.get("resting", {}))
