"""The command line: one line and one documented exit code for what can be mended, and ids on one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_service import ROOT, USERS, name, run
from test_writers import contents, saved

from graphrec import Bundle, EventLog, FriendGraph
from graphrec.cli.main import main
from graphrec.service import Rules, change_rules
from graphrec.tokenizer import RandomCodes

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

__all__ = ["saved"]  # a fixture


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "b", "--user", "a", "-k", "1_0"], "not a whole number"),
        (["recommend", "b", "--user", "a", "-k", "2.5"], "not a whole number"),
        (["recommend", "b", "--user", "a", "--time", "9223372036854775808"], "64 bits"),
        (["recommend", "b", "--user", "a", "--time", "nan"], "not a whole number of seconds"),
        (["opt-out", "b", "\udcff"], "not valid UTF-8"),
        (["opt-out", "b", "a\0"], "zero byte"),
        (["fly", "b"], "invalid choice"),
        (["fit", "log.csv"], "--out"),
    ],
)
def test_a_line_that_makes_no_sense(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("graphrec: ")
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("recommend {b} --user person-01-zq --out x.parquet", "--out needs --all"),
        ("recommend {b} --all --out {b}/manifest.json", "lies in the bundle"),
        ("recommend {b} --all --out {b}/new.parquet", "lies in the bundle"),
        ("recommend {b} --all --out {t}", "is a folder"),
        ("recommend {b} --all --out {t}/none/x.parquet", "no such folder"),
        ("block {b} person-01-zq", "or --file"),
        ("opt-out {b} a --file {t}/people.csv", "not both"),
        ("opt-out {b} NULL", "cannot be a user id"),
        ("opt-out {t} a", "no bundle of graphrec"),
        ("add {t}/nothing x.csv", "no such"),
        ("explain {b} person-01-zq person-01-zq", "is not suggested to"),
    ],
)
def test_a_line_that_can_be_mended(line: str, message: str, folder: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(SystemExit) as left:
        run("graphrec " + line.format(b=folder, t=tmp_path))
    assert str(left.value).startswith("graphrec: ")
    assert "\n" not in str(left.value)
    assert message in str(left.value)
    assert contents(tmp_path) == before


def test_a_wrong_model_is_found_before_the_log_is_read(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="unknown model 'best'"):
        run(f"graphrec fit {tmp_path}/none.csv --out {tmp_path}/new --model best")


def test_a_huge_k_is_everybody(folder: Path) -> None:
    everybody = run(f"graphrec recommend {folder} --user {name(1)} -k {10**11}")
    assert everybody == run(f"graphrec recommend {folder} --user {name(1)} -k {USERS}")


def test_who_gets_nothing_has_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_rules(folder, add=Rules.of(opted_out=[name(number) for number in range(USERS)]))
    assert run(f"graphrec recommend {folder} --user {name(1)} {name(2)}") == f"{name(1)}\t\t\n{name(2)}\t\t\n"
    assert f"nobody to suggest to {name(1)}" in capsys.readouterr().err


def test_ids_stay_in_their_column(tmp_path: Path) -> None:
    odd = ["a\tb", "c\nd", "e\\f", "-5x", "g\u2028h", "i\x1b[2Jj"]
    log = EventLog.from_arrays(odd, [*odd[1:], odd[0]], list(range(6)))
    folder = tmp_path / "bundle"
    Bundle.fit(FriendGraph.from_events(log), model="popularity", tokenizer=RandomCodes()).save(folder)
    lines = run(f"graphrec recommend {folder} --user=-5x -k 9").splitlines()
    assert {line.count("\t") for line in lines} == {2}
    assert {line.split("\t")[1] for line in lines} == {"a\\tb", "c\\nd", "i\\x1b[2Jj"}
    run(f"graphrec forget {folder} -- -5x")
    assert Bundle.load(folder).graph.num_users == 5


def test_nobody_is_told_of_a_rule(folder: Path) -> None:
    """Who opted out, is blocked or is known already: one answer."""
    served = Bundle.load(folder)
    first, second, third = served.suggest([name(0)], k=3)[0].people
    known = next(
        one for one in map(name, range(1, USERS)) if one not in served.suggest([name(0)], k=USERS)[0].people
    )
    assert run(f"graphrec explain {folder} {name(0)} {third}")
    change_rules(folder, add=Rules.of([(first, name(0))], [second]))
    answers = set()
    for one in (first, second, known):
        with pytest.raises(SystemExit) as left:
            run(f"graphrec explain {folder} {name(0)} {one}")
        answers.add(str(left.value).replace(str(one), "NAME"))
    assert answers == {f"graphrec: 'NAME' is not suggested to '{name(0)}'"}


def test_a_closed_pipe_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m graphrec.cli recommend {folder} --user {name(1)} -k 20"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert done.stdout.strip() in ("0", "141")
    assert "Traceback" not in done.stderr


def test_two_exports_do_not_mix(folder: Path, tmp_path: Path) -> None:
    """The second is refused while the first is at work; an interrupted one of another job does not count."""
    from graphrec.service.export import _only_export

    out = tmp_path / "all.parquet"
    with _only_export(out), pytest.raises(SystemExit, match="another process is writing it"):
        run(f"graphrec recommend {folder} --all -k 3 --out {out}")
    run(f"graphrec recommend {folder} --all -k 3 --out {out}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.parquet", "bundle"]
    (tmp_path / "b.parquet.parts").mkdir()
    (tmp_path / "b.parquet.parts" / "diary.txt").write_text("mine")
    with pytest.raises(SystemExit, match="in the way"):
        run(f"graphrec recommend {folder} --all --out {tmp_path}/b.parquet")
