"""Ids as printed on the command line."""

from __future__ import annotations


def escaped(value: object) -> str:
    r"""An id as text without line ends and tabs: control characters and backslashes are escaped."""
    text = str(value).replace("\\", "\\\\")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
