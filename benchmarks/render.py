"""Write `results/NAME.md` from each `results/NAME.json`: tables, the command of each, findings and limits.

python -m benchmarks.render [--check]

`--check` writes nothing, and fails where a page is not what its figures give.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def table(columns: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table, the first column left, figures right."""
    rule = ["---", *("--:" for _ in columns[1:])]
    return ["| " + " | ".join(cells).strip() + " |" for cells in (columns, rule, *rows)]


def page(name: str, results: dict[str, Any]) -> str:
    """The Markdown page of one results file."""
    lines = [f"# {results['title']}", "", results["question"], ""]
    lines += [f"Generated from `{name}.json` by `python -m benchmarks.render`.", ""]
    for title in ("findings", "limits"):
        if results[title]:
            lines += [f"## {title.capitalize()}", "", *(f"- {line}" for line in results[title]), ""]
    lines += ["## Figures", ""]
    for figures in results["tables"]:
        lines += [f"### {figures['name']}", ""]
        if "note" in figures:
            lines += [figures["note"], ""]
        if "command" in figures:
            lines += [f"`{figures['command']}`", ""]
        lines += [*table(figures["columns"], figures["rows"]), ""]
    return "\n".join(lines)


def main() -> None:
    """Write every page, or check it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only check that pages are up to date")
    options = parser.parse_args()
    for path in sorted(RESULTS.glob("*.json")):
        text, target = page(path.stem, json.loads(path.read_text())), path.with_suffix(".md")
        if not options.check:
            target.write_text(text)
        elif not target.is_file() or target.read_text() != text:
            sys.exit(f"{target}: not what {path.name} gives; run python -m benchmarks.render")


if __name__ == "__main__":
    main()
