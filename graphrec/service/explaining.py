"""Explanations that do not disclose the rules of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from graphrec.data import Id, Query
from graphrec.explain import Explanation, explain
from graphrec.service.rules import Rules
from graphrec.temporal import Timeline

if TYPE_CHECKING:
    from graphrec.service.bundle import Bundle


def explain_within_rules(
    bundle: Bundle,
    user: Id,
    candidate: Id,
    time: int | None,
    rule_indices: Callable[[Rules], tuple[Tensor, Tensor]],
) -> Explanation:
    """Explain a suggestion of a bundle; see `Bundle.explain`.

    Args:
        bundle: the bundle.
        user: raw id.
        candidate: raw id.
        time: seconds; None for one second after the last event.
        rule_indices: from rules to indices of blocked pairs [2, P] and of users who opted out [O].
    """
    ids = bundle.graph.user_ids
    index = ids.index([user, candidate])
    user, candidate = ids.lookup(index)
    query = Query.of(bundle.graph, index[:1], time)
    timeline = Timeline.of(bundle.graph, follows=True)
    known = timeline.contacts.before(query.user, timeline.tick(query.time))[1]
    rules = bundle.origin.enforced_rules
    if bool((known == index[1]).any()) or index[0] == index[1] or not rules.allows(user, candidate):
        raise ValueError(f"{candidate!r} is not suggested to {user!r}")
    blocked, opted_out = rule_indices(rules)
    return explain(
        bundle.recommender,
        user,
        candidate,
        time=int(query.time),
        tokenizer=bundle.tokenizer if bundle.tokenizer.until <= int(query.time) else None,
        blocked=zip(*(ids.lookup(side) for side in blocked), strict=True),
        opted_out=ids.lookup(opted_out),
    )
