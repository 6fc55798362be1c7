"""Routes that read: suggestions and explanations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from graphrec.data.query import Outcome
from graphrec.serving.http.context import ERRORS, Context, PathId, context, json_response
from graphrec.serving.http.errors import ApiError
from graphrec.serving.http.schemas import (
    MAX_SECONDS,
    ExplanationOut,
    ManySuggestionsOut,
    SuggestionsIn,
    SuggestionsOut,
)
from graphrec.serving.questions import Answer, Asked, NotSuggestedError

router = APIRouter(tags=["reading"], responses=ERRORS)

Shared = Annotated[Context, Depends(context)]
Text = Annotated[str | None, Query(max_length=200)]
OutcomeText = Annotated[Outcome | None, Query(description="what the list is for")]
Horizon = Annotated[str | None, Query(max_length=20, description="time that the list is for, such as 7d")]
Moment = Annotated[
    int | None,
    Query(ge=-MAX_SECONDS, le=MAX_SECONDS, description="seconds; only older events count; by default all"),
]
Now = Annotated[bool, Query(description="whom the user acts on next instead")]


@router.get(
    "/v1/users/{user}/suggestions",
    summary="People suggested to a user",
    responses={200: {"model": SuggestionsOut}},
)
async def suggestions(
    user: PathId,
    shared: Shared,
    k: Annotated[int, Query(ge=1, description="people, at most")] = 10,
    outcome: OutcomeText = None,
    horizon: Horizon = None,
    action: Text = None,
    time: Moment = None,
    now: Now = False,
    explain: Annotated[int, Query(ge=0, description="people, from the first, with a reason")] = 0,
) -> Response:
    """Suggest people to a user, best first."""
    if explain > shared.limits.max_explained:
        raise ApiError(422, "invalid", f"explain: at most {shared.limits.max_explained}")
    asked = shared.asked(k=k, time=time, action=action, horizon=horizon, outcome=outcome, now=now)
    (answer,) = await shared.wait(shared.served.engine.ask([user], asked))
    if answer is None:
        raise unknown_user(user)
    reasons = [await _reason(shared, user, person, asked) for person in answer.people[:explain]]
    return json_response(_plain(answer, reasons))


@router.post(
    "/v1/suggestions",
    summary="People suggested to many users",
    responses={200: {"model": ManySuggestionsOut}},
)
async def many_suggestions(body: SuggestionsIn, shared: Shared) -> Response:
    """Suggest people to many users."""
    if len(body.users) > shared.limits.max_users:
        raise ApiError(422, "invalid", f"body users: at most {shared.limits.max_users}")
    asked = shared.asked(
        k=body.k,
        time=body.time,
        action=body.action,
        horizon=body.horizon,
        outcome=body.outcome,
        now=body.now,
    )
    answers = await shared.wait(shared.served.engine.ask(body.users, asked))
    pairs = list(zip(body.users, answers, strict=True))
    return json_response(
        {
            "suggestions": [_plain(answer) for _, answer in pairs if answer is not None],
            "unknown": [user for user, answer in pairs if answer is None],
        }
    )


@router.get(
    "/v1/users/{user}/explanations/{candidate}",
    summary="Why a person is suggested to a user",
    responses={200: {"model": ExplanationOut}},
)
async def explanation(
    user: PathId,
    candidate: PathId,
    shared: Shared,
    outcome: OutcomeText = None,
    horizon: Horizon = None,
    action: Text = None,
    time: Moment = None,
    now: Now = False,
) -> Response:
    """Explain why a person is suggested; for all who never are, known or not, the answer is the same."""
    asked = shared.asked(k=1, time=time, action=action, horizon=horizon, outcome=outcome, now=now)
    found = await shared.wait(shared.served.engine.explain(user, candidate, asked))
    return json_response(
        {
            "user": user,
            "candidate": candidate,
            "time": found.time,
            "action": found.action,
            "score": found.score,
            "sentence": found.sentence,
        }
    )


def unknown_user(user: str) -> ApiError:
    """The error of a user whom the bundle does not have."""
    return ApiError(404, "unknown", f"unknown user id {user!r}")


async def _reason(shared: Context, user: str, person: str, asked: Asked) -> str | None:
    try:
        return (await shared.wait(shared.served.engine.explain(user, person, asked))).sentence
    except (NotSuggestedError, KeyError):  # a rule was made meanwhile
        return None


def _plain(answer: Answer, reasons: list[str | None] | None = None) -> dict[str, Any]:
    people: list[dict[str, Any]] = [
        {"id": person, "score": score} for person, score in zip(answer.people, answer.scores, strict=True)
    ]
    for entry, reason in zip(people, reasons or [], strict=False):
        entry["reason"] = reason
    return {"user": answer.user, "time": answer.time, "people": people}
