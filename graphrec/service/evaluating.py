"""Evaluation of a bundle by both questions: lists for the coming days, and who is next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from graphrec.data import DataError, EventLog, FriendGraph, TemporalSplit
from graphrec.evaluate import ListResult, StreamingRanks, evaluate_lists, evaluate_streaming
from graphrec.models import build

if TYPE_CHECKING:
    from graphrec.service.bundle import Bundle


@dataclass(frozen=True)
class BundleEvaluation:
    """How a bundle does on events that it was not fitted on.

    Attributes:
        lists: lists at regular moments; see `evaluate_lists`.
        next_acts: ranks at every event; see `evaluate_streaming`.
    """

    lists: ListResult
    next_acts: StreamingRanks


def evaluate_bundle(bundle: Bundle, log: EventLog | None, *, progress: bool) -> BundleEvaluation:
    """Evaluate a bundle; see `Bundle.evaluate`.

    Args:
        bundle: the bundle.
        log: later events, or None.
        progress: show bars on a terminal.
    """
    graph = bundle.graph
    if log is None:
        split = TemporalSplit.of(graph)
        model = build(bundle.model).fit(graph, until=split.t_val)
    else:
        seen = max(bundle.until, int(graph.events().time[-1]) + 1)
        graph = graph.with_events(log)
        split = split_from(graph, seen)
        model = bundle.recommender.on(graph)
    return BundleEvaluation(
        evaluate_lists(model, graph, split=split, progress=progress),
        evaluate_streaming(model, graph, part="test", split=split, progress=progress),
    )


def split_from(graph: FriendGraph, start: int) -> TemporalSplit:
    """Split a graph for a test on all events from a time (s) on, without validation.

    Raises:
        DataError: there is no such event.
    """
    time = graph.events().time
    first = int(torch.searchsorted(time, start))
    if first == len(time):
        raise DataError(f"no event is at or after {start}: the bundle knows all before")
    return TemporalSplit(
        t_val=start,
        t_test=start,
        num_train=first,
        num_val=0,
        num_test=len(time) - first,
        start=int(time[0]),
        end=int(time[-1]),
    )
