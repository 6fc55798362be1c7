"""Damaged Parquet and compressed files: an error that names the file, or every row."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from graphs import checked
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.data import DataError, read_events, read_users

SIZE = 400
ROWS = [(f"u{number % 37}", f"v{number % 41}", number) for number in range(SIZE)]
TEXT = ("src,dst,timestamp\n" + "".join(f"{src},{dst},{time}\n" for src, dst, time in ROWS)).encode()
TABLE = pa.table(dict(zip(("src", "dst", "timestamp"), map(list, zip(*ROWS, strict=True)), strict=True)))


def packed(kind: str) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, kind) as stream:
        stream.write(TEXT)
    return out.getvalue().to_pybytes()


def parquet(**options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out, **options)
    return out.getvalue()


FILES: dict[str, bytes] = {
    "gzip": gzip.compress(TEXT),
    "members": gzip.compress(TEXT[:3000]) + gzip.compress(TEXT[3000:]),
    "bz2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
    "zstd": packed("zstd"),
    "lz4": packed("lz4"),
    "parquet": parquet(),
    "row groups": parquet(row_group_size=100),
    "plain parquet": parquet(use_dictionary=False, compression="none"),
    "pages 2.0": parquet(data_page_version="2.0", compression="zstd"),
    "checksums": parquet(write_page_checksum=True),
}


def flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 3)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def overwrite(content: bytearray, draw: random.Random) -> None:
    place = draw.randrange(len(content))
    content[place : place + 4] = draw.randbytes(4)


def flip_late(content: bytearray, draw: random.Random) -> None:
    content[-draw.randint(1, min(600, len(content)))] ^= 1 << draw.randrange(8)


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(4, len(content)) :]


def cut_out(content: bytearray, draw: random.Random) -> None:
    place = draw.randrange(4, len(content))
    del content[place : place + draw.randint(1, 200)]


def append(content: bytearray, draw: random.Random) -> None:
    content += draw.choice([b"\0" * 512, draw.randbytes(draw.randint(1, 40))])


DAMAGE: list[Callable[[bytearray, random.Random], None]] = [flip, flip_late, overwrite, cut, cut_out, append]


@settings(checked, max_examples=400)
@given(kind=st.sampled_from(sorted(FILES)), damage=st.sampled_from(DAMAGE), seed=st.integers(0, 2**32))
def test_damage_is_refused_or_loses_no_row(
    kind: str, damage: Any, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    content = bytearray(FILES[kind])
    damage(content, random.Random(seed))
    path.write_bytes(content)
    try:
        log = read_events(path)
        assert len(log) + log.num_self_loops >= SIZE
    except DataError as error:
        said = str(error)
        assert said.startswith(f"{path}: ")
        assert "\n" not in said
    with contextlib.suppress(DataError):
        read_users(path, user="src")


@pytest.mark.parametrize("kind", ["row groups", "parquet"])
def test_no_byte_of_a_footer_hides_rows(kind: str, tmp_path: Path) -> None:
    """Every byte of the footer, where the numbers of rows are."""
    content, path = FILES[kind], tmp_path / "log.parquet"
    size = int.from_bytes(content[-8:-4], "little")
    read = 0
    for place in range(len(content) - size - 8, len(content) - 8):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            log = read_events(path)
        except DataError:
            continue
        read += 1
        assert len(log) + log.num_self_loops == SIZE, place
    assert read > 20  # elsewhere, as in statistics and names of no column, it does no harm


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd", "lz4", "parquet"])
def test_a_file_that_is_cut_anywhere_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    for size in range(8, len(FILES[kind]), max(1, len(FILES[kind]) // 100)):
        path.write_bytes(FILES[kind][:size])
        with pytest.raises(DataError):
            read_events(path)
