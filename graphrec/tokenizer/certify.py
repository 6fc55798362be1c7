"""A fitted tokenizer examined: what its codes say of unseen ties, and what a refit changes."""

from __future__ import annotations

from dataclasses import replace

import torch
from scipy.optimize import linear_sum_assignment

from graphrec.data import FriendGraph
from graphrec.data.checks import check_graph, check_time
from graphrec.tokenizer.certificate import Certificate
from graphrec.tokenizer.ties import Ties, Verdict, judge
from graphrec.tokenizer.tokenizer import Tokenizer

MORE_EVENTS = 1.05
"""What is set aside to judge ties and drift: a refit would see so many times the events."""


def certify(
    tokenizer: Tokenizer,
    graph: FriendGraph,
    *,
    later: int | None = None,
    generator: torch.Generator | None = None,
) -> Certificate:
    """The whole certificate of a fitted tokenizer: also what its codes say of ties it has not seen.

    Args:
        tokenizer: fitted on this graph.
        graph: with the events of the fit.
        later: seconds; ties with their first contact from the fit on and before this time are judged, both
            ends known at the fit. By default nothing that came after the fit is looked at: an equal
            tokenizer is fitted on all but the last events (a twenty-first), judged by the ties that these
            bring, and refitted, warm, to measure drift.
        generator: draws pairs to hold ties against; by default from seed 0.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
    check_graph(graph)
    generator = generator or torch.Generator().manual_seed(0)
    certificate = tokenizer.certificate
    if later is not None:
        later = check_time("later", later)
        if later <= tokenizer.until:
            raise ValueError(f"later must be after the fit's until={tokenizer.until}, got {later}")
        verdict = _judged(tokenizer, graph, later, generator)
        return replace(certificate, judged="later", ties=verdict)
    moments = graph.snapshot(tokenizer.until).events().time
    earlier = int(moments[int(len(moments) / MORE_EVENTS)])
    if earlier == int(moments[0]):
        return certificate  # all at one time: nothing can be set aside
    before = type(tokenizer)(**tokenizer.settings())
    before.fit(graph, until=earlier)
    verdict = _judged(before, graph, tokenizer.until, generator)
    changed = drift(before, before.refit(graph, until=tokenizer.until))
    return replace(certificate, judged="set aside", ties=verdict, drift=changed)


def drift(old: Tokenizer, new: Tokenizer) -> tuple[float, ...]:
    """The share of users whose prefix of length 1..L changes from one fit to another.

    Codes are matched level by level, one to one, so that as many users as possible keep theirs (the Hungarian
    method); below the first level, users whose prefix has kept so far.

    Raises:
        ValueError: they have not the same number of codebooks, or no user in common.
    """
    one, other = old.shared_codes(new)
    if one.size(1) != other.size(1):
        raise ValueError(f"STUs of {one.size(1)} and of {other.size(1)} codes cannot be compared")
    if not len(one):
        raise ValueError("there is no user whom both tokenizers know")
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


def _judged(tokenizer: Tokenizer, graph: FriendGraph, later: int, generator: torch.Generator) -> Verdict:
    ties = Ties.of(graph)
    past, judged = ties.between(None, tokenizer.until), ties.between(tokenizer.until, later)
    codes = tokenizer.codes_of_fit(graph)
    return judge(codes, ties, past=past, judged=judged, generator=generator)
