"""Writes applied to a bundle, saved in it, and carried over to a new fit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from graphs import Row
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_cases import NOW, ROWS, events, fitted, logged, rows_of, saved

from graphrec import Bundle
from graphrec.cli.main import main
from graphrec.data import DataError, EventLog, FriendGraph
from graphrec.service.appending import append_stream
from graphrec.serving.compaction import catch_up, compact, save_fit
from graphrec.serving.files import ServingFiles
from graphrec.serving.replay import apply_writes, missing_events
from graphrec.serving.writes import EventsWrite, FeedbackWrite, ForgetWrite, Write

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def added(bundle: Bundle, rows_before: int = len(ROWS)) -> list[tuple[str, str, int, str]]:
    return rows_of(bundle)[rows_before:]


def test_a_late_event_counts_from_the_time_of_the_last() -> None:
    bundle = fitted()
    applied = apply_writes(
        bundle, [events((1, 50, NOW, "call"), (2, 50, NOW - 60, "text")), events((50, 1, NOW - 5, "text"))]
    )
    assert (applied.num_events, applied.num_late) == (3, 2)
    assert added(applied.bundle) == [
        ("1", "50", NOW, "call"),
        ("2", "50", NOW, "text"),
        ("50", "1", NOW, "text"),
    ]


names = st.sampled_from([1, 2, 3, 50, 51, 52])
writes_of = st.lists(
    st.one_of(
        st.lists(
            st.tuples(
                names, names, st.integers(NOW - 100, NOW + 100), st.sampled_from(["call", "text", "nod"])
            ),
            min_size=1,
            max_size=4,
        ).map(lambda rows: events(*rows)),
        st.sampled_from([1, 50, 51]).map(lambda user: ForgetWrite(str(user))),
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None)
@given(writes_of, st.integers(0, 6))
def test_the_outcome_does_not_depend_on_what_is_applied_together(writes: list[Write], cut: int) -> None:
    together = apply_writes(fitted(), writes)
    first = apply_writes(fitted(), writes[:cut])
    apart = apply_writes(first.bundle, writes[cut:])
    assert Counter(rows_of(together.bundle)) == Counter(rows_of(apart.bundle))
    assert {one for one in together.others if one.action == "nod"} <= {*first.others, *apart.others}
    if not any(isinstance(one, ForgetWrite) for one in writes):
        assert rows_of(together.bundle) == rows_of(apart.bundle)
        assert together.bundle.graph.user_ids.values.equals(apart.bundle.graph.user_ids.values)


def test_a_forgotten_user_comes_back_as_a_newcomer() -> None:
    writes: list[Write] = [events((1, 50, NOW, "call")), ForgetWrite("1"), events((1, 2, NOW + 1, "text"))]
    bundle = apply_writes(fitted(), writes).bundle
    assert [row for row in rows_of(bundle) if "1" in row[:2]] == [("1", "2", NOW + 1, "text")]
    assert "50" not in {name for row in rows_of(bundle) for name in row[:2]}


def test_compaction_saves_what_was_written_once(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    shown = FeedbackWrite(("1", "1"), ("7", "8"), (NOW, NOW), ("shown", "dismissed"))
    log = logged(folder, [events((1, 50, NOW, "call")), shown], [events((50, 1, NOW + 1, "nod"))], position=5)
    done = compact(folder)
    assert done.position == 7
    assert added(Bundle.load(folder)) == [("1", "50", NOW, "call")]
    files = ServingFiles(folder)
    (rows,) = files.folder.glob("rows-*.csv")
    assert rows.name == "rows-000000000005-000000000007.csv"
    assert rows.read_text().splitlines() == [
        "src,dst,timestamp,action",
        f"1,7,{NOW},shown",
        f"1,8,{NOW},dismissed",
        f"50,1,{NOW + 1},nod",
    ]
    assert compact(folder).position == 7  # nothing new
    assert len(rows_of(Bundle.load(folder))) == len(ROWS) + 1
    logged(folder, [events((1, 51, NOW + 9, "call"))], [ForgetWrite("8")], position=7)
    assert compact(folder).position == 9
    assert "8" not in {name for row in rows_of(Bundle.load(folder)) for name in row[:2]}
    assert "\n1,8," not in rows.read_text()
    assert log.exists()


def test_a_bundle_changed_by_a_command_keeps_its_position(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    logged(folder, [events((1, 50, NOW, "call"))])
    compact(folder)
    Bundle.update(folder, lambda bundle: bundle.forget(5))
    bundle = Bundle.load(folder)
    assert bundle.origin.log_position == 1
    assert catch_up(bundle, ServingFiles(folder).log)[0].num_events == 0


def test_events_that_a_fit_has_are_not_carried_over(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    logged(
        folder,
        [events((1, 50, NOW, "call"), (2, 50, NOW + 5, "text"))],
        [events((3, 50, NOW + 2, "call"))],  # late: it counts from NOW + 5
    )
    compact(folder)
    more = [events((4, 50, NOW + 6, "call"), (4, 50, NOW + 6, "call"))], [events((5, 50, NOW + 30, "call"))]
    log = logged(folder, *more, [ForgetWrite("6")], position=2)
    exported = [Row(1, 50, NOW, "call"), Row(2, 50, NOW + 5, "text"), Row(3, 50, NOW + 2, "call")]
    fit = fitted([*ROWS, *exported, Row(4, 50, NOW + 6, "call")])
    assert save_fit(fit, folder, None) == 2
    bundle = Bundle.load(folder)
    assert bundle.origin.log_position == 5
    assert [row for row in rows_of(bundle) if row[2] >= NOW] == [
        ("1", "50", NOW, "call"),
        ("3", "50", NOW + 2, "call"),
        ("2", "50", NOW + 5, "text"),
        ("4", "50", NOW + 6, "call"),
        ("4", "50", NOW + 6, "call"),
        ("5", "50", NOW + 30, "call"),
    ]
    assert "6" not in {name for row in rows_of(bundle) for name in row[:2]}
    assert catch_up(bundle, log)[0].num_events == 0
    assert ("3", "9") in bundle.rules.blocked


def test_a_fit_saved_without_a_position_takes_only_what_it_lacks(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    fitted([*ROWS, Row(1, 50, NOW, "call")]).save(folder)
    log = logged(
        folder, [events((1, 50, NOW, "call"), (1, 51, NOW - 20, "call"))], [events((2, 50, NOW, "call"))]
    )
    applied, end = catch_up(Bundle.load(folder), log)
    assert added(applied.bundle, len(ROWS) + 1) == [("2", "50", NOW, "call")]
    assert end == applied.bundle.origin.log_position == 2


@given(
    st.lists(
        st.tuples(names, names, st.integers(NOW - 50, NOW + 50), st.just("call")), min_size=1, max_size=8
    ),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_each_event_is_in_a_fit_or_missing(
    rows: list[tuple[int, int, int, str]], data: st.DataObject
) -> None:
    rows = sorted((row for row in rows if row[0] != row[1]), key=lambda row: row[2])
    if not rows:
        return
    cut = data.draw(st.integers(1, len(rows)))
    bundle = fitted([*ROWS, *(Row(*row) for row in rows[:cut])])
    missing = missing_events(bundle.graph, events(*rows))
    assert len(missing) == len(rows) - cut
    assert sorted(missing.time) == sorted(row[2] for row in rows[cut:])


def test_the_fit_command_carries_later_events_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, table = saved(tmp_path / "bundle"), tmp_path / "events.csv"
    table.write_text("src,dst,timestamp,action\n" + "".join(f"{a},{b},{t},{c}\n" for a, b, t, c in ROWS))
    logged(folder, [events((1, 50, NOW, "call"))])
    compact(folder)
    main(["fit", str(table), "--out", str(folder), "--model", "adamic_adar"])
    assert "1 later events of the served bundle were carried over" in capsys.readouterr().err
    assert added(Bundle.load(folder)) == [("1", "50", NOW, "call")]


def test_rows_of_the_forgotten_are_deleted_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "bundle")
    shown = FeedbackWrite(("8", "1"), ("7", "7"), (NOW, NOW), ("shown", "shown"))
    logged(folder, [shown])
    compact(folder)
    again = FeedbackWrite(("8",), ("3",), (NOW + 1,), ("shown",))
    logged(folder, [ForgetWrite("8")], [again], position=1)
    with monkeypatch.context() as killed:
        killed.setattr(ServingFiles, "forget", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            compact(folder)
    compact(folder)
    files = sorted(ServingFiles(folder).folder.glob("rows-*.csv"))
    rows = [line for path in files for line in path.read_text().splitlines()[1:]]
    assert rows == [f"1,7,{NOW},shown", f"8,3,{NOW + 1},shown"]


def test_an_event_that_cannot_be_appended_leaves_the_others_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    src, dst, time, action = zip(*ROWS, strict=True)
    log = EventLog.from_arrays(src, dst, time, action, np.full(len(ROWS), 2.0))
    bundle = Bundle.fit(FriendGraph.from_events(log), model="adamic_adar")

    def append(bundle: Bundle, log: EventLog) -> None:
        if 50 in log.user_ids.lookup(log.dst):
            raise DataError("no place")
        append_stream(bundle, log)

    monkeypatch.setattr("graphrec.serving.replay.append_stream", append)
    written = EventsWrite(("1", "1"), ("50", "2"), (NOW, NOW), ("call", "call"), (3.0, 4.0))
    applied = apply_writes(bundle, [written])
    assert (applied.num_events, applied.others) == (1, [("1", "50", NOW, "call")])
    weight = bundle.graph.weights()
    assert weight is not None
    assert weight[-2:].tolist() == [2.0, 4.0]


KILLED = """
import sys
from pathlib import Path
from graphrec.serving.compaction import compact
print(flush=True)
for _ in range(50):
    compact(Path(sys.argv[1]))
"""


def test_a_killed_compaction_loses_and_doubles_nothing(tmp_path: Path) -> None:
    folder, draw = saved(tmp_path / "bundle"), random.Random(0)
    for number in range(4):
        shown = FeedbackWrite(("1",), ("7",), (NOW + number,), ("shown",))
        written = [[events((1, 50 + number, NOW + number, "call")), shown]]
        logged(folder, *written, position=number)
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(draw.uniform(0, 0.15))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        assert compact(folder).position == number + 1
    assert added(Bundle.load(folder)) == [("1", str(50 + one), NOW + one, "call") for one in range(4)]
    files = sorted(ServingFiles(folder).folder.glob("rows-*.csv"))
    rows = [line for path in files for line in path.read_text().splitlines()[1:]]
    assert rows == [f"1,7,{NOW + number},shown" for number in range(4)]


def test_the_process_prints_what_came_of_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    logged(folder, [events((1, 50, NOW, "call"))])
    command = [sys.executable, "-m", "graphrec.serving.compaction", str(folder)]
    before = Bundle.load(folder).digest
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    now = Bundle.load(folder)
    assert json.loads(out) == {"digest": now.digest, "replaced": before, "position": 1, "num_users": 13}
    ServingFiles(folder).log.unlink()
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("graphrec: ")
    assert len(failed.stderr.splitlines()) == 1
