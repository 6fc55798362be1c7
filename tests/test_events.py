"""Event logs and users: what is read is what was written, and what is refused is named."""

import csv
import datetime
import gzip
import io
import math
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data import DataError, EventLog, UserTable, read_events, read_users
from graphrec.data.ids import id_fault
from graphrec.data.reading.layout import DELIMITERS
from graphrec.data.times import LATEST_TIME

HEADER = ["src", "dst", "timestamp"]
UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)

letters = st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"])
raw_ids = st.one_of(
    st.text(st.one_of(letters, st.sampled_from(" ,;|\t\"'")), min_size=1, max_size=12).filter(
        lambda text: text == text.strip() and id_fault(text) is None
    ),
    st.integers().map(str),
    st.integers(0, 20).map("{:03}".format),
)
seconds = st.integers(-LATEST_TIME, LATEST_TIME)


def write(rows: list[list[str]], *, delimiter: str = ",", zipped: bool = False) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    content = text.getvalue().encode()
    return gzip.compress(content, 1) if zipped else content


def read(content: bytes, *, zipped: bool = False, **options: object) -> EventLog:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("events.csv.gz" if zipped else "events.csv")
        path.write_bytes(content)
        return read_events(path, **options)  # type: ignore[arg-type]


def rows_of(log: EventLog) -> list[tuple[str, str, int]]:
    ids = [str(raw) for raw in log.user_ids.values.to_pylist()]
    return [
        (ids[u], ids[v], t)
        for u, v, t in zip(log.src.tolist(), log.dst.tolist(), log.time.tolist(), strict=True)
    ]


def times_of(texts: list[str]) -> list[int]:
    """The times as read, one a row, in the order given."""
    rows = [["src", "dst", "timestamp", "weight"]]
    rows += [["a", "b", text, str(number)] for number, text in enumerate(texts)]
    log = read(write(rows))
    assert log.weight is not None
    return log.time[log.weight.argsort()].tolist()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(raw_ids, raw_ids, seconds), min_size=1, max_size=12),
    st.sampled_from(DELIMITERS),
    st.booleans(),
    st.booleans(),
)
def test_round_trip_of_a_file(
    events: list[tuple[str, str, int]], delimiter: str, zipped: bool, header: bool
) -> None:
    kept = [event for event in events if event[0] != event[1]]
    rows = [[u, v, str(t)] for u, v, t in events]
    options = {} if header else {"column_names": HEADER}
    content = write([HEADER, *rows] if header else rows, delimiter=delimiter, zipped=zipped)
    if not header:  # the first row alone tells the delimiter and comments, so it must not be ambiguous
        kept = [event for event in kept if not set(f"{DELIMITERS}#%") & set("".join(event[:2]))]
        events = [event for event in events if not set(f"{DELIMITERS}#%") & set("".join(event[:2]))]
        content = write([[u, v, str(t)] for u, v, t in events], delimiter=delimiter, zipped=zipped)
    if not kept:
        with pytest.raises(DataError):
            read(content, zipped=zipped, **options)
        return
    log = read(content, zipped=zipped, **options)
    assert rows_of(log) == sorted(kept, key=lambda event: event[2])  # stable: ties keep the order of the file
    assert log.num_self_loops == len(events) - len(kept)
    assert {str(raw) for raw in log.user_ids.values.to_pylist()} == {
        end for event in events for end in event[:2]
    }


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=8, unique=True))
def test_integer_ids_stay_integers(ids: list[int]) -> None:
    log = read(write([HEADER, *([str(ids[0]), str(raw), "0"] for raw in ids[1:])]))
    assert log.user_ids.values.to_pylist() == sorted(ids)
    assert log.user_ids.lookup(log.dst) == ids[1:]


def test_leading_zeros_and_signs_keep_ids_apart() -> None:
    log = read(b"src,dst,time\n007,7,1\n+7,-0,2\n")
    assert log.user_ids.values.to_pylist() == ["+7", "-0", "007", "7"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e11, 1e11), min_size=1, max_size=6))
def test_floats_are_rounded_down(times: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of times that become one second
        assert times_of([repr(time) for time in times]) == [math.floor(time) for time in times]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.datetimes(), st.none() | st.integers(-14 * 60, 14 * 60), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_iso_times(moments: list[tuple[datetime.datetime, int | None, bool]]) -> None:
    texts, expected = [], []
    for naive, offset, spaced in moments:
        zone = UTC if offset is None else datetime.timezone(datetime.timedelta(minutes=offset))
        texts.append(
            (naive if offset is None else naive.replace(tzinfo=zone)).isoformat(" " if spaced else "T")
        )
        shift = datetime.timedelta(minutes=offset or 0)
        expected.append(
            (naive - EPOCH.replace(tzinfo=None)) // datetime.timedelta(seconds=1) - int(shift.total_seconds())
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of times that become one second
        assert times_of(texts) == expected


def test_other_forms_of_iso_times() -> None:
    texts = ["2024-01-01", "2024-01-01T00:00Z", "2024-01-01 02:00:00.9+02", "2024-01-01T00:00:00.123456789"]
    with pytest.warns(UserWarning, match="3 distinct times become 1 second"):
        assert times_of(texts) == [1_704_067_200] * 4


def test_ties_keep_the_order_of_the_file() -> None:
    log = EventLog.from_arrays(list("cbad"), list("dcbc"), [5, 1, 5, 5])
    assert rows_of(log) == [("b", "c", 1), ("c", "d", 5), ("a", "b", 5), ("d", "c", 5)]


def test_default_and_named_columns() -> None:
    content = b"when,to,who,time,kind,action,heat\n1,a,b,9,x,z,2.5\n0,a,c,9,y,z,0.5\n"
    log = read(content, src="who", dst="to", time="when", action="kind", weight="heat")
    assert (rows_of(log), log.actions, log.action.tolist()) == (
        [("c", "a", 0), ("b", "a", 1)],
        ("x", "y"),
        [1, 0],
    )
    assert log.weight is not None
    assert log.weight.tolist() == [0.5, 2.5]
    plain = read(b"time,timestamp,src,dst,action\n1,2,a,b,wave\n")
    assert (plain.time.tolist(), plain.actions, plain.weight) == ([2], ("wave",), None)
    assert read(b"src,dst,time\na,b,1\n").actions == ("contact",)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfsrc,dst,timestamp\r\na,b,1\r\n",
        b"src, dst, timestamp\na , b, 1\n",
        b'"src","dst","timestamp"\n"a","b","1"\n\n',
        b"src,dst,timestamp\na,b,1",
    ],
    ids=["byte order mark", "spaces", "quotes", "no last newline"],
)
def test_variants_of_csv(content: bytes) -> None:
    assert rows_of(read(content)) == [("a", "b", 1)]


def test_gzip_of_several_members() -> None:
    content = gzip.compress(b"src,dst,time\na,b,1\n") + gzip.compress(b"b,a,2\n")
    assert rows_of(read(content, zipped=True)) == [("a", "b", 1), ("b", "a", 2)]


BAD_FILES: dict[str, tuple[bytes, list[str]]] = {
    "missing column": (b"src,to,timestamp\na,b,1\n", ["column 'dst' is missing", "src, to, timestamp"]),
    "missing time": (b"src,dst,when\na,b,1\n", ["column 'timestamp' is missing"]),
    "column twice": (b"src,src,dst,time\na,b,c,1\n", ["column 'src' appears more than once"]),
    "bad time": (b"src,dst,time\na,b,1\nb,a,2\nb,a,soon\n", ["row 3", "column 'time'", "'soon'"]),
    "first time bad": (b"src,dst,time\na,b,soon\nb,a,2\n", ["row 1", "'soon'"]),
    "bad date": (b"src,dst,time\na,b,2024-01-01\nb,a,2024-02-30\n", ["row 2", "'2024-02-30'"]),
    "forms mixed": (b"src,dst,time\na,b,2024-01-01\nb,a,17\n", ["row 2", "'17'", "one form"]),
    "no time": (b"src,dst,time\na,b,1\nb,a,\n", ["row 2", "column 'time'"]),
    "milliseconds": (b"src,dst,time\na,b,1\na,b,1700000000000\n", ["row 2", "milliseconds"]),
    "NaN": (b"src,dst,time\na,b,1\na,b,NaN\n", ["row 2", "nan is not a time"]),
    "infinity": (b"src,dst,time\na,b,inf\n", ["row 1", "inf is not a time"]),
    "empty file": (b"", ["the file is empty"]),
    "header only": (b"src,dst,time\n", ["no events"]),
    "header without newline": (b"src,dst,time", ["nothing after the header"]),
    "too few columns": (b"src,dst,time\na,b,1\na,b\n", ["row 2 has 2 columns where 3 are expected"]),
    "too many columns": (b"src,dst,time\na,b,1\nb,a,2\na,b,3,4\n", ["row 3 has 4 columns where 3"]),
    "empty id": (b"src,dst,time\na,b,1\na,,2\n", ["row 2", "column 'dst'", "missing"]),
    "blank id": (b"src,dst,time\na,b,1\n  ,b,2\n", ["row 2", "column 'src'", "missing"]),
    "long id": (b"src,dst,time\n" + b"a" * 256 + b",b,2\n", ["256 bytes"]),
    "zero byte": (b"src,dst,time\na\0,b,1\na,b,2\n", ["zero byte"]),
    "self-loops only": (b"src,dst,time\na,a,1\n", ["same user"]),
    "weight": (b"src,dst,time,weight\na,b,1,2\nb,a,1,heavy\n", ["row 2", "column 'weight'", "'heavy'"]),
    "huge weight": (b"src,dst,time,weight\na,b,1,1e300\n", ["row 1", "column 'weight'", "32-bit"]),
    "empty action": (b"src,dst,time,action\na,b,1,x\na,b,1,\n", ["row 2", "column 'action'"]),
    "reserved action": (b"src,dst,time,action\na,b,1,friend\n", ["'friend'", "'friend_act'"]),
    "double underscore": (b"src,dst,time,action\na,b,1,a__b\n", ["'a__b'", "'a_b_act'"]),
    "not UTF-8": (b"src,dst,time\na,b,1\n\xe9,b,1\n", ["row 2, column 'src'", "not UTF-8", "save"]),
    "header not UTF-8": (b"src,dst,time,\xe9\na,b,1,2\n", ["line 1 is not UTF-8"]),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_files_are_named_with_their_fault(fault: str, zipped: bool, tmp_path: Path) -> None:
    content, fragments = BAD_FILES[fault]
    path = tmp_path / ("events.csv.gz" if zipped else "events.csv")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError) as caught:
        read_events(path)
    for fragment in ([] if fault in ("long id", "zero byte") else [str(path)]) + fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("kept", [5, 0.5, -3], ids=["head", "half", "all but the end"])
def test_truncated_gzip(kept: float, tmp_path: Path) -> None:
    whole = write([HEADER, *([str(i), str(i + 1), str(i)] for i in range(5000))], zipped=True)
    path = tmp_path / "events.csv.gz"
    path.write_bytes(whole[: int(len(whole) * kept) if 0 < kept < 1 else int(kept)])
    with pytest.raises(DataError, match="gzip"):
        read_events(path)


def test_damaged_and_false_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(b"src,dst,time\na,b,1\n")
    path = tmp_path / "events.csv.gz"
    path.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    with pytest.raises(DataError, match="gzip"):
        read_events(path)
    path.write_bytes(b"src,dst,time\na,b,1\n")  # what a file is, its first bytes tell
    assert rows_of(read_events(path)) == [("a", "b", 1)]


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_events(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match="folder"):
        read_events(tmp_path)


def test_column_names_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="does not have 2 columns"):
        read(b"a b 1\n", column_names=["src", "dst"])
    with pytest.raises(DataError, match="column 'dst' is missing"):
        read(b"a b 1\n", column_names=["src", "to", "time"])


SAME_EVENTS: dict[str, Callable[[], EventLog]] = {
    "lists": lambda: EventLog.from_arrays([1, 2], [2, 1], [3, 4]),
    "arrays": lambda: EventLog.from_arrays(np.array([1, 2], np.uint8), np.array([2, 1]), np.array([3.9, 4])),
    "tensors": lambda: EventLog.from_arrays(*torch.tensor([[1, 2], [2, 1], [3, 4]])),
    "gradient": lambda: EventLog.from_arrays([1, 2], [2, 1], torch.tensor([3.0, 4.0], requires_grad=True)),
    "arrow": lambda: EventLog.from_arrays(
        pa.chunked_array([["1"], ["2"]]), pa.array(["2", "1"], pa.large_string()), pa.array(["3", "4"])
    ),
    "categories": lambda: EventLog.from_arrays(
        pa.array([1, 2]).dictionary_encode(), pa.array(["2", "1"], pa.string_view()), [3, 4]
    ),
    "integers and strings": lambda: EventLog.from_arrays([1, 2], ["2", "1"], [3, 4]),
    "moments": lambda: EventLog.from_arrays(
        [1, 2], [2, 1], [EPOCH + datetime.timedelta(0, s) for s in (3, 4)]
    ),
    "moments of NumPy": lambda: EventLog.from_arrays([1, 2], [2, 1], np.array([3, 4], "datetime64[s]")),
}


@pytest.mark.parametrize("kind", SAME_EVENTS)
def test_from_arrays_takes_what_people_have(kind: str) -> None:
    log = SAME_EVENTS[kind]()
    assert log.user_ids.values.to_pylist() == [1, 2]
    assert rows_of(log) == [("1", "2", 3), ("2", "1", 4)]


def test_ids_beyond_64_bits_are_strings() -> None:
    log = EventLog.from_arrays(np.array([2**64 - 1, 1], np.uint64), [1, 2], [1, 2])
    assert log.user_ids.values.to_pylist() == ["1", "18446744073709551615", "2"]


BAD_ARRAYS: dict[str, tuple[Callable[[], EventLog], str]] = {
    "lengths": (lambda: EventLog.from_arrays([1], [2, 3], [4]), "'dst': 2"),
    "nothing": (lambda: EventLog.from_arrays([], [], []), "no events"),
    "one string": (lambda: EventLog.from_arrays("ab", "cd", [1, 2]), "single string 'ab'"),
    "one number": (lambda: EventLog.from_arrays(1, [2], [3]), "'src'"),
    "two dimensions": (lambda: EventLog.from_arrays(np.ones((2, 2)), [1, 2], [1, 2]), "'src'"),
    "mixed ids": (lambda: EventLog.from_arrays([1, "a"], [2, 3], [1, 2]), "'src'"),
    "huge id": (lambda: EventLog.from_arrays([2**70], [1], [1]), "'src'"),
    "float ids": (lambda: EventLog.from_arrays([1.0], [2.0], [3]), "integers or strings"),
    "half a character": (lambda: EventLog.from_arrays(["\ud800"], ["b"], [3]), "'src'"),
    "missing id": (lambda: EventLog.from_arrays(["a", None], ["b", "c"], [1, 2]), "row 2, column 'src'"),
    "no time": (lambda: EventLog.from_arrays([1, 2], [2, 1], np.array([0, "NaT"], "datetime64[s]")), "row 2"),
    "durations": (lambda: EventLog.from_arrays([1], [2], np.array([1], "timedelta64[s]")), "not a time"),
    "least integer": (lambda: EventLog.from_arrays([1], [2], [-(2**63)]), "beyond the year 9999"),
    "largest integer": (lambda: EventLog.from_arrays([1], [2], np.array([2**64 - 1], np.uint64)), "9999"),
    "action": (lambda: EventLog.from_arrays([1], [2], [3], action="wave"), "single string 'wave'"),
    "weight": (lambda: EventLog.from_arrays([1], [2], [3], weight=[math.nan]), "row 1, column 'weight'"),
    "table": (
        lambda: EventLog.from_table(pa.table({"src": [1], "dst": [2]}), where="T"),
        "T: column 'timestamp' is missing",
    ),
}


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_bad_arrays_are_named_with_their_fault(fault: str) -> None:
    make, message = BAD_ARRAYS[fault]
    with pytest.raises(DataError, match=message):
        make()


def users_of(text: str, tmp_path: Path) -> UserTable:
    path = tmp_path / "users.csv"
    path.write_text(text)
    return read_users(path)


def test_users(tmp_path: Path) -> None:
    users = users_of(
        "user,age,town,rich,join_time\nb,30,Y,1,1970-01-02\n a ,,X,0,1970-01-01\nc,20,,0,1970-01-01\n",
        tmp_path,
    )
    assert users.ids.to_pylist() == ["b", "a", "c"]
    assert users.feature_names == ("age", "age_missing", "town=X", "town=Y", "rich")
    assert users.x.tolist() == [[30, 0, 0, 1, 1], [0, 1, 1, 0, 0], [20, 0, 0, 0, 0]]
    assert users.join_time is not None
    assert users.join_time.tolist() == [86_400, 0, 0]


def test_users_without_features(tmp_path: Path) -> None:
    users = users_of("user\n2\n1\n", tmp_path)
    assert (users.ids.to_pylist(), users.x.shape, users.join_time) == ([2, 1], (2, 0), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,age\n1,2\n", "column 'user' is missing"),
        ("user,age\n", "no users"),
        ("user,age\n1,2\n1,3\n", "row 2, column 'user': id 1 appears a second time"),
        ("user,age\n1,2\n,3\n", "row 2, column 'user'"),
        ("user,age\n1,inf\n", "row 1, column 'age'"),
        ("user,age\n1,2\n2,1e300\n", "row 2, column 'age'"),
        ("user,age,age\n1,2,3\n", "column 'age' appears more than once"),
        ("user,join_time\n1,2\n2,later\n", "row 2, column 'join_time'"),
        ("user,word\n" + "".join(f"{i},w{i}\n" for i in range(1001)), "1001 distinct values"),
    ],
)
def test_bad_users(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        users_of(text, tmp_path)
