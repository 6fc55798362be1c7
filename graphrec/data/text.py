"""Text from data, escaped for display."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text on one line, with escapes for line breaks and for control characters of terminals."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
