"""The true probabilities of a synthetic world, shared by the simulation and by the oracle.

Time is cut into hours. The events of an hour depend only on those of earlier hours.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from graphrec.data import UserTable

START_TIME = 1_704_067_200
"""Seconds: Monday, 1 January 2024, 00:00 UTC, when every world begins."""

HOUR_SECONDS = 3600
DAY_SECONDS = 86_400

ACTIONS = ("comment", "friend_accept", "friend_request", "like", "message")
ACCEPT, REQUEST = ACTIONS.index("friend_accept"), ACTIONS.index("friend_request")

MECHANISMS = (
    "communities",
    "triadic_closure",
    "preferential_attachment",
    "presence",
    "homophily",
    "recency",
    "daily_rhythm",
    "weekly_rhythm",
    "bursts",
    "arrivals",
    "delays",
    "two_sided_replies",
)
"""Mechanisms that can be switched off."""

TARGET_MECHANISMS = (
    "recency",
    "friends",
    "triadic_closure",
    "preferential_attachment",
    "presence",
    "communities",
    "homophily",
    "anyone",
)
"""Mechanisms that draw the target of an act. `friends` and `anyone` cannot be switched off.

In this order: one of the latest contacts; a friend; a friend's friend; any user in proportion to all events
received, or to the acts of the last 24 hours; a user of the same community, or of the same region and age
band; any user.
"""

MECHANISM_PROBABILITIES: Mapping[str, Mapping[str, float]] = {
    "friend_request": {
        "recency": 0.08,
        "triadic_closure": 0.42,
        "preferential_attachment": 0.08,
        "presence": 0.10,
        "communities": 0.20,
        "homophily": 0.07,
        "anyone": 0.05,
    },
    "message": {"recency": 0.75, "friends": 0.25},
    "like": {
        "recency": 0.40,
        "friends": 0.30,
        "triadic_closure": 0.12,
        "preferential_attachment": 0.10,
        "presence": 0.08,
    },
    "comment": {"recency": 0.50, "friends": 0.35, "triadic_closure": 0.10, "presence": 0.05},
}
"""For each action the probabilities of its target mechanisms."""

PRESENCE_HOURS = 24
"""Hours for which `presence` counts an act."""

NUM_RECENT_CONTACTS = 12
"""Latest contacts that `recency` draws from."""

RECENCY_DECAY = 0.7
"""The weight of a contact over that of the next later one, for `recency`."""

NUM_REGIONS, NUM_AGE_BANDS = 8, 6
MEAN_COMMUNITY_SIZE = 100

EARLY_FRACTION = 0.4
"""Fraction of users with a join time before the start; the others arrive uniformly over the span."""

MEDIAN_DELAY_HOURS, DELAY_LOG_SCALE = 8.0, 1.5
"""The log-normal delay of a reply to a request: its median, and the deviation of its logarithm."""

REPLY_BIAS, COMMUNITY_WEIGHT, CELL_WEIGHT, COMMON_FRIENDS_WEIGHT = -0.6, 0.8, 0.5, 0.7
"""The logit of a reply to a request: its constant, and the weights of a common community, a common cell and
ln(1 + common friends)."""

UNIFORM_REPLY_RATE = 0.5
"""The probability of a reply to any request, where `two_sided_replies` is switched off."""


@dataclass(frozen=True)
class World:
    """The hidden state behind a synthetic graph and its true probabilities, which no model sees.

    Attributes:
        without: mechanisms that are switched off, of `MECHANISMS`.
        join_time: [N] int64 seconds; a user takes part in the hours that begin after it.
        community: [N] int64.
        region: [N] int64, 0..7; region r has the time zone UTC + r hours.
        age: [N] int64 years.
        activity: [N] float64, heavy-tailed weight of the user among all acting users.
        openness: [N] float64, logit of accepting requests.
        charm: [N] float64, logit of having requests accepted.
        reply_probability: [R] float64, for each `friend_request` of the log, in the order of that edge type,
            the probability that it is ever accepted, by a `friend_accept` in the log or after its end.
    """

    without: tuple[str, ...]
    join_time: Tensor
    community: Tensor
    region: Tensor
    age: Tensor
    activity: Tensor
    openness: Tensor
    charm: Tensor
    reply_probability: Tensor

    @classmethod
    def draw(
        cls, num_users: int, *, num_days: int, without: Collection[str], generator: torch.Generator
    ) -> Self:
        """Draw the users of a new world, without events.

        Args:
            num_users: N.
            num_days: the span over which users arrive.
            without: mechanisms to switch off, of `MECHANISMS`.
            generator: fixes the draw.

        Raises:
            ValueError: a mechanism is unknown.
        """
        unknown = sorted(set(without) - set(MECHANISMS))
        if unknown:
            raise ValueError(f"unknown mechanism {unknown[0]!r}; the mechanisms are {', '.join(MECHANISMS)}")

        def uniform(size: int = num_users) -> Tensor:
            return torch.rand(size, generator=generator, dtype=torch.float64)

        def normal(size: int = num_users) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        order = torch.randperm(num_users, generator=generator)
        early = torch.zeros(num_users, dtype=torch.bool)
        early[order[: max(2, round(EARLY_FRACTION * num_users))]] = True
        when = uniform()
        before = START_TIME - 1 - (when * 90 * DAY_SECONDS).long()
        after = START_TIME + (when * num_days * DAY_SECONDS).long()
        join_time = torch.where(early | torch.tensor("arrivals" in without), before, after)

        num_communities = max(2, num_users // MEAN_COMMUNITY_SIZE)
        size = (uniform(num_communities) * 0.99 + 0.01).pow(-0.5)  # Pareto, cut at ten times the smallest
        community = torch.searchsorted(size.cumsum(0) / size.sum(), uniform()).clamp(max=num_communities - 1)
        home = (uniform(num_communities) * NUM_REGIONS).long()
        generation = uniform(num_communities) * 30 + 20
        away = (uniform() * NUM_REGIONS).long()
        region = torch.where(uniform() < 0.7, home[community], away)
        age = (generation[community] + 8 * normal()).long().clamp(16, 75)
        return cls(
            without=tuple(sorted(set(without))),
            join_time=join_time,
            community=community,
            region=region,
            age=age,
            activity=(1.3 * normal()).exp(),
            openness=normal(),
            charm=0.7 * normal(),
            reply_probability=torch.empty(0, dtype=torch.float64),
        )

    @property
    def num_users(self) -> int:
        """The number of users."""
        return self.join_time.numel()

    def users(self) -> UserTable:
        """Return the features that models see: `age`, one column for each region, and the join times."""
        x = torch.cat([self.age[:, None], one_hot(self.region, NUM_REGIONS)], dim=1).float()
        names = ("age", *(f"region={region}" for region in range(NUM_REGIONS)))
        return UserTable(pa.array(range(self.num_users)), x, names, self.join_time)

    @cached_property
    def cell(self) -> Tensor:
        """Region and age band as one number, [N] int64: users of one cell are similar."""
        return self.region * NUM_AGE_BANDS + (self.age // 10 - 1).clamp(0, NUM_AGE_BANDS - 1)

    @property
    def mechanism_weights(self) -> Tensor:
        """Weights of `TARGET_MECHANISMS` for each of `ACTIONS`, [5, 8] float64; 0 for `friend_accept`."""
        rows = (MECHANISM_PROBABILITIES.get(action, {}) for action in ACTIONS)
        kept = [
            [0.0 if name in self.without else row.get(name, 0.0) for name in TARGET_MECHANISMS]
            for row in rows
        ]
        return torch.tensor(kept, dtype=torch.float64)

    @property
    def recency_weights(self) -> Tensor:
        """Probabilities with which `recency` draws the latest contact, the one before, ...: [12] float64."""
        weight = RECENCY_DECAY ** torch.arange(NUM_RECENT_CONTACTS, dtype=torch.float64)
        return weight / weight.sum()

    @property
    def hourly_activity(self) -> Tensor:
        """Activity in each hour of a user's own week, from Monday, relative to its peak: [168] float64."""
        hour = torch.arange(24, dtype=torch.float64)
        day = torch.ones(24).double()
        if "daily_rhythm" not in self.without:
            day = 0.52 + 0.48 * torch.cos((hour - 20) * (2 * torch.pi / 24))
        week = torch.tensor([0.75, 0.75, 0.75, 0.75, 0.85, 1.0, 0.95], dtype=torch.float64)
        if "weekly_rhythm" in self.without:
            week = torch.ones(7, dtype=torch.float64)
        return (week[:, None] * day).flatten()

    def hour_of(self, time: Tensor) -> Tensor:
        """Return the hour that contains each time, counted from `START_TIME` (int64, same shape)."""
        return (time - START_TIME).div(HOUR_SECONDS, rounding_mode="floor")

    def request_reply_probability(self, src: Tensor, dst: Tensor, num_common: Tensor) -> Tensor:
        """Return the probability that friend requests are ever accepted.

        Args:
            src: [M] int64, users who send the requests.
            dst: [M] int64, users who receive them.
            num_common: [M], common friends at the start of the hour of the request.

        Returns:
            [M] float64.
        """
        if "two_sided_replies" in self.without:
            return torch.full((src.numel(),), UNIFORM_REPLY_RATE, dtype=torch.float64)
        logit = REPLY_BIAS + self.openness[dst] + self.charm[src]
        if "communities" not in self.without:
            logit = logit + COMMUNITY_WEIGHT * (self.community[src] == self.community[dst]).double()
        if "homophily" not in self.without:
            logit = logit + CELL_WEIGHT * (self.cell[src] == self.cell[dst]).double()
        if "triadic_closure" not in self.without:
            logit = logit + COMMON_FRIENDS_WEIGHT * num_common.double().log1p()
        return logit.sigmoid()

    def reply_delay_cdf(self, num_hours: Tensor) -> Tensor:
        """Return the probability that a reply, if there is one, comes within so many hours (float64)."""
        late = num_hours.double()
        if "delays" in self.without:
            return (late >= 1).double()
        z = (late.clamp(min=1.0) / MEDIAN_DELAY_HOURS).log() / DELAY_LOG_SCALE
        return torch.where(late >= 1, torch.special.ndtr(z), 0.0)

    def draw_reply_delays(self, size: int, generator: torch.Generator) -> Tensor:
        """Draw delays of replies in hours, at least 1, distributed as in `reply_delay_cdf`: [size] int64."""
        hours = torch.randn(size, generator=generator, dtype=torch.float64)
        if "delays" in self.without:
            return torch.ones(size, dtype=torch.int64)
        return (MEDIAN_DELAY_HOURS * (DELAY_LOG_SCALE * hours).exp()).ceil().clamp(1, 2**31).long()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the world as a dict of tensors and plain values."""
        torch.save(asdict(self) | {"without": list(self.without)}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a world that `save` wrote; nothing in the file is executed (`weights_only=True`)."""
        content: dict[str, Any] = torch.load(path, weights_only=True)
        return cls(**content | {"without": tuple(content["without"])})
