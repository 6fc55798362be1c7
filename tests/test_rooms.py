"""Each room imports only from the rooms before it."""

import ast
import tomllib
from pathlib import Path

import pytest

import graphrec

ROOMS = (
    "threads",
    "jit",
    "data",
    "datasets",
    "temporal",
    "loader",
    "metrics",
    "evaluate",
    "features",
    "nn",
    "train",
    "retrieval",
    "decode",
    "tokenizer",
    "models",
    "explain",
    "report",
    "service",
    "serving",
    "cli",
)
PACKAGE = Path(graphrec.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in ROOMS)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_entered(source: str) -> set[str]:
    parts = [name.split(".") for name in imported_modules(source)]
    return {part[1] for part in parts if part[0] == "graphrec" and len(part) > 1 and part[1] in ROOMS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_leftwards_only(path: Path) -> None:
    own = ROOMS.index(room_of(path))
    later = [room for room in rooms_entered(path.read_text()) if ROOMS.index(room) > own]
    assert not later, f"{path.name} imports from later rooms: {later}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_training_room_knows_lightning(path: Path) -> None:
    uses = any(
        name.split(".")[0] in ("pytorch_lightning", "lightning")
        for name in imported_modules(path.read_text())
    )
    assert not uses or room_of(path) == "train"


def test_the_rule_can_fail() -> None:
    assert rooms_entered("from graphrec.models import suggest") == {"models"}
    assert rooms_entered("import graphrec.data.graph") == {"data"}
    assert rooms_entered("from graphrec import evaluate") == {"evaluate"}


def test_every_folder_of_code_is_installed() -> None:
    """A package that pyproject.toml does not name is missing from the wheel, though not from a checkout."""
    project = Path(__file__).parents[1]
    listed = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {file.parent.relative_to(project) for file in (project / "graphrec").rglob("*.py")}
    assert {".".join(folder.parts) for folder in folders} == {
        name for name in listed if not name.startswith("graphrec.bundled")
    }


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_files_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
