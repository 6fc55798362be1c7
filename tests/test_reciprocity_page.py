"""The page on reciprocity: its code runs, and its picture is made from bundled data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "reciprocity.md"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
    monkeypatch.delenv("GRAPHREC_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {"__name__": "page"}
    for code in blocks:
        exec(code, names)
    picture = re.search(r"!\[.*?\]\((.*?)\)", PAGE.read_text())
    assert picture is not None
    assert (tmp_path / picture[1]).stat().st_size > 10_000
    assert (PAGE.parent / picture[1]).is_file()
    assert "reciprocated" in capsys.readouterr().out
