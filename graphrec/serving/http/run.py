"""Running the server."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graphrec.data.errors import DataError
from graphrec.serving.http.app import build_app
from graphrec.serving.http.errors import ApiError
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.tokens import Tokens
from graphrec.serving.served_bundle import ServedBundle, ServingConfig

KEEP_ALIVE_SECONDS = 75
"""Seconds for which a connection without requests stays open: longer than balancers keep theirs."""

GRACE_SECONDS = 10
"""Seconds for which requests may go on when the server stops."""

MAX_HEAD_BYTES = 2**16
"""Bytes of the head of a request; a client that sends more of it is dropped."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    tokens: Path | None = None,
    limits: Limits | None = None,
    config: ServingConfig | None = None,
    access_log: bool = False,
) -> None:
    """Serve a bundle until the process is asked to end (SIGTERM, or Ctrl-C).

    Args:
        folder: of the bundle.
        host: address to listen on.
        port: to listen on.
        tokens: file of bearer tokens, see `Tokens.read`; needed for an address that others can reach.
        limits: of requests.
        config: how the bundle is served.
        access_log: log each request, with the ids in it.

    Raises:
        DataError: others can reach the address, and there are no tokens; or as `ServedBundle`.
        OSError: the port is taken.
    """
    known = None if tokens is None else Tokens.read(tokens)
    if known is None and not is_loopback(host):
        raise DataError(
            f"{host}: others can reach this address, and may read and write all: give --tokens FILE, "
            "or listen on 127.0.0.1"
        )
    limits, metrics = limits or Limits(), Metrics()
    logging.basicConfig(level=logging.INFO, format="graphrec: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # not a line for each broken request
    with ServedBundle(folder, config, metrics.on_batch) as served:
        app = build_app(
            served, metrics, limits=limits, tokens=known, hosts=() if known else (*LOOPBACK, host.lower())
        )
        graph = served.engine.live.bundle.graph
        logging.getLogger(__name__).info(
            "%s: %s users, %s events; listening on http://%s:%d",
            folder,
            f"{graph.num_users:,}",
            f"{graph.num_events:,}",
            host,
            port,
        )
        server = server_of(app, host, port, limits, access_log=access_log)
        with suppress(KeyboardInterrupt, SystemExit):  # uvicorn raises the signal again when it has stopped
            server.run()
        if not server.started:
            raise OSError(f"{host}:{port}: cannot listen there; is the port taken?")


def server_of(
    app: ASGIApp, host: str, port: int, limits: Limits, *, access_log: bool = False
) -> uvicorn.Server:
    """The server of an application, to be run."""
    settings = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("Protocol", (PatientProtocol,), {"header_seconds": limits.header_seconds}),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=1024,
    )
    return uvicorn.Server(settings)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class PatientProtocol(HttpToolsProtocol):
    """HTTP, for clients that send the head of a request in time.

    Attributes:
        header_seconds: for the head of a request.
    """

    header_seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Read what has come, of a head no more than it may have."""
        self._head_bytes += len(data)
        super().data_received(data)
        is_unfinished = self._deadline is not None and not self.transport.is_closing()
        if is_unfinished and self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response(f"the head of a request may have {MAX_HEAD_BYTES:,} bytes")

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the shape of all errors."""
        body = ApiError(400, "bad_request", msg).body()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to wait for the head of a request."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Wait no longer: a body has a time of its own."""
        self._stop_waiting()
        super().on_headers_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
