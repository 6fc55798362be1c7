"""`graphrec serve` as a process: started, killed under load, stopped, and refused where it is not safe."""

from __future__ import annotations

import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

import pytest
from http_client import Client, running
from serving_cases import NOW, ROWS, rows_of, saved

from graphrec import Bundle
from graphrec.cli.main import main
from graphrec.service import RuleStore
from graphrec.serving.http.limits import Limits
from graphrec.serving.http.metrics import Metrics
from graphrec.serving.http.run import is_loopback
from graphrec.serving.served_bundle import ServedBundle

pytestmark = pytest.mark.filterwarnings("ignore::graphrec.tokenizer.TokenizerQualityWarning")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def process_of(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    port = free_port()
    command = [sys.executable, "-m", "graphrec.cli", "serve", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        client, end = Client(port), time.monotonic() + 240
        try:
            while True:
                try:
                    client.get("/readyz")
                    break
                except OSError:
                    assert process.poll() is None, process.stderr.read() if process.stderr else ""
                    assert time.monotonic() < end
                    time.sleep(0.05)
            yield process, client
        finally:
            process.kill()


def test_kills_under_load_lose_and_double_nothing(tmp_path: Path) -> None:
    folder, draw = saved(tmp_path / "bundle"), random.Random(1)
    acknowledged: set[int] = set()
    for attempt in range(3):
        with process_of(folder) as (process, client):

            def write(lane: int, client: Client = client, first: int = 1000 * (attempt + 1)) -> None:
                for number in range(first + lane, first + 1000, 3):
                    body = {"events": [{"src": 1, "dst": number, "action": "call", "time": NOW + number}]}
                    try:
                        for _ in range(2):  # each is sent again, as after a lost answer
                            answer = client.post(
                                "/v1/events", json=body, headers={"Idempotency-Key": str(number)}
                            )
                            assert answer.status_code == 200
                        assert client.put(f"/v1/opt-outs/{number}").status_code == 204
                    except (OSError, HTTPException, ValueError):
                        return
                    acknowledged.add(number)

            lanes = [threading.Thread(target=write, args=(lane,)) for lane in range(3)]
            for lane in lanes:
                lane.start()
            time.sleep(draw.uniform(0.1, 0.6))
            process.send_signal(signal.SIGKILL)
            for lane in lanes:
                lane.join()
    assert len(acknowledged) > 20
    with ServedBundle(folder) as served:
        found = served.engine.call(lambda live: rows_of(live.bundle)).result(120)[len(ROWS) :]
    counts = Counter(int(row[1]) for row in found)
    assert acknowledged <= set(counts)
    assert set(counts.values()) == {1}
    assert {str(one) for one in acknowledged} <= RuleStore(folder).current().opted_out


def test_it_stops_when_asked_and_leaves_no_ids_in_its_log(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    with process_of(folder) as (process, client):
        body = {"events": [{"src": 4711, "dst": 4712, "action": "call", "time": NOW}]}
        assert client.post("/v1/events", json=body).status_code == 200
        assert client.get("/v1/users/4711/suggestions").status_code == 200
        assert client.get("/v1/users/4713/suggestions").status_code == 404
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0
    assert "12 users, 90 events; listening on http://127.0.0.1:" in errors
    assert re.search("471[123]", errors) is None
    assert len(rows_of(Bundle.load(folder))) == len(ROWS)  # it is in the log
    with process_of(folder, "--access-log") as (process, client):
        assert client.get("/v1/users/4711/suggestions").status_code == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0
    assert "/v1/users/4711/suggestions" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "0.0.0.0: others can reach this address"),
        (["--host", "::"], "::: others can reach this address"),
        (["--port", "0"], "--port must be between 1 and 65535, got 0"),
        (["--rate", "0"], "--rate must be at least 1"),
        (["--rest", "soon"], "--rest must be a number and a unit"),
        (["--tokens", "missing"], "missing: no such file"),
    ],
)
def test_what_is_not_safe_is_refused(
    tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["serve", str(tmp_path / "bundle"), *options])
    assert str(caught.value.code).startswith(f"graphrec: {message}")


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bundle")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "graphrec.cli", "serve", str(folder), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}: cannot listen there" in done.stderr.splitlines()[-1]


def test_loopback_addresses_are_known() -> None:
    assert [is_loopback(one) for one in ("localhost", "127.0.0.1", "127.9.9.9", "::1")] == [True] * 4
    assert [is_loopback(one) for one in ("0.0.0.0", "::", "10.0.0.1", "example.org", "")] == [False] * 5


def test_slow_clients_are_dropped_and_others_are_answered(tmp_path: Path) -> None:
    limits, metrics = Limits(header_seconds=0.4, body_seconds=0.4), Metrics()
    with ServedBundle(saved(tmp_path / "bundle")) as served, running(served, metrics, limits) as client:
        head = (
            b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n"
        )
        slow = []
        for sent in (b"", b"GET /v1/sta", head, head + b"\r\n", head + b"\r\n{"):
            connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
            connection.sendall(sent)
            slow.append(connection)
        assert client.get("/v1/status").status_code == 200
        answers = []
        for connection in slow:
            answers.append(b"".join(iter(lambda one=connection: one.recv(4096), b"")))
            connection.close()
        assert [answer[:12] for answer in answers] == [b"", b"", b"", b"HTTP/1.1 408", b"HTTP/1.1 408"]
        assert b'"too_slow"' in answers[-1]
        late = socket.create_connection(("127.0.0.1", client.port), timeout=10)
        late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.8)  # a connection that rests between requests stays open
        late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: late.recv(4096), b"")).count(b"HTTP/1.1 200") == 2
        late.close()


def test_what_is_not_http_is_answered_in_the_shape_of_errors(tmp_path: Path) -> None:
    with ServedBundle(saved(tmp_path / "bundle")) as served, running(served, Metrics()) as client:
        connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
        connection.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
        connection.close()
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'{"error": {"code": "bad_request"' in answer


def test_a_head_without_end_is_dropped(tmp_path: Path) -> None:
    with ServedBundle(saved(tmp_path / "bundle")) as served, running(served, Metrics()) as client:
        connection = socket.create_connection(("127.0.0.1", client.port), timeout=10)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"a" * 50 * 2**20)
        connection.close()
        assert client.get("/healthz", headers={"A": "a" * 2**15}).status_code == 200
