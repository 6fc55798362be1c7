"""The search for evidence: events are removed from the past, and the fall of the score is measured."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from graphrec.data import Id, Outcome, Query, id_list, id_pairs
from graphrec.data.checks import check_count
from graphrec.explain.evidence import (
    CandidateActivity,
    Evidence,
    PastEvents,
    SharedContact,
    SharedPrefixGroup,
)
from graphrec.explain.explanation import Explanation
from graphrec.explain.trials import Trials
from graphrec.models import Question, Recommender, query_for
from graphrec.temporal import Timeline
from graphrec.tokenizer import Tokenizer

MAX_CONTACTS = 8
"""Shared contacts that are tested by default, those with the user's latest events first."""


def explain(
    recommender: Recommender,
    user: Id,
    candidate: Id,
    time: int | None = None,
    action: str | None = None,
    *,
    horizon: int | None = None,
    outcome: Outcome | None = None,
    now: bool = False,
    tokenizer: Tokenizer | None = None,
    blocked: Iterable[tuple[Id, Id]] = (),
    opted_out: Iterable[Id] = (),
    max_contacts: int = MAX_CONTACTS,
) -> Explanation:
    """Find the evidence for a suggestion: the events that move the candidate's score.

    There is one test for each kind of event between the two and each length of the common prefix, and one or
    two for each shared contact and for the candidate's activity. A test takes the events out of a private
    copy of the index and computes one score, in time that grows with the timelines of the people in these
    events; what the recommender renews at regular moments (spectral embeddings, STUs) stays as it is. The
    copy is made once and kept for later explanations. A recommender that reads more than the index (see
    `Recommender.reading`) is put on a graph without the events for each test instead, and with a `tokenizer`
    every recommender once, on the events that may be disclosed: time that grows with the events before
    `time`.

    Args:
        recommender: fitted, with an implementation of `reading` or `on`.
        user: raw id.
        candidate: raw id.
        time: seconds; only strictly older events are used. By default one second after the last event.
        action: the action to suggest the candidate for; by default the most common one.
        horizon: seconds that the suggestion is for, as in `graphrec.suggest`.
        outcome: what the suggestion is for, as there.
        now: the suggestion is for now instead, as there.
        tokenizer: its STUs define the prefix groups; fitted until `time` at the latest.
        blocked: pairs of raw ids. People in a pair with the user or the candidate are never mentioned.
        opted_out: raw ids of people who are never mentioned.
        max_contacts: shared contacts that are tested, those with the user's latest events first.

    Returns:
        the explanation, its evidence sorted by effect, largest first.

    Raises:
        KeyError: a person or action is unknown; it is named.
        ValueError: `max_contacts` is negative; user and candidate are the same; the two are blocked, or the
            candidate has opted out; the tokenizer saw events at or after `time`; a score is not finite.
    """
    max_contacts = check_count("max_contacts", max_contacts, minimum=0)
    if not isinstance(recommender, Recommender):
        raise TypeError(f"recommender must be a Recommender, got a {type(recommender).__name__}")
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
    graph = recommender.graph
    ids = graph.user_ids
    asked: Question = {"time": time, "action": action, "horizon": horizon, "outcome": outcome, "now": now}
    query = query_for(recommender, [user], **asked)
    target, suggested = ids.index([user, candidate]).tolist()
    refusal = f"{candidate!r} is not suggested to {user!r}"  # without the reason: a block is not disclosed
    if target == suggested:
        raise ValueError(refusal)
    hidden = torch.zeros(graph.num_users, dtype=torch.bool)
    hidden[ids.index(id_list(opted_out, "opted_out"))] = True
    pairs = id_pairs(blocked)
    one, other = ids.index([a for a, _ in pairs]), ids.index([b for _, b in pairs])
    for first, second in ((one, other), (other, one)):
        hidden[second[(first == target) | (first == suggested)]] = True
    if hidden[suggested]:
        raise ValueError(refusal)
    hidden[target] = False
    case = _Suggestion(recommender, query, suggested, hidden)
    evidence: list[Evidence] = [*_past_events(case), *_shared_contacts(case, max_contacts)]
    mentioned = torch.tensor([i for piece in evidence for i in piece.event_ids], dtype=torch.int64)
    if tokenizer is not None:
        evidence += _shared_prefix_group(case, tokenizer, mentioned)
    evidence += _candidate_activity(case, mentioned)
    evidence.sort(key=lambda piece: -piece.effect)
    user, candidate = ids.lookup([target, suggested])
    return Explanation(
        user, candidate, case.time, graph.actions[int(query.action)], case.score, tuple(evidence)
    )


class _Suggestion:
    """One suggestion: the events before it, and how far its score falls without some of them."""

    def __init__(self, recommender: Recommender, query: Query, candidate: int, hidden: Tensor) -> None:
        self.graph, self.hidden = recommender.graph, hidden
        self.user, self.candidate, self.time = int(query.user), candidate, int(query.time)
        self.events, self._timeline = self.graph.events(), Timeline.of(self.graph, follows=True)
        self._tick = self._timeline.tick(query.time)
        self._trials = Trials(recommender, query, torch.tensor(candidate))
        self.score = self._trials.score
        self._disclosable: tuple[Tensor, Trials] | None = None
        # Below the root of the precision a difference may be mere rounding.
        self._min_drop = torch.finfo(recommender.dtype).eps ** 0.5 * max(1.0, abs(self.score))

    def score_drop(self, event_ids: Tensor) -> float:
        """How far the score falls without events [n] int64; 0 if it does not fall."""
        return self._drop(self._trials, event_ids)

    def disclosable_score_drop(self, event_ids: Tensor) -> float:
        """How far the score of the disclosable events falls without events [n] int64; 0 if it does not."""
        if self._disclosable is None:
            kept = self._disclosable_events()
            self._disclosable = kept.cumsum(0) - 1, self._trials.among(kept)
        place, trials = self._disclosable
        return self._drop(trials, place[event_ids])

    def _drop(self, trials: Trials, event_ids: Tensor) -> float:
        if not event_ids.numel():
            return 0.0
        drop = trials.score - trials.score_without(event_ids)
        return drop if drop > self._min_drop else 0.0

    def _disclosable_events(self) -> Tensor:
        """Mask [E] bool of the events with the user and of mutual ties, without those of hidden people."""
        events = self._trials.past.events()
        src, dst, num_users = events.src, events.dst, self.graph.num_users
        pair, back = src * num_users + dst, dst * num_users + src
        shown = ~(self.hidden[src] | self.hidden[dst])
        return shown & (torch.isin(pair, back) | (src == self.user) | (dst == self.user))

    def ties(self, user: int) -> tuple[Tensor, Tensor]:
        """Events of a user with people who are not hidden: (event [n] ascending, other person [n]), int64."""
        half = self._timeline.half_edges
        start, owner = half.start[user], torch.tensor([user])
        half_edge = torch.arange(int(start), int(half.end(owner, self._tick)))
        event, order = self._timeline.event_of(half_edge).sort()
        other = self._timeline.other_of(half_edge[order])
        shown = ~self.hidden[other]
        return event[shown], other[shown]


def _past_events(case: _Suggestion) -> list[PastEvents]:
    event, other = case.ties(case.user)
    event = event[other == case.candidate]
    if not event.numel():
        return []
    kind = 2 * case.events.action[event] + (case.events.src[event] == case.user)

    def piece(of_kind: int, moved: Tensor) -> PastEvents:
        same_kind = event[kind == of_kind]
        return PastEvents(
            effect=case.score_drop(moved),
            event_ids=tuple(moved.tolist()),
            action=case.graph.actions[of_kind // 2],
            by_user=bool(of_kind % 2),
            count=len(same_kind),
            last_time=int(case.events.time[same_kind[-1]]),
        )

    kinds = kind.unique().tolist()
    single = [piece(of_kind, event[kind == of_kind]) for of_kind in kinds]
    moving = [one for one in single if one.effect]
    if not moving and len(kinds) > 1:
        time = case.events.time[event]
        together = piece(int(kind[time == time[-1]].min()), event)
        moving = [together] if together.effect else []
    return moving


def _shared_contacts(case: _Suggestion, max_contacts: int) -> list[SharedContact]:
    event, other = case.ties(case.user)
    their_event, their_other = case.ties(case.candidate)
    acted = case.events.src[their_event] == case.candidate
    people, place = other.unique(return_inverse=True)
    last = torch.zeros_like(people).scatter_reduce_(
        0, place, case.events.time[event], "amax", include_self=False
    )
    shared = torch.isin(people, their_other[acted]) & torch.isin(people, their_other[~acted])
    people, last = people[shared], last[shared]
    latest = last.argsort(descending=True, stable=True)[:max_contacts]
    out = []
    for person, moment in zip(people[latest].tolist(), last[latest].tolist(), strict=True):
        own, theirs = event[other == person], their_event[their_other == person]
        effect = case.score_drop(own)
        effect = min(effect, case.score_drop(theirs)) if effect else 0.0
        if effect:
            moved = tuple(torch.cat([own, theirs]).tolist())
            (name,) = case.graph.user_ids.lookup([person])
            out.append(SharedContact(effect=effect, event_ids=moved, person=name, last_time=moment))
    return out


def _shared_prefix_group(
    case: _Suggestion, tokenizer: Tokenizer, mentioned: Tensor
) -> list[SharedPrefixGroup]:
    codes = tokenizer.codes_before(case.graph, case.time)
    own, theirs = codes[[case.user, case.candidate]]
    event, other = case.ties(case.user)
    others, new = other != case.candidate, ~torch.isin(event, mentioned)
    shared = int((own == theirs).long().cumprod(0).sum()) if own[0] >= 0 else 0
    for length in range(shared, 0, -1):
        group = (codes[:, :length] == own[:length]).all(1) & ~case.hidden
        met = group[other] & others
        moved = event[met & new]
        effect = case.score_drop(moved)
        effect = min(effect, case.disclosable_score_drop(moved)) if effect else 0.0
        if effect:
            return [
                SharedPrefixGroup(
                    effect=effect,
                    event_ids=tuple(moved.tolist()),
                    prefix=tuple(own[:length].tolist()),
                    num_people=int(group.sum()),
                    num_met=len(other[met].unique()),
                )
            ]
    return []


def _candidate_activity(case: _Suggestion, mentioned: Tensor) -> list[CandidateActivity]:
    event, other = case.ties(case.candidate)
    others = (other != case.user) & ~torch.isin(event, mentioned)
    strangers = others & ~torch.isin(other, case.ties(case.user)[1])
    acted = int((case.events.src[event] == case.candidate).sum())
    for rest in (event[strangers], event[others]):
        effect = case.score_drop(rest)
        if effect:
            return [
                CandidateActivity(
                    effect=effect,
                    event_ids=tuple(rest.tolist()),
                    num_acts=acted,
                    num_received=len(event) - acted,
                    last_time=int(case.events.time[event[-1]]),
                )
            ]
    return []
