"""What holds for all pages: links resolve, results are what their figures give, benchmarks are listed."""

from __future__ import annotations

import ast
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from benchmarks.render import RESULTS, page, table
from tests.test_rooms import ROOMS

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


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def test_the_walks_name_what_there_is() -> None:
    steps = re.findall(r"`([\w/]+\.py)` `([\w.]+)`", ARCHITECTURE)
    assert len(steps) >= 10
    for file, name in steps:
        source = (ROOT / "graphrec" / file).read_text()
        for part in name.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b", source, flags=re.MULTILINE), (file, part)


def test_files_that_are_named_are_there() -> None:
    pages = ARCHITECTURE + (ROOT / "CONTRIBUTING.md").read_text()
    files = set(re.findall(r"`([\w/]+/[\w/]+\.py)`", pages))
    assert len(files) >= 15
    missing = [
        file for file in files if not any((ROOT / base / file).is_file() for base in (".", "graphrec"))
    ]
    assert not missing


def test_the_rooms_are_those_of_the_test() -> None:
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", ARCHITECTURE.split("## The way")[0], flags=re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row)] == [*ROOMS]


def test_the_drawings_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = ROOT / "docs" / "drawings" / "draw.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    runpy.run_path(str(script), run_name="__main__")
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name for path in script.parent.glob("*.svg")}
    assert len(drawn) == 5


def private_names(source: str) -> set[str]:
    """Underscore names that a program imports or takes from something that is not itself."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if alias.name.startswith("_")}
        elif isinstance(node, ast.Attribute) and re.match(r"_[^_]", node.attr):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            names |= set() if own else {node.attr}
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_use_no_private_names(path: Path) -> None:
    assert not private_names(path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_benchmarks_import_what_a_package_offers(path: Path) -> None:
    assert not modules_inside(path.read_text())


def modules_inside(source: str) -> list[str]:
    """Modules of the library below its packages that a program imports from."""
    found = [node.module or "" for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    return [name for name in found if name.startswith("graphrec.") and name.count(".") > 1]


def test_private_names_would_be_seen() -> None:
    deep = "from graphrec.data.text import printable\nfrom graphrec.data import Query"
    assert modules_inside(deep) == ["graphrec.data.text"]
    assert private_names("from a import _b\nc._d()\nself._e\nf.__dict__") == {"_b", "_d"}


def resolve(name: str) -> object:
    """The module or attribute of a dotted name. Raises AttributeError or ImportError."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        if (module := importable(".".join(parts[:size]))) is not None:
            value: object = module
            for part in parts[size:]:
                value = getattr(value, part)
            return value
    raise ImportError(name)


def importable(name: str) -> object | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def test_names_of_the_library_on_pages_exist() -> None:
    names = {
        name.removesuffix(".")
        for path in PAGES
        for name in re.findall(r"`(graphrec(?:\.\w+)+)", path.read_text())
    }
    assert len(names) >= 15
    missing = []
    for name in sorted(names):
        try:
            resolve(name)
        except (AttributeError, ImportError):
            missing.append(name)
    assert not missing
    with pytest.raises(AttributeError):
        resolve("graphrec.models.NoSuchModel")
