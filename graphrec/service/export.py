"""Suggestions for all users as a Parquet file, written in parts, so that an interrupted export resumes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from graphrec.data import DataError, Query
from graphrec.models import Question, query_for
from graphrec.service import manifest
from graphrec.service.balancing import balanced_rows, first_rows, num_candidates
from graphrec.service.bundle import Bundle
from graphrec.service.manifest import full_disk_errors_named
from graphrec.service.rule_store import RuleStore
from graphrec.service.rules import Rules

USERS_PER_PART = 4096
"""Number of users in a part."""

JOB = "job.json"
LOCK = "writer.lock"


def suggest_everyone(
    bundle: Bundle,
    path: str | os.PathLike[str],
    *,
    k: int = 10,
    balance: bool = True,
    progress: bool = True,
    **question: Unpack[Question],
) -> None:
    """Write k new people for each user to a Parquet file.

    Lists are balanced by default: chosen for all users together from more candidates than k, such that many
    different people are suggested, for .2 % of the expected outcomes (see `graphrec.models.balanced_topk`). A
    recommender without `comparable_scores`, and questions about now, get the people that `Bundle.suggest`
    finds, as without a balance.

    The columns are `user` and `person` (raw ids), `rank` from 1 and `score`; users are in the order of the
    graph, each with up to k rows in order of rank. Finished parts are kept in the folder `PATH.parts`. After
    an interruption, the same call on the same version of a bundle with the same rules resumes; any other
    starts from the beginning. Rules added meanwhile are applied at the end.

    Args:
        bundle: loaded from a folder, for an export that can resume.
        path: of the file, which is written when all parts are done.
        k: people for each user, at most.
        balance: suggest many different people.
        progress: show a bar on a terminal.
        **question: time, action, horizon, outcome and now, as in `graphrec.models.query_for`.

    Raises:
        KeyError: the action is unknown; it is named.
        ValueError: k is below 1; or as `query_for`.
        DataError: the file would be in a bundle's folder, another kind of file has its name, or another
            process writes it.
        OSError: it cannot be written.
    """
    path = Path(path)
    source = bundle.origin.rules
    check_output(path, source.path.parent if isinstance(source, RuleStore) else None)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    query = query_for(bundle.recommender, torch.arange(bundle.graph.num_users), **question)
    balance = balance and bundle.recommender.comparable_scores and query.horizon is not None
    candidates = num_candidates(k) if balance else k
    rules = bundle.origin.enforced_rules
    job = {
        "bundle": bundle.digest,
        "rules": rules.digest,
        "candidates": candidates,
        "time": int(query.time[0]),
        "action": int(query.action[0]),
        "horizon": None if query.horizon is None else int(query.horizon[0]),
        "outcome": query.outcome,
        "part": USERS_PER_PART,
    }
    fixed = bundle.with_rules(rules)  # one set of rules for all parts
    with _only_export(path) as parts, full_disk_errors_named(parts):
        if not bundle.digest or not _is_of_job(parts, job):
            _empty(parts)
            _replace(parts / JOB, json.dumps(job))
        files = []
        bar = {"desc": path.name, "unit": "user", "disable": None if progress else True, "leave": False}
        with tqdm(total=len(query), **bar) as shown:
            for start in range(0, len(query), USERS_PER_PART):
                files.append(parts / f"{start // USERS_PER_PART:06}.parquet")
                asked = query[start : start + USERS_PER_PART]
                if not files[-1].exists():
                    _replace(files[-1], _table(fixed, asked, candidates))
                shown.update(len(asked))
        chosen = None
        if candidates > k:
            chosen = balanced_rows(files, bundle.graph.user_ids, k, _allowed_since(bundle, rules))
        os.replace(_joined(files, chosen, _allowed_since(bundle, rules)), path)
        _empty(parts)
        (parts / LOCK).unlink()  # last, so that the next export of this name finds no part of this one
        with suppress(OSError):
            parts.rmdir()


def check_output(path: Path, folder: Path | None) -> None:
    """Check that an export can be written to a path, before any work is done.

    Args:
        path: of the file.
        folder: of the bundle, into which no export may be written.

    Raises:
        DataError: the path is a folder, or in a bundle's folder.
        FileNotFoundError: its folder is missing.
        PermissionError: there is no permission to write.
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
    """The folder of the parts, locked against other processes."""
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
    """Suggestions of k people for each query, one row a suggestion."""
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


def _joined(
    files: list[Path], chosen: list[np.ndarray] | None, allowed: Callable[[pa.Table], np.ndarray] | None
) -> Path:
    """One file beside the parts with the rows of all that are chosen and allowed, ranked again."""
    whole = files[0].with_name("whole.parquet")
    try:
        with pq.ParquetWriter(whole, pq.read_schema(files[0])) as writer:
            for number, file in enumerate(files):
                part = pq.read_table(file)
                kept = [] if allowed is None else [allowed(part)]
                kept += [] if chosen is None else [chosen[number]]
                writer.write_table(_ranked(part, np.logical_and.reduce(kept)) if kept else part)
        _sync(whole)
    except OSError:
        whole.unlink(missing_ok=True)  # frees a full disk
        raise
    return whole


def _allowed_since(bundle: Bundle, rules: Rules) -> Callable[[pa.Table], np.ndarray] | None:
    """From a part to its rows that the current rules allow, without forgotten users; None where all are."""
    now, gone = bundle.origin.enforced_rules, bundle.origin.forgotten_since()
    return None if now == rules and not gone else partial(_allowed, rules=now, gone=gone)


def _allowed(table: pa.Table, rules: Rules, gone: frozenset[str]) -> np.ndarray:
    """The rows that rules allow, without those of forgotten users `gone`: [M] bool."""
    users, people = (table[name].to_pylist() for name in ("user", "person"))
    kept = [
        rules.allows(user, person) and str(user) not in gone
        for user, person in zip(users, people, strict=True)
    ]
    return np.array(kept, dtype=bool)


def _ranked(table: pa.Table, kept: np.ndarray) -> pa.Table:
    """Some rows of a part, each user's ranked from 1."""
    table = table.filter(pa.array(kept))
    first = first_rows(table)
    rank = np.arange(table.num_rows) - np.repeat(first, np.diff([*first, table.num_rows])) + 1
    return table.set_column(1, "rank", pa.array(rank.astype(np.int32)))


def _is_of_job(parts: Path, job: dict[str, Any]) -> bool:
    """Whether existing parts are of this job."""
    try:
        return bool(json.loads((parts / JOB).read_text()) == job)
    except (OSError, ValueError):
        return False


def _replace(path: Path, content: pa.Table | str) -> None:
    """Write a file atomically."""
    begun = path.with_name("begun")
    try:
        if isinstance(content, str):
            begun.write_text(content)
        else:
            pq.write_table(content, begun)
        _sync(begun)
    except OSError:
        begun.unlink(missing_ok=True)  # frees a full disk
        raise
    os.replace(begun, path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
