"""Tables of pandas, polars and Arrow and Parquet files: the same log as from CSV, the same refusals."""

from __future__ import annotations

import csv
import datetime
import decimal
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data import USER, DataError, EventLog, FriendGraph, UserTable, read_events, read_users
from graphrec.data.ids import id_fault

try:
    import pandas as pd
except ImportError:
    pd = None
try:
    import polars as pl
except ImportError:
    pl = None

FRAMES = {
    "pyarrow": pa.table,
    "pandas": None if pd is None else pd.DataFrame,
    "polars": None if pl is None else pl.DataFrame,
}


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], Any]:
    """Makes a table of columns."""
    make = FRAMES[request.param]
    return make or pytest.skip(f"{request.param} is not installed")


def content(log: EventLog) -> tuple[Any, ...]:
    weight = None if log.weight is None else log.weight.tolist()
    ends = log.src.tolist(), log.dst.tolist(), log.time.tolist(), log.action.tolist()
    return ends, log.actions, log.user_ids.values.to_pylist(), weight, log.num_self_loops


def from_csv(columns: dict[str, list[Any]], folder: str) -> EventLog:
    path = os.path.join(folder, "log.csv")
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return read_events(path)


def from_parquet(columns: dict[str, list[Any]], folder: str) -> EventLog:
    path = os.path.join(folder, "log.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return read_events(path)


words = st.text(st.sampled_from("ab07é ,'\""), min_size=1, max_size=4).filter(
    lambda text: text == text.strip() and id_fault(text) is None
)
ids = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(0, 9))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(st.just(ids), st.just(words)).flatmap(
        lambda raw: st.lists(
            st.tuples(
                raw, raw, st.integers(-(10**9), 10**10), words, st.floats(-(2.0**99), 2.0**99, width=32)
            ),
            min_size=1,
            max_size=12,
        )
    )
)
def test_every_door_leads_to_the_same_log(rows: list[tuple[Any, ...]]) -> None:
    if all(row[0] == row[1] for row in rows):
        rows = [*rows, (rows[0][0], "another" if isinstance(rows[0][0], str) else 11, 0, "x", 0.0)]
    names = ("src", "dst", "timestamp", "action", "weight")
    columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        expected = content(from_csv(columns, folder))
        assert content(from_parquet(columns, folder)) == expected
    for make in FRAMES.values():
        if make is not None:
            assert content(EventLog.from_table(make(columns))) == expected


def test_the_doors_are_all_tried() -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    assert None not in FRAMES.values()


SECONDS = [1_700_000_000, 1_700_000_060, 1_700_000_120]
UTC = [datetime.datetime.fromtimestamp(second, datetime.UTC) for second in SECONDS]
NAMES = ["ada", "bob", "cleo"]
PLAIN = EventLog.from_arrays(NAMES, ["bob", "cleo", "ada"], SECONDS, action=["x", "y", "x"])
NUMBERED = EventLog.from_arrays([1, 2, 3], [2, 3, 1], SECONDS)


def named(**columns: Any) -> dict[str, Any]:
    return {"src": NAMES, "dst": ["bob", "cleo", "ada"], "time": SECONDS, "action": ["x", "y", "x"]} | columns


def numbered(**columns: Any) -> dict[str, Any]:
    return {"src": [1, 2, 3], "dst": [2, 3, 1], "time": SECONDS} | columns


def zoned(unit: str) -> pa.Array:
    return pa.array(UTC, pa.timestamp(unit, "Asia/Kolkata"))


ARROW: dict[str, tuple[EventLog, dict[str, Any]]] = {
    "large_string": (PLAIN, named(src=pa.array(NAMES, pa.large_string()))),
    "string_view": (PLAIN, named(src=pa.array(NAMES, pa.string_view()))),
    "categories": (PLAIN, named(src=pa.array(NAMES).dictionary_encode(), action=pa.array(list("xyx")))),
    "uint64": (NUMBERED, numbered(src=pa.array([1, 2, 3], pa.uint64()), time=pa.array(SECONDS, pa.uint64()))),
    "int8": (NUMBERED, numbered(src=pa.array([1, 2, 3], pa.int8()))),
    "decimals": (
        NUMBERED,
        numbered(
            src=pa.array([decimal.Decimal(i) for i in (1, 2, 3)], pa.decimal128(38, 0)),
            time=pa.array([decimal.Decimal(f"{second}.75") for second in SECONDS]),
        ),
    ),
    "a zone in ns": (NUMBERED, numbered(time=zoned("ns"))),
    "a zone in s": (NUMBERED, numbered(time=zoned("s"))),
    "no zone": (NUMBERED, numbered(time=pa.array([t.replace(tzinfo=None) for t in UTC]))),
    "times as categories": (NUMBERED, numbered(time=pa.array([str(s) for s in SECONDS]).dictionary_encode())),
    "numbers as text": (NUMBERED, numbered(src=["1", "2", "3"], time=[t.isoformat() for t in UTC])),
}


@pytest.mark.parametrize("kind", ARROW)
def test_types_of_arrow_and_of_parquet(kind: str, tmp_path: Path) -> None:
    expected, columns = ARROW[kind]
    table = pa.table(columns)
    assert content(EventLog.from_table(table)) == content(expected)
    assert content(EventLog.from_table(pa.concat_tables([table.slice(0, 1), table.slice(1)]))) == content(
        expected
    )
    pq.write_table(table, tmp_path / "log.pq")
    assert content(read_events(tmp_path / "log.pq")) == content(expected)


def test_categories_of_views() -> None:  # those of polars
    codes = pa.array([0, 1, 2], pa.uint32())
    names = pa.DictionaryArray.from_arrays(codes, pa.array(NAMES, pa.string_view()))
    assert content(EventLog.from_table(pa.table(named(src=names)))) == content(PLAIN)


def test_types_of_pandas() -> None:
    pytest.importorskip("pandas")
    for columns in (
        {"src": pd.Categorical(NAMES), "action": pd.Categorical(["x", "y", "x"], ["z", "y", "x"])},
        {"src": pd.array(NAMES, dtype="string"), "dst": pd.Series(["bob", "cleo", "ada"], dtype=object)},
        {"time": pd.to_datetime(UTC)},
        {"time": pd.to_datetime(UTC).tz_convert("America/New_York")},
        {"time": pd.to_datetime(UTC).tz_localize(None)},
        {"time": pd.array(SECONDS, dtype="Int64")},
    ):
        assert content(EventLog.from_table(pd.DataFrame(named(**columns)))) == content(PLAIN)
    users = pd.DataFrame(numbered(src=pd.array([1, 2, 3], dtype="UInt32")), index=[7, 7, 9])
    assert content(EventLog.from_table(users)) == content(NUMBERED)


def test_types_of_polars() -> None:
    pytest.importorskip("polars")
    for columns in (
        {
            "src": pl.Series(NAMES, dtype=pl.Categorical),
            "action": pl.Series(list("xyx"), dtype=pl.Enum(["y", "x"])),
        },
        {"time": pl.Series(UTC, dtype=pl.Datetime("ms", "Europe/Copenhagen"))},
        {"time": pl.Series([t.replace(tzinfo=None) for t in UTC], dtype=pl.Datetime("ns"))},
        {"time": pl.Series([decimal.Decimal(second) for second in SECONDS])},
        {"time": pl.Series(SECONDS, dtype=pl.UInt64)},
    ):
        assert content(EventLog.from_table(pl.DataFrame(named(**columns)))) == content(PLAIN)


def test_dates_are_midnight(frame: Callable[..., Any]) -> None:
    days = [datetime.date(1970, 1, 1), datetime.date(1970, 1, 3)]
    log = EventLog.from_table(frame({"src": [1, 2], "dst": [2, 1], "time": days}))
    assert log.time.tolist() == [0, 2 * 86_400]


def test_columns_of_other_names(frame: Callable[..., Any], tmp_path: Path) -> None:
    columns = {
        "who": [1, 2],
        "to": [2, 1],
        "when": [5, 4],
        "kind": ["x", "y"],
        "heat": [0.5, 2],
        "action": ["z", "z"],
    }
    named_columns = {"src": "who", "dst": "to", "time": "when", "action": "kind", "weight": "heat"}
    log = EventLog.from_table(frame(columns), **named_columns)
    expected = (([1, 0], [0, 1], [4, 5], [1, 0]), ("x", "y"), [1, 2], [2, 0.5], 0)
    assert content(log) == expected
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    assert content(read_events(tmp_path / "log.parquet", **named_columns)) == expected
    with pytest.raises(DataError, match="column 'mood' is missing; the columns are who, to"):
        EventLog.from_table(frame(columns), **(named_columns | {"action": "mood"}))
    with pytest.raises(DataError, match=r"log\.parquet: column 'mood' is missing; the columns are who, to"):
        read_events(tmp_path / "log.parquet", **(named_columns | {"weight": "mood"}))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no column": (
        {"src": [1], "to": [2], "time": [3]},
        "column 'dst' is missing; the columns are src, to, time",
    ),
    "no time": ({"src": [1], "dst": [2]}, "column 'timestamp' is missing"),
    "null id": (numbered(dst=[2, None, 1]), "row 2, column 'dst': the value is missing"),
    "null name": (named(src=["ada", "bob", None]), "row 3, column 'src': the value is missing"),
    "null time": (numbered(time=[UTC[0], UTC[1], None]), "row 3, column 'time': the value is missing"),
    "null action": (named(action=["x", None, "x"]), "row 2, column 'action': the value is missing"),
    "null weight": (numbered(weight=[1, 2, None]), "row 3, column 'weight': the value is missing"),
    "ids are fractions": (numbered(src=[1.0, 2.0, 3.5]), "column 'src' holds double; user ids are"),
    "ids are moments": (numbered(src=UTC), "column 'src' holds timestamp.*; user ids are"),
    "time is a truth": (numbered(time=[True, False, True]), "column 'time' holds bool, which is not a time"),
    "time is a duration": (numbered(time=[datetime.timedelta(1)] * 3), "column 'time' holds duration"),
    "milliseconds": (numbered(time=[s * 1000 for s in SECONDS]), "row 1, column 'time'.*milliseconds"),
    "text is no time": (numbered(time=["1", "2", "soon"]), "row 3, column 'time': 'soon' is not a time"),
    "action is a list": (named(action=[["x"], ["y"], ["x"]]), "column 'action' holds .*list.*; actions are"),
    "action is a fraction": (named(action=[0.5, 1.0, 2.0]), "column 'action' holds double; actions are"),
    "weight is text": (named(weight=["1", "2", "heavy"]), "row 3, column 'weight': 'heavy' is not a number"),
    "no rows": ({"src": [], "dst": [], "time": []}, "there are no events"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_tables_are_named_with_their_fault(fault: str, frame: Callable[..., Any], tmp_path: Path) -> None:
    columns, message = BAD[fault]
    with pytest.raises(DataError, match=f"the table given: {message}"):
        EventLog.from_table(frame(columns))
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=rf"log\.parquet: {message}"):
        read_events(tmp_path / "log.parquet")


@pytest.mark.parametrize("thing", [[(1, 2, 3)], {"src": [1]}, "events.csv", None])
def test_what_is_no_table(thing: Any) -> None:
    with pytest.raises(DataError, match=rf"here: {type(thing).__name__} is not a table"):
        EventLog.from_table(thing, where="here")


def test_mixed_columns_of_pandas_are_named() -> None:
    pytest.importorskip("pandas")
    with pytest.raises(DataError, match=r"not a table of plain columns .*src"):
        EventLog.from_table(pd.DataFrame({"src": [1, "a"], "dst": [2, 3], "time": [1, 2]}))
    with pytest.raises(DataError, match="Duplicate column names"):
        EventLog.from_table(pd.DataFrame([[1, 2, 3, 4]], columns=["src", "src", "dst", "time"]))


def test_files_that_are_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table(numbered()), path)
    whole = path.read_bytes()
    for broken in (
        whole[: len(whole) // 2],
        whole[:4] + b"\xff" * 60 + whole[64:],
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=r"log\.parquet: not a readable Parquet file"):
            read_events(path)
        with pytest.raises(DataError, match=r"log\.parquet: not a readable Parquet file"):
            read_users(path, user="src")
    path.write_bytes(whole)
    with pytest.raises(DataError, match="`column_names` must be left out"):
        read_events(path, column_names=["src", "dst", "time"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pq"):
        read_users(tmp_path / "nowhere.pq")
    with pytest.raises(DataError, match="column 'user' is missing"):  # a folder is all files in it
        read_users(tmp_path)


PEOPLE = {
    "user": ["b", "a", "c"],
    "age": [30, None, 20],
    "town": ["Y", "X", None],
    "rich": [True, False, False],
    "likes": [["tea", "rum"], [], None],
    "join_time": [UTC[0], None, UTC[2]],
}
FEATURES = ("age", "age_missing", "town=X", "town=Y", "rich", "likes=rum", "likes=tea")
X = [[30, 0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0], [20, 0, 0, 0, 0, 0, 0]]


def assert_people(users: UserTable) -> None:
    assert users.ids.to_pylist() == ["b", "a", "c"]
    assert (users.feature_names, users.x.tolist()) == (FEATURES, X)
    assert users.x.dtype == torch.float32
    assert users.join_time is not None
    assert users.join_time.tolist() == [SECONDS[0], -1, SECONDS[2]]


def test_users(frame: Callable[..., Any], tmp_path: Path) -> None:
    users = UserTable.from_table(frame(PEOPLE))
    assert_people(users)
    graph = FriendGraph.from_events(
        EventLog.from_table(frame({"src": ["a"], "dst": ["z"], "time": [9]})), users
    )
    assert graph.user_ids.values.to_pylist() == ["a", "b", "c", "z"]
    assert graph[USER].x.tolist() == [X[1], X[0], X[2], [0, 1, 0, 0, 0, 0, 0]]
    assert graph[USER].join_time.tolist() == [-1, SECONDS[0], SECONDS[2], -1]
    pq.write_table(pa.table(PEOPLE), tmp_path / "users.parquet")
    assert_people(read_users(tmp_path / "users.parquet"))


def test_join_times_may_be_missing_in_csv_too(tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user,join_time\n1,1970-01-02\n2, \n3,1970-01-01\n")
    users = read_users(path)
    assert users.join_time is not None
    assert users.join_time.tolist() == [86_400, -1, 0]
    path.write_text("user,join_time\n1,1970-01-02\n2, \n3,later\n")
    with pytest.raises(DataError, match="row 3, column 'join_time': 'later'"):
        read_users(path)


@pytest.mark.parametrize("index", [[5, 9, 2], ["x", "y", "z"], [2, 3, 4], None])
@pytest.mark.parametrize("name", [None, "row", "user"])
def test_an_index_of_pandas_is_no_feature(
    index: Sequence[Any] | None, name: str | None, tmp_path: Path
) -> None:
    pytest.importorskip("pandas")
    table = pd.DataFrame(PEOPLE)
    if name == "user":
        table = table.set_index("user")
        table.index = pd.Index(index or table.index, name="user")
    elif index is not None:
        table.index = pd.Index(index, name=name)
    users = UserTable.from_table(table)
    assert (users.feature_names, users.x.tolist()) == (FEATURES, X)
    if name == "user" and index:
        assert users.ids.to_pylist() == index
    table.to_parquet(tmp_path / "users.parquet")
    assert read_users(tmp_path / "users.parquet").feature_names == FEATURES
    plain = table.drop(columns="likes")
    plain.to_csv(tmp_path / "users.csv")
    if name is None:
        assert read_users(tmp_path / "users.csv").feature_names[:4] == FEATURES[:4]
        again = pd.read_csv(tmp_path / "users.csv")
        assert "Unnamed: 0" in again
        assert UserTable.from_table(again).feature_names[:4] == FEATURES[:4]


def test_an_index_of_consecutive_ids_is_a_column() -> None:
    pytest.importorskip("pandas")
    table = pd.DataFrame({"user": [3, 4, 5], "age": [1, 2, 3]}).set_index("user")
    assert UserTable.from_table(table).ids.to_pylist() == [3, 4, 5]


def test_lists_of_numbers_are_categories_in_order() -> None:
    lists = pa.array([[10, 9, 10], None, [9]], pa.large_list(pa.int32()))
    users = UserTable.from_table(pa.table({"user": [1, 2, 3], "badge": lists}))
    assert users.feature_names == ("badge=9", "badge=10")
    assert users.x.tolist() == [[1, 1], [0, 0], [1, 0]]
    parts = pa.chunked_array([lists.slice(2), lists.slice(0, 2)])
    assert UserTable.from_table(pa.table({"user": [1, 2, 3], "badge": parts})).x.tolist() == [
        [1, 0],
        [1, 1],
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            {"taste": [[True], [False], [True]]},
            "column 'taste' holds .*list.*; lists are of strings or numbers",
        ),
        ({"born": [datetime.date(2000, 1, 1)] * 3}, r"row 1, column 'born': .* is not a number"),
        ({"age": [1.0, 2.0, float("inf")]}, "row 3, column 'age': inf is not a finite"),
        ({"user": [1, 2, 2]}, "row 3, column 'user': id 2 appears a second time"),
        ({"user": [1, None, 2]}, "row 2, column 'user': the value is missing"),
        ({"join_time": [1, None, 10**13]}, "row 3, column 'join_time': 10000000000000 lies beyond"),
    ],
)
def test_bad_users(column: dict[str, Any], message: str, frame: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=f"the users given: {message}"):
        UserTable.from_table(frame({"user": [1, 2, 3]} | column))


def test_too_many_values_of_a_list() -> None:
    many = pa.table({"user": [1], "tag": [[f"t{i}" for i in range(5001)]]})
    with pytest.raises(DataError, match="5001 distinct values, more than the limit of 5000"):
        UserTable.from_table(many)
