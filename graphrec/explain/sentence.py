"""Evidence in one plain English sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphrec.data import Id
from graphrec.data.text import printable
from graphrec.explain.evidence import (
    CandidateActivity,
    Evidence,
    PastEvents,
    SharedContact,
    SharedPrefixGroup,
)

MAX_NAMES = 3
"""Shared contacts that a sentence names."""

UNIT_SECONDS = {
    "year": 31_536_000,
    "month": 2_592_000,
    "day": 86_400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
}


def write_sentence(candidate: Id, time: int, evidence: Sequence[Evidence]) -> str:
    """Write one sentence that tells the user why a candidate is suggested.

    Args:
        candidate: raw id.
        time: seconds, of the query; ages are counted back from it.
        evidence: in the order to mention.

    Returns:
        one sentence, also where there is no evidence.
    """
    name = _name(candidate)
    people = [piece.person for piece in evidence if isinstance(piece, SharedContact)]
    reasons: list[str] = []
    for piece in evidence:
        match piece:
            case SharedContact():
                clause = f"you are both in contact with {_names(people)}"
            case PastEvents():
                last = "last " if piece.count > 1 else ""
                actor, receiver = ("your", name) if piece.by_user else (f"{name}'s", "you")
                clause = (
                    f"{actor} {last}{_noun(piece.action)} to {receiver} was {_age(time - piece.last_time)}"
                )
            case SharedPrefixGroup():
                size, met = piece.num_people, piece.num_met
                clause = f"you are both in a group of {size} people and you know {met} of them"
            case CandidateActivity():
                clause = f"{name} {_activity(piece, time)}"
            case _:
                continue
        if clause not in reasons:
            reasons.append(clause)
    if not reasons:
        return f"There is no evidence for {name}: no event that may be disclosed moves the score."
    if all(isinstance(piece, CandidateActivity) for piece in evidence):
        return f"There is no evidence for {name} beyond activity: {reasons[0]}."
    start = name.capitalize() if isinstance(candidate, int) else name
    because = [f"because {reason}" for reason in reasons]
    return f"{start} is suggested {', '.join(because[:-1])}{', and ' * (len(because) > 1)}{because[-1]}."


def _name(person: Id) -> str:
    return f"user {person}" if isinstance(person, int) else printable(person)


def _names(people: Sequence[Id]) -> str:
    """Up to `MAX_NAMES` names and the number of further people."""
    names = [_name(person) for person in people]
    more = len(names) - MAX_NAMES
    if more > 0:
        names = [*names[:MAX_NAMES], f"{more} {'other' if more == 1 else 'others'}"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _noun(action: str) -> str:
    """An action's name as a noun: plain words without separators, other text in quotes."""
    words = re.sub(r"[\s_-]+", " ", action).strip()
    return words if words.replace(" ", "").isalpha() else f'act "{printable(action)}"'


def _activity(activity: CandidateActivity, time: int) -> str:
    counts = ((activity.num_acts, "acted"), (activity.num_received, "been approached"))
    parts = [f"{verb} {'once' if count == 1 else f'{count} times'}" for count, verb in counts if count]
    last = "most recently " if activity.num_acts + activity.num_received > 1 else ""
    return f"has {' and '.join(parts)}, {last}{_age(time - activity.last_time)}"


def _age(seconds: int) -> str:
    unit, size = next((unit, size) for unit, size in UNIT_SECONDS.items() if seconds >= size)
    number = seconds // size
    return f"{number} {unit}{'' if number == 1 else 's'} ago"
