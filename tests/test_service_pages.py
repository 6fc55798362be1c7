"""Pages of commands and code: both run, and print what they show up to the figures."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from graphrec.cli.main import main
from tests.pages import form

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```(?:\n\n```text\n(.*?)```)?", flags=re.DOTALL)


@pytest.mark.parametrize(
    ("page", "least"), [("service.md", 8), ("serving.md", 5), ("retrieval.md", 2), ("tour.md", 6)]
)
@pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")
def test_the_page_runs_and_prints_what_it_shows(
    page: str, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    text, names = (DOCS / page).read_text(), {"__name__": "page"}
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") + text.count("```sh") >= least
    for kind, code, shown in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if kind == "python":
                exec(code, names)
            else:
                for line in code.splitlines():
                    program, *arguments = shlex.split(line)
                    assert program == "graphrec"
                    main(arguments)
        if shown:
            assert form(printed.getvalue()) == form(shown)
