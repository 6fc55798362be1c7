"""Routes that write: events, feedback, blocks, opt-outs, users to forget."""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response

from graphrec.data.ids import parse_id
from graphrec.data.times import LATEST_TIME
from graphrec.service.rules import Rules
from graphrec.serving.committer import Receipt
from graphrec.serving.http.context import ERRORS, Context, PathId, context, json_response
from graphrec.serving.http.errors import ApiError
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.schemas import EventIn, EventsIn, FeedbackIn, ReceiptOut
from graphrec.serving.live_bundle import Facts
from graphrec.serving.rule_writer import RuleChange
from graphrec.serving.writes import EventsWrite, FeedbackWrite, Key, KeyedWrite, RulesDeletedWrite, Write

router = APIRouter(tags=["writing"], responses=ERRORS)

Shared = Annotated[Context, Depends(context)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="a text of the client's own; a request that is sent again under it counts once",
    ),
]


@router.post("/v1/events", summary="Add events", responses={200: {"model": ReceiptOut}})
async def add_events(body: EventsIn, shared: Shared, idempotency_key: IdempotencyKey = None) -> Response:
    """Add events. When this answers they are on the disk, and the next request sees them."""
    given = ["events", body.model_dump(mode="json")]
    if (before := _made_before(shared, idempotency_key, given, len(body.events))) is not None:
        return json_response(before)
    _check_size(shared, "events", len(body.events))
    facts, times = shared.served.engine.live.facts, _Times.of(shared)
    now = times.now
    for place, event in enumerate(body.events):
        _check_event(place, event, facts, times)
    write = EventsWrite(
        tuple(one.src for one in body.events),
        tuple(one.dst for one in body.events),
        tuple(now if one.time is None else one.time for one in body.events),
        tuple(one.action or facts.actions[0] for one in body.events),
        tuple(1.0 if one.weight is None else one.weight for one in body.events)
        if facts.is_weighted
        else None,
    )
    receipt = await _written(shared, write, idempotency_key, given)
    shared.metrics.events.inc(0 if receipt["repeated"] else len(write))
    return json_response(receipt)


@router.post(
    "/v1/feedback", summary="Tell what users did with suggestions", responses={200: {"model": ReceiptOut}}
)
async def add_feedback(body: FeedbackIn, shared: Shared, idempotency_key: IdempotencyKey = None) -> Response:
    """Tell who was shown to a user, and who was dismissed: they rest for a while."""
    given = ["feedback", body.model_dump(mode="json")]
    if (before := _made_before(shared, idempotency_key, given, len(body.feedback))) is not None:
        return json_response(before)
    _check_size(shared, "feedback", len(body.feedback))
    times = _Times.of(shared)
    now = times.now
    for place, one in enumerate(body.feedback):
        if one.user == one.person:
            raise ApiError(422, "invalid", f"body feedback {place}: user and person are the same")
        times.check(f"body feedback {place} time", one.time)
    write = FeedbackWrite(
        tuple(one.user for one in body.feedback),
        tuple(one.person for one in body.feedback),
        tuple(now if one.time is None else one.time for one in body.feedback),
        tuple(one.kind for one in body.feedback),
    )
    receipt = await _written(shared, write, idempotency_key, given)
    for kind in write.kind if not receipt["repeated"] else ():
        shared.metrics.feedback.labels(kind).inc()
    return json_response(receipt)


@router.put("/v1/blocks/{user}/{other}", summary="Block two users", status_code=204)
async def block(user: PathId, other: PathId, shared: Shared) -> Response:
    """Never suggest two users to each other, nor name one to the other."""
    return await _changed(shared, RuleChange(add=_pair(user, other)))


@router.delete("/v1/blocks/{user}/{other}", summary="Unblock two users", status_code=204)
async def unblock(user: PathId, other: PathId, shared: Shared) -> Response:
    """Take back a block; the answer is the same if there was none."""
    return await _changed(shared, RuleChange(remove=_pair(user, other)))


@router.put("/v1/opt-outs/{user}", summary="Suggest a user to nobody", status_code=204)
async def opt_out(user: PathId, shared: Shared) -> Response:
    """Never suggest a user to anyone, nor name the user in an explanation."""
    return await _changed(shared, RuleChange(add=Rules.of(opted_out=[user])))


@router.delete("/v1/opt-outs/{user}", summary="Suggest a user again", status_code=204)
async def opt_in(user: PathId, shared: Shared) -> Response:
    """Take back an opt-out; the answer is the same if there was none."""
    return await _changed(shared, RuleChange(remove=Rules.of(opted_out=[user])))


@router.delete("/v1/users/{user}", summary="Forget a user", status_code=204)
async def forget(user: PathId, shared: Shared) -> Response:
    """Forget a user: hidden at once, and within minutes deleted from bundle, log and rules.

    The answer is the same for an unknown user, so that the request may be repeated.
    """
    await shared.wait(shared.served.forget(user))  # one without events may be in feedback, or in rows
    response = await _changed(shared, RuleChange(forget=user))
    await shared.wait(shared.served.write(KeyedWrite(RulesDeletedWrite(user))))
    return response


@dataclass(frozen=True)
class _Times:
    """Times that writes may have, in seconds: the time now, and the earliest and the latest one."""

    now: int
    earliest: int
    latest: int
    has_clock: bool
    limits: Limits

    @classmethod
    def of(cls, shared: Context) -> _Times:
        live, limits = shared.served.engine.live, shared.limits
        last, latest = live.last_time, LATEST_TIME
        if live.has_clock:  # not from the last event: events could move it into the future step by step
            latest = max(last, int(clock.time()) + limits.max_ahead_seconds)
        return cls(live.now, last - limits.max_late_seconds, latest, live.has_clock, limits)

    def check(self, where: str, time: int | None) -> None:
        """Raise ApiError, naming the place, unless something may have happened at a time."""
        if time is None:
            return
        if time > self.latest:
            fault = "beyond the year 9999; times are in seconds (are these milliseconds?)"
            if self.has_clock:
                fault = f"more than {self.limits.max_ahead_seconds} s in the future"
            raise ApiError(422, "invalid", f"{where}: {fault}")
        if time < self.earliest:
            late = self.limits.max_late_seconds
            raise ApiError(
                422,
                "invalid",
                f"{where}: more than {late} s before the last event at {self.earliest + late} s; "
                "`graphrec add` takes older ones",
            )


def _check_size(shared: Context, name: str, size: int) -> None:
    if size > shared.limits.max_rows:
        raise ApiError(422, "invalid", f"body {name}: at most {shared.limits.max_rows}")


def _check_event(place: int, event: EventIn, facts: Facts, times: _Times) -> None:
    """Raise ApiError, naming the event, unless the bundle has a place for it."""
    where = f"body events {place}"
    if event.src == event.dst:
        raise ApiError(422, "invalid", f"{where}: src and dst are the same")
    if event.action is None and len(facts.actions) > 1:
        raise ApiError(422, "invalid", f"{where} action: give one of {', '.join(facts.actions)}")
    if event.action is not None and event.action not in facts.actions:
        raise ApiError(422, "invalid", f"{where} action: unknown; there are {', '.join(facts.actions)}")
    if event.weight is not None and not facts.is_weighted:
        raise ApiError(422, "invalid", f"{where} weight: the bundle's events have none")
    if facts.has_integer_ids:
        for name in ("src", "dst"):
            if not _is_integer(getattr(event, name)):
                raise ApiError(422, "invalid", f"{where} {name}: this bundle's user ids are integers")
    times.check(f"{where} time", event.time)


def _is_integer(text: str) -> bool:
    return isinstance(parse_id(text), int)  # larger ones than int64 are text


def _pair(user: str, other: str) -> Rules:
    if user == other:
        raise ApiError(422, "invalid", "a user cannot be blocked from themselves")
    return Rules.of(blocked=[(user, other)])


def _made_before(shared: Context, key: str | None, given: Any, size: int) -> dict[str, Any] | None:
    """The answer to a request that was made before, which may be one that would be too late by now."""
    found = None if key is None else shared.served.committer.receipt_of(Key.of_values(key, given))
    return None if found is None else _plain(found, size)


def _plain(receipt: Receipt, size: int) -> dict[str, Any]:
    return {"accepted": size, "position": receipt.position, "repeated": receipt.repeated}


async def _written(shared: Context, write: Write, key: str | None, given: Any) -> dict[str, Any]:
    entry = KeyedWrite(write, None if key is None else Key.of(key, write, given))
    receipt = await shared.wait(shared.served.write(entry))
    size = len(write) if isinstance(write, EventsWrite | FeedbackWrite) else 1
    return _plain(receipt, size)


async def _changed(shared: Context, change: RuleChange) -> Response:
    await shared.wait(shared.served.rules.submit(change))
    return Response(status_code=204)
