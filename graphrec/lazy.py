"""Lazy imports: a package's names are imported on first use, since torch alone takes seconds."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def lazy_names(module: ModuleType) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` of a package from the imports in its `if TYPE_CHECKING:` block.

    So each name is listed once, in the form that type checkers read.
    """
    source = Path(str(module.__file__))
    homes = {
        alias.asname: (node.module, alias.name)
        for block in ast.parse(source.read_text()).body
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname
    }

    def find(name: str) -> Any:
        if name in homes:
            home, original = homes[name]
            value = getattr(importlib.import_module(home), original)
            setattr(module, name, value)
            return value
        below = source.parent / name
        if not name.startswith("_") and (
            below.with_suffix(".py").is_file() or (below / "__init__.py").is_file()
        ):
            return importlib.import_module(f"{module.__name__}.{name}")
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    return find, lambda: sorted({*vars(module), *homes})
