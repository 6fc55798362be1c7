"""Signed ratings: a negative one is an act of distrust."""

from __future__ import annotations

from dataclasses import replace

import torch

from graphrec.data.errors import DataError
from graphrec.data.events import EventLog

DISTRUST = "distrust"


def distrust_of_ratings(log: EventLog) -> EventLog:
    """Return a log in which events of negative weight have the action `distrust`.

    Raises:
        DataError: the log has no weights.
    """
    if log.weight is None:
        raise DataError("the log has no ratings: weight is None")
    names = tuple(sorted({*log.actions, DISTRUST}))
    code = torch.tensor([names.index(name) for name in log.actions])[log.action]
    code[log.weight < 0] = names.index(DISTRUST)
    used = torch.bincount(code, minlength=len(names)) > 0
    kept = tuple(name for name, some in zip(names, used.tolist(), strict=True) if some)
    return replace(log, action=(used.cumsum(0) - 1)[code], actions=kept)
