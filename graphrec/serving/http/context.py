"""What the routes share: the served bundle, limits, metrics, and waiting for answers."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Path, Request, Response
from pydantic import BeforeValidator

from graphrec.data import Outcome
from graphrec.evaluate.list_questions import parse_length
from graphrec.serving.http.errors import ApiError
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.schemas import ErrorOut, read_id
from graphrec.serving.questions import Asked
from graphrec.serving.served_bundle import ServedBundle

T = TypeVar("T")


def _read_encoded(value: Any) -> str:
    try:
        return read_id(unquote_to_bytes(str(value)).decode())
    except UnicodeDecodeError:
        raise ValueError("an id is UTF-8") from None


PathId = Annotated[
    str, Path(description="raw id, percent-encoded", examples=["578"]), BeforeValidator(_read_encoded)
]
"""An id in a path."""

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorOut, "description": "The request cannot be answered; the error names the reason."},
    "5XX": {"model": ErrorOut, "description": "The server cannot answer now; send the request again."},
}


@dataclass(frozen=True)
class Context:
    """What the routes share.

    Attributes:
        served: the bundle.
        limits: of requests.
        metrics: of the server.
    """

    served: ServedBundle
    limits: Limits
    metrics: Metrics

    async def wait(self, future: Future[T]) -> T:
        """The result of a future. Raises TimeoutError if it takes too long."""
        async with asyncio.timeout(self.limits.answer_seconds):
            return await asyncio.wrap_future(future)

    def asked(
        self,
        *,
        k: int,
        time: int | None,
        action: str | None,
        horizon: str | None,
        outcome: Outcome | None,
        now: bool,
    ) -> Asked:
        """What is asked for, within the limits."""
        if k > self.limits.max_k:
            raise ApiError(422, "invalid", f"k: at most {self.limits.max_k}")
        seconds = None if horizon is None else parse_length(horizon, "horizon")
        return Asked(k, time, action, seconds, outcome, now)


async def context(request: Request) -> Context:
    """The context of a request."""
    found: Context = request.app.state.context
    return found


def json_response(content: Any, status: int = 200) -> Response:
    """A response of plain values."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")
