"""The upper bound on a synthetic world: its own probabilities."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from graphrec.data import FriendGraph, Query
from graphrec.data.checks import check_graph
from graphrec.datasets.world import ACCEPT, ACTIONS, HOUR_SECONDS, PRESENCE_HOURS, REQUEST, START_TIME, World
from graphrec.models.recommender import Recommender
from graphrec.temporal import TimedAdjacency, Timeline, dense, ragged


class Oracle(Recommender):
    """Scores users by the log of the true probability that they are the target of the query's event.

    The user, time and action of the event are given. The world draws its target from the state at the start
    of the hour that contains the time; other events of that hour do not matter, and the oracle does not read
    them. The state comes from the log, hidden attributes of users (community, openness, ...) from the
    `World`.

    Args:
        world: the synthetic world that made the graph to fit on.
    """

    name = "oracle"

    def __init__(self, world: World) -> None:
        if not isinstance(world, World):
            raise TypeError(f"world must be a World, got a {type(world).__name__}")
        self.world = world

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Index the log; there is nothing to learn.

        Raises:
            ValueError: there is no event before `until`, or the graph is not one of this world.
        """
        check_graph(graph)
        if (graph.num_users, graph.actions) != (self.world.num_users, ACTIONS):
            raise ValueError(
                f"{self.name}: a graph of {graph.num_users} users and actions {graph.actions} is none of a "
                f"world of {self.world.num_users} users and actions {ACTIONS}"
            )
        self._check_past(graph, until)
        timeline = Timeline.of(graph)
        self._graph, self._timeline = graph, timeline
        events, tick = timeline.events, timeline.event_tick.long()
        self._contacts = _by_owner(timeline, *_both_ways(events.src, events.dst, tick))
        accepts, requests = events.action == ACCEPT, events.action == REQUEST
        one, other, when = events.src[accepts], events.dst[accepts], tick[accepts]
        self._friends = _Pairs(timeline, *_both_ways(one, other, when))
        one, other, when = events.src[requests], events.dst[requests], tick[requests]
        self._asked = _Pairs(timeline, *_both_ways(one, other, when))
        self._requests = _Pairs(timeline, other, one, when)
        return self

    def _score_in_order(self, query: Query) -> Tensor:
        """Log-probabilities of targets, [B, N] float64; about -708 for impossible ones."""
        chance = self.probabilities(query)
        return chance.clamp_(min=torch.finfo(chance.dtype).tiny).log_()

    def probabilities(self, query: Query) -> Tensor:
        """Probabilities of targets, [B, N] float64: a row sums to 1, or to 0 if no such event is possible."""
        self._check(query)
        chance = torch.zeros(len(query), self.graph.num_users, dtype=torch.float64)
        accepts = query.action == ACCEPT
        for rows, chances in ((accepts, self._accept_weights), (~accepts, self._target_weights)):
            if rows.any():
                chance[rows] = chances(query[rows])
        total = chance.sum(1, keepdim=True)
        return chance.div_(torch.where(total > 0, total, 1.0))

    def _target_weights(self, query: Query) -> Tensor:
        """Unnormalized target probabilities, by the world's mixture of mechanisms, of all acts but accepting.

        [B, N] float64; 0 for users who cannot be the target.
        """
        world, timeline, num_users = self.world, self._timeline, self.graph.num_users
        user, now = query.user, world.hour_of(query.time)
        begins = START_TIME + HOUR_SECONDS * now
        tick = timeline.tick(begins)
        weight = world.mechanism_weights[query.action]  # [B, 8], in the order of TARGET_MECHANISMS
        recency, friends, two_hops, popularity, presence, community, cell, anyone = weight.t()
        chance = torch.zeros(len(query), num_users, dtype=torch.float64)

        def add(row: Tensor, person: Tensor, amount: Tensor) -> None:
            chance.view(-1).index_add_(0, row * num_users + person, amount)

        end, memory = self._contacts.end(user, tick), world.recency_weights
        row, back = ragged(torch.zeros_like(end), (end - self._contacts.start[user]).clamp(max=len(memory)))
        add(row, self._contacts.other[end[row] - 1 - back].long(), (recency[row] * memory[back]))

        row, friend = self._friends.before(user, tick)
        share = 1 / torch.bincount(row, minlength=len(query)).double()
        add(row, friend, (friends * share)[row])
        hop, friend = self._friends.before(friend, tick[row])
        size = torch.bincount(hop, minlength=len(row)).double()
        add(row[hop], friend, (two_hops * share)[row[hop]] / size[hop])

        people = torch.arange(num_users)
        moment, which = tick.unique(return_inverse=True)
        received = dense.num_received(timeline, moment)[which]
        acts = timeline.num_acts(people, moment[:, None])[which].double()
        moment, which = timeline.tick(begins - PRESENCE_HOURS * HOUR_SECONDS).unique(return_inverse=True)
        acts -= timeline.num_acts(people, moment[:, None])[which]
        for way, count in ((popularity, received), (presence, acts)):
            chance += count * (way / count.sum(1).clamp(min=1))[:, None]

        joined = world.join_time < begins[:, None]
        for way, group in (
            (community, world.community),
            (cell, world.cell),
            (anyone, torch.zeros(num_users)),
        ):
            inside = joined & (group == group[user][:, None])
            chance += inside * (way / inside.sum(1).clamp(min=1))[:, None]

        chance[torch.arange(len(query)), user] = 0.0
        row, person = self._asked.before(user, tick)
        asks = query.action[row] == REQUEST
        chance[row[asks], person[asks]] = 0.0
        return chance

    def _accept_weights(self, query: Query) -> Tensor:
        """Unnormalized target probabilities of accepting: those of open requests to be accepted in this hour.

        [B, N] float64; 0 for users without an open request to the query's user.
        """
        world, timeline = self.world, self._timeline
        now = world.hour_of(query.time)
        tick = timeline.tick(START_TIME + HOUR_SECONDS * now)
        row, asker = self._requests.before(query.user, tick)
        user = query.user[row]
        is_open = self._friends.since(user, asker) >= tick[row]
        row, asker, user = row[is_open], asker[is_open], user[is_open]
        asked = world.hour_of(timeline.instants[self._requests.since(user, asker)])
        ever = world.request_reply_probability(
            asker, user, self._num_common(asker, user, timeline.tick(START_TIME + HOUR_SECONDS * asked))
        )
        late = now[row] - asked
        before = world.reply_delay_cdf(late - 1)
        chance = torch.zeros(len(query), self.graph.num_users, dtype=torch.float64)
        chance[row, asker] = ever * (world.reply_delay_cdf(late) - before) / (1 - ever * before)
        return chance

    def _num_common(self, one: Tensor, other: Tensor, tick: Tensor) -> Tensor:
        """Number of common friends of pairs [M] before ticks [M]: [M] int64."""
        row, friend = self._friends.before(one, tick)
        both = self._friends.since(friend, other[row]) < tick[row]
        return torch.bincount(row[both], minlength=len(one))


class _Pairs:
    """Ordered pairs of users, each with the tick of its first occurrence.

    Args:
        timeline: gives the numbers of users and of ticks.
        owner, other, tick: [M] int64; pairs may repeat.
    """

    def __init__(self, timeline: Timeline, owner: Tensor, other: Tensor, tick: Tensor) -> None:
        self._num_users, self._never = timeline.num_users, timeline.instants.numel()
        order = tick.argsort(stable=True)
        key, first = np.unique((owner * self._num_users + other)[order].numpy(), return_index=True)
        self._key, self._tick = torch.from_numpy(key), tick[order][first]
        owner, other = self._key // self._num_users, self._key % self._num_users
        self.before = _by_owner(timeline, owner, other, self._tick).before

    def since(self, owner: Tensor, other: Tensor) -> Tensor:
        """The first tick of each pair [M], or the number of ticks for other pairs: [M] int64."""
        key = owner * self._num_users + other
        place = torch.searchsorted(self._key, key).clamp(max=max(len(self._key) - 1, 0))
        if not len(self._key):
            return torch.full_like(key, self._never)
        return torch.where(self._key[place] == key, self._tick[place], self._never)


def _both_ways(src: Tensor, dst: Tensor, tick: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.cat([src, dst]), torch.cat([dst, src]), tick.repeat(2)


def _by_owner(timeline: Timeline, owner: Tensor, other: Tensor, tick: Tensor) -> TimedAdjacency:
    """Edges [M] sorted by (owner, tick, other), with an index by owner."""
    order = torch.from_numpy(np.lexsort((other.numpy(), tick.numpy(), owner.numpy())))
    return TimedAdjacency.of_sorted(owner[order], tick[order], other[order], num_users=timeline.num_users)
