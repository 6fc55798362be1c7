"""How a synthetic world lives: all acts of an hour at once, from the state at its start."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from graphrec.data import DataError, EventLog, FriendGraph, UserIds
from graphrec.datasets.growing import Groups, Keys, Lists, runs
from graphrec.datasets.world import (
    ACCEPT,
    ACTIONS,
    MEMORY,
    NUM_REGIONS,
    REQUEST,
    SLICE,
    START,
    WATCHED,
    World,
)

TRIES = 8
"""How often an act looks for somebody before it is given up."""

MAX_WASTE = 10.0
"""At most so many acts are tried, beyond those slept through, for an event that is wanted."""

ECHO, ECHO_SLICES = 0.4, 2
"""Share of acts done by people of the events of the last two slices: bursts."""

BASE_REQUESTS, EAGERNESS = 0.05, 0.4
"""Share of requests among acts: with many friends, and how much more with none."""

OTHER_ACTIONS = {"message": 0.55, "like": 0.30, "comment": 0.15}


class Simulation:
    """The state of a world at the start of a slice, and how a slice passes.

    Args:
        world: its people.
        num_events: how many events there will be.
        num_days: over how many days.
        generator: fixes everything that happens.

    Attributes:
        src, dst, time, action: [num_events] the log, in order of time; `num_logged` rows are filled.
        slice: the number of the slice that comes next.
    """

    def __init__(self, world: World, *, num_events: int, num_days: int, generator: torch.Generator) -> None:
        self.world, self._generator = world, generator
        self.slice = self.num_logged = 0
        self.src, self.dst = (np.empty(num_events, dtype=np.int32) for _ in range(2))
        self.time, self.action = np.empty(num_events, dtype=np.int64), np.empty(num_events, dtype=np.int8)
        self._logged_before = [0]  # each slice
        self._chances: list[np.ndarray] = []

        # Who is there.
        slices, num_users = np.arange(24 * num_days), world.num_users
        self._arrivals = world.join_time.argsort(stable=True).numpy()
        joined = world.join_time.numpy()[self._arrivals]
        self._num_arrived = np.searchsorted(joined, START + SLICE * slices)
        self._here = 0
        everyone = torch.zeros_like(world.community)
        self._community, self._cell, self._everyone = (
            Groups(group.numpy(), self._arrivals) for group in (world.community, world.cell, everyone)
        )

        # How active all are together, and those awake; how many acts were tried, and events came of them.
        activity = world.activity.numpy()[self._arrivals]
        self._activity = np.cumsum(activity)
        self._rhythm, self._region = world.rhythm.numpy(), world.region.numpy()
        self._mass = self._activity[self._num_arrived - 1]
        self._awake = np.zeros(len(slices))
        for region in range(NUM_REGIONS):
            there = np.where(self._region[self._arrivals] == region, activity, 0.0)
            hours = self._rhythm[(slices + region) % len(self._rhythm)]
            self._awake += np.cumsum(there)[self._num_arrived - 1] * hours
        self._ahead = np.cumsum(self._awake[::-1])[::-1]
        self._tried = self._done = 1.0

        # What has happened to them.
        self._friends, self._befriended, self._asked = Lists(num_users), Keys(), Keys()
        self._recent = np.empty((num_users, MEMORY), dtype=np.int32)
        self._num_contacts = np.zeros(num_users, dtype=np.int64)
        self._due: defaultdict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

        # How they choose, as running totals.
        self._memory = np.cumsum(world.memory.numpy())
        choice = np.cumsum(world.choice.numpy(), axis=1)
        self._choice = choice / np.maximum(choice[:, -1:], 1e-300)
        self._others = np.array([ACTIONS.index(name) for name in OTHER_ACTIONS])
        self._shares = np.cumsum(list(OTHER_ACTIONS.values()))

    def run(self) -> None:
        """Let slices pass until the log is full. Raises DataError where nothing can happen any more."""
        while self.num_logged < len(self.src):
            if self.slice > 2 * len(self._mass):
                raise DataError(
                    f"{self.num_logged} of {len(self.src)} events took {self.slice // 24} days, twice the "
                    f"span: too little is left to do for {self.world.num_users} users"
                )
            self.arrive()
            self.pass_slice()

    def graph(self) -> FriendGraph:
        """The events so far, and everybody who will ever join."""
        size = self.num_logged
        columns = (self.src, self.dst, self.time, self.action)
        src, dst, time, action = (torch.from_numpy(log[:size].astype(np.int64)) for log in columns)
        ids = UserIds(torch.arange(self.world.num_users))
        log = EventLog(src=src, dst=dst, time=time, action=action, actions=ACTIONS, user_ids=ids)
        return FriendGraph.from_events(log, self.world.users())

    def truth(self) -> World:
        """The world, with the answer probabilities of all requests so far."""
        return replace(self.world, answer_probability=torch.from_numpy(np.concatenate(self._chances)))

    def arrive(self) -> None:
        """Let everyone in who has joined before the next slice."""
        now = int(self._num_arrived[min(self.slice, len(self._num_arrived) - 1)])
        for groups in (self._community, self._cell, self._everyone):
            groups.arrive(self._arrivals[self._here : now])
        self._here = now

    def pass_slice(self) -> None:
        """All acts and answers of the next slice, from the state before it; then the state after it."""
        at = min(self.slice, len(self._mass) - 1)
        remaining = len(self.src) - self.num_logged
        size = remaining / self._ahead[at] * self._mass[at] * min(self._tried / self._done, MAX_WASTE)
        actor = self.actors(max(1, round(size)))
        action = self.actions(actor)
        target = self.targets(actor, action)
        found = target >= 0
        asked, answering = self.answers()
        src = np.concatenate([actor[found], answering])
        dst = np.concatenate([target[found], asked])
        action = np.concatenate([action[found], np.full(len(asked), ACCEPT)])
        self._tried += size * self._awake[at] / self._mass[at]
        self._done += len(src)

        time = START + SLICE * self.slice + (SLICE * self._uniform(len(src))).astype(np.int64)
        order = np.argsort(time, kind="stable")
        self._happen(src[order], dst[order], time[order], action[order])
        self.slice += 1
        self._logged_before.append(self.num_logged)

    def actors(self, size: int) -> np.ndarray:
        """Who acts: people in proportion to activity, and people of recent events; unless they sleep."""
        wanted = np.sort(self._uniform(size)) * self._activity[self._here - 1]  # in order: found sooner
        actor = self._arrivals[np.searchsorted(self._activity[: self._here - 1], wanted, side="right")]
        since = self._logged_before[max(0, self.slice - ECHO_SLICES)]
        if "bursts" not in self.world.without and since < self.num_logged:
            echo = self._uniform(size) < ECHO
            event = since + self._below(int(echo.sum()), self.num_logged - since)
            actor[echo] = np.where(self._uniform(len(event)) < 0.5, self.src[event], self.dst[event])
        awake = self._rhythm[(self.slice + self._region[actor]) % len(self._rhythm)]
        return np.asarray(actor[self._uniform(size) < awake])

    def actions(self, actor: np.ndarray) -> np.ndarray:
        """What they do: the fewer friends, the likelier they ask for one."""
        asks = BASE_REQUESTS + EAGERNESS / (1 + self._friends.size[actor])
        other = self._others[np.searchsorted(self._shares[:-1], self._uniform(len(actor)), side="right")]
        return np.where(self._uniform(len(actor)) < asks, REQUEST, other)

    def targets(self, actor: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Whom they turn to, [M] or -1 where nobody suitable came to mind in `TRIES` tries.

        Each try draws a way (`WAYS`) by the action, then a person by the way. It fails where the way knows
        nobody, where the person is the actor, and where a request lies between both already. Tries are alike,
        so given that one succeeds, people are chosen in proportion to the mixture over the suitable.
        """
        target = np.full(len(actor), -1)
        open_ = np.arange(len(actor))
        for _ in range(TRIES):
            who, what = actor[open_], action[open_]
            way = (self._uniform(len(who))[:, None] >= self._choice[what, :-1]).sum(1)
            person = self._think_of(who, way)
            fits = (person >= 0) & (person != who)
            asks = np.flatnonzero(fits & (what == REQUEST))
            fits[asks] = ~self._asked.contain(self._pair(who[asks], person[asks]))
            target[open_[fits]] = person[fits]
            open_ = open_[~fits]
            if not len(open_):
                break
        return target

    def _think_of(self, actor: np.ndarray, way: np.ndarray) -> np.ndarray:
        ways = (
            self._somebody_recent,
            self._friend,
            self._friend_of_friend,
            self._somebody_popular,
            self._somebody_present,
            lambda who: self._community.pick(who, self._uniform(len(who))),
            lambda who: self._cell.pick(who, self._uniform(len(who))),
            lambda who: self._everyone.pick(who, self._uniform(len(who))),
        )
        person = np.full(len(actor), -1)
        for code, think_of in enumerate(ways):
            here = np.flatnonzero(way == code)
            if len(here):
                person[here] = think_of(actor[here])
        return person

    def _somebody_recent(self, actor: np.ndarray) -> np.ndarray:
        back = np.searchsorted(self._memory[:-1], self._uniform(len(actor)), side="right")
        last = self._num_contacts[actor]
        return np.where(back < last, self._recent[actor, (last - 1 - back) % MEMORY], -1)

    def _friend(self, actor: np.ndarray) -> np.ndarray:
        return self._friends.pick(actor, self._uniform(len(actor)))

    def _friend_of_friend(self, actor: np.ndarray) -> np.ndarray:
        between = self._friend(actor)
        return np.where(between >= 0, self._friend(between), -1)

    def _somebody_popular(self, actor: np.ndarray) -> np.ndarray:
        return self._of_log(self.dst, 0, len(actor))

    def _somebody_present(self, actor: np.ndarray) -> np.ndarray:
        return self._of_log(self.src, self._logged_before[max(0, self.slice - WATCHED)], len(actor))

    def _of_log(self, ends: np.ndarray, since: int, size: int) -> np.ndarray:
        if since == self.num_logged:
            return np.full(size, -1)
        return ends.take(since + self._below(size, self.num_logged - since))

    def answers(self) -> tuple[np.ndarray, np.ndarray]:
        """Requests that are answered in the next slice: (who asked [M], who accepts [M])."""
        nobody = np.empty(0, dtype=np.int64)
        due = [(nobody, nobody), *self._due.pop(self.slice, [])]
        asked, answering = (np.concatenate(part) for part in zip(*due, strict=True))
        open_ = ~self._befriended.contain(self._pair(asked, answering))
        return asked[open_], answering[open_]

    def num_common_friends(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """How many friends both have, [M] int64."""
        row, friend = self._friends.all_of(one)
        both = self._befriended.contain(self._pair(friend, other[row]))
        return np.bincount(row[both], minlength=len(one))

    def _happen(self, src: np.ndarray, dst: np.ndarray, time: np.ndarray, action: np.ndarray) -> None:
        kept = slice(self.num_logged, min(self.num_logged + len(src), len(self.src)))
        size = kept.stop - kept.start
        for log, values in ((self.src, src), (self.dst, dst), (self.time, time), (self.action, action)):
            log[kept] = values[:size]

        asks, accepts = action == REQUEST, action == ACCEPT
        self._chances.append(self._ask(src[asks], dst[asks])[: int(asks[:size].sum())])
        self._befriend(src[accepts], dst[accepts])
        self._remember(np.concatenate([src, dst]), np.concatenate([dst, src]), np.tile(time, 2))
        self.num_logged = kept.stop

    def _ask(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """Decide about requests, once for each pair: the probabilities that they are ever accepted, [M]."""
        common = torch.from_numpy(self.num_common_friends(src, dst))
        chance = self.world.answered(torch.from_numpy(src), torch.from_numpy(dst), common).numpy()
        first = np.unique(src * self.world.num_users + dst, return_index=True)[1]
        delay = self.world.delays(len(first), self._generator).numpy()
        answered = self._uniform(len(first)) < chance[first]
        first, when = first[answered], self.slice + delay[answered]
        for number in np.unique(when).tolist():
            here = first[when == number]
            self._due[number].append((src[here], dst[here]))
        self._asked.add(self._pair(src, dst))
        return np.asarray(chance)

    def _befriend(self, src: np.ndarray, dst: np.ndarray) -> None:
        """Make friends of pairs who are none yet; where both accept at once, once."""
        pair, first = np.unique(self._pair(src, dst), return_index=True)
        one, other = src[first], dst[first]
        self._befriended.add(pair)
        self._friends.extend(np.concatenate([one, other]), np.concatenate([other, one]))

    def _remember(self, owner: np.ndarray, other: np.ndarray, time: np.ndarray) -> None:
        """Contacts become the latest of their owners, in order of time, then of the other's number."""
        order = np.argsort((owner * SLICE + time % SLICE) * self.world.num_users + other)
        owner, other = owner[order], other[order]
        who, place, count = runs(owner)
        self._recent[owner, (self._num_contacts[owner] + place) % MEMORY] = other
        self._num_contacts[who] += count

    def _pair(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        low, high = np.minimum(one, other), np.maximum(one, other)
        return np.asarray(low.astype(np.int64) * self.world.num_users + high)

    def _uniform(self, size: int) -> np.ndarray:
        return np.asarray(torch.rand(size, generator=self._generator, dtype=torch.float64).numpy())

    def _below(self, size: int, limit: int) -> np.ndarray:
        return (self._uniform(size) * limit).astype(np.int64)
