"""Bearer tokens from a file: who may read, and who may write."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graphrec.data.errors import DataError

Right = Literal["read", "write"]

MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True)
class Tokens:
    """The tokens of a server, as SHA-256 digests.

    Attributes:
        rights: by digest; to write includes to read.
    """

    rights: dict[bytes, Right]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read a file with a line for each token, `read TOKEN` or `write TOKEN`; `#` begins a comment.

        Raises:
            OSError: it cannot be read.
            DataError: a line is not of this form; names the line, not the token.
        """
        found: dict[bytes, Right] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            parts = line.partition("#")[0].split()
            if not parts:
                continue
            if len(parts) != 2 or parts[0] not in ("read", "write"):
                raise DataError(f"{path}: line {number}: must be `read TOKEN` or `write TOKEN`")
            if len(parts[1]) < MIN_TOKEN_LENGTH:
                raise DataError(
                    f"{path}: line {number}: a token has at least {MIN_TOKEN_LENGTH} characters; make one "
                    "with `openssl rand -hex 32`"
                )
            found[_digest(parts[1])] = "write" if parts[0] == "write" else "read"
        if not found:
            raise DataError(f"{path}: there is no token in it")
        return cls(found)

    def right_of(self, token: str) -> Right | None:
        """What a token allows; None for an unknown one. Takes as long for all."""
        given, out = _digest(token), None
        for known, right in self.rights.items():
            if hmac.compare_digest(known, given):
                out = right
        return out


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
