"""Bundles that are held in memory, or lie where others meddle: rules and forgetting hold all the same."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from graphs import Row
from test_service import USERS, event_log_of, name, run, written
from test_writers import END, ROWS, contents, later, saved, small_disk, users

from graphrec import Bundle, DataError, FriendGraph
from graphrec.cli import commands
from graphrec.service import Rules, RuleStore, change_rules, export, suggest_everyone
from graphrec.service.manifest import delete_stale
from graphrec.tokenizer import RandomCodes

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

__all__ = ["saved", "small_disk"]  # fixtures


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def forget(folder: Path, user: str) -> None:
    Bundle.update(folder, lambda bundle: bundle.forget(user))


# Forgotten while a service holds the bundle


@pytest.mark.parametrize("rule", ["none", "opt-out", "block"])
def test_the_forgotten_are_not_shown_by_a_service_that_knew_them(folder: Path, rule: str) -> None:
    """With a person, the rules that hid them are forgotten: they must not appear for that."""
    served = Bundle.load(folder)
    first, second = served.suggest([name(0)], k=2)[0].people
    if rule != "none":
        blocked, opted_out = ([(first, name(0))], []) if rule == "block" else ([], [first])
        change_rules(folder, add=Rules.of(blocked, opted_out))
    moved = served.add(later(0))
    forget(folder, str(first))
    assert not served.rules
    for held in (served, moved):
        shown = held.suggest([name(0)], k=USERS + 1)[0].people
        assert first not in shown
        assert second in shown
        with pytest.raises(ValueError, match="is not suggested to"):
            held.explain(name(0), first)
    assert "new-0" in moved.suggest([name(5)], k=USERS + 1)[0].people
    forget(folder, str(second))
    assert not {first, second} & set(served.suggest([name(0)], k=USERS)[0].people)


def test_a_service_without_a_manifest_does_not_guess(folder: Path) -> None:
    served = Bundle.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest\.json.*forgotten"):
        served.suggest([name(0)])


def test_the_forgotten_are_not_exported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as users nor as people, if they are forgotten while an export runs."""
    out, table = tmp_path / "all.parquet", export._table

    def slowly(bundle: Bundle, *args: object) -> object:
        found = table(bundle, *args)  # type: ignore[arg-type]
        forget(folder, name(3))
        return found

    monkeypatch.setattr(export, "_table", slowly)
    suggest_everyone(Bundle.load(folder), out, k=USERS, progress=False)
    rows = pq.read_table(out).to_pylist()
    assert not [row for row in rows if name(3) in (row["user"], row["person"])]
    ranks = {user: [row["rank"] for row in rows if row["user"] == user] for user in map(name, (0, 5))}
    assert all(found == list(range(1, len(found) + 1)) for found in ranks.values())


# A killed change of rules

CUT_SHORT = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
for number in range(5000):
    connection.execute("INSERT INTO opted_out VALUES (?)", (f"zoe-{number}",))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_change_of_rules_keeps_no_reader_out(folder: Path) -> None:
    change_rules(folder, add=Rules.of(opted_out=[name(2)]))
    served = Bundle.load(folder)
    done = subprocess.run([sys.executable, "-c", CUT_SHORT, str(folder / "rules.sqlite")])
    assert done.returncode == -signal.SIGKILL
    assert (folder / "rules.sqlite-journal").stat().st_size
    assert name(2) not in served.suggest([name(0)], k=USERS)[0].people
    assert Bundle.load(folder).rules == Rules.of(opted_out=[name(2)])


@pytest.mark.parametrize("what", ["folder", "pipe", "link to nothing"])
def test_rules_that_are_no_file(folder: Path, what: str) -> None:
    served, path = Bundle.load(folder), folder / "rules.sqlite"
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder / "nothing")
    with pytest.raises(DataError, match=r"rules\.sqlite: the file is missing"):
        served.suggest([name(0)])
    with pytest.raises(SystemExit, match=r"rules\.sqlite: the file is missing"):
        run(f"graphrec opt-out {folder} {name(1)}")


def test_what_a_killed_first_save_left_is_no_obstacle(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    with sqlite3.connect(folder / "rules.sqlite.new") as connection:
        connection.execute("CREATE TABLE blocked (user TEXT)")
    connection.close()
    (folder / "rules.sqlite.new-journal").write_bytes(b"left")
    Bundle.load(saved).save(folder)
    assert not RuleStore(folder).current()
    assert not list(folder.glob("rules.sqlite.new*"))


def test_a_version_that_was_killed_just_before_it_counted_is_deleted(folder: Path) -> None:
    shutil.copytree(folder / "version-1", folder / "version-2")
    (folder / "version-2" / "manifest.json.new").write_text("{")
    delete_stale(folder)  # warnings are errors
    assert not (folder / "version-2").exists()
    assert len(users(folder)) == USERS


def test_a_forgetting_that_was_killed_before_it_came_to_the_rules(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next writer finishes it, and takes nobody else out of the rules."""
    gone, unknown = name(3), "zoe"
    change_rules(folder, add=Rules.of([(gone, name(1)), (unknown, name(1))], [gone, unknown, name(2)]))
    kept = Rules.of([(unknown, name(1))], [unknown, name(2)])
    with monkeypatch.context() as killed:
        killed.setattr(RuleStore, "change", None)
        with pytest.raises(TypeError):
            forget(folder, gone)
    assert gone not in users(folder)
    assert gone in RuleStore(folder).current().names
    Bundle.update(folder, lambda bundle: bundle.add(later(0)))
    assert RuleStore(folder).current() == kept
    assert not [path for path in folder.rglob("*") if path.is_file() and gone.encode() in path.read_bytes()]
    change_rules(folder, add=Rules.of(opted_out=[gone]))  # and not again and again
    Bundle.update(folder, lambda bundle: bundle.add(later(1)))
    assert gone in RuleStore(folder).current().names


def test_rules_that_cannot_be_written_are_not_said_to_be_forgotten(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left: rules.sqlite; nothing was changed")

    change_rules(folder, add=Rules.of(opted_out=[name(3)]))
    with monkeypatch.context() as patch:
        patch.setattr(RuleStore, "change", full)
        with pytest.raises(OSError, match=r"users 'person-03-zq' were removed.*still name them"):
            forget(folder, name(3))
    forget(folder, name(4))
    assert not RuleStore(folder).current()


# Other places


@pytest.mark.parametrize("place", ["version-1", "version-7", "other"])
def test_a_bundle_is_not_written_into_another(folder: Path, tmp_path: Path, place: str) -> None:
    before, events = contents(folder), written(tmp_path / "events.parquet", ROWS[:60])
    with pytest.raises(SystemExit, match=r"lies in the bundle"):
        run(f"graphrec fit {events} --out {folder / place} --model popularity")
    with pytest.raises(DataError, match="lies in the bundle"):
        Bundle.load(folder).save(folder / place)
    assert contents(folder) == before


@pytest.mark.parametrize("what", ["version-1", "version-1/graph.pt"])
def test_what_links_lead_to_is_not_forgotten_in_silence(folder: Path, tmp_path: Path, what: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder / what, elsewhere)
    (folder / what).symlink_to(elsewhere)
    with pytest.warns(UserWarning, match=r"could not be deleted .*link to .*elsewhere"):
        forget(folder, name(3))
    assert Bundle.load(folder).graph.num_users == USERS - 1
    with pytest.warns(UserWarning, match="elsewhere"):
        delete_stale(folder)


def test_all_fits_that_were_overtaken_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the working folder, whose name is not in its path, and where two find the same free name."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    bundle = Bundle.fit(
        FriendGraph.from_events(event_log_of(ROWS[:60])), model="popularity", tokenizer=RandomCodes()
    )
    spares = [commands._save_beside(bundle.with_rules(Rules()), Path(".")) for _ in range(2)]
    assert [path.name for path in spares] == ["here.fit-1", "here.fit-2"]
    assert all(Bundle.load(path).graph.num_events == 60 for path in spares)


def test_a_full_disk_keeps_no_joined_parts(saved: Path, small_disk: Path, tmp_path: Path) -> None:
    bundle, parts = Bundle.load(saved), small_disk / "x.parquet.parts"
    suggest_everyone(bundle, tmp_path / "whole.parquet", k=USERS, progress=False)
    filler = small_disk / "filler"
    room = (tmp_path / "whole.parquet").stat().st_size // 4096 * 4096 + 8192
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    with pytest.raises(OSError, match="no space left"):
        suggest_everyone(bundle, small_disk / "x.parquet", k=USERS, progress=False)
    assert {path.name for path in parts.iterdir()} <= {"writer.lock", "job.json", "000000.parquet"}
    filler.unlink()
    suggest_everyone(bundle, small_disk / "x.parquet", k=USERS, progress=False)
    assert (small_disk / "x.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


# In one line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("block {b} --file {t}", r"^graphrec: \S+: is a directory$"),
        ("block {b} --file {t}/none.csv", r"^graphrec: \S+/none\.csv: no such file or directory$"),
        ("recommend {t}/log.parquet --user a", r"^graphrec: \S+/log\.parquet: is a file; a bundle"),
        ("recommend {t}/pipe --user a", r"^graphrec: \S+/manifest\.json: is no plain file"),
        ("recommend {b} --all --out {t}/" + "x" * 253, "file name too long$"),
    ],
)
def test_what_the_system_says_is_said_plainly(folder: Path, tmp_path: Path, line: str, message: str) -> None:
    written(tmp_path / "log.parquet", [Row(1, 2, END + 5, None)])
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "manifest.json")
    with pytest.raises(SystemExit, match=message):
        run("graphrec " + line.format(b=folder, t=tmp_path))
