"""A small bundle in a folder, and writes to it, for the tests of serving."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphs import Row, random_rows

from graphrec import Bundle
from graphrec.data import EventLog, FriendGraph
from graphrec.service import Rules
from graphrec.serving.files import ServingFiles
from graphrec.serving.record_file import RecordFile, Start
from graphrec.serving.writes import EventsWrite, KeyedWrite, Write, encode_writes

HOUR = 3600
ROWS = random_rows(7, users=12, events=90, times=30, scale=HOUR)
NOW = 40 * HOUR
"""Seconds after the last of the rows."""


def log_of(rows: Sequence[Row]) -> EventLog:
    src, dst, time, action = zip(*rows, strict=True)
    return EventLog.from_arrays(src, dst, time, action)


def fitted(rows: Sequence[Row] = ROWS) -> Bundle:
    return Bundle.fit(FriendGraph.from_events(log_of(rows)), model="adamic_adar", rules=Rules.of([(3, 9)]))


def saved(folder: Path) -> Path:
    fitted().save(folder)
    return folder


def events(*rows: tuple[int, int, int, str]) -> EventsWrite:
    src, dst, time, action = zip(*rows, strict=True)
    return EventsWrite(tuple(map(str, src)), tuple(map(str, dst)), time, action)


def logged(folder: Path, *records: Sequence[Write], position: int = 0) -> Path:
    """Write a log beside a bundle, one record for each of some lists of writes, and return its path."""
    files = ServingFiles(folder)
    files.folder.mkdir(exist_ok=True)
    contents = (encode_writes([KeyedWrite(write) for write in one]) for one in records)
    RecordFile.create(files.log, Start(position, {}), contents).close()
    return files.log


def rows_of(bundle: Bundle) -> list[tuple[str, str, int, str]]:
    """The events of a bundle, with raw ids as text."""
    found, ids = bundle.graph.events(), bundle.graph.user_ids
    src, dst = (map(str, ids.lookup(side)) for side in (found.src, found.dst))
    names = [bundle.graph.actions[code] for code in found.action.tolist()]
    return [*zip(src, dst, found.time.tolist(), names, strict=True)]
