"""The messages and commands that docs/data.md quotes are those that are given."""

from __future__ import annotations

import gzip
import re
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks import ladder
from graphrec.cli.arguments import parse_arguments
from graphrec.cli.reading import parse_log

PAGE = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
QUOTED = set(re.findall(r"^ladder: (.*)$", PAGE, flags=re.MULTILINE))
HEADER = b"src,dst,timestamp\n"


def quotes(*late: str) -> bytes:
    rows = [f"u{number},v,{number},t" for number in range(30)]
    rows[9 : 9 + len(late)] = late
    return "\n".join(["src,dst,timestamp,text", *rows, ""]).encode()


def as_parquet(**columns: object) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns), path)


def as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "src")


FILES: list[tuple[str, bytes | Callable[[Path], None] | None]] = [
    ("my.csv", b"sender,dst,timestamp\na,b,1\n"),
    ("my.csv", HEADER + b"a,b,1\nb,a,yesterday\n"),
    ("my.csv", HEADER + b"a,b,1700000000000\n"),
    ("my.csv.gz", gzip.compress(HEADER + b"".join(b"a,b,%d\n" % number for number in range(999)))[:-100]),
    ("my.csv", HEADER + b"a,b,1\na,b,1,4\n"),
    ("my.parquet", b"PAR1" + b"x" * 20),
    ("my.parquet", as_parquet(src=["a", "b"], dst=["b", None], timestamp=[1, 2])),
    ("my.csv", quotes('u,v,9,"cut')),
    ("my.csv", quotes('u,v,9,"cut', 'u,v,10,ends"')),
    ("my.csv", b"1,2,3\n2,3,4\n"),
    ("my.csv", HEADER + b"a,b,1\na,M\xfcller,2\n"),
    (
        "my.parquet",
        as_parquet(src=["a", "b"], dst=["b", "a"], time=pa.array([1.7e9, 1.7e9 + 60]).cast("float32", False)),
    ),
    ("my.csv", as_zip),
    ("my.csv", b""),
    ("my.csv", HEADER),
    ("my.csv", None),
    ("my.csv", HEADER + b"a,b,1\nb,a,2\n"),
]


def said(*arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        ladder.main([*arguments, "--out", "results"])
    return str(left.value).removeprefix("ladder: ")


def test_every_message_of_the_page_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = []
    for name, content in FILES:
        Path(name).unlink(missing_ok=True)
        if isinstance(content, bytes):
            Path(name).write_bytes(content)
        elif content is not None:
            content(Path(name))
        given.append(said("--events", name))
        assert given[-1] in QUOTED
    given.append(said("--dataset", "CollegMsg"))
    assert set(given) == QUOTED


def test_models_that_there_are_not_are_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ladder.main(["--models", "common_neighbours", "--dataset", "CollegeMsg", "--out", "results"])
    assert capsys.readouterr().err.splitlines()[-1] in PAGE


def test_files_of_konect_and_snap_are_read_by_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    konect = b"% asym weighted\n% 3 3 3\n1 2 1 1157454929\n1 3 1 1157454930\n3 1 2 1157454931\n"
    Path("out.facebook-wosn-wall").write_bytes(konect)
    Path("CollegeMsg.txt.gz").write_bytes(gzip.compress(b"1 2 1082040961\n3 4 1082155839\n5 2 1082414391\n"))
    signed = b"6,2,4,1289241911.72836\n6,5,-2,1289241941.53378\n"
    Path("soc-sign-bitcoinotc.csv.gz").write_bytes(gzip.compress(signed))
    times = []
    for line in re.findall(r"^graphrec (fit .* --no-header.*)$", PAGE, flags=re.MULTILINE):
        log = parse_log(parse_arguments(shlex.split(line)))
        times.append(int(log.time[-1]))
        assert (log.weight is not None) == ("--weight" in line or "--rating" in line)
        assert ("distrust" in log.actions) == ("--rating" in line)
    assert times == [1157454931, 1082414391, 1289241941]
