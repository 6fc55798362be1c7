"""Registration of classes and functions by name."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

NAME = re.compile(r"[^\W\d][\w.-]*")
"""Valid names, which can be names of folders and arguments of commands."""


def add_name(table: MutableMapping[str, Any], what: str, name: str, value: Any) -> None:
    """Add a class or function to a table; a new definition in the same place replaces the earlier one.

    Args:
        table: classes or functions by name.
        what: what they are, for messages.
        name: the name.
        value: the class or function.

    Raises:
        TypeError: the name is not a string.
        ValueError: the name is not valid, or another class or function has it.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} must be a string, got {name!r}")
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot name a {what}: use letters, digits, '_', '.' and '-', and start with a letter"
        )
    if name in table and not _same_definition(table[name], value):
        raise ValueError(
            f"there is another {what} named {name!r}: {_place(table[name])}; choose another name"
        )
    table[name] = value


def _same_definition(old: Any, new: Any) -> bool:
    """Return whether both are the same object, or definitions in the same place of a module."""
    is_named = "<" not in getattr(new, "__qualname__", "<")  # not a lambda, nor inside a function
    return old is new or (is_named and _place(old) == _place(new))


def _place(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return repr(value) if name is None else f"{value.__module__}.{name}"
