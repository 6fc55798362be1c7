"""A server in a thread, and a client that speaks real HTTP to it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode

from graphrec.serving.http.app import build_app
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.run import server_of
from graphrec.serving.served_bundle import ServedBundle


@dataclass(frozen=True)
class Response:
    """What the server answered; header names in lower case."""

    status_code: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """A client of a server on this machine; it checks the shape of each error."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port, self._host = port, host

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: Any = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        connection = HTTPConnection(self._host, self.port, timeout=300)
        try:
            given = dict(headers or {})
            if json is not None:
                content = dumps(json)
                given["Content-Type"] = "application/json"
            connection.request(method, path + (f"?{urlencode(params)}" if params else ""), content, given)
            found = connection.getresponse()
            names = {name.lower(): value for name, value in found.getheaders()}
            response = Response(found.status, names, found.read().decode())
        finally:
            connection.close()
        if response.status_code >= 400 and response.text:
            assert set(response.json()) == {"error"}
            assert set(response.json()["error"]) == {"code", "message"}
        assert response.status_code < 500 or response.status_code in (503, 507), response.text
        return response

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Response:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Response:
        return self.request("PUT", path, **options)

    def delete(self, path: str, **options: Any) -> Response:
        return self.request("DELETE", path, **options)


def dumps(value: Any) -> str:
    return json.dumps(value)


@contextmanager
def running(
    served: ServedBundle, metrics: Metrics, limits: Limits | None = None, **options: Any
) -> Iterator[Client]:
    """Run the server of a bundle in a thread."""
    limits = limits or Limits(rate=1e6)
    server = server_of(build_app(served, metrics, limits=limits, **options), "127.0.0.1", 0, limits)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Client(server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
