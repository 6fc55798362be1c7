"""Do hostile requests make a server fail, hang or tell what it must not?

python -m benchmarks.serving.hostile [--requests 2000] [--users 2000] --out DIR

Requests with wrong methods, paths, ids, types and sizes, broken HTTP, and clients that send slowly or go
away; meanwhile an ordinary client asks for suggestions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.serving.bundles import bundle_of
from benchmarks.serving.server import Connections, copied, server_of, usage
from graphrec.service import Bundle
from graphrec.tokenizer import TokenizerQualityWarning

TOGETHER = 32
PATIENCE_SECONDS = 30.0

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "")
PATHS = (
    *(
        "/",
        "//",
        "/v1",
        "/v1/",
        "/v1/users",
        "/v1/users//suggestions",
        "/v1/users/1/suggestions/",
        "/v1/../v1",
    ),
    *("/v1/users/%00/suggestions", "/v1/users/%ff/suggestions", "/v1/users/%/suggestions", "/metrics/../v1"),
    *("/v1/users/1/suggestions?k=-1", "/v1/users/1/suggestions?k=1e9", "/v1/users/1/suggestions?k=", "*"),
    *(
        "/v1/users/1/suggestions?k=99999999999999999999",
        "/v1/users/1/suggestions?time=99999999999999999999999",
    ),
    *("/v1/users/1/suggestions?horizon=9999999999w", "/v1/users/1/suggestions?outcome[]=tie", "/etc/passwd"),
    *(
        "/v1/users/1/suggestions?action=%00",
        "/v1/users/1/suggestions?k=1&k=2",
        "/v1/users/1/suggestions?explain=9",
    ),
    *("/v1/users/1/explanations/1", "/v1/users/1/explanations/%22", "/v1/blocks/1/1", "/v1/opt-outs/NaN"),
    *("/v1/users/1/suggestions?time=-9007199254740991", "/openapi.json/", "/healthz?x=1", "/v1/reload/"),
    *("/v1/users/" + "9" * 5000 + "/suggestions", "/" + "a" * 70_000, "http://elsewhere/v1/status"),
)
BODIES = (
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"NaN",
        b'"text"',
        b"[" * 100_000,
        b'{"events":' + b"9" * 10_000 + b"}",
    ),
    *(
        b'{"events": [{"src": 1, "dst": 2, "action": "x", "time": 1e400}]}',
        b'{"users": [1, null, {}], "k": 3}',
    ),
    *(
        b'{"users": ["' + b"x" * 300 + b'"]}',
        b'{"users": [1], "k": true}',
        b'{"users": [[[]]]}',
        b" " * 2_000_000,
    ),
    *(b'{"users": [' + b"1," * 5000 + b"1]}", b'{"feedback": [{"user": 1, "person": 2, "kind": ["shown"]}]}'),
    *(b'{"events": [{"src": 1.5, "dst": -0, "action": "", "time": "now"}]}', b'{"events": {"0": {}}}'),
    *(b'{"events": [{"src": "\\ud800", "dst": 2, "action": "\\u0000", "time": 5}]}', b'{"a": 1, "a": 2}'),
)
KINDS = ("application/json", "text/plain", "multipart/form-data", "application/json; charset=utf-16", "")
POSTS = ("/v1/events", "/v1/feedback", "/v1/suggestions", "/v1/reload", "/v1/status")


def hostile(draw: random.Random) -> bytes:
    """A request that should not be answered with what it asks for."""
    kind = draw.randrange(6)
    if kind == 0:
        return f"{draw.choice(METHODS)} {draw.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    if kind == 1:
        return bytes(draw.randrange(256) for _ in range(draw.randrange(1, 400)))
    body, path = draw.choice(BODIES), draw.choice(POSTS)
    length = str(len(body))
    if kind == 2:
        length = draw.choice(("-1", "9" * 30, "1_0", "0x10", "", "10, 20", str(len(body) + 7), "5000000000"))
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}"]
    lines += [f"Content-Type: {draw.choice(KINDS)}"] if draw.random() < 0.9 else []
    if kind == 3:
        lines += [draw.choice(("Transfer-Encoding: chunked", "Expect: 100-continue", "Upgrade: websocket"))]
        lines += [f"X-{number}: {'y' * 100}" for number in range(draw.choice((0, 1, 900)))]
        lines += ["Idempotency-Key: " + draw.choice(("", "k" * 300, "ä"))]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def send(port: int, request: bytes, *, slowly: bool, leave: bool) -> tuple[int, float, bytes]:
    """Send a request, and return the status (0 for a closed connection), seconds, and what came back."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if slowly:
            for place in range(0, min(len(request), 60), 6):
                writer.write(request[place : place + 6])
                await writer.drain()
                await asyncio.sleep(0.05)
            request = request[60:]
        writer.write(request)
        await writer.drain()
        if leave:
            return 0, 0.0, b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await reader.read(65_536)
    except (ConnectionError, asyncio.IncompleteReadError):
        answer = b""
    finally:
        writer.close()
    return (int(answer[9:12]) if answer[:5] == b"HTTP/" else 0), time.perf_counter() - began, answer


async def attack(port: int, number: int) -> tuple[Counter[int], list[float], list[bytes]]:
    """Send hostile requests: statuses, seconds, and answers that are not in the shape of errors."""
    draw, statuses, seconds, odd = random.Random(0), Counter[int](), [], []
    lanes = asyncio.Semaphore(TOGETHER)

    async def one() -> None:
        async with lanes:
            request = hostile(draw)
            leave = draw.random() < 0.05
            status, taken, answer = await send(port, request, slowly=draw.random() < 0.1, leave=leave)
        statuses[status] += 1
        seconds.append(taken)
        body = answer.partition(b"\r\n\r\n")[2]
        if status >= 400 and body and not _is_error(body):
            odd.append(answer[:300])

    await asyncio.gather(*(one() for _ in range(number)))
    return statuses, seconds, odd


def _is_error(body: bytes) -> bool:
    try:
        return set(json.loads(body)) == {"error"}
    except ValueError:
        return False


async def ordinary(port: int, users: list[str], ended: asyncio.Event) -> list[float]:
    """Ask for suggestions until the attack has ended: seconds of each request."""
    connections, draw, seconds = Connections(port), random.Random(0), []
    while not ended.is_set():
        began = time.perf_counter()
        status, _ = await connections.request("GET", f"/v1/users/{draw.choice(users)}/suggestions")
        seconds.append(time.perf_counter() - began if status == 200 else np.inf)
        await asyncio.sleep(0.02)
    return seconds


async def both(
    port: int, users: list[str], number: int
) -> tuple[Counter[int], list[float], list[bytes], list[float]]:
    """Attack, while an ordinary client asks."""
    ended = asyncio.Event()
    asking = asyncio.create_task(ordinary(port, users, ended))
    statuses, seconds, odd = await attack(port, number)
    ended.set()
    return statuses, seconds, odd, await asking


def main() -> None:
    """Attack and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.hostile")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--model", default="adamic_adar", metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    folder = copied(bundle_of(options.users, options.model, options.out), options.out / "attacked")
    users = [str(one) for one in Bundle.load(folder).graph.user_ids.values.to_pylist()]
    with server_of(folder) as (process, port, _):
        _, memory, files = usage(process)
        statuses, seconds, odd, asked = asyncio.run(both(port, users, options.requests))
        time.sleep(1)
        _, memory_after, files_after = usage(process)
        alive = process.poll() is None
    print("statuses (0: closed without an answer):", dict(sorted(statuses.items())))
    print(f"errors of the server: {sum(n for status, n in statuses.items() if status == 500)}")
    print(f"longest answer: {max(seconds):.1f} s; answers not in the shape of errors: {len(odd)}")
    for one in odd[:3]:
        print("   ", one)
    print(f"ordinary requests meanwhile: {len(asked)}, p99 {1e3 * np.quantile(asked, 0.99):.0f} ms")
    print(f"alive: {alive}; memory {memory:,} -> {memory_after:,} MiB; files {files} -> {files_after}")


if __name__ == "__main__":
    main()
