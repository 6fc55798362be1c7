"""Nearly an upper bound for lists on a synthetic world: what its law expects of the coming days."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from graphrec.data import FriendGraph, Outcome, Query
from graphrec.datasets.simulation import (
    BURST_FRACTION,
    EXTRA_REQUEST_FRACTION,
    MIN_REQUEST_FRACTION,
    OTHER_ACTIONS,
)
from graphrec.datasets.world import (
    ACCEPT,
    ACTIONS,
    HOUR_SECONDS,
    START_TIME,
    TARGET_MECHANISMS,
    World,
)
from graphrec.models.oracle import Oracle
from graphrec.models.recommender import Recommender
from graphrec.temporal import Timeline

WEEK_SECONDS = 7 * 24 * HOUR_SECONDS

REPLY_WINDOWS = 2
"""The reply window in horizons, at most a week: a quarter of the eight windows of a part."""

ROUNDS = 5
"""Iterations of who acts, where acts draw further acts of both sides."""


class WindowOracle(Recommender):
    """Scores users by the log of the probability that an outcome begins within the query's horizon.

    These are the expected numbers of acts of all users in the window, by the world's true activity, rhythm
    and mechanisms, with the network as it is at the query's time; and of what they draw in turn: requests
    that are accepted, and acts on a user who has just been in contact. What later acts of the window change
    besides (new friends of friends, for example) is left out, so that it is close to the best possible lists,
    not exactly them.

    A query without a horizon is answered for one day and a tie.

    Args:
        world: the synthetic world that made the graph to fit on.
    """

    name = "window_oracle"

    def __init__(self, world: World) -> None:
        self._oracle, self._kept = Oracle(world), (torch.empty(0), (0, 0, ""))

    def fit(self, graph: FriendGraph, *, until: int) -> Self:
        """Index the log; there is nothing to learn. Raises what `Oracle.fit` raises."""
        self._oracle.fit(graph, until=until)
        self._graph, self._timeline = graph, Timeline.of(graph)
        return self

    def _score_in_order(self, query: Query) -> Tensor:
        """Log-probabilities, [B, N] float64; about -708 for impossible outcomes."""
        out = torch.empty(len(query), self.graph.num_users, dtype=torch.float64)
        horizon = torch.full_like(query.time, 24 * HOUR_SECONDS) if query.horizon is None else query.horizon
        moments, which = torch.stack([query.time, horizon]).unique(dim=1, return_inverse=True)
        for number, (time, length) in enumerate(moments.T.tolist()):
            rows = (which == number).nonzero().squeeze(1)
            out[rows] = self._log_probability(time, length, query.outcome or "tie")[query.user[rows]]
        return out

    def _log_probability(self, time: int, horizon: int, outcome: Outcome) -> Tensor:
        """The scores of all pairs, [N, N]; those of the last moment are kept."""
        kept, key = self._kept
        if key != (time, horizon, outcome):
            expected = self.expected_outcomes(time, horizon, outcome)
            kept = (-torch.expm1(-expected)).clamp_(min=torch.finfo(expected.dtype).tiny).log_()
            self._kept = kept, (time, horizon, outcome)
        return kept

    def expected_outcomes(self, time: int, horizon: int, outcome: Outcome) -> Tensor:
        """Expected number of outcomes of each user (row) with each other within a horizon, [N, N] float64.

        Only those of two users without earlier contact are meant.

        Args:
            time: seconds; only events before the hour that contains it are read.
            horizon: seconds after it.
            outcome: 'initiation' or 'tie'.
        """
        self._check_fitted()
        world, num_users = self._oracle.world, self.graph.num_users
        friends = self._friends(time)
        asks = MIN_REQUEST_FRACTION + EXTRA_REQUEST_FRACTION / (1 + friends.sum(1))
        share = {name: (1 - asks) * part for name, part in OTHER_ACTIONS.items()}
        share["friend_request"] = asks
        user = torch.arange(num_users)
        target: dict[str, Tensor] = {}
        for name in share:
            action = torch.full_like(user, ACTIONS.index(name))
            target[name] = self._oracle.probabilities(Query(user, torch.full_like(user, time), action))
        anyone = sum((share[name][:, None] * target[name] for name in share), torch.zeros(()).double())
        acts = self._expected_acts(time, horizon, anyone)
        direct, requests = acts[:, None] * anyone, (acts * asks)[:, None] * target["friend_request"]

        recency = TARGET_MECHANISMS.index("recency")
        draws = sum(
            (share[name] * world.mechanism_weights[ACTIONS.index(name), recency] for name in share),
            torch.zeros(()).double(),
        )
        received = direct.sum(0)
        window = min(REPLY_WINDOWS * horizon, WEEK_SECONDS)
        soon = self._return_rate(draws, acts, received, 0.5)
        accepted = world.request_reply_probability(
            user.repeat_interleave(num_users), user.repeat(num_users), (friends @ friends).flatten()
        ).view(num_users, num_users)
        hours = torch.arange(max(1, horizon // HOUR_SECONDS), dtype=torch.float64)
        in_window = float(world.reply_delay_cdf(hours).mean())  # of requests at any hour of the window
        # What the other begins, and the user answers within the window.
        answers = direct.T * soon[:, None] + (requests * accepted * in_window).T
        if outcome == "initiation":
            return direct + answers
        later = self._return_rate(draws, acts, received, window / horizon)
        in_time = float(world.reply_delay_cdf(torch.tensor(window // HOUR_SECONDS)))
        replied = (direct - requests) * later + requests * (1 - (1 - later) * (1 - accepted * in_time))
        return replied + answers

    def _friends(self, time: int) -> Tensor:
        """Who are friends at the start of the hour that contains a time: [N, N] float64, 0 or 1."""
        events, num_users = self._timeline.events, self.graph.num_users
        begins = START_TIME + HOUR_SECONDS * int(self._oracle.world.hour_of(torch.tensor(time)))
        accepts = (events.action == ACCEPT) & (events.time < begins)
        friends = torch.zeros(num_users, num_users, dtype=torch.float64)
        friends[events.src[accepts], events.dst[accepts]] = 1.0
        return torch.maximum(friends, friends.T)

    def _expected_acts(self, time: int, horizon: int, anyone: Tensor) -> Tensor:
        """Expected number of acts of each user within a horizon, [N] float64.

        The pace is that of the hours before (as many, and at least a week), in proportion to the activity of
        the users who have joined and are awake. They act by that activity, and in bursts: in proportion to
        the events that they take part in.
        """
        world, events = self._oracle.world, self._timeline.events
        begun = int(world.hour_of(torch.tensor(time)))
        length = max(1, round(horizon / HOUR_SECONDS))
        past = min(begun, max(length, WEEK_SECONDS // HOUR_SECONDS))
        own, before = self._awake_activity(begun, length), self._awake_activity(begun - past, past)
        since, until = (START_TIME + HOUR_SECONDS * hour for hour in (begun - past, begun))
        seen = (events.time >= since) & (events.time < until) & (events.action != ACCEPT)
        total = float(seen.sum() * own.sum() / before.sum().clamp(min=1e-300))
        own = own / own.sum()
        bursts = 0.0 if "bursts" in world.without else BURST_FRACTION
        acts = own
        for _ in range(ROUNDS):
            acts = (1 - bursts) * own + bursts / 2 * (acts + acts @ anyone)
            acts = acts / acts.sum()
        return acts * total

    def _awake_activity(self, begin: int, num_hours: int) -> Tensor:
        """Each user's activity, added up over the hours when they have joined and are awake: [N] float64."""
        world, hours = self._oracle.world, torch.arange(begin, begin + num_hours)
        rhythm = world.hourly_activity
        awake = rhythm[(hours + world.region[:, None]) % len(rhythm)]
        joined = world.join_time[:, None] < START_TIME + HOUR_SECONDS * hours
        return world.activity * (awake * joined).sum(1)

    def _return_rate(self, draws: Tensor, acts: Tensor, received: Tensor, windows: float) -> Tensor:
        """The probability that a user acts on someone who has just acted on them, [N] float64.

        Args:
            draws: [N], share of the user's acts that go to one of the latest contacts.
            acts: [N], expected number of the user's acts in a window.
            received: [N], expected number of acts on the user in a window.
            windows: how many windows follow.
        """
        events, weight = acts + received, self._oracle.world.recency_weights
        # The contact is the latest one for one event, the second for the next, and so on.
        reached = ((windows * events)[:, None] - torch.arange(len(weight))).clamp(0.0, 1.0) @ weight
        return -torch.expm1(-draws * acts / events.clamp(min=1e-300) * reached)
