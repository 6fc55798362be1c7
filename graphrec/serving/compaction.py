"""Saving a server's writes in its bundle: a new version that contains them, and says up to which.

`python -m graphrec.serving.compaction BUNDLE` does it in a process of its own, beside the server.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from graphrec.data.errors import DataError
from graphrec.data.ids import Id
from graphrec.service import Bundle
from graphrec.service import manifest as manifests
from graphrec.serving.files import ServingFiles
from graphrec.serving.record_file import read_records, read_start
from graphrec.serving.replay import (
    MAX_LATE,
    Applied,
    apply_writes,
    at_position,
    late_events,
    only_missing,
    with_rules_left,
)
from graphrec.serving.writes import EventsWrite, ForgetWrite, Write, decode_writes

NICENESS = 10
"""Of the process, so that requests are answered first."""


@dataclass(frozen=True)
class Compaction:
    """A version that contains writes.

    Attributes:
        digest: of the version.
        replaced: digest of the version before.
        position: after the last write in it.
        num_users: of the version.
    """

    digest: str
    replaced: str
    position: int
    num_users: int


def catch_up(bundle: Bundle, log: Path, end: int | None = None) -> tuple[Applied, int]:
    """Apply the writes in a log that a bundle does not contain.

    Args:
        bundle: as it was loaded; changed in place, unless a user is forgotten. One that does not say which
            writes it contains lacks those that `missing_events` tells.
        log: of the server.
        end: position after the last one to apply; None for all.

    Returns:
        what came of it, its bundle at the position after them, and that position.

    Raises:
        FileNotFoundError, DataError: as `read_records`.
    """
    first, is_exact = contained(bundle, log)
    contents, end = read_records(log, first, end)
    writes = [entry.write for content in contents for entry in decode_writes(content)]
    applied = apply_writes(bundle, writes if is_exact else only_missing(bundle.graph, writes))
    found = at_position(applied.bundle, end)
    return Applied(found, applied.num_events, applied.num_late, applied.others), end


def contained(bundle: Bundle, log: Path) -> tuple[int, bool]:
    """As `contained_in`, for a bundle as it was loaded."""
    return contained_in(bundle.digest, bundle.origin.log_position, log)


def contained_in(digest: str, position: int | None, log: Path) -> tuple[int, bool]:
    """The position in a log after the writes that a version contains, and whether that is exact.

    It is not for a version that was put in the place of the one that is served, by other means than
    `save_fit`: it may contain some of the writes that follow.

    Args:
        digest: of the version.
        position: that it says itself, if it does.
        log: of the server.
    """
    if position is not None:
        return position, True
    start = read_start(log)
    return start.position, start.state.get("base") == digest


def compact(folder: Path) -> Compaction:
    """Save the writes of a server in its bundle.

    A kill at any moment changes nothing, or leaves the new version, which says what it contains.

    Raises:
        FileNotFoundError, DataError, OSError: the log or bundle is missing or damaged, or cannot be written.
    """
    files = ServingFiles(folder)
    before: list[int] = []
    replaced: list[str] = []

    def change(bundle: Bundle) -> Bundle:
        before.append(contained(bundle, files.log)[0])
        replaced.append(bundle.digest)
        applied, end = catch_up(bundle, files.log)
        files.write_rows(before[0], end, applied.others)
        has_forgotten = bool(applied.bundle.origin.forgotten)
        applied.bundle.origin.forgotten = _to_delete(applied.bundle, files.log, end)
        applied.bundle.origin.adds_to = "" if has_forgotten else replaced[0]
        return applied.bundle

    bundle = Bundle.update(folder, change)
    end = bundle.origin.log_position
    if end is None:
        raise AssertionError("unreachable: a bundle that caught up has a position")
    files.forget(_forgotten(files.log, end))
    return Compaction(bundle.digest, replaced[0], end, bundle.graph.num_users)


def _to_delete(bundle: Bundle, log: Path, end: int) -> tuple[Id, ...]:
    """The users forgotten in a bundle whose rules are to be deleted.

    Those who were forgotten in the log have none left but later ones, unless a kill came in between.
    """
    contents, _ = read_records(log, read_start(log).position, end)
    left = with_rules_left(entry.write for content in contents for entry in decode_writes(content))
    return tuple(one for one in bundle.origin.forgotten if str(one) in left)


def _forgotten(log: Path, end: int) -> dict[str, int]:
    """Users forgotten in a log before a position, each with the position of the last time.

    From the log's beginning: a run that was killed may have saved them, and not yet deleted their rows.
    """
    first = read_start(log).position
    contents, _ = read_records(log, first, end)
    return {
        entry.write.user: position
        for position, content in enumerate(contents, start=first)
        for entry in decode_writes(content)
        if isinstance(entry.write, ForgetWrite)
    }


def save_fit(bundle: Bundle, folder: Path, replaces: str | None) -> int:
    """Save a newly fitted bundle in a folder, with what a server has taken in that the fit does not know.

    That is: later events than the last of the fit, and users who were forgotten since the last version. The
    fit decides on all that is not later than its last event, also on users who were forgotten before.

    Args:
        bundle: newly fitted.
        folder: of the bundle, served or not.
        replaces: digest of the version in a folder that is not served when the fit began.

    Returns:
        the number of events that were carried over.

    Raises:
        StaleBundleError: the folder is not served, and another version is in it; nothing was changed.
        DataError, OSError: as `Bundle.save`.
    """
    log, version = ServingFiles(folder).log, manifests.current_version(folder)
    if version is None or not log.exists():
        bundle.save(folder, replaces=replaces)
        return 0
    carried: list[int] = []

    def take_over(held: Bundle) -> Bundle:
        position = held.origin.log_position
        writes: list[Write] = []
        if position is not None:
            writes.append(late_events(held.graph, int(bundle.graph.events().time[-1]) - MAX_LATE))
        contents, end = read_records(log, read_start(log).position if position is None else position)
        writes += [entry.write for content in contents for entry in decode_writes(content)]
        wanted = only_missing(bundle.graph, writes)
        applied = apply_writes(bundle, [one for one in wanted if isinstance(one, EventsWrite | ForgetWrite)])
        carried.append(applied.num_events)
        out = at_position(applied.bundle, end)
        out.origin.forgotten = _to_delete(out, log, end)
        out.origin.versions = held.origin.versions
        return out

    Bundle.update(folder, take_over)
    return carried[0]


def main() -> None:
    """Compact the bundle of the command line, and print what came of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    folder = parser.parse_args().bundle
    os.nice(NICENESS)
    try:
        print(json.dumps(vars(compact(folder))))
    except (OSError, DataError) as error:
        sys.exit(f"graphrec: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
