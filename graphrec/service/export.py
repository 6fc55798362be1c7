"""Suggestions for everybody as one Parquet file, in parts, so that an interrupted export is resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from graphrec.data import DataError, Query
from graphrec.service import manifest
from graphrec.service.bundle import Bundle
from graphrec.service.manifest import naming_full_disk
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules

PART = 4096
"""Users of a part."""

JOB = "job.json"
LOCK = "writer.lock"


def suggest_everyone(
    bundle: Bundle,
    path: str | os.PathLike[str],
    *,
    k: int = 10,
    time: int | None = None,
    action: str | None = None,
    progress: bool = True,
) -> None:
    """Write k new people for each user to a Parquet file, as `Bundle.suggest` finds them.

    The columns are `user` and `person` (raw ids), `rank` from 1 and `score`; users are in the order of the
    graph, each with up to k rows in order of rank. Finished parts wait in the folder `PATH.parts`. After an
    interruption the same call on the same bundle of a folder, under the same rules, is resumed; any other
    begins anew. What a rule forbids that was made meanwhile is left out at the end.

    Args:
        bundle: read from its folder, if the export is to be resumed.
        path: the file; it appears when all is done.
        k: how many.
        time: seconds; only what is strictly older is seen. By default one second after the last event.
        action: the act that is hoped for; by default the commonest.
        progress: show a bar, where there is a terminal.

    Raises:
        KeyError: an unknown action, named.
        ValueError: k is smaller than 1.
        DataError: the file would lie in the bundle's folder, or something else is in its place; or another
            process writes it.
        OSError: it cannot be written.
    """
    path = Path(path)
    source = bundle.origin.rules
    check_output(path, source.path.parent if isinstance(source, RuleStore) else None)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    query = Query.of(bundle.graph, torch.arange(bundle.graph.num_users), time, action)
    rules = bundle.origin.enforced_rules
    job = {
        "bundle": bundle.digest,
        "rules": rules.digest,
        "k": k,
        "time": int(query.time[0]),
        "action": int(query.action[0]),
        "part": PART,
    }
    fixed = bundle.with_rules(rules)  # one set of rules for all parts
    with _only_export(path) as parts, naming_full_disk(parts):
        if not bundle.digest or not _is_of_job(parts, job):
            _empty(parts)
            _replace(parts / JOB, json.dumps(job))
        files = []
        bar = {"desc": path.name, "unit": "user", "disable": None if progress else True, "leave": False}
        with tqdm(total=len(query), **bar) as shown:
            for start in range(0, len(query), PART):
                files.append(parts / f"{start // PART:06}.parquet")
                asked = query[start : start + PART]
                if not files[-1].exists():
                    _replace(files[-1], _table(fixed, asked, k))
                shown.update(len(asked))
        now, gone = bundle.origin.enforced_rules, bundle.origin.forgotten_since()
        allowed = None if now == rules and not gone else partial(_allowed, rules=now, gone=gone)
        os.replace(_joined(files, allowed), path)
        _empty(parts)
        (parts / LOCK).unlink()  # the last, so that whoever takes the name next finds no part of this job
        with suppress(OSError):
            parts.rmdir()


def check_output(path: Path, folder: Path | None) -> None:
    """Find out whether an export may be written here, before any work is done for it.

    Args:
        path: of the file.
        folder: of the bundle, which is not to be written into.

    Raises:
        DataError: the path is a folder, or lies in a bundle's folder.
        FileNotFoundError: there is no folder to write it in.
        PermissionError: it cannot be written into.
    """
    real = Path(os.path.realpath(path))
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is no plain file")
    if not real.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}; make it first")
    inside = manifest.enclosing_bundle(path)
    if inside is None and folder is not None and Path(os.path.realpath(folder)) in real.parents:
        inside = folder
    if inside is not None:
        raise DataError(f"{path}: lies in the bundle {inside}; write it somewhere else")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent}: no permission to write here")
    parts = _parts_of(path)
    if parts.exists() and not (parts.is_dir() and all(_is_own(one) for one in parts.iterdir())):
        raise DataError(f"{parts}: is in the way: not the parts of an export")


def _is_own(path: Path) -> bool:
    return path.name in (JOB, LOCK, "begun") or path.suffix == ".parquet"


def _parts_of(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


@contextmanager
def _only_export(path: Path) -> Iterator[Path]:
    """The folder of the parts, which no other process uses meanwhile."""
    parts = _parts_of(path)
    parts.mkdir(exist_ok=True)
    lock = FileLock(parts / LOCK)
    try:
        with suppress(FileNotFoundError):  # the process before has just removed the folder
            lock.acquire(timeout=0)
        parts.mkdir(exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(f"{path}: another process is writing it; wait for it, or give another file") from None
    try:
        yield parts
    finally:
        lock.release()


def _empty(parts: Path) -> None:
    for file in parts.iterdir():
        if file.name != LOCK:
            file.unlink()


def _table(bundle: Bundle, query: Query, k: int) -> pa.Table:
    people, scores = bundle.suggested(query, k)
    row, place = (people >= 0).nonzero(as_tuple=True)
    raw = bundle.graph.user_ids.values
    return pa.table(
        {
            "user": raw.take(pa.array(query.user[row].numpy())),
            "rank": pa.array((place + 1).int().numpy()),
            "person": raw.take(pa.array(people[row, place].numpy())),
            "score": pa.array(scores[row, place].numpy()),
        }
    )


def _joined(files: list[Path], change: Callable[[pa.Table], pa.Table] | None) -> Path:
    """One file beside the parts with the rows of all, changed part by part."""
    whole = files[0].with_name("whole.parquet")
    try:
        with pq.ParquetWriter(whole, pq.read_schema(files[0])) as writer:
            for file in files:
                part = pq.read_table(file)
                writer.write_table(part if change is None else change(part))
        _sync(whole)
    except OSError:
        whole.unlink(missing_ok=True)  # it would fill a full disk
        raise
    return whole


def _allowed(table: pa.Table, rules: Rules, gone: frozenset[str]) -> pa.Table:
    """The rows that rules allow, without those for users who are gone, ranked anew."""
    users, people = (table[name].to_pylist() for name in ("user", "person"))
    kept = [
        rules.allows(user, person) and str(user) not in gone
        for user, person in zip(users, people, strict=True)
    ]
    table = table.filter(pa.array(kept, type=pa.bool_()))
    if not table.num_rows:
        return table
    user = table["user"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.concatenate([[True], user[1:] != user[:-1]]))
    rank = np.arange(len(user)) - np.repeat(starts, np.diff([*starts, len(user)])) + 1
    return table.set_column(1, "rank", pa.array(rank.astype(np.int32)))


def _is_of_job(parts: Path, job: dict[str, Any]) -> bool:
    """Whether the parts that may be there are of this job."""
    try:
        return bool(json.loads((parts / JOB).read_text()) == job)
    except (OSError, ValueError):
        return False


def _replace(path: Path, content: pa.Table | str) -> None:
    """Write a file that is whole as soon as it is there."""
    begun = path.with_name("begun")
    try:
        if isinstance(content, str):
            begun.write_text(content)
        else:
            pq.write_table(content, begun)
        _sync(begun)
    except OSError:
        begun.unlink(missing_ok=True)  # it would fill a full disk
        raise
    os.replace(begun, path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
