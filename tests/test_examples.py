"""The examples run, and print what they are about."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from graphrec import Bundle
from tests.graphs import random_rows

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(name: str, *arguments: str) -> str:
        monkeypatch.setenv("GRAPHREC_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")
def test_a_log_becomes_suggestions(run, tmp_path: Path) -> None:
    log, bundle = tmp_path / "log.csv", tmp_path / "bundle"
    rows = random_rows(users=30, events=400, seed=3)
    log.write_text("src,dst,timestamp\n" + "".join(f"u{row.src},u{row.dst},{row.time}\n" for row in rows))
    printed = run("fit_and_serve.py", str(log), "--out", str(bundle))
    first, second = Bundle.load(bundle).graph.user_ids.lookup(range(2))
    assert f"{first}: " in printed
    assert "is suggested because" in printed
    (given,) = Bundle.load(bundle).suggest([first], k=30)
    assert second not in given.people


def test_a_heuristic_of_ones_own_is_evaluated(run) -> None:
    lines = run("evaluate_heuristic.py").splitlines()
    assert [line.split()[0] for line in lines] == ["recent_senders", "repeat_recency", "reply_recency"]
    assert "reply 1.000" in lines[2]


@pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")
def test_a_tokenizer_of_ones_own_is_judged(run) -> None:
    printed = run("own_tokenizer.py")
    assert printed.index("Sage, fitted until") < printed.index("ResidualKMeans, fitted until")
    assert printed.count("AUC: uniform") == 2


def test_every_example_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert all(f"({path.name})" in listed for path in EXAMPLES.glob("*.py"))
