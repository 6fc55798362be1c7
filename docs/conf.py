"""The documentation as a site: `sphinx-build -W -c docs . build/docs` from the root of a checkout.

The pages are the Markdown files as they are. The reference is generated from docstrings, a page a room.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import graphrec

project, version = "graphrec", graphrec.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/api/*.rst",
    "benchmarks/README.md",
    "benchmarks/results/*.md",
    "datasets/*.md",
    "examples/README.md",
]
html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "fixed_sidebar": True}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}

myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_custom_sections = ["Shapes", "Files"]
# An annotation such as `Query` may be found as graphrec.Query and graphrec.data.Query: any of them is right.
suppress_warnings = ["misc.highlighting_failure", "ref.python"]


CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"`[^`]+<[^`>]+>`_")
SECTION = re.compile(r"[A-Z]\w+:$")


def escaped(line: str) -> str:
    """A line with its code in double backticks and the signs of reStructuredText escaped."""
    pieces = CODE.split(line)
    pieces[::2] = [re.sub(r"([*|])", r"\\\1", text) for text in pieces[::2]]
    pieces[1::2] = [f"``{code}``\\ " for code in pieces[1::2]]
    return "".join(pieces).rstrip("\\ ")


def to_rst(lines: list[str]) -> list[str]:
    """Convert a docstring: code, formulas before the first section, names of arguments on two lines."""
    links: list[str] = []

    def keep(match: re.Match[str]) -> str:
        links.append(" ".join(match[0].split()))
        return f"\0{len(links) - 1}\0"

    out: list[str] = []
    formula = section = False
    names = ""
    for line in LINK.sub(keep, "\n".join(lines)).split("\n"):
        section = section or SECTION.match(line) is not None
        if not section and line.startswith("    ") and (formula or (out and not out[-1].strip())):
            out += [] if formula else ["::", ""]
            formula = True
            out.append(line)
            continue
        formula = formula and not line.strip()
        if section and line.endswith(",") and (names or re.match(r"    \S[^:]*$", line)):
            names += line.strip() + " "
            continue
        out.append(escaped(f"    {names}{line.strip()}" if names else line))
        names = ""
    return re.sub(r"\0(\d+)\0", lambda match: links[int(match[1])], "\n".join(out)).split("\n")


def process_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert a docstring before its sections are read."""
    lines[:] = to_rst(lines)


def public_names(module: str) -> list[tuple[str, str]]:
    """Directive and full name of every class and function that a room exports."""
    names, room = [], importlib.import_module(module)
    for name in dir(room):  # some of it is imported at first use
        value = getattr(room, name)
        kind = "autoclass" if inspect.isclass(value) else "autofunction" if inspect.isfunction(value) else ""
        if kind and not name.startswith("_") and f"{value.__module__}.".startswith(f"{module}."):
            names.append((kind, f"{module}.{name}"))
    return sorted(names, key=lambda pair: pair[1].lower())


def write_reference() -> None:
    """Write `docs/api/ROOM.rst` for each room, and a page that lists them."""
    folder = Path(__file__).parent / "api"
    folder.mkdir(exist_ok=True)
    rooms = [
        "graphrec",
        *(f"graphrec.{room.name}" for room in pkgutil.iter_modules(graphrec.__path__) if room.name != "lazy"),
    ]
    for old in folder.glob("*.rst"):
        old.unlink()
    for room in rooms:
        lines = [room, "=" * len(room), "", f".. automodule:: {room}", "   :no-members:", ""]
        names = public_names(room) if room != "graphrec" else []
        if not names and room not in ("graphrec", "graphrec.cli"):
            raise RuntimeError(f"{room} exports no class or function: its page would be empty")
        for kind, name in names:
            lines += [f".. {kind}:: {name}", "   :members:" if kind == "autoclass" else "", ""]
        (folder / f"{room}.rst").write_text("\n".join(lines) + "\n")
    lines = [
        "Reference",
        "=========",
        "",
        ".. toctree::",
        "   :maxdepth: 2",
        "",
        *(f"   {room}" for room in rooms),
    ]
    (folder / "index.rst").write_text("\n".join(lines) + "\n")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process_docstring, priority=100)
    write_reference()
