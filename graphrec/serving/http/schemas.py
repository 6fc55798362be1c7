"""The bodies of requests and responses, with examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from graphrec.data.ids import id_text
from graphrec.data.query import Outcome
from graphrec.serving.writes import FeedbackKind

MAX_SECONDS = 2**53


def read_id(value: Any) -> str:
    """A raw id as text. Raises ValueError if it cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("an id is an integer or text")
    return id_text(value)


ID_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
UserId = Annotated[str, BeforeValidator(read_id), WithJsonSchema(ID_SCHEMA)]
"""A raw id, given as an integer or text; in answers it is text, as JavaScript has no 64-bit integers."""

Seconds = Annotated[int, Field(strict=True, ge=-MAX_SECONDS, le=MAX_SECONDS)]


class Body(BaseModel):
    """A body; fields that are not known are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EventIn(Body):
    """A user acts on another."""

    src: UserId
    dst: UserId
    action: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    time: Seconds | None = None
    weight: Annotated[float, Field(allow_inf_nan=False, ge=-3e38, le=3e38)] | None = None


class EventsIn(Body):
    """Events, in order."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"events": [{"src": "323", "dst": "578", "action": "sms", "time": 2419200}]}]
        },
    )
    events: Annotated[list[EventIn], Field(min_length=1)]


class FeedbackEntry(Body):
    """What a user did with a suggestion."""

    user: UserId
    person: UserId
    kind: FeedbackKind
    time: Seconds | None = None


class FeedbackIn(Body):
    """Entries of feedback, in order."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"feedback": [{"user": "578", "person": "333", "kind": "dismissed"}]}]
        },
    )
    feedback: Annotated[list[FeedbackEntry], Field(min_length=1)]


class SuggestionsIn(Body):
    """Users to suggest people to."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"users": ["323", "578"], "k": 5}]}
    )
    users: Annotated[list[UserId], Field(min_length=1)]
    k: Annotated[int, Field(strict=True, ge=1)] = 10
    outcome: Outcome | None = None
    horizon: Annotated[str, Field(max_length=20)] | None = None
    action: Annotated[str, Field(max_length=200)] | None = None
    time: Seconds | None = None
    now: bool = False


class PersonOut(BaseModel):
    """A person who is suggested."""

    id: str
    score: float
    reason: str | None = None


class SuggestionsOut(BaseModel):
    """People suggested to a user, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user": "578", "time": 2419201, "people": [{"id": "333", "score": -3.25}]}]
        }
    )
    user: str
    time: int
    people: list[PersonOut]


class ManySuggestionsOut(BaseModel):
    """Suggestions to several users, and those of them who are unknown."""

    suggestions: list[SuggestionsOut]
    unknown: list[str]


class ExplanationOut(BaseModel):
    """Why a person is suggested to a user."""

    user: str
    candidate: str
    time: int
    action: str
    score: float
    sentence: str


class ReceiptOut(BaseModel):
    """A write that is on the disk.

    `repeated` says that it was made before, under the same key, and not again.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"accepted": 2, "position": 17, "repeated": False}]}
    )
    accepted: int
    position: int
    repeated: bool


class StatusOut(BaseModel):
    """The state of the server; positions count the records in the log of writes."""

    users: int
    events: int
    model: str
    last_event_time: int
    position: int
    saved_position: int
    log_bytes: int
    waiting_requests: int
    waiting_writes: int
    write_lag_seconds: float
    saves: int
    failed_saves: int
    reloads: int
    failed_reloads: int
    reloading: bool


class ErrorDetail(BaseModel):
    """A code for programs, and a sentence for people."""

    code: str
    message: str


class ErrorOut(BaseModel):
    """The shape of all errors."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": {"code": "unknown", "message": "unknown user id '9'"}}]}
    )
    error: ErrorDetail
