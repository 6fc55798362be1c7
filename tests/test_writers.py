"""Writers and readers of one bundle: nothing is lost, half-written or deleted that is another's."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphs import Row, planted_rows
from test_service import ROOT, USERS, event_log_of, name, run, written

from benchmarks.correctness.races import run_races
from graphrec import Bundle, DataError, EventLog, FriendGraph
from graphrec.service import Rules, RuleStore, StaleBundleError, change_rules, current_digest, manifest
from graphrec.service.rule_changes import read_id_rows
from graphrec.tokenizer import RandomCodes

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")

ROWS = planted_rows(0, groups=3, size=8, events=240)
END = ROWS[-1].time


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    graph = FriendGraph.from_events(event_log_of(ROWS))
    path = tmp_path_factory.mktemp("saved") / "bundle"
    Bundle.fit(graph, model="popularity", tokenizer=RandomCodes()).save(path)
    return path


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bundle"))


def later(number: int, *, by: str = "new") -> EventLog:
    return EventLog.from_arrays([f"{by}-{number}"], [name(1)], [END + 1 + number])


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def users(folder: Path) -> set[object]:
    return set(Bundle.load(folder).graph.user_ids.values.to_pylist())


# At the same moment


def test_nothing_is_lost_in_races() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # so that another user may read the bundle in it
        assert run_races(Path(folder) / "bundle", rounds=3) == []


def test_a_bundle_loaded_before_undoes_nothing(folder: Path) -> None:
    """What a service holds is no reason to take back a rule, a forgetting or events."""
    held = Bundle.load(folder)
    change_rules(folder, add=Rules.of([(name(1), name(2))], [name(4)]))
    Bundle.update(folder, lambda bundle: bundle.forget(name(3)))
    before = contents(folder)
    with pytest.raises(StaleBundleError, match=r"version-2.*Bundle\.update"):
        held.add(later(0)).save(folder)
    assert contents(folder) == before
    Bundle.update(folder, lambda bundle: bundle.add(later(0)))
    assert users(folder) >= {"new-0"}
    assert name(3) not in users(folder)
    assert Bundle.load(folder).rules == Rules.of([(name(1), name(2))], [name(4)])


def test_a_bundle_may_be_saved_again_and_again(folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.load(folder)
    for number in range(3):
        bundle = bundle.add(later(number))
        bundle.save(folder)
        bundle.save(tmp_path / f"copy-{number}")
    assert users(folder) >= {"new-0", "new-1", "new-2"}


def test_a_fresh_fit_replaces_only_what_it_names(folder: Path) -> None:
    fresh = Bundle.fit(
        FriendGraph.from_events(event_log_of(ROWS[:60])), model="popularity", tokenizer=RandomCodes()
    )
    change_rules(folder, add=Rules.of(opted_out=[name(2)]))
    found = current_digest(folder)
    with pytest.raises(StaleBundleError, match="replaces=current_digest"):
        fresh.save(folder)
    fresh.save(folder, replaces=found)
    assert Bundle.load(folder).graph.num_events == 60
    assert Bundle.load(folder).rules == fresh.rules == Rules.of(opted_out=[name(2)])
    with pytest.raises(StaleBundleError):
        Bundle.fit(fresh.graph, model="popularity", tokenizer=RandomCodes()).save(folder, replaces=found)


def test_a_save_inside_an_update_is_refused(folder: Path) -> None:
    def change(bundle: Bundle) -> Bundle:
        bundle.add(later(0)).save(folder)
        return bundle

    with pytest.raises(RuntimeError, match="by this thread"):
        Bundle.update(folder, change)
    assert len(users(folder)) == USERS


def test_threads_take_turns(folder: Path) -> None:
    threads = [
        threading.Thread(target=Bundle.update, args=(folder, lambda old, n=number: old.add(later(n))))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert users(folder) >= {f"new-{number}" for number in range(4)}


def test_a_reader_goes_on_with_the_next_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often a writer replaces what is being read; in the end writers wait."""
    check, replaced = manifest.Version.check, []

    def replacing(version: manifest.Version) -> None:
        if len(replaced) < manifest.ATTEMPTS_WITHOUT_LOCK:
            replaced.append(version.path.name)
            with monkeypatch.context() as original:
                original.setattr(manifest.Version, "check", check)
                Bundle.update(folder, lambda bundle: bundle.add(later(len(replaced))))
        check(version)

    monkeypatch.setattr(manifest.Version, "check", replacing)
    assert Bundle.load(folder).graph.num_users == USERS + manifest.ATTEMPTS_WITHOUT_LOCK
    assert replaced == ["version-1", "version-2", "version-3"]


# Rules


def test_a_rule_holds_at_once(folder: Path) -> None:
    served = Bundle.load(folder)
    first, second = served.suggest([name(0)], k=2)[0].people
    run(f"graphrec opt-out {folder} {first}")
    assert first not in served.suggest([name(0)], k=USERS)[0].people
    run(f"graphrec block {folder} {second} {name(0)}")
    assert second not in served.suggest([name(0)], k=USERS)[0].people
    run(f"graphrec opt-out {folder} {first} --undo")
    assert first in served.suggest([name(0)], k=USERS)[0].people
    moved = served.add(later(0))
    run(f"graphrec opt-out {folder} {first}")
    assert first not in moved.suggest([name(0)], k=USERS)[0].people
    assert current_digest(folder) == served.digest  # and no version was written


@pytest.mark.parametrize("what", ["gone", "empty", "text", "other"])
def test_rules_that_cannot_be_read_are_not_taken_for_none(folder: Path, what: str) -> None:
    served, path = Bundle.load(folder), folder / "rules.sqlite"
    path.unlink()
    if what == "other":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE state (digest TEXT)")
        connection.close()
    elif what != "gone":
        path.write_text("{}" if what == "text" else "")
    for ask in (
        lambda: served.suggest([name(0)]),
        lambda: Bundle.load(folder),
        lambda: served.add(later(0)).save(folder),
        lambda: change_rules(folder, add=Rules.of(opted_out=[name(1)])),
    ):
        with pytest.raises(DataError, match=r"rules\.sqlite"):
            ask()
    if what == "gone":
        RuleStore(folder).create()
        assert served.suggest([name(0)])


def test_save_writes_the_difference_of_rules(folder: Path) -> None:
    store = RuleStore(folder)
    store.change(add=Rules.of([(name(1), name(2)), (name(3), name(4))]))
    held = Bundle.load(folder)
    changed = held.with_rules(held.rules.unblock(name(1), name(2)).opt_out(name(5)))
    store.change(add=Rules.of(opted_out=[name(6)]))
    changed.save(folder)
    assert store.current() == Rules.of([(name(3), name(4))], [name(5), name(6)])


def test_rules_from_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(f'\ufeffother , why,user\n{name(1)},"a, b", {name(2)}\n\n"x,\ny",,7\n', encoding="utf-8")
    run(f"graphrec block {folder} --file {file}")
    expected = Rules.of([(name(1), name(2)), ("x,\ny", 7)])
    assert Bundle.load(folder).rules == expected
    assert "not among the users (7, x,\\ny)" in capsys.readouterr().err
    run(f"graphrec block {folder} --file {file} --undo")
    assert not Bundle.load(folder).rules
    for text, message in (
        ("user,other\na,b\na,\n", "line 3, column 'other'"),
        ("user,other\na,b\na,b,c\n", "line 3: 3 fields"),
        ("user,other\na,b\n7,7 \n", "line 3: '7' cannot be blocked"),
        ("user\na\n", "no column 'other'"),
        ("", "no column 'user'"),
        ('user,other\na,"b\n', "line 2: not CSV"),
        ("user,other\na,\xff\n", "not UTF-8"),
    ):
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=message):
            read_id_rows(file, ("user", "other"))
        with pytest.raises(SystemExit, match=message):
            run(f"graphrec block {folder} --file {file}")
    assert not Bundle.load(folder).rules


def test_a_rule_is_changed_without_torch(folder: Path) -> None:
    code = "import sys; from graphrec.cli.main import main; main(sys.argv[1:])"
    code += "; assert 'torch' not in sys.modules"
    line = [sys.executable, "-c", code, "block", str(folder), name(1), "zoe"]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    assert "'zoe'" not in done.stdout
    assert "zoe" in done.stderr
    assert Bundle.load(folder).rules == Rules.of([(name(1), "zoe")])


# Killed, interrupted, full

CHANGES = """
import sys
from pathlib import Path
from graphrec import Bundle, EventLog
folder = Path(sys.argv[1])
print("ready", flush=True)
for number in range(10**6):
    log = EventLog.from_arrays([f"new-{number}"], ["person-01-zq"], [10**6 + number])
    Bundle.update(folder, lambda bundle: bundle.add(log))
    print(number, flush=True)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_writer_leaves_a_whole_bundle(folder: Path, kill: signal.Signals) -> None:
    """At random moments: what was said to be done is there, and the next writer is not kept waiting."""
    line = [sys.executable, "-c", CHANGES, str(folder)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, cwd=ROOT, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.2 + random.Random(int(kill)).random())
        writer.send_signal(kill)
        said = [int(text) for text in writer.stdout.read().splitlines()]
    found = len(users(folder)) - USERS
    assert found - len(said) in (0, 1)
    Bundle.update(folder, lambda bundle: bundle.add(later(0, by="after")))
    assert len(users(folder)) == USERS + found + 1
    assert len(list(folder.glob("version-*"))) == 1


FORKED = """
import os, random, signal, sys, time
from pathlib import Path
from graphrec import Bundle, EventLog
folder, seed = Path(sys.argv[1]), random.Random(0)
for number in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        log = EventLog.from_arrays([f"new-{number}"], ["person-01-zq"], [10**6 + number])
        Bundle.update(folder, lambda bundle: bundle.add(log))
        os._exit(0)
    time.sleep(seed.random() * 0.25)
    os.kill(child, signal.SIGKILL)
    done = os.waitpid(child, 0)[1] == 0
    people = set(Bundle.load(folder).graph.user_ids.values.to_pylist())
    assert f"new-{number}" in people or not done
    assert not [n for n in range(number) if f"new-{n}" in people and n not in seen] if number else True
    seen = {n for n in range(number + 1) if f"new-{n}" in people}
"""


def test_many_are_killed_at_random_moments(folder: Path) -> None:
    line = [sys.executable, "-W", "ignore", "-c", FORKED, str(folder), "12"]
    subprocess.run(line, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    Bundle.update(folder, lambda bundle: bundle.add(later(0, by="after")))
    assert len(list(folder.glob("version-*"))) == 1


@pytest.mark.parametrize("when", ["fill", "after"])
def test_an_interrupt_removes_what_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also one that comes just after the manifest was replaced: then the new version counts, and stays."""
    replace = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if when == "after":
            replace(source, target)
        if Path(target).parent == folder or when == "fill":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Bundle.update(folder, lambda bundle: bundle.add(later(0)))
    assert len(users(folder)) == USERS + (when == "after")
    assert len(list(folder.glob("version-*"))) == (2 if when == "after" else 1)
    Bundle.update(folder, lambda bundle: bundle.add(later(1)))
    assert len(list(folder.glob("version-*"))) == 1


LIMITED = """
import resource, sys
from graphrec.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
main(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [100, 3000, 9000])
def test_a_file_that_may_not_be_written(folder: Path, tmp_path: Path, limit: int) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    log, before = written(tmp_path / "log.parquet", [Row(1, 2, END + 5, None)]), contents(folder)
    line = [sys.executable, "-c", LIMITED, str(limit), "add", str(folder), str(log)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"graphrec: no space left: {folder}/version-2")
    assert contents(folder) == before
    assert len(list(folder.glob("version-*"))) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a small file system is mounted by root on Linux alone")
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, b"size=400k"):
        pytest.skip(f"no small file system can be mounted here: {os.strerror(ctypes.get_errno())}")
    yield place
    libc.umount2(os.fsencode(place), 2)


def test_a_full_disk(saved: Path, small_disk: Path) -> None:
    folder = Path(shutil.copytree(saved, small_disk / "bundle"))
    filler = small_disk / "filler"
    left = shutil.disk_usage(small_disk).free
    filler.write_bytes(bytes(left - 12_288))
    before = contents(folder)
    for _ in range(3):  # and it is not filled by trying
        with pytest.raises(OSError, match=r"no space left: .*version-2"):
            Bundle.update(folder, lambda bundle: bundle.add(later(0)))
        assert contents(folder) == before
    with filler.open("ab") as file:
        file.write(bytes(shutil.disk_usage(small_disk).free))
    with pytest.raises(OSError, match=r"no space left: .*rules\.sqlite"):
        change_rules(folder, add=Rules.of(opted_out=[name(1)]))
    assert not Bundle.load(folder).rules
    filler.unlink()
    Bundle.update(folder, lambda bundle: bundle.add(later(0)))
    assert "new-0" in users(folder)


# What graphrec did not write


def test_foreign_files_survive_everything(folder: Path, tmp_path: Path) -> None:
    mine = [folder / "2024" / "diary.txt", folder / "version-7" / "diary.txt", folder / "version-x" / "y"]
    mine += [folder / "notes.txt"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (folder / "2025").mkdir()
    (folder / "version-9").mkdir()
    log = written(tmp_path / "log.parquet", [Row(1, 2, END + 5, None)])
    run(f"graphrec block {folder} {name(1)} {name(2)}")
    run(f"graphrec add {folder} {log}")
    run(f"graphrec forget {folder} {name(3)}")
    assert all(path.read_text() == "mine" for path in mine)
    assert (folder / "2025").is_dir()
    assert (folder / "version-9").is_dir()
    assert json.loads((folder / "manifest.json").read_text())["folder"] == "version-11"


def test_a_foreign_file_in_an_old_version_stays_and_is_reported(folder: Path) -> None:
    mine = folder / "version-1" / "recommender" / "mine.txt"
    mine.write_text("mine")
    with pytest.warns(UserWarning, match=r"version-1.*mine\.txt"):
        Bundle.update(folder, lambda bundle: bundle.forget(name(3)))
    assert mine.read_text() == "mine"
    assert {path.name for path in (folder / "version-1").rglob("*.*")} == {"mine.txt", "manifest.json"}
    assert len(users(folder)) == USERS - 1


@pytest.mark.parametrize("what", ["file", "foreign", "other manifest", "no parent", "old"])
def test_a_wrong_target_is_found_before_the_work(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, message = tmp_path / "out", "holds other files"
    events = written(tmp_path / "events.parquet", ROWS)
    if what == "file":
        out.write_text("mine")
        message = "is a file"
    elif what == "no parent":
        out, message = out / "below", "no such folder"
    else:
        out.mkdir()
        (out / {"foreign": "diary.txt"}.get(what, "manifest.json")).write_text('{"name": "mine"}')
        message = message if what == "foreign" else "not a bundle of graphrec"
    if what == "old":
        (out / "manifest.json").write_text('{"format": "graphrec.Bundle", "version": 1, "seal": "x"}')
        message = r"format version 1.*version 3.*anew.*rules\.json"
    before = contents(tmp_path)
    monkeypatch.setattr(Bundle, "fit", None)
    with pytest.raises(SystemExit, match=message):
        run(f"graphrec fit {events} --out {out} --model popularity")
    if what == "old":
        with pytest.raises(DataError, match=message):
            Bundle.load(out)
    assert contents(tmp_path) == before


def test_a_fit_that_was_overtaken_is_kept_beside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, fit = written(tmp_path / "events.parquet", ROWS[:60]), Bundle.fit

    def overtaken(*args: object, **kwargs: object) -> Bundle:
        Bundle.update(folder, lambda bundle: bundle.add(later(0)))
        change_rules(folder, add=Rules.of(opted_out=[name(2)]))
        return fit(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Bundle, "fit", overtaken)
    with pytest.raises(SystemExit, match=r"bundle\.fit-1"):
        run(f"graphrec fit {events} --out {folder} --model popularity")
    assert "new-0" in users(folder)
    spare = Bundle.load(tmp_path / "bundle.fit-1")
    assert spare.graph.num_events == 60
    assert spare.rules == Rules.of(opted_out=[name(2)])


READER = """
import os, sys
from graphrec import Bundle
Bundle.load(sys.argv[1]).suggest(["person-00-zq"])  # all is imported: the code may be another's to read
os.setgid(65534), os.setuid(65534)
bundle = Bundle.load(sys.argv[1])
print(len(bundle.suggest(["person-00-zq"], k=3)[0].people))
try:
    bundle.forget("person-03-zq").save(sys.argv[1])
except PermissionError as error:
    print(error)
"""


def test_a_reader_needs_no_permission_to_write(folder: Path) -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("becoming another user takes root")
    outer = Path("/tmp") / f"graphrec-read-only-{os.getpid()}"
    try:
        shutil.copytree(folder, outer / "bundle")
        os.chmod(outer, 0o755)
        line = [sys.executable, "-c", READER, str(outer / "bundle")]
        done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
        assert done.stdout.splitlines() == ["3", f"{outer / 'bundle'}: no permission to write here"], (
            done.stderr
        )
    finally:
        shutil.rmtree(outer)


def test_other_names_of_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a relative path, another working folder; a folder that was moved is refused, not guessed."""
    link = tmp_path / "link"
    link.symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    served = Bundle.load("bundle")
    Bundle.update("link", lambda bundle: bundle.add(later(0)))
    monkeypatch.chdir("/")
    first = served.suggest([name(0)], k=1)[0].people[0]
    change_rules(link, add=Rules.of(opted_out=[first]))
    assert first not in served.suggest([name(0)], k=USERS)[0].people
    held = Bundle.load(folder)
    folder.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"rules\.sqlite"):
        held.suggest([name(0)])
    assert users(tmp_path / "moved") >= {"new-0"}


# The same log, and the time of the forgotten


def test_the_same_log_counts_once(folder: Path, tmp_path: Path) -> None:
    whole, log = (
        written(tmp_path / "whole.parquet", ROWS),
        written(tmp_path / "b.parquet", [Row(1, 2, END + 5, None)]),
    )
    for file, events in ((whole, len(ROWS)), (log, len(ROWS) + 1)):
        if file is log:
            run(f"graphrec add {folder} {file}")
        with pytest.raises(SystemExit, match=r"in the bundle already.*--again"):
            run(f"graphrec add {folder} {file}")
        assert Bundle.load(folder).graph.num_events == events
    run(f"graphrec add {folder} {log} --again")
    assert Bundle.load(folder).graph.num_events == len(ROWS) + 2
    run(f"graphrec forget {folder} {name(1)}")
    with pytest.raises(SystemExit, match="in the bundle already"):
        run(f"graphrec add {folder} {log}")


@pytest.mark.parametrize("at", ["first", "last"])
def test_no_time_is_left_of_the_forgotten(tmp_path: Path, at: str) -> None:
    moment = 1_234_567_891 if at == "last" else 1_234_567
    rows = [(name(row.src), name(row.dst), row.time + 2_000_000) for row in ROWS] + [
        ("gone", name(1), moment)
    ]
    log = EventLog.from_arrays(*map(list, zip(*rows, strict=True)))
    folder = tmp_path / "bundle"
    Bundle.fit(FriendGraph.from_events(log), model="adamic_adar", tokenizer=RandomCodes()).save(folder)
    Bundle.update(folder, lambda bundle: bundle.forget("gone"))
    kept = Bundle.load(folder)
    end = ROWS[-1].time + 2_000_001
    assert kept.until == kept.tokenizer.until == kept.tokenizer.report.until == end
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() and path.suffix != ".parquet" else b""
        for value in (moment, moment + 1):
            assert value.to_bytes(8, "little") not in content
            assert f": {value},".encode() not in content
            assert f": {value}\n".encode() not in content
