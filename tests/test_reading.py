"""Files as people have them: every line becomes an event or an error, whatever the file's size and name."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.cli.arguments import parse_arguments
from graphrec.cli.reading import read_log
from graphrec.data import DataError, EventLog, read_events, read_users

HEADER = b"src,dst,timestamp\n"
ROWS = b"a,b,1\nb,c,2\nc,a,3\n"
EVENTS = [("a", "b", 1), ("b", "c", 2), ("c", "a", 3)]


def rows_of(log: EventLog) -> list[tuple[str, str, int]]:
    ids = [str(raw) for raw in log.user_ids.values.to_pylist()]
    ends = zip(log.src.tolist(), log.dst.tolist(), log.time.tolist(), strict=True)
    return [(ids[u], ids[v], t) for u, v, t in ends]


def read(content: bytes, name: str = "log.csv", **options: Any) -> EventLog:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        return read_events(path, **options)


def many(count: int) -> list[list[str]]:
    return [[f"u{number}", f"v{number}", str(number), f"text {number}"] for number in range(count)]


def as_csv(rows: list[list[str]], **dialect: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, **dialect).writerows(rows)
    return out.getvalue().encode()


NAMES = ["src", "dst", "timestamp", "text"]


# --- lines and rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1000, 60_000])
def test_an_unclosed_quote_in_an_ignored_column_loses_no_rows(count: int) -> None:
    rows = many(count)
    rows[9][3] = '"cut off'
    text = "\n".join(",".join(row) for row in [NAMES, *rows]) + "\n"
    with pytest.raises(DataError, match=r"row 10, column 'text': a quote opens that is (never|not) closed"):
        read(text.encode())
    rows[-5][3] = 'of 5"'  # a quote that closes it, far below
    text = "\n".join(",".join(row) for row in [NAMES, *rows]) + "\n"
    with pytest.raises(DataError, match=r"row 10, column 'text': .*quote"):
        read(text.encode())
    rows[10][3] = 'ends in the next row"'
    text = "\n".join(",".join(row) for row in [NAMES, *rows]) + "\n"
    with pytest.raises(DataError, match=r"row 10, column 'text': .*looks like a row"):
        read(text.encode())


@pytest.mark.parametrize("count", [300, 60_000])  # below and above the size of a block
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_line_ends_are_read_whatever_the_size(count: int, end: str) -> None:
    draw = random.Random(count)
    rows = many(count)
    for row in rows:
        row[3] = draw.choice(["plain", f"two{end}lines", f'"so",{end}{end}he said', "", '5" and 6"'])
    log = read(as_csv([NAMES, *rows], lineterminator=end))
    assert rows_of(log) == [(row[0], row[1], int(row[2])) for row in rows]


LINES: dict[str, bytes] = {
    "carriage returns alone": (HEADER + ROWS).replace(b"\n", b"\r"),
    "windows": (HEADER + ROWS).replace(b"\n", b"\r\n"),
    "mixed": HEADER + b"a,b,1\r\nb,c,2\rc,a,3\n",
    "doubled carriage returns": (HEADER + ROWS).replace(b"\n", b"\r\r\n"),
    "first line blank": b"\n" + HEADER + ROWS,
    "blank lines": b"\r\n \n" + HEADER + b"\n" + ROWS.replace(b"\n", b"\n\n") + b"\n\n",
    "lines of blanks": HEADER + ROWS.replace(b"\n", b"\n   \n"),
    "no last line end": HEADER + ROWS[:-1],
    "byte order mark": b"\xef\xbb\xbf" + HEADER + ROWS,
    "UTF-16": (HEADER + ROWS).decode().encode("utf-16"),
    "UTF-16 big-endian": b"\xfe\xff" + (HEADER + ROWS).decode().encode("utf-16-be"),
    "quotes in a value": b'src,dst,timestamp,x\na,b,1,5" pipe\nb,c,2,say "hi"\nc,a,3,x"\n',
    "blanks before quotes": b'"src", "dst", "timestamp"\n"a", "b", 1\n"b", "c", "2"\n c, "a", 3\n',
    "a long line": b"src,dst,timestamp,x\na,b,1,"
    + b"x" * (3 << 20)
    + b"\nb,c,2,y\nc,a,3,"
    + b"z" * (2 << 20)
    + b"\n",
    "a delimiter at each end": b"src,dst,timestamp,\na,b,1,\nb,c,2,\nc,a,3,\n",
    "names twice": b"x,src,dst,x,timestamp,x\n1,a,b,1,1,1\n1,b,c,1,2,1\n1,c,a,1,3,1\n",
    "not UTF-8 where nobody looks": b"src,dst,timestamp,x\na,b,1,\xe9\nb,c,2,\xff\nc,a,3,x\n",
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_as_people_have_them(kind: str) -> None:
    assert rows_of(read(LINES[kind])) == EVENTS


def test_commas_and_doubled_quotes_in_ids() -> None:
    log = read(b'src,dst,timestamp\n"Doe, Jane","x ""y"" z",1\n')
    assert rows_of(log) == [("Doe, Jane", 'x "y" z', 1)]


BAD: dict[str, tuple[bytes, list[str]]] = {
    "zero byte": (HEADER + b"a,b,1\nb\0,c,2\n", ["row 2, column 'src'", "zero byte", "save it as UTF-8"]),
    "zero byte in an ignored column": (
        b"src,dst,timestamp,x\na,b,1,\0\n",
        ["row 1, column 'x'", "zero byte"],
    ),
    "UTF-16 without a mark": ((HEADER + ROWS).decode().encode("utf-16-le"), ["line 1", "UTF-8"]),
    "not UTF-8": (
        HEADER + b"a,b,1\nb,M\xfcller,2\n",
        ["row 2, column 'dst'", "not UTF-8", "save the file as UTF-8"],
    ),
    "long id": (HEADER + b"a,b,1\nb," + b"x" * 256 + b",2\n", ["row 2, column 'dst'", "256 bytes"]),
    "comment between rows": (
        b"# log\n" + HEADER + b"a,b,1\n# more\nb,c,2\n",
        ["row 2", "comments at the top"],
    ),
    "comment of another width": (
        HEADER + b"a,b,1\n# more\nb,c,2\n",
        ["row 2 has 1 columns", "only at the top"],
    ),
    "delimiter at the end": (HEADER + b"a,b,1,\n", ["row 1 has 4 columns where 3", "ends in ','"]),
    "text after a quote": (HEADER + b'a,"b"c,1\n', ["row 1, column 'dst'", "text after a closing quote"]),
    "backslash quotes": (
        b'src,dst,timestamp,x\na,b,1,"a \\"b\\" c"\n',
        ["row 1, column 'x'", "double the quotes"],
    ),
    "open at the end": (HEADER + b'a,b,1\nb,c,"2\n', ["row 2, column 'timestamp'", "never closed"]),
    "header alone": (HEADER, ["no events"]),
    "comments alone": (b"# a\n% b\n", ["empty but for comments"]),
    "no header": (
        b"1,2,3\n2,3,4\n",
        ["numbers alone", "--no-header --src 1 --dst 2 --time 3", "header=False"],
    ),
    "other names": (
        b"from,To,sent_at\na,b,1\n",
        ["column 'src' is missing; the columns are from, To, sent_at", "--src from --dst To --time sent_at"],
    ),
    "zip": (b"PK\x03\x04....", ["zip archive", "unpack"]),
    "SQLite": (b"SQLite format 3\0....", ["SQLite", "export"]),
    "gzip of gzip": (gzip.compress(gzip.compress(HEADER + ROWS)), ["compressed around another file"]),
    "cut gzip": (gzip.compress(HEADER + ROWS)[:-9], ["gzip stream is truncated or damaged", "fetch"]),
    "cut xz": (lzma.compress(HEADER + ROWS)[:-9], ["xz stream is truncated or damaged"]),
    "cut bz2": (bz2.compress(HEADER + ROWS)[:-9], ["bz2 stream is truncated or damaged"]),
    "damaged Parquet": (b"PAR1" + HEADER + ROWS, ["not a readable Parquet file"]),
    "rounded times": (HEADER + b"a,b,1.7e+09\nb,c,1.7e+09\n", ["row 1, column 'timestamp'", "rounded"]),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_files_name_the_place_and_the_remedy(fault: str) -> None:
    content, fragments = BAD[fault]
    with pytest.raises(DataError) as caught:
        read(content)
    for fragment in ["log.csv: ", *fragments]:
        assert fragment in str(caught.value)


# --- random files -------------------------------------------------------------------------------------------

cells = st.text(st.sampled_from("ab \"',;|\n\r\t1é#%"), max_size=8).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=8),
    st.sampled_from([0, 0, 0, 30_000]),
    st.sampled_from(",\t;|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_random_tables_are_read_as_written(
    texts: list[tuple[str, str]], padding: int, delimiter: str, end: str, quoting: Any
) -> None:
    rows = [[f"u{n}", first, str(n), second, "v"] for n, (first, second) in enumerate(texts)]
    rows += [[f"u{n}", "padding to more than a block", str(n), "", "v"] for n in range(len(rows), padding)]
    names = ["src", "x", "timestamp", "y", "dst"]
    content = as_csv([names, *rows], delimiter=delimiter, lineterminator=end, quoting=quoting)
    try:
        log = read(content)
    except DataError as error:
        assert "row " in str(error), error  # noqa: PT017 text that looks like a row is refused, never misread
        return
    assert rows_of(log) == [(row[0], "v", int(row[2])) for row in rows]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from(b'",\n\r a1#\0\xff;')), min_size=1, max_size=4)
)
def test_damaged_files_lose_no_row(changes: list[tuple[int, int]]) -> None:
    content = bytearray(b"src,dst,timestamp,x\n" + b'a,b,1,"q, r"\n"b",c,2,\nc,d,3,z\n' * 4)
    for position, byte in changes:
        content[position % len(content)] = byte
    try:
        log = read(bytes(content))
    except (DataError, FileNotFoundError):
        return
    text = bytes(content).decode(errors="replace")
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    rows = [row for row in lines if any(cell.strip() for cell in row)][1:]
    if text.lstrip().startswith("#"):  # a comment, and the header after it
        rows = rows[1:]
    assert len(log) + log.num_self_loops == len(rows)


# --- compression and formats by their first bytes -----------------------------------------------------------


def packed(kind: str) -> Callable[[bytes], bytes]:
    return lambda content: pa.compress(content, kind, asbytes=True)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": packed("zstd"),
    "members": lambda content: gzip.compress(content[:30]) + gzip.compress(content[30:]),
    "xz streams": lambda content: lzma.compress(content[:30]) + lzma.compress(content[30:]),
    "bz2 streams": lambda content: bz2.compress(content[:30]) + bz2.compress(content[30:]),
}


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["log.csv", "log.CSV.GZ", "log.bz2", "log.parquet", "log"])
def test_compression_is_told_by_the_first_bytes(kind: str, name: str) -> None:
    assert rows_of(read(PACKERS[kind](HEADER + ROWS), name)) == EVENTS


def test_parquet_is_told_by_the_first_bytes(tmp_path: Path) -> None:
    table = pa.table({"src": ["a", "b", "c"], "dst": ["b", "c", "a"], "timestamp": [1, 2, 3]})
    pq.write_table(table, tmp_path / "log.csv.gz")
    assert rows_of(read_events(tmp_path / "log.csv.gz")) == EVENTS


def test_invalid_utf8_in_parquet_is_named(tmp_path: Path) -> None:
    wrong = pa.StringArray.from_buffers(
        2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff")
    )
    pq.write_table(pa.table({"src": wrong, "dst": ["x", "y"], "timestamp": [1, 2]}), tmp_path / "log.pq")
    with pytest.raises(DataError, match=r"log\.pq: row 2, column 'src': .*not UTF-8"):
        read_events(tmp_path / "log.pq")
    binary = pa.table({"src": pa.array([b"a", b"b"]), "dst": ["x", "y"], "timestamp": [1, 2]})
    assert rows_of(EventLog.from_table(binary)) == [("a", "x", 1), ("b", "y", 2)]


# --- columns, headers, delimiters ---------------------------------------------------------------------------

KONECT = b"% sym weighted\n% 3 3 3\n1 2 5 100\n2\t3 1 200\n3 1   1 300\n"
SNAP = b"# Nodes: 3 Edges: 3\n# FromNodeId\tToNodeId\tTime\n1\t2\t100\n2\t3\t200\n3\t1\t300\n"
NUMBERED = [("1", "2", 100), ("2", "3", 200), ("3", "1", 300)]


def test_files_of_konect_and_snap() -> None:
    konect = read(KONECT, "out.network", header=False, time=4, weight=3)
    assert konect.weight is not None
    assert (rows_of(konect), konect.weight.tolist()) == (NUMBERED, [5, 1, 1])
    with pytest.raises(DataError, match="number of the time must be given"):
        read(KONECT, header=False)
    assert rows_of(read(SNAP, header=False)) == NUMBERED
    named = read(SNAP, src="FromNodeId", dst="ToNodeId", time="Time")
    assert rows_of(named) == NUMBERED
    with pytest.raises(DataError, match="numbers alone"):
        read(SNAP)


@pytest.mark.parametrize("mark", ["\t", ";", "|", " ", "   ", " \t "])
def test_delimiters(mark: str) -> None:
    text = (HEADER + ROWS).decode().replace(",", mark).encode()
    assert rows_of(read(text)) == EVENTS
    assert rows_of(read(ROWS.decode().replace(",", mark).encode(), header=False)) == EVENTS


def test_no_first_row_is_lost_without_a_header() -> None:
    assert rows_of(read(b"#a,b,1\nb,c,2\n", header=False)) == [("#a", "b", 1), ("b", "c", 2)]
    for content in (b"1,2,3\n1,3,4\n", b"1 2 3\n1 3 4\n"):
        with pytest.raises(DataError, match="numbers alone"):
            read(content, src="1", dst="2", time="3")
    with pytest.raises(DataError, match="row 1, column '3': 'timestamp' is not a time"):
        read(HEADER + ROWS, header=False)


# --- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tensor", "array", "Parquet", "float16"])
def test_times_that_their_type_cannot_hold_are_refused(kind: str, tmp_path: Path) -> None:
    times = [1.7e9, 1.7e9 + 60] if kind != "float16" else [3000.0, 3001.0]
    narrow = np.array(times, np.float16 if kind == "float16" else np.float32)
    pq.write_table(pa.table({"src": [1, 2], "dst": [2, 1], "time": narrow}), tmp_path / "log.pq")
    given = torch.from_numpy(narrow) if kind == "tensor" else narrow
    make = {"Parquet": lambda: read_events(tmp_path / "log.pq")}.get(
        kind, lambda: EventLog.from_arrays([1, 2], [2, 1], given)
    )
    with pytest.raises(DataError, match=r"row 1, column 'time'.*-bit number.*int64 or float64"):
        make()
    small = EventLog.from_arrays([1, 2], [2, 1], np.array([5.5, 2.0**10], np.float32))
    assert small.time.tolist() == [5, 1024]


def test_bfloat16_is_refused() -> None:
    with pytest.raises(DataError, match="'time'"):
        EventLog.from_arrays([1, 2], [2, 1], torch.tensor([1.7e9, 1.8e9], dtype=torch.bfloat16))


def test_times_that_become_one_second_are_told() -> None:
    with pytest.warns(UserWarning, match="3 distinct times become 1 second.*between 0 and 1"):
        read(HEADER + b"a,b,0.1\nb,c,0.5\nc,a,0.9\n")
    with pytest.warns(UserWarning, match="20 distinct times become 2 seconds"):
        EventLog.from_arrays(range(20), range(1, 21), [number / 10 for number in range(20)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EventLog.from_arrays(range(20), range(1, 21), [number * 1.5 for number in range(20)])


def test_dates_of_both_widths() -> None:
    for kind in (pa.date32(), pa.date64()):
        days = pa.array([0, 2], pa.int32()).cast(pa.date32()).cast(kind)
        log = EventLog.from_table(pa.table({"src": [1, 2], "dst": [2, 1], "time": days}))
        assert log.time.tolist() == [0, 2 * 86_400]


# --- many files ---------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of days and actions, with what should be left out."""
    for name, content in {
        "action=sms/b.csv": b"src,dst,timestamp\na,b,1\n",
        "action=sms/a.csv.gz": gzip.compress(b"timestamp,src,dst\n1,b,c\n"),
        "action=call%20me/z.csv": b"src,dst,timestamp\nc,a,0\n",
        "_SUCCESS": b"",
        ".hidden.csv": b"nothing",
        "_temporary/x.csv": b"nothing",
        "action=sms/empty.csv": b"",
    }.items():
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "log"


EXPECTED = [("c", "a", 0), ("b", "c", 1), ("a", "b", 1)]  # by time, then path


def test_folders_patterns_addresses_and_several(tree: Path) -> None:
    ways: list[Any] = [
        tree,
        f"{tree}/",
        f"{tree}/*/*",
        f"{tree}/**/*.csv*",
        f"file://{tree}",
        [f"{tree}/action=sms/a.csv.gz", f"{tree}/action=call%20me/z.csv", f"{tree}/action=sms/b.csv"],
    ]
    for way in ways:
        log = read_events(way)
        assert rows_of(log) == EXPECTED, way
        assert (log.actions, log.action.tolist()) == (("call me", "sms"), [0, 1, 1]), way
    assert rows_of(read_events(f"{tree}/action=sms")) == EXPECTED[1:]
    below = pafs.SubTreeFileSystem(str(tree), pafs.LocalFileSystem())
    assert rows_of(read_events("action=sms", filesystem=below)) == EXPECTED[1:]


def test_file_systems_of_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/logs/a.csv", HEADER + ROWS)
    assert rows_of(read_events("/logs", filesystem=memory)) == EVENTS


def test_hive_partitioned_parquet(tmp_path: Path) -> None:
    table = pa.table({"src": ["a", "b"], "dst": ["b", "c"], "date": ["2024-01-01", "2024-01-02"]})
    pq.write_to_dataset(table, tmp_path / "log", partition_cols=["date"])
    assert rows_of(read_events(tmp_path / "log", time="date")) == [
        ("a", "b", 1_704_067_200),
        ("b", "c", 1_704_153_600),
    ]


def test_errors_name_the_file_of_many(tree: Path) -> None:
    (tree / "action=sms" / "c.csv").write_bytes(b"src,dst,timestamp\na,b,1\na,b,soon\n")
    with pytest.raises(DataError, match=r"c\.csv: row 2, column 'timestamp': 'soon'"):
        read_events(tree)
    (tree / "action=sms" / "c.csv").write_bytes(b"src,to,timestamp\na,b,1\n")
    with pytest.raises(DataError, match=r"c\.csv: column 'dst' is missing"):
        read_events(tree)
    (tree / "action=sms" / "c.csv").unlink()
    pq.write_table(pa.table({"src": [1], "dst": [2], "timestamp": [3]}), tree / "action=sms" / "d.parquet")
    with pytest.raises(DataError, match=r"d\.parquet: column 'src' holds int64 where .* holds string"):
        read_events(tree)


def test_what_is_not_there(tmp_path: Path) -> None:
    for nothing in ("*.csv", "no.csv", "deep/**/x.csv"):
        with pytest.raises(FileNotFoundError, match=nothing.replace("*", r"\*")):
            read_events(f"{tmp_path}/{nothing}")
    with pytest.raises(DataError, match="holds no files"):
        read_events(tmp_path)
    with pytest.raises(DataError, match="ftp:// cannot be read"):
        read_events("ftp://host/log.csv")
    (tmp_path / "a.csv").write_bytes(HEADER + ROWS)
    with pytest.raises(DataError, match="is given twice"):
        read_events([tmp_path / "a.csv", tmp_path / "a.csv"])


# --- users --------------------------------------------------------------------------------------------------


def test_lists_of_numbers_are_features(tmp_path: Path) -> None:
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.large_list(pa.float64())):
        vectors = pa.array([[0.5, 2.0], None, [1.0, -1.0]], kind)
        pq.write_table(pa.table({"user": ["a", "b", "c"], "e": vectors}), tmp_path / "users.pq")
        users = read_users(tmp_path / "users.pq")
        assert users.feature_names == ("e[0]", "e[1]", "e_missing")
        assert users.x.tolist() == [[0.5, 2.0, 0], [0, 0, 1], [1, -1, 0]]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.5], [1.0, 2.0]], "row 2, column 'e': 2 numbers where the rows before have 1"),
        ([[1.5], [float("nan")]], "row 2, column 'e': nan"),
        ([[1.5], [None]], "row 2, column 'e'"),
        ([[[1.5]], [[1.0]]], "column 'e' holds"),
        ([[], []], "column 'e'.*empty"),
    ],
)
def test_bad_lists_are_named(vectors: list[Any], message: str, tmp_path: Path) -> None:
    kind = (
        pa.list_(pa.list_(pa.float64()))
        if isinstance((vectors[0] or [0])[0], list)
        else pa.list_(pa.float64())
    )
    pq.write_table(pa.table({"user": ["a", "b"], "e": pa.array(vectors, kind)}), tmp_path / "users.pq")
    with pytest.raises(DataError, match=message):
        read_users(tmp_path / "users.pq")


# --- the command line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["fit", "--out", "b"], ["add", "b"], ["evaluate", "b"]])
def test_commands_take_the_layout_and_say_what_is_dropped(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.network"
    path.write_bytes(KONECT + b"3 3 1 400\n")
    layout = ["--no-header", "--src", "1", "--dst", "2", "--time", "4", "--weight", "3"]
    assert rows_of(read_log(parse_arguments([*command, str(path), *layout]))) == NUMBERED
    assert capsys.readouterr().err == (
        "graphrec: 1 row was dropped, src and dst being the same user; 3 events are left\n"
    )
