"""Errors as clients see them: one shape, a status, a code, and a sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from graphrec.serving.committer import DiskFullError, KeyReusedError, OverloadedError, RefusedWriteError
from graphrec.serving.questions import NotSuggestedError, UnavailableError

MAX_FAULTS = 10
MAX_TEXT = 300
RETRY_SECONDS = 1

log = logging.getLogger(__name__)


class ApiError(Exception):
    """An error that a client is told of.

    Args:
        status: of HTTP.
        code: one word for programs.
        message: a sentence for people.
        retry: whether the same request may succeed in a moment.
        headers: of the response.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = dict(headers or {}) | ({"Retry-After": str(RETRY_SECONDS)} if retry else {})

    def body(self) -> bytes:
        """The error as JSON."""
        return json.dumps({"error": {"code": self.code, "message": self.message}}).encode()

    def response(self) -> Response:
        """The response."""
        return Response(self.body(), self.status, self.headers, "application/json")


EXPECTED = (
    *(ApiError, HTTPException, RequestValidationError, RefusedWriteError, KeyReusedError),
    *(UnavailableError, NotSuggestedError, TimeoutError, KeyError, ValueError, TypeError),
)


def api_error(error: Exception) -> ApiError:
    """The error that tells of another one no more than the client may know."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, KeyReusedError):
        return ApiError(422, "key_reused", str(error))
    if isinstance(error, DiskFullError):
        return ApiError(507, "disk_full", str(error), retry=True)
    if isinstance(error, OverloadedError):
        return ApiError(503, "overloaded", str(error), retry=True)
    if isinstance(error, RefusedWriteError | UnavailableError | TimeoutError):
        return ApiError(503, "unavailable", str(error) or "there was no answer in time", retry=True)
    if isinstance(error, NotSuggestedError):
        return ApiError(404, "not_suggested", "this person is not suggested to this user")
    if isinstance(error, KeyError):
        return ApiError(404, "unknown", _shortened(str(error.args[0]) if error.args else "unknown"))
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        return ApiError(error.status_code, code, _shortened(str(error.detail)), headers=error.headers)
    if isinstance(error, RequestValidationError):
        return ApiError(422, "invalid", _shortened("; ".join(_faults(error.errors()))))
    if isinstance(error, ValueError | TypeError):
        return ApiError(422, "invalid", _shortened(str(error)))
    log.error("an error that was not expected", exc_info=error)
    return ApiError(500, "internal", "an error that was not expected; the server's log has it")


def add_handlers(app: FastAPI, on_error: Callable[[str], None]) -> None:
    """Let an application answer all errors in their one shape, and report the code of each."""

    async def handle(request: Request, error: Exception) -> Response:
        told = api_error(error)
        on_error(told.code)
        return told.response()

    # Starlette raises what is handled as an Exception once more, and its text, with ids, would be logged.
    for kind in (*EXPECTED, Exception):
        app.add_exception_handler(kind, handle)


def _faults(found: Any) -> list[str]:
    """What is wrong, each with its place, such as `body events 3 time: Field required`."""
    return [
        f"{' '.join(map(str, one['loc']))}: {str(one['msg']).removeprefix('Value error, ')}"
        for one in list(found)[:MAX_FAULTS]
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
