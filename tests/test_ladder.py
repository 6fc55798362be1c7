"""The main job, from the command line: events go in, a report comes out."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks.ladder
from benchmarks.ladder import BY_DEFAULT, main
from graphrec.evaluate import SLICES
from graphrec.models import HEURISTICS, Recommender
from tests.graphs import random_rows
from tests.pages import form

ROOT = Path(__file__).parent.parent
METRICS = {"mrr", "mrr_low", "mrr_high", "hits@1", "hits@10", "hits@50", "ndcg@10", "mean_rank"}


def ladder(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The program, run in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            if isinstance(leaving.code, str):
                print(leaving.code, file=err)
            code = 0 if leaving.code in (None, 0) else 1
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ladder") / "my.csv"
    rows = [
        f"u{row.src},u{row.dst},{row.time},{row.action}" for row in random_rows(users=30, events=400, seed=3)
    ]
    path.write_text("src,dst,timestamp,action\n" + "\n".join(rows) + "\n")
    return path


def test_events_become_a_report(events: Path, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("user,age,city\nu1,30,Bonn\nu2,,Lyon\nnewcomer,41,\n")
    default = list(BY_DEFAULT)
    done = ladder("--events", events, "--users", users, "--seed", 7, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results) >= {"dataset", "users", "events", "seed", "split", "rows", "mutual", "timing"}
    assert (results["dataset"], results["users"], results["seed"]) == ("my.csv", 31, 7)
    assert results["split"]["train"] + results["split"]["val"] + results["split"]["test"] == results["events"]
    assert results["split"]["evaluated"] == {part: results["split"][part] for part in ("val", "test")}
    for row in results["rows"]:
        assert set(row) == {"model", "kind", "part", "slice", "n"} | METRICS
        assert row["kind"] == ("heuristic" if row["model"] in HEURISTICS else "learned")
        assert row["slice"] in SLICES
        assert row["mrr_low"] <= row["mrr"] <= row["mrr_high"]
    for part in ("val", "test"):
        for model in default:
            sizes = {r["slice"]: r["n"] for r in results["rows"] if (r["model"], r["part"]) == (model, part)}
            assert sizes["all"] == results["split"][part]
            assert sizes["all"] == sum(sizes.get(name, 0) for name in ("repeat", "reply", "new"))
    assert [row["model"] for row in results["timing"]] == default
    assert {row["model"] for row in results["mutual"]} == set(default)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5
    assert not re.search(r'(src|href)="(?!data:)', page), "the page loads nothing from elsewhere"
    for image in ("scores.png", "questions.png"):
        assert (tmp_path / "out" / image).read_bytes().startswith(b"\x89PNG")
    assert "reply_recency" in done.stdout
    suggested = re.findall(r"^  (\w+): (.+)$", done.stdout, flags=re.MULTILINE)
    assert len(suggested) == 3
    for user, people in suggested:
        assert user not in people.split(", ")


MODELS = ("--models", "random", "popularity")


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """The program, ended when the first model is judged."""
    judge = benchmarks.ladder.judge

    def ended(model: Recommender, *rest: Any) -> dict[str, Any]:
        if model.name == "popularity":
            raise KeyboardInterrupt
        return judge(model, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(benchmarks.ladder, "judge", ended)
        with pytest.raises(KeyboardInterrupt):
            ladder(*arguments)


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    timed = {"timing": [row["model"] for row in results["timing"]]}
    return results | timed


def test_an_interrupted_run_goes_on(events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ladder("--events", events, *MODELS, "--out", tmp_path / "whole").returncode == 0
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())
    interrupted(monkeypatch, "--events", events, *MODELS, "--out", tmp_path / "cut")
    partial = tmp_path / "cut" / "partial.json"
    kept = json.loads(partial.read_text())
    kept["judged"]["random"]["timing"]["fit_s"] = 123.0
    partial.write_text(json.dumps(kept))
    done = ladder("--events", events, *MODELS, "--out", tmp_path / "cut", "--resume")
    assert "1 of 2 models are done" in done.stdout
    cut = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert cut["timing"][0]["fit_s"] == 123.0
    assert without_times(cut) == without_times(whole)
    assert not partial.exists()


@pytest.mark.parametrize("change", ["events", "users", "seed", "code", "damage"])
def test_what_an_interrupted_run_has_judged_is_known_by_content(
    change: str, events: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files keep their names; as many people, events and times; only what is in them changes."""
    given, users = tmp_path / "given.csv", tmp_path / "users.csv"
    given.write_text(events.read_text())
    users.write_text("user,age\nu1,30\n")
    arguments = ["--events", given, "--users", users, *MODELS, "--out", tmp_path / "out"]
    interrupted(monkeypatch, *arguments)
    if change == "events":  # every act is turned around
        head, *rows = given.read_text().splitlines()
        turned = [[dst, src, *rest] for src, dst, *rest in (row.split(",") for row in rows)]
        given.write_text("\n".join([head, *map(",".join, turned)]) + "\n")
    elif change == "users":
        users.write_text("user,age\nu1,31\n")
    elif change == "seed":
        arguments += ["--seed", 1]
    elif change == "code":
        monkeypatch.setattr(benchmarks.ladder, "digest_code", lambda: "0" * 64)
    else:
        (tmp_path / "out" / "partial.json").write_text("{}")
    resumed = ladder(*arguments, "--resume")
    assert "starting anew" in resumed.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert ladder(*arguments, "--out", tmp_path / "fresh").returncode == 0  # the last --out counts
    fresh = json.loads((tmp_path / "fresh" / "results.json").read_text())
    assert without_times(results) == without_times(fresh)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("src,when\na,1\n", "column 'dst' is missing"),
        ("src,dst,timestamp\na,b,1\nb,a,soon\n", "row 2, column 'timestamp': 'soon' is not a time"),
        ("src,dst,timestamp\n", "no events"),
        ("", "the file is empty"),
        ("src,dst,timestamp\na,b,1\na,b\n", "row 2 has 2 columns"),
        ("src,dst,timestamp\na,b,1\n", "cannot be split by time"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text(content)
    done = ladder("--events", path, "--out", tmp_path / "out")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    assert "reply_recency" in ladder("--models", "best", "--out", tmp_path).stderr
    done = ladder("--dataset", "Facebook", "--out", tmp_path)
    assert "MathOverflow" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_readme_shows_the_example_and_its_output(tmp_path: Path) -> None:
    readme, example = (ROOT / "README.md").read_text(), (ROOT / "docs" / "example.py").read_text()
    code = example.split('"""', 2)[2].strip()
    assert f"```python\n{code}\n```" in readme
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "example.py"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "GRAPHREC_HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    shown = re.search(re.escape(code) + r"\n```\n\n```text\n(.*?)```", readme, flags=re.DOTALL)
    assert shown is not None
    assert form(done.stdout) == form(shown[1])
