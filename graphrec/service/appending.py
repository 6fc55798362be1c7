"""Appending events to a bundle in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphrec.data import EventLog
from graphrec.service.contents import append_log_digest

if TYPE_CHECKING:
    from graphrec.service.bundle import Bundle


def append_in_place(bundle: Bundle, log: EventLog, *, again: bool) -> None:
    """Append a log to a bundle; see `Bundle.append`."""
    with bundle.graph.guard.writing():
        _append(bundle, log, append_log_digest(bundle.logs, log, again=again))


def append_stream(bundle: Bundle, log: EventLog) -> None:
    """Append a log of a stream, which knows itself what was appended before: its digest is not kept.

    Raises:
        DataError: as `Recommender.append`. Nothing is changed.
    """
    _append(bundle, log, bundle.logs)


def _append(bundle: Bundle, log: EventLog, logs: tuple[str, ...]) -> None:
    with bundle.graph.guard.writing():
        num_users = bundle.graph.num_users
        bundle.recommender.append(log)
        fields = {
            "graph": bundle.recommender.graph,
            "tokenizer": bundle.recommender.tokenizer or bundle.tokenizer,
            "logs": logs,
            "origin": replace(bundle.origin, digest=""),
        }
        for name, value in fields.items():  # of a frozen dataclass: nothing else changes a bundle
            object.__setattr__(bundle, name, value)
        bundle.__dict__.pop("tree", None)
        if bundle.graph.num_users > num_users:
            bundle.__dict__.pop("_rule_indices", None)
