"""Simulation of a synthetic world: all acts of an hour at once, from the state at its start."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import torch

from graphrec.data import DataError, EventLog, FriendGraph, UserIds
from graphrec.datasets.growing_collections import ArrivingGroups, GrowingKeySet, GrowingLists, runs
from graphrec.datasets.world import (
    ACCEPT,
    ACTIONS,
    HOUR_SECONDS,
    NUM_RECENT_CONTACTS,
    NUM_REGIONS,
    PRESENCE_HOURS,
    REQUEST,
    START_TIME,
    World,
)

MAX_TARGET_DRAWS = 8
"""Draws of a target before an act is given up."""

MAX_OVERSAMPLING = 10.0
"""Acts drawn for each event that is needed, at most, beyond those of users asleep."""

BURST_FRACTION, BURST_HOURS = 0.4, 2
"""Fraction of acts by users of the events of the latest hours, and the number of these hours."""

MIN_REQUEST_FRACTION, EXTRA_REQUEST_FRACTION = 0.05, 0.4
"""Fraction of requests among the acts of a user with many friends, and the surplus of one without any."""

OTHER_ACTIONS = {"message": 0.55, "like": 0.30, "comment": 0.15}
"""Fractions of the other actions among the acts that are not requests."""


class Simulation:
    """The state of a world at the start of an hour, and the step to the next.

    Args:
        world: the users.
        num_events: the number of events to simulate.
        num_days: the span in days that they should take.
        generator: fixes all draws.

    Attributes:
        src, dst, time, action: [num_events] the log, in order of time.
        num_logged: rows of the log that are filled.
        hour: the next hour to simulate, counted from `START_TIME`.
    """

    def __init__(self, world: World, *, num_events: int, num_days: int, generator: torch.Generator) -> None:
        self.world, self._generator = world, generator
        self.hour = self.num_logged = 0
        self.src, self.dst = (np.empty(num_events, dtype=np.int32) for _ in range(2))
        self.time, self.action = np.empty(num_events, dtype=np.int64), np.empty(num_events, dtype=np.int8)
        self._logged_before = [0]  # each hour
        self._reply_probabilities: list[np.ndarray] = []

        # The users who have joined.
        hours, num_users = np.arange(24 * num_days), world.num_users
        self._arrivals = world.join_time.argsort(stable=True).numpy()
        joined = world.join_time.numpy()[self._arrivals]
        self._num_arrived = np.searchsorted(joined, START_TIME + HOUR_SECONDS * hours)
        self._num_joined = 0
        one_group = torch.zeros_like(world.community)
        self._community, self._cell, self._everyone = (
            ArrivingGroups(group.numpy(), self._arrivals)
            for group in (world.community, world.cell, one_group)
        )

        # Total activity of all users and of those awake; acts drawn so far, and the events that they gave.
        activity = world.activity.numpy()[self._arrivals]
        self._activity = np.cumsum(activity)
        self._rhythm, self._region = world.hourly_activity.numpy(), world.region.numpy()
        self._mass = self._activity[self._num_arrived - 1]
        self._awake = np.zeros(len(hours))
        for region in range(NUM_REGIONS):
            there = np.where(self._region[self._arrivals] == region, activity, 0.0)
            awake = self._rhythm[(hours + region) % len(self._rhythm)]
            self._awake += np.cumsum(there)[self._num_arrived - 1] * awake
        self._ahead = np.cumsum(self._awake[::-1])[::-1]
        self._tried = self._done = 1.0

        # Friends, requests and latest contacts.
        self._friends = GrowingLists(num_users)
        self._friend_pairs, self._requested = GrowingKeySet(), GrowingKeySet()
        self._recent = np.empty((num_users, NUM_RECENT_CONTACTS), dtype=np.int32)
        self._num_contacts = np.zeros(num_users, dtype=np.int64)
        self._due: defaultdict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)

        # Cumulative probabilities of targets and actions.
        self._recency = np.cumsum(world.recency_weights.numpy())
        choice = np.cumsum(world.mechanism_weights.numpy(), axis=1)
        self._mechanisms = choice / np.maximum(choice[:, -1:], 1e-300)
        self._others = np.array([ACTIONS.index(name) for name in OTHER_ACTIONS])
        self._shares = np.cumsum(list(OTHER_ACTIONS.values()))

    def run(self) -> None:
        """Simulate hours until the log is full.

        Raises:
            DataError: the users run out of possible events.
        """
        while self.num_logged < len(self.src):
            if self.hour > 2 * len(self._mass):
                raise DataError(
                    f"{self.num_logged} of {len(self.src)} events took {self.hour // 24} days, twice the "
                    f"span: too little is left to do for {self.world.num_users} users"
                )
            self.arrive()
            self.simulate_hour()

    def graph(self) -> FriendGraph:
        """Return the graph of the events so far, with all users, also those who have yet to join."""
        size = self.num_logged
        columns = (self.src, self.dst, self.time, self.action)
        src, dst, time, action = (torch.from_numpy(log[:size].astype(np.int64)) for log in columns)
        ids = UserIds(torch.arange(self.world.num_users))
        log = EventLog(src=src, dst=dst, time=time, action=action, actions=ACTIONS, user_ids=ids)
        return FriendGraph.from_events(log, self.world.users())

    def truth(self) -> World:
        """Return the world with the reply probabilities of all requests so far."""
        return replace(
            self.world, reply_probability=torch.from_numpy(np.concatenate(self._reply_probabilities))
        )

    def arrive(self) -> None:
        """Add the users who have joined before the next hour."""
        now = int(self._num_arrived[min(self.hour, len(self._num_arrived) - 1)])
        for groups in (self._community, self._cell, self._everyone):
            groups.arrive(self._arrivals[self._num_joined : now])
        self._num_joined = now

    def simulate_hour(self) -> None:
        """Draw all acts and replies of the next hour from the state before it, and update the state."""
        at = min(self.hour, len(self._mass) - 1)
        remaining = len(self.src) - self.num_logged
        size = remaining / self._ahead[at] * self._mass[at] * min(self._tried / self._done, MAX_OVERSAMPLING)
        actor = self.actors(max(1, round(size)))
        action = self.actions(actor)
        target = self.targets(actor, action)
        found = target >= 0
        requester, accepter = self.due_replies()
        src = np.concatenate([actor[found], accepter])
        dst = np.concatenate([target[found], requester])
        action = np.concatenate([action[found], np.full(len(requester), ACCEPT)])
        self._tried += size * self._awake[at] / self._mass[at]
        self._done += len(src)

        time = (
            START_TIME + HOUR_SECONDS * self.hour + (HOUR_SECONDS * self._uniform(len(src))).astype(np.int64)
        )
        order = np.argsort(time, kind="stable")
        self._log(src[order], dst[order], time[order], action[order])
        self.hour += 1
        self._logged_before.append(self.num_logged)

    def actors(self, size: int) -> np.ndarray:
        """Draw users in proportion to activity, and users of recent events; leave out those asleep: [M]."""
        wanted = np.sort(self._uniform(size)) * self._activity[self._num_joined - 1]  # in order: found sooner
        actor = self._arrivals[np.searchsorted(self._activity[: self._num_joined - 1], wanted, side="right")]
        since = self._logged_before[max(0, self.hour - BURST_HOURS)]
        if "bursts" not in self.world.without and since < self.num_logged:
            burst = self._uniform(size) < BURST_FRACTION
            event = since + self._below(int(burst.sum()), self.num_logged - since)
            actor[burst] = np.where(self._uniform(len(event)) < 0.5, self.src[event], self.dst[event])
        awake = self._rhythm[(self.hour + self._region[actor]) % len(self._rhythm)]
        return np.asarray(actor[self._uniform(size) < awake])

    def actions(self, actor: np.ndarray) -> np.ndarray:
        """Draw the action of each actor [M]; the fewer friends, the likelier a request: [M]."""
        asks = MIN_REQUEST_FRACTION + EXTRA_REQUEST_FRACTION / (1 + self._friends.size[actor])
        other = self._others[np.searchsorted(self._shares[:-1], self._uniform(len(actor)), side="right")]
        return np.where(self._uniform(len(actor)) < asks, REQUEST, other)

    def targets(self, actor: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Draw the target of each act: [M], -1 where `MAX_TARGET_DRAWS` draws give no suitable user.

        Each draw takes a mechanism (`TARGET_MECHANISMS`) by the action, then a user by the mechanism. It
        fails where the mechanism has no user, where the user is the actor, and where there has been a request
        between both. Draws are alike, so given that one succeeds, the target follows the mixture over
        suitable users.
        """
        target = np.full(len(actor), -1)
        open_ = np.arange(len(actor))
        for _ in range(MAX_TARGET_DRAWS):
            user, act = actor[open_], action[open_]
            mechanism = (self._uniform(len(user))[:, None] >= self._mechanisms[act, :-1]).sum(1)
            person = self._draw_by(mechanism, user)
            fits = (person >= 0) & (person != user)
            asks = np.flatnonzero(fits & (act == REQUEST))
            fits[asks] = ~self._requested.contain(self._pair(user[asks], person[asks]))
            target[open_[fits]] = person[fits]
            open_ = open_[~fits]
            if not len(open_):
                break
        return target

    def _draw_by(self, mechanism: np.ndarray, actor: np.ndarray) -> np.ndarray:
        """Draw a user for each actor [M] by a mechanism [M], an index into `TARGET_MECHANISMS`: [M] or -1."""
        mechanisms = (
            self._recent_contact,
            self._friend,
            self._friend_of_friend,
            self._popular_user,
            self._present_user,
            lambda user: self._community.pick(user, self._uniform(len(user))),
            lambda user: self._cell.pick(user, self._uniform(len(user))),
            lambda user: self._everyone.pick(user, self._uniform(len(user))),
        )
        person = np.full(len(actor), -1)
        for code, draw in enumerate(mechanisms):
            here = np.flatnonzero(mechanism == code)
            if len(here):
                person[here] = draw(actor[here])
        return person

    def _recent_contact(self, actor: np.ndarray) -> np.ndarray:
        back = np.searchsorted(self._recency[:-1], self._uniform(len(actor)), side="right")
        last = self._num_contacts[actor]
        return np.where(back < last, self._recent[actor, (last - 1 - back) % NUM_RECENT_CONTACTS], -1)

    def _friend(self, actor: np.ndarray) -> np.ndarray:
        return self._friends.pick(actor, self._uniform(len(actor)))

    def _friend_of_friend(self, actor: np.ndarray) -> np.ndarray:
        between = self._friend(actor)
        return np.where(between >= 0, self._friend(between), -1)

    def _popular_user(self, actor: np.ndarray) -> np.ndarray:
        return self._draw_from_log(self.dst, 0, len(actor))

    def _present_user(self, actor: np.ndarray) -> np.ndarray:
        return self._draw_from_log(
            self.src, self._logged_before[max(0, self.hour - PRESENCE_HOURS)], len(actor)
        )

    def _draw_from_log(self, ends: np.ndarray, since: int, size: int) -> np.ndarray:
        if since == self.num_logged:
            return np.full(size, -1)
        return ends.take(since + self._below(size, self.num_logged - since))

    def due_replies(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the requests that are accepted in the next hour: (requester [M], accepter [M])."""
        empty = np.empty(0, dtype=np.int64)
        due = [(empty, empty), *self._due.pop(self.hour, [])]
        requester, accepter = (np.concatenate(part) for part in zip(*due, strict=True))
        open_ = ~self._friend_pairs.contain(self._pair(requester, accepter))
        return requester[open_], accepter[open_]

    def num_common_friends(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Count the common friends of pairs [M]: [M] int64."""
        row, friend = self._friends.all_of(one)
        both = self._friend_pairs.contain(self._pair(friend, other[row]))
        return np.bincount(row[both], minlength=len(one))

    def _log(self, src: np.ndarray, dst: np.ndarray, time: np.ndarray, action: np.ndarray) -> None:
        kept = slice(self.num_logged, min(self.num_logged + len(src), len(self.src)))
        size = kept.stop - kept.start
        for log, values in ((self.src, src), (self.dst, dst), (self.time, time), (self.action, action)):
            log[kept] = values[:size]

        asks, accepts = action == REQUEST, action == ACCEPT
        self._reply_probabilities.append(
            self._schedule_replies(src[asks], dst[asks])[: int(asks[:size].sum())]
        )
        self._befriend(src[accepts], dst[accepts])
        self._update_recent(np.concatenate([src, dst]), np.concatenate([dst, src]), np.tile(time, 2))
        self.num_logged = kept.stop

    def _schedule_replies(self, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
        """Draw which of M requests are accepted, and when; return their probabilities: [M] float64."""
        common = torch.from_numpy(self.num_common_friends(src, dst))
        chance = self.world.request_reply_probability(
            torch.from_numpy(src), torch.from_numpy(dst), common
        ).numpy()
        first = np.unique(src * self.world.num_users + dst, return_index=True)[1]
        delay = self.world.draw_reply_delays(len(first), self._generator).numpy()
        accepted = self._uniform(len(first)) < chance[first]
        first, when = first[accepted], self.hour + delay[accepted]
        for number in np.unique(when).tolist():
            here = first[when == number]
            self._due[number].append((src[here], dst[here]))
        self._requested.add(self._pair(src, dst))
        return np.asarray(chance)

    def _befriend(self, src: np.ndarray, dst: np.ndarray) -> None:
        """Store new friendships of pairs [M]; a pair that occurs twice is stored once."""
        pair, first = np.unique(self._pair(src, dst), return_index=True)
        one, other = src[first], dst[first]
        self._friend_pairs.add(pair)
        self._friends.extend(np.concatenate([one, other]), np.concatenate([other, one]))

    def _update_recent(self, owner: np.ndarray, other: np.ndarray, time: np.ndarray) -> None:
        """Add contacts to the latest of their owners, in order of time, then of the other's index."""
        order = np.argsort((owner * HOUR_SECONDS + time % HOUR_SECONDS) * self.world.num_users + other)
        owner, other = owner[order], other[order]
        updated, place, count = runs(owner)
        self._recent[owner, (self._num_contacts[owner] + place) % NUM_RECENT_CONTACTS] = other
        self._num_contacts[updated] += count

    def _pair(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        low, high = np.minimum(one, other), np.maximum(one, other)
        return np.asarray(low.astype(np.int64) * self.world.num_users + high)

    def _uniform(self, size: int) -> np.ndarray:
        return np.asarray(torch.rand(size, generator=self._generator, dtype=torch.float64).numpy())

    def _below(self, size: int, limit: int) -> np.ndarray:
        return (self._uniform(size) * limit).astype(np.int64)
