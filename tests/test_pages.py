"""What holds for all pages: links resolve, results are what their figures give, benchmarks are listed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.render import RESULTS, page, table

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for folder in (".", "docs", "benchmarks", "benchmarks/results", "examples", "datasets")
    for path in (ROOT / folder).glob("*.md")
)
SCRIPTS = sorted((ROOT / "benchmarks").rglob("*.py"))


def links(text: str) -> list[str]:
    """Targets of links and pictures, without those of code blocks."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings have."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_a_dead_link_would_be_seen() -> None:
    assert links("see [a](b.md#c) and ```\n[x](y.md)\n```") == ["b.md#c"]
    assert anchors("# A page\n## What's in it") == {"a-page", "whats-in-it"}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_results_are_what_their_figures_give(path: Path) -> None:
    results = json.loads(path.read_text())
    assert path.with_suffix(".md").read_text() == page(path.stem, results), "run python -m benchmarks.render"
    for figures in results["tables"]:
        assert all(len(row) == len(figures["columns"]) for row in figures["rows"])
    assert "`" + path.stem + ".json`" in page(path.stem, results)


def test_each_page_of_results_has_its_figures() -> None:
    assert {path.stem for path in RESULTS.glob("*.md")} == {path.stem for path in RESULTS.glob("*.json")}
    assert table(["a", "b"], [["c", "1"]]) == ["| a | b |", "| --- | --: |", "| c | 1 |"]


def test_the_page_of_results_is_short() -> None:
    assert len((ROOT / "docs" / "results.md").read_text().splitlines()) <= 120


def test_every_benchmark_is_listed_with_its_question() -> None:
    listed = (ROOT / "benchmarks" / "README.md").read_text()
    for path in SCRIPTS:
        assert f"`{path.stem}`" in listed or f"{path.stem}.py`" in listed or path.stem in ("ladder", "render")
    for name in re.findall(r"^\| `(\w+)` \|", listed, flags=re.MULTILINE):
        assert list((ROOT / "benchmarks").rglob(f"{name}.py")), name
