"""Evaluation of a fitted tokenizer: how its codes separate unseen ties, and how many change with a refit."""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment

from graphrec.data import FriendGraph
from graphrec.data.checks import check_graph, check_time
from graphrec.tokenizer.quality.report import TokenizerReport
from graphrec.tokenizer.quality.tie_report import TieReport, score_ties
from graphrec.tokenizer.quality.ties import Ties
from graphrec.tokenizer.tokenizer import Tokenizer

REFIT_EVENT_RATIO = 1.05
"""Number of events of a refit relative to the fit before it, where drift is measured."""


def evaluate_tokenizer(
    tokenizer: Tokenizer,
    graph: FriendGraph,
    *,
    later: int | None = None,
    generator: torch.Generator | None = None,
) -> TokenizerReport:
    """Evaluate a fitted tokenizer on ties that its fit did not use.

    Args:
        tokenizer: fitted on this graph.
        graph: with the events of the fit.
        later: seconds; scores the ties whose first contact is at or after the end of the fit and before this
            time, both ends being known at the fit. By default no event after the fit is used: an equal
            tokenizer is fitted without the last events (a twenty-first), scored on the ties that these bring,
            and refitted, warm, to measure drift.
        generator: samples comparison pairs; by default from seed 0.

    Returns:
        the report of the fit, with the scores of these ties, and with the drift if `later` is None.

    Raises:
        TypeError: not a tokenizer, or not a graph.
        ValueError: `later` is not after the end of the fit.
        RuntimeError: the tokenizer is not fitted.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
    check_graph(graph)
    generator = generator or torch.Generator().manual_seed(0)
    report = tokenizer.report
    if later is not None:
        later = check_time("later", later)
        if later <= tokenizer.until:
            raise ValueError(f"later must be after the fit's until={tokenizer.until}, got {later}")
        ties = _score_ties_between(tokenizer, graph, later, generator)
        return replace(report, tie_source="later", ties=ties)
    moments = graph.snapshot(tokenizer.until).events().time
    earlier = int(moments[int(len(moments) / REFIT_EVENT_RATIO)])
    if earlier == int(moments[0]):
        return report  # all events have one time: none can be held out
    shorter = type(tokenizer)(**tokenizer.settings())
    shorter.fit(graph, until=earlier)
    ties = _score_ties_between(shorter, graph, tokenizer.until, generator)
    changed = code_drift(shorter, shorter.refit(graph, until=tokenizer.until))
    return replace(report, tie_source="held out", ties=ties, drift=changed)


def code_drift(old: Tokenizer, new: Tokenizer) -> tuple[float, ...]:
    """The share of users whose prefix of length 1..L changes from one fit to another.

    Codes are matched one to one, level by level, so that as many users as possible keep theirs (the Hungarian
    method); below the first level, only users who have kept their prefix so far count for the match.

    Returns:
        L shares, ascending.

    Raises:
        ValueError: the numbers of codebooks differ, or no user is known at both fits.
    """
    one, other = old.shared_codes(new)
    if one.size(1) != other.size(1):
        raise ValueError(f"STUs of {one.size(1)} and of {other.size(1)} codes cannot be compared")
    if not len(one):
        raise ValueError("no user is known to both tokenizers")
    size = 1 + int(torch.maximum(one.max(), other.max()))
    same = torch.ones(len(one), dtype=torch.bool)
    out = []
    for a, b in zip(one.unbind(1), other.unbind(1), strict=True):
        overlap = torch.bincount(a[same] * size + b[same], minlength=size * size).view(size, size)
        row, column = linear_sum_assignment(overlap.numpy(), maximize=True)
        name = torch.empty(size, dtype=torch.int64)
        name[torch.from_numpy(row)] = torch.from_numpy(column)
        same = same & (name[a] == b)
        out.append(float((~same).double().mean()))
    return tuple(out)


def _score_ties_between(
    tokenizer: Tokenizer, graph: FriendGraph, later: int, generator: torch.Generator
) -> TieReport:
    """Report on the ties first formed from the end of the fit to before `later` (seconds)."""
    ties = Ties.of(graph)
    past, scored = ties.between(None, tokenizer.until), ties.between(tokenizer.until, later)
    codes = tokenizer.codes_of_fit(graph)
    return score_ties(codes, ties, past=past, scored=scored, generator=generator)
