"""How long does a request for suggestions take while events come in? Is each event visible to the next one?

python -m benchmarks.serving.load [--users 25000] [--model stu] [--requests 200] [--events 500] --out DIR

Open loop: requests are sent at random times at a given rate, whether or not earlier ones were answered, and
a latency counts from the time at which its request was to be sent. Client and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import numpy as np
import torch

from benchmarks.serving.bundles import bundle_of
from benchmarks.serving.server import Connections, copied, server_of, usage
from graphrec.service import Bundle

K, BATCH = 20, 256
WARM_UP_SECONDS, QUIET_SECONDS = 5.0, 1.5


class Load:
    """Requests to a server, at random times.

    Args:
        port: of the server.
        users: raw ids to ask for.
        actions: of the events.
        time: seconds, of the first event.
    """

    def __init__(self, port: int, users: list[str], actions: list[str], time: int) -> None:
        self._connections, self._users, self._actions, self._time = Connections(port), users, actions, time
        self._draw = random.Random(0)
        self.seconds: dict[str, list[float]] = {"suggestions": [], "events": []}
        self.statuses: Counter[tuple[str, int]] = Counter()

    async def run(self, requests: float, events: float, together: int, seconds: float) -> None:
        """Send suggestions and events, at rates of so many a second, events so many together."""
        lanes = [self._lane("suggestions", requests, seconds, 0)]
        if events:
            lanes.append(self._lane("events", events / together, seconds, together))
        await asyncio.gather(*lanes)

    async def _lane(self, name: str, rate: float, seconds: float, together: int) -> None:
        tasks, due, began = [], time.perf_counter(), time.perf_counter()
        while True:
            due += self._draw.expovariate(rate)
            if due - began > seconds:
                break
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            measured = due - began > WARM_UP_SECONDS
            send = self._events(together) if together else self._suggestions()
            tasks.append(asyncio.create_task(self._timed(name, send, due, measured)))
        await asyncio.gather(*tasks)

    async def _timed(self, name: str, send: Awaitable[tuple[int, bytes]], due: float, measured: bool) -> None:
        status, _ = await send
        self.statuses[name, status] += 1
        if measured:
            self.seconds[name].append(time.perf_counter() - due)

    async def _suggestions(self) -> tuple[int, bytes]:
        user = self._draw.choice(self._users)
        return await self._connections.request("GET", f"/v1/users/{user}/suggestions?k={K}")

    async def _events(self, together: int) -> tuple[int, bytes]:
        self._time += 1
        rows = [
            {"src": src, "dst": dst, "action": self._draw.choice(self._actions), "time": self._time}
            for src, dst in (self._draw.sample(self._users, 2) for _ in range(together))
        ]
        return await self._connections.request("POST", "/v1/events", {"events": rows})

    async def batches(self, number: int) -> float:
        """Ask for batches, one after the other; users a second."""
        began = time.perf_counter()
        for _ in range(number):
            body = {"users": self._draw.sample(self._users, BATCH), "k": K}
            status, _ = await self._connections.request("POST", "/v1/suggestions", body)
            self.statuses["batch", status] += 1
        return number * BATCH / (time.perf_counter() - began)

    async def freshness(self, number: int, first: int) -> int:
        """Events of newcomers, each followed by a request that knows the newcomer; those that do not."""
        missed = 0
        for newcomer in range(first, first + number):
            self._time += 1
            row = {"src": newcomer, "dst": self._draw.choice(self._users), "action": self._actions[0]}
            status, _ = await self._connections.request(
                "POST", "/v1/events", {"events": [row | {"time": self._time}]}
            )
            answer, _ = await self._connections.request("GET", f"/v1/users/{newcomer}/suggestions?k=1")
            missed += (status, answer) != (200, 200)
        return missed


def library_rate(bundle: Bundle, users: list[str], number: int) -> float:
    """Users a second of `Bundle.suggest` in batches."""
    draw = random.Random(0)
    bundle.suggest(users[:BATCH], k=K)
    began = time.perf_counter()
    for _ in range(number):
        bundle.suggest(draw.sample(users, BATCH), k=K)
    return number * BATCH / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.load")
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--model", default="stu", metavar="NAME")
    parser.add_argument("--requests", type=float, default=200.0, help="for suggestions, a second")
    parser.add_argument("--events", type=float, default=500.0, help="a second")
    parser.add_argument("--together", type=int, default=10, help="events of one request")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--fresh", type=int, default=1000, help="events that are checked")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = copied(bundle_of(options.users, options.model, options.out), options.out / "served")
    bundle = Bundle.load(folder)
    events = bundle.graph.events()
    recent = torch.cat([events.src[len(events) // 2 :], events.dst[len(events) // 2 :]]).unique()
    users = [str(one) for one in bundle.graph.user_ids.lookup(recent)]
    print(
        f"{bundle.graph.num_users:,} users, {len(events):,} events, {options.model}; {os.cpu_count()} cores"
    )
    alone = library_rate(bundle, users, options.batches) if options.batches else 0.0
    actions, last = [bundle.graph.actions[0]], int(events.time[-1])
    first = 1 + max(int(one) for one in bundle.graph.user_ids.values.to_pylist())
    del bundle
    with server_of(folder) as (process, port, ready):
        load = Load(port, users, actions, last)
        print(f"ready after {ready:.1f} s")
        cpu, _, _ = usage(process)
        began = time.perf_counter()
        asyncio.run(load.run(options.requests, options.events, options.together, options.seconds))
        wall = time.perf_counter() - began
        after, memory, files = usage(process)
        for name, taken in load.seconds.items():
            if taken:
                low, high, top = (1e3 * np.quantile(taken, part) for part in (0.5, 0.99, 1.0))
                rate = len(taken) / (wall - WARM_UP_SECONDS)
                print(f"{name}: {rate:.0f}/s, median {low:.1f} ms, p99 {high:.1f} ms, longest {top:.0f} ms")
        print(f"server: {(after - cpu) / wall:.2f} cores, {memory:,} MiB, {files} files")
        load = Load(port, users, actions, last + 10**6)
        if options.batches:
            time.sleep(QUIET_SECONDS)
            served = asyncio.run(load.batches(options.batches))
            print(f"batches of {BATCH}: {served:.0f} users/s; the library {alone:.0f}: {served / alone:.2f}")
        load = Load(port, users, actions, last + 2 * 10**6)
        missed = asyncio.run(load.freshness(options.fresh, first))
        print(f"events visible to the next request: {options.fresh - missed} of {options.fresh}")
        print("other statuses:", {key: n for key, n in load.statuses.items() if key[1] != 200} or "none")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
