"""Suggestions that can be shown to a user: raw ids, without known, blocked and opted-out people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypedDict, Unpack

import torch
from torch import Tensor

from graphrec.data import Id, Outcome, Query, UserIds, id_list, id_pairs
from graphrec.data.checks import check_count, check_flags, check_index, check_query
from graphrec.models.recommender import Recommender
from graphrec.temporal import Timeline, ragged


@dataclass(frozen=True)
class Suggestions:
    """People suggested to one user, best first.

    Attributes:
        user: raw id.
        people: raw ids; fewer than k only if no more are available.
        scores: of these people, in the same order.
    """

    user: Id
    people: list[Id]
    scores: list[float]

    @classmethod
    def of(cls, ids: UserIds, user: Tensor, people: Tensor, scores: Tensor) -> list[Self]:
        """Turn user indices into raw ids: the suggestions for each of B users.

        Args:
            ids: the graph's raw ids.
            user: [B] int64.
            people: [B, k] int64, padded with -1.
            scores: [B, k].
        """
        return [
            cls(raw, ids.lookup(row[row >= 0]), values[row >= 0].tolist())
            for raw, row, values in zip(ids.lookup(user), people, scores, strict=True)
        ]


class Question(TypedDict, total=False):
    """What is asked of a recommender; see `query_for`."""

    time: int | None
    action: str | None
    horizon: int | None
    outcome: Outcome | None
    now: bool


def query_for(
    recommender: Recommender,
    users: Tensor | Sequence[Id],
    *,
    time: int | None = None,
    action: str | None = None,
    horizon: int | None = None,
    outcome: Outcome | None = None,
    now: bool = False,
) -> Query:
    """Make the queries of a recommender's lists: for the time that follows, unless they are for now.

    Args:
        recommender: fitted.
        users: raw ids, or [B] int64 indices.
        time: seconds; only strictly older events are used. By default one second after the last event.
        action: the action to suggest people for; by default the most common one.
        horizon: seconds after `time` for which the lists are; by default `Recommender.default_horizon`.
        outcome: 'initiation' or 'tie' (see `Query`), what the lists are for; by default
            `Recommender.default_outcome`.
        now: ask whom each user acts on next instead, given that they act at `time`. A recommender without a
            default horizon knows only that.

    Raises:
        KeyError: a user or action is unknown; it is named.
        TypeError: a single id in place of a list, or a value that is not an id.
        ValueError: a horizon or outcome is given beside `now`, or for a recommender that knows only the next
            act; or a horizon is not positive.
    """
    check_flags(now=now)
    query = Query.of(recommender.graph, users, time, action)
    by_default = recommender.default_horizon, recommender.default_outcome
    if horizon is not None or outcome is not None:
        if now:
            raise ValueError("now asks whom a user acts on next: leave out horizon and outcome")
        if None in by_default:
            raise ValueError(f"{recommender.name} knows only the next act: leave out horizon and outcome")
    horizon = by_default[0] if horizon is None else horizon
    outcome = outcome or by_default[1]
    return query if now or horizon is None or outcome is None else query.within(horizon, outcome)


def suggest(
    recommender: Recommender,
    users: Tensor | Sequence[Id],
    *,
    k: int = 10,
    blocked: Iterable[tuple[Id, Id]] = (),
    opted_out: Iterable[Id] = (),
    include_known: bool = False,
    **question: Unpack[Question],
) -> list[Suggestions]:
    """Suggest k new people to each user, for the time that follows or for now.

    Args:
        recommender: fitted.
        users: raw ids, or [B] int64 indices.
        k: number of people to suggest; fewer if fewer are available.
        blocked: pairs of raw ids; neither is suggested to the other.
        opted_out: raw ids of people who are suggested to nobody.
        include_known: also suggest people the user has had contact with, either way.
        **question: time, action, horizon, outcome and now, as in `query_for`.

    Raises:
        KeyError: a user, blocked person or action is unknown; it is named.
        TypeError, ValueError: as `query_for`.
    """
    check_flags(include_known=include_known)
    with recommender.graph.guard.reading():
        graph = recommender.graph
        ids = graph.user_ids
        k = min(check_count("k", k, maximum=None), graph.num_users)
        query = query_for(recommender, users, **question)
        pairs = id_pairs(blocked)
        people, scores = suggested(
            recommender,
            query,
            k,
            blocked=torch.stack([ids.index(side) for side in ([a for a, _ in pairs], [b for _, b in pairs])]),
            opted_out=ids.index(id_list(opted_out, "opted_out")),
            include_known=include_known,
        )
        return Suggestions.of(ids, query.user, people, scores)


def suggested(
    recommender: Recommender,
    query: Query,
    k: int,
    *,
    blocked: Tensor,
    opted_out: Tensor,
    include_known: bool = False,
    exclude: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Suggest k new people for each of B queries, by user index.

    Args:
        recommender: fitted.
        query: B queries.
        k: number of people to suggest.
        blocked: [2, P] integers, pairs of people who are not suggested to each other.
        opted_out: [O] integers, people who are suggested to nobody.
        include_known: also suggest people the user has had contact with, either way.
        exclude: further people not to suggest: row of the query [M] and user [M], int64.

    Returns:
        users [B, k] int64, best first, padded with -1, and scores [B, k] float64, padded with -inf; both [B,
        N] if k is greater than the number of users N.
    """
    with recommender.graph.guard.reading():
        return _suggested(recommender, query, k, blocked, opted_out, include_known, exclude)


def _suggested(
    recommender: Recommender,
    query: Query,
    k: int,
    blocked: Tensor,
    opted_out: Tensor,
    include_known: bool,
    further: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """As `suggested`, while no events are appended."""
    graph = recommender.graph
    check_query(graph, query)
    check_flags(include_known=include_known)
    k = min(check_count("k", k, maximum=None), graph.num_users)
    blocked = check_index("blocked", blocked, graph.num_users, shape=(2, None))
    opted_out = check_index("opted_out", opted_out, graph.num_users)
    exclude = [_blocked_rows(query, blocked), *([] if further is None else [further])]
    if not include_known:
        timeline = Timeline.of(graph, follows=True)
        exclude.append(timeline.contacts.before(query.user, timeline.tick(query.time)))
    row, person = (torch.cat(parts) for parts in zip(*exclude, strict=True))
    # Those who opted out are excluded once for all queries, not once for each.
    for_all = {"exclude_users": opted_out} if len(opted_out) else {}
    return recommender.recommend(query, k, exclude=(row, person), **for_all)


def _blocked_rows(query: Query, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """The people who are blocked for each query, by pairs [2, P]: (row [M], person [M]) int64."""
    who, order = torch.cat([pairs[0], pairs[1]]).sort()
    whom = torch.cat([pairs[1], pairs[0]])[order]
    start, end = (torch.searchsorted(who, query.user, right=right) for right in (False, True))
    row, at = ragged(start, end)
    return row, whom[at]
