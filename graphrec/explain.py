"""Reasons for a suggestion: what has moved the score, as data and as one plain sentence.

Whatever is said has been tried. A piece of evidence stands for some events of the past; they are taken out of
the graph, the recommender is put on what is left (`Recommender.on`, the same parameters), and it is told only
if the score falls. A sentence is addressed to the user, so it names acts by or towards the user, and the tie
of two others only where it is mutual: both have acted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from graphrec.data import Id, Query, id_list, id_pairs
from graphrec.data.checks import check_count
from graphrec.data.text import printable
from graphrec.models import Recommender
from graphrec.tokenizer import Tokenizer

MAX_CONTACTS = 8
"""Shared contacts that are tried, the ones the user was in contact with last."""

NAMED = 3
"""Shared contacts that a sentence names."""

UNITS = {"year": 31_536_000, "month": 2_592_000, "day": 86_400, "hour": 3600, "minute": 60, "second": 1}


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Events before the time of the question that have moved the score.

    Attributes:
        effect: by how much the score falls without them.
        event_ids: their positions in `graph.events()`, to check the claim; not for the person.
    """

    effect: float
    event_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PastActs(Evidence):
    """Acts of one kind between user and candidate.

    Where no kind moves the score by itself and all acts between the two together do, `event_ids` are all of
    them, and the rest is that of the latest kind.

    Attributes:
        action: its name.
        by_user: whether the user acted, and not the candidate.
        count: how often.
        last: seconds, when it was done last.
    """

    action: str
    by_user: bool
    count: int
    last: int


@dataclass(frozen=True, kw_only=True)
class SharedContact(Evidence):
    """Somebody who was in contact with the user, either way, and has a mutual tie with the candidate.

    Either tie matters: `effect` is the smaller fall, of the score without the one tie and without the other.

    Attributes:
        person: raw id.
        last: seconds, of the last act between this person and the user.
    """

    person: Id
    last: int


@dataclass(frozen=True, kw_only=True)
class SharedCircle(Evidence):
    """The STUs of user and candidate begin alike: they belong to one circle.

    The events are the user's with others of that circle, but for those who are told as shared contacts. The
    score also falls without them where it knows nothing that must not be told: acts between two others that
    were not returned, and those of people who are not told of. `effect` is the smaller fall.

    Attributes:
        prefix: the codes in common, or, where the user's contacts in that circle do not matter, the longest
            prefix of these whose circle does.
        num_people: how many STUs known before the time begin so, user and candidate included.
        num_met: how many of the others the user was in contact with.
    """

    prefix: tuple[int, ...]
    num_people: int
    num_met: int


@dataclass(frozen=True, kw_only=True)
class Activity(Evidence):
    """What the candidate did and received.

    The events are those with people the user was not in contact with, so that no path between the two counts
    as activity. Where these do not move the score, they are those with anybody but the user and the contacts
    told as shared, among them ties that must not be told.

    Attributes:
        num_acts, num_received: how often the candidate acted and was acted upon, by anybody.
        last: seconds, of the latest of these.
    """

    num_acts: int
    num_received: int
    last: int


@dataclass(frozen=True)
class Explanation:
    """Why a candidate is suggested to a user.

    Attributes:
        user, candidate: raw ids.
        time: seconds; everything told is strictly older.
        action: the act hoped for.
        score: of the candidate.
        evidence: what has moved it, the largest effect first; may be empty.
    """

    user: Id
    candidate: Id
    time: int
    action: str
    score: float
    evidence: tuple[Evidence, ...]

    @property
    def sentence(self) -> str:
        """The evidence in one sentence, addressed to the user."""
        return _sentence(self)

    def __str__(self) -> str:
        return self.sentence


def explain(
    recommender: Recommender,
    user: Id,
    candidate: Id,
    time: int | None = None,
    action: str | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    blocked: Iterable[tuple[Id, Id]] = (),
    opted_out: Iterable[Id] = (),
    max_contacts: int = MAX_CONTACTS,
) -> Explanation:
    """Find what has moved the score of a candidate for a user.

    Each thing tried costs a graph, its index and a score, in time that grows with the events before `time`:
    one for each kind of act between the two and each length of the common prefix, one or two for each shared
    contact and the candidate's activity.

    Args:
        recommender: fitted; it has to answer `on`.
        user: raw id.
        candidate: raw id.
        time: seconds; only what is strictly older is seen. By default one second after the last event.
        action: the act that is hoped for; by default the commonest.
        tokenizer: whose STUs say what a circle is; fitted on nothing as late as `time`.
        blocked: pairs of raw ids. Whoever is in one with the user or the candidate is not told of.
        opted_out: raw ids of people who are not told of.
        max_contacts: how many shared contacts are tried, those the user was in contact with last.

    Raises:
        KeyError: an unknown person or action, named.
        ValueError: `max_contacts` is negative; user and candidate are one; the two are blocked, or the
            candidate has opted out; the tokenizer saw events at or after `time`; a score is not finite.
    """
    max_contacts = check_count("max_contacts", max_contacts, minimum=0)
    if not isinstance(recommender, Recommender):
        raise TypeError(f"recommender must be a Recommender, got a {type(recommender).__name__}")
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer must be a Tokenizer, got a {type(tokenizer).__name__}")
    graph = recommender.graph
    ids = graph.user_ids
    query = Query.of(graph, [user], time, action)
    asking, suggested = ids.index([user, candidate]).tolist()
    refusal = f"{candidate!r} is not suggested to {user!r}"  # and never why: a block is not told of
    if asking == suggested:
        raise ValueError(refusal)
    hidden = torch.zeros(graph.num_users, dtype=torch.bool)
    hidden[ids.index(id_list(opted_out, "opted_out"))] = True
    pairs = id_pairs(blocked)
    one, other = ids.index([a for a, _ in pairs]), ids.index([b for _, b in pairs])
    for who, whom in ((one, other), (other, one)):
        hidden[whom[(who == asking) | (who == suggested)]] = True
    if hidden[suggested]:
        raise ValueError(refusal)
    hidden[asking] = False
    case = _Case(recommender, query, suggested, hidden)
    evidence: list[Evidence] = [*_past_acts(case), *_shared_contacts(case, max_contacts)]
    told = torch.tensor([i for piece in evidence for i in piece.event_ids], dtype=torch.int64)
    if tokenizer is not None:
        evidence += _shared_circle(case, tokenizer, told)
    evidence += _activity(case, told)
    evidence.sort(key=lambda piece: -piece.effect)
    user, candidate = ids.lookup([asking, suggested])
    return Explanation(
        user, candidate, case.time, graph.actions[int(query.action)], case.score, tuple(evidence)
    )


class _Case:
    """One suggestion: what was known before it, and how far its score falls without some of that."""

    def __init__(self, recommender: Recommender, query: Query, candidate: int, hidden: Tensor) -> None:
        self.graph, self.hidden = recommender.graph, hidden
        self.user, self.candidate, self.time = int(query.user), candidate, int(query.time)
        self._recommender, self._query = recommender, query
        self._past = self.graph.snapshot(self.time)
        self.events = self._past.events()
        self.score = self._score_by(recommender)
        self._tellable: tuple[Tensor, float] | None = None
        # Below the root of the precision a difference may be mere rounding.
        self._least = torch.finfo(recommender.dtype).eps ** 0.5 * max(1.0, abs(self.score))

    def fall(self, event_ids: Tensor) -> float:
        """By how much the score falls without these events, [n] int64; 0 if it does not."""
        if not event_ids.numel():
            return 0.0
        kept = torch.ones(len(self.events), dtype=torch.bool).index_fill_(0, event_ids, False)
        fall = self.score - self._score_by(self._recommender.on(self._past.select_events(kept)))
        return fall if fall > self._least else 0.0

    def tellable_fall(self, event_ids: Tensor) -> float:
        """The same in a past of nothing but acts that may be told: those with the user, and mutual ties."""
        if self._tellable is None:
            kept = self._may_be_told()
            known = self._recommender.on(self._past.select_events(kept))
            self._tellable = kept, self._score_by(known)
        kept, score = self._tellable
        left = kept.index_fill(0, event_ids, False)
        fall = score - self._score_by(self._recommender.on(self._past.select_events(left)))
        return fall if fall > self._least else 0.0

    def _may_be_told(self) -> Tensor:
        """Which events are with the user, or of two who are told of and have both acted: [E] bool."""
        src, dst, num_users = self.events.src, self.events.dst, self.graph.num_users
        pair, back = src * num_users + dst, dst * num_users + src
        shown = ~(self.hidden[src] | self.hidden[dst])
        return shown & (torch.isin(pair, back) | (src == self.user) | (dst == self.user))

    def ties(self, user: int) -> tuple[Tensor, Tensor]:
        """Events of a user with people who may be told of: (event [n] ascending, the other [n]), int64."""
        src, dst = self.events.src, self.events.dst
        event = ((src == user) | (dst == user)).nonzero().squeeze(1)
        other = src[event] + dst[event] - user
        shown = ~self.hidden[other]
        return event[shown], other[shown]

    def _score_by(self, recommender: Recommender) -> float:
        score = float(recommender.score(self._query, torch.tensor([self.candidate])))
        if not abs(score) < float("inf"):
            raise ValueError(f"{recommender.name} gave a score that is not finite: {score}")
        return score


def _past_acts(case: _Case) -> list[PastActs]:
    event, other = case.ties(case.user)
    event = event[other == case.candidate]
    if not event.numel():
        return []
    kind = 2 * case.events.action[event] + (case.events.src[event] == case.user)

    def piece(of_kind: int, moved: Tensor) -> PastActs:
        acts = event[kind == of_kind]
        return PastActs(
            effect=case.fall(moved),
            event_ids=tuple(moved.tolist()),
            action=case.graph.actions[of_kind // 2],
            by_user=bool(of_kind % 2),
            count=len(acts),
            last=int(case.events.time[acts[-1]]),
        )

    kinds = kind.unique().tolist()
    single = [piece(of_kind, event[kind == of_kind]) for of_kind in kinds]
    moving = [acts for acts in single if acts.effect]
    if not moving and len(kinds) > 1:
        time = case.events.time[event]
        together = piece(int(kind[time == time[-1]].min()), event)
        moving = [together] if together.effect else []
    return moving


def _shared_contacts(case: _Case, most: int) -> list[SharedContact]:
    event, other = case.ties(case.user)
    their_event, their_other = case.ties(case.candidate)
    acted = case.events.src[their_event] == case.candidate
    shared = torch.zeros(3, case.graph.num_users, dtype=torch.bool)
    for row, people in enumerate((other, their_other[acted], their_other[~acted])):
        shared[row, people] = True
    people = shared.all(0).nonzero().squeeze(1)
    last = torch.zeros(case.graph.num_users, dtype=torch.int64)
    last = last.scatter_reduce_(0, other, case.events.time[event], "amax", include_self=False)[people]
    latest = last.argsort(descending=True, stable=True)[:most]
    out = []
    for person, moment in zip(people[latest].tolist(), last[latest].tolist(), strict=True):
        own, theirs = event[other == person], their_event[their_other == person]
        effect = case.fall(own)
        effect = min(effect, case.fall(theirs)) if effect else 0.0
        if effect:
            moved = tuple(torch.cat([own, theirs]).tolist())
            (name,) = case.graph.user_ids.lookup([person])
            out.append(SharedContact(effect=effect, event_ids=moved, person=name, last=moment))
    return out


def _shared_circle(case: _Case, tokenizer: Tokenizer, told: Tensor) -> list[SharedCircle]:
    codes = tokenizer.codes_before(case.graph, case.time)
    own, theirs = codes[[case.user, case.candidate]]
    event, other = case.ties(case.user)
    others, new = other != case.candidate, ~torch.isin(event, told)
    shared = int((own == theirs).long().cumprod(0).sum()) if own[0] >= 0 else 0
    for length in range(shared, 0, -1):
        circle = (codes[:, :length] == own[:length]).all(1) & ~case.hidden
        met = circle[other] & others
        moved = event[met & new]
        effect = case.fall(moved)
        effect = min(effect, case.tellable_fall(moved)) if effect else 0.0
        if effect:
            return [
                SharedCircle(
                    effect=effect,
                    event_ids=tuple(moved.tolist()),
                    prefix=tuple(own[:length].tolist()),
                    num_people=int(circle.sum()),
                    num_met=len(other[met].unique()),
                )
            ]
    return []


def _activity(case: _Case, told: Tensor) -> list[Activity]:
    event, other = case.ties(case.candidate)
    others = (other != case.user) & ~torch.isin(event, told)
    strangers = others & ~torch.isin(other, case.ties(case.user)[1])
    acted = int((case.events.src[event] == case.candidate).sum())
    for rest in (event[strangers], event[others]):
        effect = case.fall(rest)
        if effect:
            return [
                Activity(
                    effect=effect,
                    event_ids=tuple(rest.tolist()),
                    num_acts=acted,
                    num_received=len(event) - acted,
                    last=int(case.events.time[event[-1]]),
                )
            ]
    return []


# The sentence


def _sentence(explanation: Explanation) -> str:
    who = _name(explanation.candidate)
    people = [piece.person for piece in explanation.evidence if isinstance(piece, SharedContact)]
    reasons: list[str] = []
    for piece in explanation.evidence:
        match piece:
            case SharedContact():
                clause = f"you are both in contact with {_people(people)}"
            case PastActs():
                last = "last " if piece.count > 1 else ""
                whose, whom = ("your", who) if piece.by_user else (f"{who}'s", "you")
                when = _ago(explanation.time - piece.last)
                clause = f"{whose} {last}{_act(piece.action)} to {whom} was {when}"
            case SharedCircle():
                met = "one" if piece.num_met == 1 else piece.num_met
                clause = f"you two share a circle of {piece.num_people} people, {met} of whom you know"
            case Activity():
                clause = f"{who} {_deeds(piece, explanation.time)}"
            case _:
                continue
        if clause not in reasons:
            reasons.append(clause)
    if not reasons:
        return f"There is no evidence for {who}: nothing that may be told has moved the score."
    if all(isinstance(piece, Activity) for piece in explanation.evidence):
        return f"There is no evidence for {who} beyond activity: {reasons[0]}."
    start = who.capitalize() if isinstance(explanation.candidate, int) else who
    because = [f"because {reason}" for reason in reasons]
    return f"{start} is suggested {', '.join(because[:-1])}{', and ' * (len(because) > 1)}{because[-1]}."


def _name(person: Id) -> str:
    return f"user {person}" if isinstance(person, int) else printable(person)


def _people(people: Sequence[Id]) -> str:
    """Up to three names, and how many more."""
    names = [_name(person) for person in people]
    more = len(names) - NAMED
    if more > 0:
        names = [*names[:NAMED], f"{more} {'other' if more == 1 else 'others'}"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _act(action: str) -> str:
    """An action's name as a noun: words as they are, anything else as a name."""
    words = re.sub(r"[\s_-]+", " ", action).strip()
    return words if words.replace(" ", "").isalpha() else f'act "{printable(action)}"'


def _deeds(activity: Activity, time: int) -> str:
    counts = ((activity.num_acts, "acted"), (activity.num_received, "been approached"))
    said = [f"{done} {'once' if count == 1 else f'{count} times'}" for count, done in counts if count]
    last = "most recently " if activity.num_acts + activity.num_received > 1 else ""
    return f"has {' and '.join(said)}, {last}{_ago(time - activity.last)}"


def _ago(seconds: int) -> str:
    unit, size = next((unit, size) for unit, size in UNITS.items() if seconds >= size)
    number = seconds // size
    return f"{number} {unit}{'' if number == 1 else 's'} ago"
