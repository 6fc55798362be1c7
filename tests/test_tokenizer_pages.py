"""The page of STUs: its code runs, prints what it shows up to the figures, and keeps its promises."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.pages import form

PAGE = Path(__file__).parents[1] / "docs" / "stus.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL)


def test_the_form_keeps_words_and_drops_figures() -> None:
    assert form("AUC: 0.9 [0.8, 1.0], x\n----  ---") == form("AUC:  12,345.0 [1, 2],  x\n-  -")
    assert form("perplexity 1") != form("homophily 1")


@pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")
def test_the_page_runs_and_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text())
    assert sum(bool(shown) for _, shown in blocks) >= 6
    names: dict[str, object] = {"__name__": "page"}
    for code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert form(printed.getvalue()) == form(shown)
    assert (tmp_path / "stus-tree.png").stat().st_size > 10_000


def test_the_tokenizer_of_ones_own_is_short() -> None:
    code = next(code for code, _ in BLOCK.findall(PAGE.read_text()) if "class Sage(Tokenizer)" in code)
    (own,) = (node for node in ast.parse(code).body if isinstance(node, ast.ClassDef))
    lines = code.splitlines()[own.lineno - 1 : own.end_lineno]
    assert 5 < sum(bool(line.strip()) for line in lines) <= 20
