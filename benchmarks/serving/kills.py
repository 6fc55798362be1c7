"""Is anything that a server has acknowledged lost, or there twice, when it is killed under load?

python -m benchmarks.serving.kills [--kills 10] [--users 2000] [--model adamic_adar] --out DIR

Lanes send events with keys, opt-outs and users to forget; every two seconds the writes are saved in the
bundle, and it is reloaded if users were forgotten. The server is killed with SIGKILL at a random moment, and
started again. What was not acknowledged is sent again with the same key, as is every tenth request that was.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.serving.bundles import bundle_of
from benchmarks.serving.server import Connections, copied, server_of
from graphrec.service import Bundle, RuleStore
from graphrec.serving import ServedBundle
from graphrec.tokenizer import TokenizerQualityWarning

LANES = 8
FIRST, PER_LANE = 10_000_000, 1_000_000


class Writer:
    """What was sent to a server that is killed now and then, and what it acknowledged.

    Args:
        users: raw ids of the bundle.
        actions: of its events.
        time: seconds, of the first event.
    """

    def __init__(self, users: list[str], actions: list[str], time: int) -> None:
        self._users, self._actions, self._time = users, actions, time
        self._draw = random.Random(0)
        self.events: set[int] = set()
        self.opt_outs: set[int] = set()
        self.forgotten: set[str] = set()
        self.again = 0
        self.unexpected: Counter[int] = Counter()
        self._next = [FIRST + lane * PER_LANE for lane in range(LANES)]
        self._left = users[len(users) // 2 :]

    async def write(self, port: int, seconds: float, kill: Callable[[], None]) -> None:
        """Write until the server is killed."""
        tasks = [asyncio.create_task(self._lane(lane, port)) for lane in range(LANES)]
        tasks.append(asyncio.create_task(self._forget(port)))
        await asyncio.sleep(seconds)
        kill()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _lane(self, lane: int, port: int) -> None:
        connections = Connections(port)
        while True:
            newcomer = self._next[lane]
            draw = random.Random(newcomer)  # the same request again, as its key has to be
            row: dict[str, object] = {"src": draw.choice(self._users[: len(self._users) // 2])}
            row |= {"dst": newcomer, "action": draw.choice(self._actions), "time": self._time}
            for _ in range(2 if newcomer % 10 == 0 else 1):
                status, _ = await connections.request("POST", "/v1/events", {"events": [row]}, str(newcomer))
                self.unexpected[status] += status != 200
            self.events.add(newcomer)
            if newcomer % 5 == 0:
                status, _ = await connections.request("PUT", f"/v1/opt-outs/{newcomer}")
                self.unexpected[status] += status != 204
                self.opt_outs.add(newcomer)
            self._next[lane] += 1

    async def _forget(self, port: int) -> None:
        connections = Connections(port)
        while self._left:
            await asyncio.sleep(self._draw.uniform(0.3, 3.0))
            status, _ = await connections.request("DELETE", f"/v1/users/{self._left[-1]}")
            self.unexpected[status] += status != 204
            self.forgotten.add(self._left.pop())


def main() -> None:
    """Kill, restart, check and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.kills")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--model", default="adamic_adar", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=8.0, help="until a kill, at most")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    warnings.simplefilter("ignore", TokenizerQualityWarning)
    folder = copied(bundle_of(options.users, options.model, options.out), options.out / "killed")
    bundle = Bundle.load(folder)
    users = [str(one) for one in bundle.graph.user_ids.values.to_pylist()]
    before, last = bundle.graph.num_events, int(bundle.graph.events().time[-1])
    writer, draw, starts = Writer(users, list(bundle.graph.actions), last + 1), random.Random(1), []
    for _ in range(options.kills):
        with server_of(folder, "--save-every", "2s") as (process, port, ready):
            starts.append(ready)
            kill = partial(process.send_signal, signal.SIGKILL)
            asyncio.run(writer.write(port, draw.uniform(0.1, options.seconds), kill))
    with ServedBundle(folder) as served:
        graph = served.engine.live.bundle.graph
        events, ids = graph.events(), graph.user_ids
        there = Counter(int(one) for one in ids.lookup(events.dst) if int(one) >= FIRST)
        known = {str(one) for one in ids.values.to_pylist()}
    opted_out = RuleStore(folder).current().opted_out
    print(f"{options.kills} kills; ready again after {max(starts):.1f} s at most")
    print(f"events: {len(writer.events):,} acknowledged, {len(writer.events - set(there)):,} lost")
    print(f"events there more than once: {sum(count > 1 for count in there.values()):,} of {len(there):,}")
    lost = {str(one) for one in writer.opt_outs} - opted_out
    print(f"opt-outs: {len(writer.opt_outs):,} acknowledged, {len(lost):,} lost")
    print(
        f"users forgotten: {len(writer.forgotten):,} acknowledged, "
        f"{len(writer.forgotten & known):,} still there"
    )
    print(f"events of the fit: {before:,}; now {len(events):,}")
    print("other statuses:", dict(+writer.unexpected) or "none")


if __name__ == "__main__":
    main()
