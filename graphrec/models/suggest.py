"""From a recommender to suggestions a person can be shown: original ids, nobody known, nobody blocked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.data import Query
from graphrec.models.recommender import Recommender
from graphrec.sampler import Timeline

Id = int | str


@dataclass(frozen=True)
class Suggestions:
    """People suggested to one user, best first.

    Attributes:
        user: raw id.
        people: raw ids; fewer than asked for only where there are no more.
        scores: one for each.
    """

    user: Id
    people: list[Id]
    scores: list[float]


def suggest(
    recommender: Recommender,
    users: Tensor | Sequence[Id],
    *,
    k: int = 10,
    time: int | None = None,
    action: str | None = None,
    blocked: Iterable[tuple[Id, Id]] = (),
    include_known: bool = False,
) -> list[Suggestions]:
    """Suggest k new people to each user.

    Args:
        recommender: fitted.
        users: raw ids, or [B] int64 indices.
        k: how many people.
        time: seconds; only what is strictly older is seen. By default one second after the last event.
        action: the act that is hoped for; by default the commonest.
        blocked: pairs of raw ids; neither is suggested to the other.
        include_known: also suggest people the user has had contact with, either way.

    Raises:
        KeyError: an unknown user, blocked person or action, named.
    """
    if isinstance(users, str):
        raise TypeError(f"users must be a list of ids, got the string {users!r}; did you mean [{users!r}]?")
    graph = recommender.graph
    query = Query.of(graph, users, time, action)
    exclude = [_blocked_rows(recommender, query, list(blocked))]
    if not include_known:
        timeline = Timeline.of(graph)
        exclude.append(timeline.contacts.before(query.user, timeline.tick(query.time)))
    row, person = (torch.cat(parts) for parts in zip(*exclude, strict=True))
    people, scores = recommender.recommend(query, k, exclude=(row, person))
    out = []
    for user, listed, values in zip(graph.user_ids.lookup(query.user), people, scores, strict=True):
        kept = listed >= 0
        out.append(Suggestions(user, graph.user_ids.lookup(listed[kept]), values[kept].tolist()))
    return out


def _blocked_rows(
    recommender: Recommender, query: Query, pairs: list[tuple[Id, Id]]
) -> tuple[Tensor, Tensor]:
    """(row of the query, person) of every blocked pair, read both ways."""
    ids = recommender.graph.user_ids
    one = ids.index([a for a, _ in pairs])
    two = ids.index([b for _, b in pairs])
    who, whom = torch.cat([one, two]), torch.cat([two, one])
    row, pair = (query.user[:, None] == who).nonzero(as_tuple=True)
    return row, whom[pair]
