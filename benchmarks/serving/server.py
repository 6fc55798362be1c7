"""A server process on a copy of a bundle, for the benchmarks of serving, and a client for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 300


def copied(bundle: Path, place: Path) -> Path:
    """A copy of a bundle, without what an earlier server left beside it."""
    folder = place / "bundle"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(place / "bundle.serving", ignore_errors=True)
    shutil.copytree(bundle, folder)
    return folder


@contextmanager
def server_of(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    """Run `graphrec serve`: the process, its port, and the seconds until it was ready."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "graphrec.cli", "serve", str(folder), "--port", str(port)]
    command += ["--rate", "1000000", *options]
    began = time.monotonic()
    with subprocess.Popen(command) as process:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                        raise
                    time.sleep(0.02)
            yield process, port, time.monotonic() - began
        finally:
            process.kill()


def usage(process: subprocess.Popen[bytes]) -> tuple[float, int, int]:
    """CPU seconds, resident MiB and open files of a process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") // 2**20, files


class Connections:
    """Connections to a server that are used again.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(
        self, method: str, path: str, body: Any = None, key: str | None = None
    ) -> tuple[int, bytes]:
        """Send a request; the status and the body of the response."""
        pair = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = pair
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\n" if content else ""
        head += f"Idempotency-Key: {key}\r\n" if key is not None else ""
        writer.write(head.encode() + b"\r\n" + content)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        length = next(
            (int(line[15:]) for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length:")),
            0,
        )
        out = await reader.readexactly(length)
        self._free.append(pair)
        return status, out
