"""Suggestions for everybody as one Parquet file, written in parts, so that who is interrupted goes on."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from graphrec.data import Query
from graphrec.service.bundle import Bundle

PART = 4096
"""Users of a part."""

JOB = "job.json"


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
    interruption the same call on the same bundle of a folder goes on from them; any other call begins anew.

    Args:
        bundle: read from its folder, if it is to be resumed.
        path: the file; it appears when all is done.
        k: how many.
        time: seconds; only what is strictly older is seen. By default one second after the last event.
        action: the act that is hoped for; by default the commonest.
        progress: show a bar, where there is a terminal.

    Raises:
        KeyError: an unknown action, named.
        ValueError: k is smaller than 1.
    """
    path = Path(path)
    parts = path.with_name(path.name + ".parts")
    num_users = bundle.graph.num_users
    query = Query.of(bundle.graph, torch.arange(num_users), time, action)
    job = {
        "bundle": bundle.seal,
        "k": k,
        "time": int(query.time[0]),
        "action": int(query.action[0]),
        "part": PART,
    }
    if not bundle.seal or not _goes_on(parts, job):
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        _replace(parts / JOB, json.dumps(job))
    files = []
    bar = {"desc": path.name, "unit": "user", "disable": None if progress else True, "leave": False}
    with tqdm(total=num_users, **bar) as shown:
        for start in range(0, num_users, PART):
            files.append(parts / f"{start // PART:06}.parquet")
            asked = query[start : start + PART]
            if not files[-1].exists():
                _replace(files[-1], _table(bundle, asked, k))
            shown.update(len(asked))
    begun = parts / "whole.parquet"
    with pq.ParquetWriter(begun, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))
    os.replace(begun, path)
    shutil.rmtree(parts)


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


def _goes_on(parts: Path, job: dict[str, Any]) -> bool:
    """Whether the parts that may be there are of this job."""
    try:
        return bool(json.loads((parts / JOB).read_text()) == job)
    except (OSError, ValueError):
        return False


def _replace(path: Path, content: pa.Table | str) -> None:
    """Write a file that is whole as soon as it is there."""
    begun = path.with_name("begun")
    if isinstance(content, str):
        begun.write_text(content)
    else:
        pq.write_table(content, begun)
    os.replace(begun, path)
