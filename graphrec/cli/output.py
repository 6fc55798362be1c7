"""How ids are printed."""

from __future__ import annotations


def escaped(value: object) -> str:
    r"""An id on one line, in one column: control characters and backslashes as Python writes them."""
    text = str(value).replace("\\", "\\\\")
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
