"""Explanations that do not disclose the rules of a bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Unpack

from torch import Tensor

from graphrec.data import Id
from graphrec.explain import Explanation, explain
from graphrec.models import Question, query_for
from graphrec.service.rules import Rules
from graphrec.temporal import Timeline

if TYPE_CHECKING:
    from graphrec.service.bundle import Bundle


def explain_within_rules(
    bundle: Bundle,
    user: Id,
    candidate: Id,
    rules: Rules,
    rule_indices: Callable[[Rules], tuple[Tensor, Tensor]],
    **question: Unpack[Question],
) -> Explanation:
    """Explain a suggestion of a bundle; see `Bundle.explain`.

    Args:
        bundle: the bundle.
        user: raw id.
        candidate: raw id.
        rules: of the two people, at least, and all opt-outs.
        rule_indices: from rules to indices of blocked pairs [2, P] and of users who opted out [O].
        **question: as in `graphrec.models.query_for`.
    """
    ids = bundle.graph.user_ids
    index = ids.index([user, candidate])
    user, candidate = ids.lookup(index)
    query = query_for(bundle.recommender, index[:1], **question)
    asked: Question = {**question, "time": int(query.time)}
    timeline = Timeline.of(bundle.graph, follows=True)
    known = timeline.contacts.before(query.user, timeline.tick(query.time))[1]
    if bool((known == index[1]).any()) or index[0] == index[1] or not rules.allows(user, candidate):
        raise ValueError(f"{candidate!r} is not suggested to {user!r}")
    blocked, opted_out = rule_indices(rules)
    return explain(
        bundle.recommender,
        user,
        candidate,
        **asked,
        tokenizer=bundle.tokenizer if bundle.tokenizer.until <= int(query.time) else None,
        blocked=zip(*(ids.lookup(side) for side in blocked), strict=True),
        opted_out=ids.lookup(opted_out),
    )
