"""The kinds of evidence for a suggestion."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphrec.data import Id


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Events before the time of the query that move the score.

    Attributes:
        effect: drop of the score if these events are removed.
        event_ids: their positions in `graph.events()`, to check the claim; not shown to the user.
    """

    effect: float
    event_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class PastEvents(Evidence):
    """Events of one kind between user and candidate.

    If no kind moves the score alone but all events between the two do together, `event_ids` holds all of
    them, and the other attributes describe the latest kind.

    Attributes:
        action: its name.
        by_user: True if the user acted, False if the candidate did.
        count: number of events of this kind.
        last_time: seconds, time of the latest.
    """

    action: str
    by_user: bool
    count: int
    last_time: int


@dataclass(frozen=True, kw_only=True)
class SharedContact(Evidence):
    """A person with an event with the user, in either direction, and a mutual tie with the candidate.

    Both ties must matter: `effect` is the smaller drop of the score, without the one tie or the other.

    Attributes:
        person: raw id.
        last_time: seconds, time of the latest event between this person and the user.
    """

    person: Id
    last_time: int


@dataclass(frozen=True, kw_only=True)
class SharedPrefixGroup(Evidence):
    """User and candidate belong to one prefix group: their STUs begin with the same codes.

    The events are those between the user and other members, except members mentioned as shared contacts. The
    score must also drop if it is computed from disclosable events alone, that is without unreturned events
    between two others and without events of hidden people. `effect` is the smaller of the two drops.

    Attributes:
        prefix: the longest common prefix whose group moves the score.
        num_people: members before the time of the query, user and candidate included.
        num_met: other members that have an event with the user.
    """

    prefix: tuple[int, ...]
    num_people: int
    num_met: int


@dataclass(frozen=True, kw_only=True)
class CandidateActivity(Evidence):
    """Events of the candidate with others.

    The events are those with people the user has no event with, so that no path between the two counts as
    activity. If these do not move the score, they are those with everyone except the user and the mentioned
    shared contacts, some of which may be ties that must not be disclosed one by one.

    Attributes:
        num_acts, num_received: number of events the candidate sent and received, with anyone.
        last_time: seconds, time of the latest of these.
    """

    num_acts: int
    num_received: int
    last_time: int
