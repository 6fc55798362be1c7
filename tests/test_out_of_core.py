"""An index of Parquet files larger than memory: byte for byte the one that is built in memory."""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.cli.main import main
from graphrec.data import DataError, FriendGraph, read_events
from graphrec.temporal import Timeline, append, index_parquet, long_lists
from graphrec.temporal.out_of_core import parquet_index
from graphrec.temporal.out_of_core.column_file import ColumnFile
from graphrec.temporal.out_of_core.row_file import ROW, RowFile
from graphrec.temporal.out_of_core.user_numbers import UserNumbers

ROWS = {"src": [3, 5, 3, 9], "dst": [5, 3, 9, 9], "time": [10, 10, 20, 30], "action": ["b", "a", "b", "c"]}


def write(folder: Path, **columns: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table(columns), folder / "log.parquet")
    return folder / "log.parquet"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_equal_to_memory(paths: Any, folder: Path) -> None:
    """The files are those of the index in memory, and the ids and the log those of the graph."""
    graph = FriendGraph.from_events(read_events(paths))
    Timeline(graph).save(folder / "memory")
    expected, found = files(folder / "memory"), files(folder / "disk")
    log, users = json.loads(found.pop("log.json")), pa.parquet.read_table(folder / "disk" / "users.parquet")
    del found["users.parquet"]
    assert expected.keys() == found.keys()
    different = [name for name in expected if expected[name] != found[name]]
    assert not different
    assert users["user"].to_pylist() == graph.user_ids.values.to_pylist()
    assert tuple(log["actions"]) == graph.actions
    assert log["num_self_loops"] == graph.num_self_loops
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.fixture(autouse=True)
def small_files() -> Iterator[None]:
    with mock.patch.object(append, "MIN_HEADROOM", 3):
        yield


ids = {
    "small integers": st.integers(0, 6),
    "integers": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "numbers as text": st.integers(0, 6).map(str),
    "text": st.sampled_from(["ada", "bob", "7", "007", "zoë", " ada ", "x" * 255]),
}


@st.composite
def logs(draw: Any) -> list[dict[str, list[Any]]]:
    """Columns of one to three files, sorted by time or not, with many ties and self-loops."""
    user = ids[draw(st.sampled_from(sorted(ids)))]
    time = st.integers(0, draw(st.sampled_from([1, 5, 10**6])))
    rows = draw(st.lists(st.tuples(user, user, time, st.sampled_from("abc")), min_size=1, max_size=60))
    rows.append((draw(user.filter(lambda value: value != rows[0][0])), rows[0][0], 3, "a"))
    if draw(st.booleans()):
        rows.sort(key=lambda row: row[2])
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=2)))
    parts = [rows[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    names = ("src", "dst", "time", "action")
    return [dict(zip(names, map(list, zip(*part, strict=True)), strict=True)) for part in parts if part]


@given(parts=logs(), memory=st.sampled_from([1, 300, 5000, 2**20]), threads=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_index_is_byte_for_byte_the_one_built_in_memory(
    tmp_path_factory: pytest.TempPathFactory, parts: list[dict[str, list[Any]]], memory: int, threads: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    for number, part in enumerate(parts):
        write(folder / "log" / f"part-{number}", **part)
    with mock.patch.object(parquet_index, "MIN_HALF_EDGES", 1), mock.patch.object(long_lists, "LONG_LIST", 4):
        found = index_parquet(folder / "log", folder / "disk", memory=memory, num_threads=threads)
        assert_equal_to_memory(folder / "log", folder)
    assert found.num_events == len(Timeline.open(folder / "disk").events)


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_a_larger_log_of_typed_columns_and_folders(tmp_path: Path, order: str) -> None:
    draw = np.random.default_rng(0)
    for name in ("call", "sms"):
        size = 3000
        time = draw.integers(0, 500, size)
        time = np.sort(time) if order == "sorted" else time
        src, dst = (np.minimum(draw.geometric(0.02, size), 400) for _ in range(2))
        write(
            tmp_path / "log" / f"action={name}",
            sender=pa.array(src.astype(np.int32)),
            to=pa.array([f"{x}" for x in dst]).dictionary_encode(),
            at=pa.array(time.astype("datetime64[s]").astype("datetime64[ms]")),
        )
    names = {"src": "sender", "dst": "to", "time": "at"}
    with mock.patch.object(parquet_index, "MIN_HALF_EDGES", 700):
        index_parquet(tmp_path / "log", tmp_path / "disk", memory=10_000, **names)
    graph = FriendGraph.from_events(read_events(tmp_path / "log", **names))
    Timeline(graph).save(tmp_path / "memory")
    here, there = files(tmp_path / "disk"), files(tmp_path / "memory")
    assert {name: here[name] == there[name] for name in there} == dict.fromkeys(there, True)


def test_it_opens_answers_and_grows_like_any_other(tmp_path: Path) -> None:
    path = write(tmp_path, **ROWS)
    found = index_parquet(path, tmp_path / "disk")
    assert (found.num_events, found.num_users, found.num_self_loops) == (3, 3, 1)
    assert found.actions == ("a", "b", "c")
    index = Timeline.open(tmp_path / "disk")
    user = torch.tensor([0, 0, 1])
    # Events at the query's own time and later are invisible.
    assert index.degree(user, index.tick(torch.tensor([10, 11, 11]))).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("src", None, "row 6, column 'src': the value is missing"),
        ("dst", "NULL", "row 6, column 'dst': 'NULL' cannot be a user id"),
        ("dst", " ", "row 6, column 'dst': the value is missing"),
        ("time", "soon", "row 6, column 'time': 'soon' is not a time"),
        ("time", str(10**13), "row 6, column 'time': 10000000000000 lies beyond the year 9999"),
        ("time", "2024-05-01", "row 6, column 'time': '2024-05-01' is not a time"),
        ("action", None, "row 6, column 'action': the value is missing"),
        ("action", "friend", "the name 'friend' is reserved"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_file_and_row(
    tmp_path: Path, column: str, value: str | None, fault: str
) -> None:
    columns: dict[str, list[str | None]] = {
        "src": list("abcabc"),
        "dst": list("bcabca"),
        "time": list("123456"),
        "action": list("xyzxyz"),
    }
    write(tmp_path / "log" / "1", **columns)
    columns[column][5] = value
    write(tmp_path / "log" / "2", **columns)
    with pytest.raises(DataError, match=fault) as error:
        index_parquet(tmp_path / "log", tmp_path / "disk", memory=2048)  # batches of two rows
    assert ("/2/log.parquet" in str(error.value)) or column == "action"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log"]


def test_what_cannot_be_indexed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("src,dst,time\n1,2,3\n")
    with pytest.raises(DataError, match=r"log\.csv: is not Parquet"):
        index_parquet(tmp_path / "log.csv", tmp_path / "disk")
    loops = write(tmp_path / "loops", src=[1], dst=[1], time=[5])
    with pytest.raises(DataError, match="every row has the same user"):
        index_parquet(loops, tmp_path / "disk")
    nothing = write(
        tmp_path / "nothing",
        src=pa.array([], pa.int64()),
        dst=pa.array([], pa.int64()),
        time=pa.array([], pa.int64()),
    )
    with pytest.raises(DataError, match="there are no events"):
        index_parquet(nothing, tmp_path / "disk")
    text = write(tmp_path / "text", src=["a"], dst=["b"], time=[5])
    with pytest.raises(DataError, match=r"column 'src' holds string where .* holds int64"):
        index_parquet([loops, text], tmp_path / "disk")
    with pytest.raises(FileExistsError, match="exists already"):
        index_parquet(loops, tmp_path / "text")
    with pytest.raises(DataError, match="say which they are: time='COLUMN'"):
        index_parquet(write(tmp_path / "untimed", src=[1], dst=[2]), tmp_path / "disk")


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("writes", [1, 9, 17])
def test_an_interrupted_or_full_disk_leaves_nothing_behind(
    tmp_path: Path, failure: BaseException, writes: int
) -> None:
    path = write(tmp_path, **ROWS)
    write_column, number = ColumnFile.write, iter(range(writes))

    def fail_later(self: ColumnFile, at: int, values: np.ndarray) -> None:
        if next(number, None) is None:
            raise failure
        write_column(self, at, values)

    with mock.patch.object(ColumnFile, "write", fail_later), pytest.raises(SystemExit) as ended:
        main(["index", str(path), "--out", str(tmp_path / "disk")])
    if isinstance(failure, OSError):
        fault = "the disk is full; nothing was written. free some space, or give a folder on another disk"
        assert ended.value.code == f"graphrec: {tmp_path / 'disk'}: {fault}"
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]
    index_parquet(path, tmp_path / "disk")
    assert_equal_to_memory(path, tmp_path)


def test_the_command_prints_events_users_and_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, **{{"src": "who"}.get(name, name): values for name, values in ROWS.items()})
    main(["index", str(path), "--out", str(tmp_path / "disk"), "--src", "who", "--memory", "0.5"])
    out, err = capsys.readouterr()
    assert out.startswith(f"{tmp_path / 'disk'}: 3 events, 3 users, 3 actions, ")
    assert "1 row was dropped" in err
    assert "pieces" in err
    with pytest.raises(SystemExit, match="exists already: give a new folder"):
        main(["index", str(path), "--out", str(tmp_path / "disk"), "--src", "who"])


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "ab", "é", "0", "12345678", "x" * 300]), max_size=9)))
def test_users_are_numbered_by_first_appearance(batches: list[list[str]]) -> None:
    numbers, known = UserNumbers(integers=False), dict[str, int]()
    for batch in batches:
        expected = [known.setdefault(text, len(known)) for text in batch]
        assert numbers.number(pa.chunked_array([batch], pa.string())).tolist() == expected
    assert numbers.texts(0, len(numbers)).to_pylist() == list(known)


def test_many_users_are_told_apart() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(-(2**62), 2**62, 200_000)
    numbers = UserNumbers(integers=True)
    for part in np.split(values, 50):
        numbers.number(pa.chunked_array([part]))
    again = numbers.number(pa.chunked_array([values]))
    assert len(numbers) == len(np.unique(values)) == len(np.unique(again))
    found, place = numbers.sorted_ids()
    assert np.array_equal(found.to_numpy()[place[again]], values)


@given(st.lists(st.lists(st.integers(0, 5), max_size=8)), st.integers(1, 10), st.integers(1, 12))
def test_rows_come_back_in_order_of_time_and_of_files(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], run_rows: int, rows: int
) -> None:
    file = RowFile(tmp_path_factory.mktemp("rows") / "rows", run_rows=run_rows)
    number = 0
    for batch in batches:
        block = np.zeros(len(batch), ROW)
        block["time"], block["src"] = batch, np.arange(number, number + len(batch))
        number += len(batch)
        file.append(block)
    file.flush()
    times = [time for batch in batches for time in batch]
    expected = sorted(zip(times, range(number), strict=True))
    found = [pair for block in file.in_order(rows) for pair in zip(block["time"], block["src"], strict=True)]
    assert found == expected
    assert file.num_runs <= 1 or times != sorted(times)
