"""What every request passes before it is read: tokens, rates, sizes, times; and is counted after."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphrec.serving.http.errors import ApiError, api_error
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.tokens import Tokens

OPEN_PATHS = ("/healthz", "/readyz")
READING_POSTS = ("/v1/suggestions",)
MAX_CLIENTS = 10_000
"""Clients whose rates are kept."""

DISCARD_SECONDS, DISCARDED_BODIES = 1.0, 4
"""Limits of what is read of a body that is too large: seconds, and times the size that it may have."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


class Gate:
    """Checks requests before an application gets them, and counts them.

    Paths reach the application as they were sent, so that an id may hold an encoded slash.

    Args:
        app: the application.
        limits: of requests.
        metrics: where requests are counted.
        tokens: None if there are none, which is for a loopback address alone.
        hosts: names of the server that requests may carry, where there are no tokens: a page in a browser
            cannot reach the server by another name.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        tokens: Tokens | None = None,
        hosts: Sequence[str] = (),
    ) -> None:
        self._app, self._limits, self._metrics, self._tokens = app, limits, metrics, tokens
        self._hosts = frozenset(hosts)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # websockets are refused by the server
        began, status = time.perf_counter(), 0
        scope = dict(scope)
        scope["path"] = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._admit(scope)
            body = await self._body(scope, receive)
            await self._app(scope, _replayed(body, receive), counted)
        except Exception as error:
            if status:
                raise
            told = api_error(error)
            self._metrics.refusals.labels(told.code).inc()
            await told.response()(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = time.perf_counter() - began
            self._metrics.request_seconds.labels(route, method, str(status)).observe(seconds)

    def _admit(self, scope: Scope) -> None:
        """Raise ApiError unless the request may be made."""
        headers, path = Headers(scope=scope), scope["path"]
        client = (scope.get("client") or ("",))[0]
        if self._tokens is not None and path not in OPEN_PATHS:
            kind, _, token = headers.get("authorization", "").partition(" ")
            right = self._tokens.right_of(token.strip()) if kind.lower() == "bearer" else None
            if right is None:
                raise ApiError(
                    401, "unauthorized", "give a valid bearer token", headers={"WWW-Authenticate": "Bearer"}
                )
            reads = scope["method"] in ("GET", "HEAD") or path in READING_POSTS
            if right != "write" and not reads:
                raise ApiError(403, "forbidden", "this token allows to read, not to write")
            client = token
        elif self._hosts and _host(headers.get("host", "")) not in self._hosts:
            raise ApiError(421, "wrong_host", "this server has no tokens and answers to its own name alone")
        if path not in OPEN_PATHS:
            self._take_one(client)

    def _take_one(self, client: str) -> None:
        now, rate = time.monotonic(), self._limits.rate
        left, last = self._buckets.pop(client, (2 * rate, now))
        left = min(2 * rate, left + (now - last) * rate)
        self._buckets[client] = (max(left - 1, 0.0), now)
        while len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise ApiError(429, "too_many_requests", f"more than {rate:g} requests a second", retry=True)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request. Raises ApiError if it is too large, too slow, or not JSON."""
        headers, limit = Headers(scope=scope), self._limits.max_body_bytes
        too_large = ApiError(
            413, "too_large", f"a body may have {limit:,} bytes", headers={"Connection": "close"}
        )
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length[:20]) > limit:
            if "expect" not in headers:  # a client that asks first sends nothing
                await _discard(receive, limit)
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ApiError(400, "disconnected", "the client has gone")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        await _discard(receive, limit)
                        raise too_large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise ApiError(
                408,
                "too_slow",
                f"the body did not come in {self._limits.body_seconds:g} s",
                headers={"Connection": "close"},
            ) from None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if size and kind != "application/json":
            raise ApiError(415, "unsupported_media_type", "a body is of the content type application/json")
        return b"".join(parts)


async def _discard(receive: Receive, limit: int) -> None:
    """Read a little more of a body that is too large: a client that still sends would not get the answer."""
    left = DISCARDED_BODIES * limit
    try:
        async with asyncio.timeout(DISCARD_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What an application receives when the body has been read."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        message: dict[str, Any] = {"type": "http.request", "body": body, "more_body": False}
        return message

    return replay


def _host(header: str) -> str:
    """The name in a host header, without the port."""
    if header.startswith("["):
        return header.partition("]")[0] + "]"
    return header.partition(":")[0].lower()
