"""Text from data, made fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text on one line: characters that would steer a terminal or break a line are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
