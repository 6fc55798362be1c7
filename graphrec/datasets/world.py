"""The law of a synthetic world: what truly drives it, shared by the simulation and by the oracle.

Time is cut into slices of an hour. Whatever happens in a slice depends only on what happened in earlier ones.
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

START = 1_704_067_200
"""Monday, 1 January 2024, 00:00 UTC: the first second of every world."""

SLICE = 3600
DAY = 86_400

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
    "two_sided_answers",
)
"""What can be switched off."""

WAYS = (
    "recency",
    "friends",
    "triadic_closure",
    "preferential_attachment",
    "presence",
    "communities",
    "homophily",
    "anyone",
)
"""How a person comes to mind: one of the last in contact; a friend; a friend's friend; anybody in proportion
to all events received, or to what they did in the last day; somebody of the same community, or of the same
region and age; anybody. `friends` and `anyone` cannot be switched off."""

CHOICE: Mapping[str, Mapping[str, float]] = {
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
"""For each action the probabilities of the ways."""

WATCHED = 24
"""Slices for which an act keeps its author present."""

MEMORY = 12
FADING = 0.7
"""The last 12 contacts are remembered, each 0.7 times as strongly as the one after it."""

NUM_REGIONS, NUM_BANDS = 8, 6
COMMUNITY_SIZE = 100
EARLY = 0.4
"""Share of users who have joined before the start; the others arrive uniformly over the span."""

DELAY_HOURS, DELAY_SPREAD = 8.0, 1.5
"""Median and log-scale of the log-normal delay of an answer."""

ANSWER_BIAS, SAME_COMMUNITY, SAME_CELL, COMMON_FRIENDS = -0.6, 0.8, 0.5, 0.7
ANSWER_RATE = 0.5
"""Of everybody, where answers are not two-sided."""


@dataclass(frozen=True)
class World:
    """The truth behind a synthetic graph: what no model is shown, and what follows from it.

    Attributes:
        without: mechanisms that are switched off, of `MECHANISMS`.
        join_time: [N] int64 seconds; who has joined before a slice begins can be met in it.
        community: [N] int64.
        region: [N] int64, 0..7; its number is also how many hours its clocks are ahead of UTC.
        age: [N] int64 years.
        activity: [N] float64, heavy-tailed.
        openness: [N] float64, how readily a user accepts requests.
        charm: [N] float64, how readily a user's requests are accepted.
        answer_probability: [R] float64, of each `friend_request` of the log, in the order of that edge type:
            the probability that it is ever answered. Whether it is in the log depends on the delay too.
    """

    without: tuple[str, ...]
    join_time: Tensor
    community: Tensor
    region: Tensor
    age: Tensor
    activity: Tensor
    openness: Tensor
    charm: Tensor
    answer_probability: Tensor

    @classmethod
    def draw(
        cls, num_users: int, *, num_days: int, without: Collection[str], generator: torch.Generator
    ) -> Self:
        """People without a history. Raises ValueError where a mechanism is unknown."""
        unknown = sorted(set(without) - set(MECHANISMS))
        if unknown:
            raise ValueError(f"unknown mechanism {unknown[0]!r}; the mechanisms are {', '.join(MECHANISMS)}")

        def uniform(size: int = num_users) -> Tensor:
            return torch.rand(size, generator=generator, dtype=torch.float64)

        def normal(size: int = num_users) -> Tensor:
            return torch.randn(size, generator=generator, dtype=torch.float64)

        order = torch.randperm(num_users, generator=generator)
        early = torch.zeros(num_users, dtype=torch.bool)
        early[order[: max(2, round(EARLY * num_users))]] = True
        when = uniform()
        before = START - 1 - (when * 90 * DAY).long()
        after = START + (when * num_days * DAY).long()
        join_time = torch.where(early | torch.tensor("arrivals" in without), before, after)

        num_communities = max(2, num_users // COMMUNITY_SIZE)
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
            answer_probability=torch.empty(0, dtype=torch.float64),
        )

    @property
    def num_users(self) -> int:
        """How many users there are."""
        return self.join_time.numel()

    def users(self) -> UserTable:
        """What is known of the users: `age`, one column for each region, and when they joined."""
        x = torch.cat([self.age[:, None], one_hot(self.region, NUM_REGIONS)], dim=1).float()
        names = ("age", *(f"region={region}" for region in range(NUM_REGIONS)))
        return UserTable(pa.array(range(self.num_users)), x, names, self.join_time)

    @cached_property
    def cell(self) -> Tensor:
        """Region and age band as one number, [N] int64: who has the same is similar."""
        return self.region * NUM_BANDS + (self.age // 10 - 1).clamp(0, NUM_BANDS - 1)

    @property
    def choice(self) -> Tensor:
        """Weights of `WAYS` for each of `ACTIONS`, [5, 8] float64; none for `friend_accept`."""
        rows = (CHOICE.get(action, {}) for action in ACTIONS)
        kept = [[0.0 if way in self.without else row.get(way, 0.0) for way in WAYS] for row in rows]
        return torch.tensor(kept, dtype=torch.float64)

    @property
    def memory(self) -> Tensor:
        """Probability that recency brings the last contact to mind, the one before it, ...: [12] float64."""
        weight = FADING ** torch.arange(MEMORY, dtype=torch.float64)
        return weight / weight.sum()

    @property
    def rhythm(self) -> Tensor:
        """How active people are in each hour of their own week, from Monday, at most 1: [168] float64."""
        hour = torch.arange(24, dtype=torch.float64)
        day = torch.ones(24).double()
        if "daily_rhythm" not in self.without:
            day = 0.52 + 0.48 * torch.cos((hour - 20) * (2 * torch.pi / 24))
        week = torch.tensor([0.75, 0.75, 0.75, 0.75, 0.85, 1.0, 0.95], dtype=torch.float64)
        if "weekly_rhythm" in self.without:
            week = torch.ones(7, dtype=torch.float64)
        return (week[:, None] * day).flatten()

    def slice_of(self, time: Tensor) -> Tensor:
        """Number of the slice that contains each time, counted from `START`; int64, same shape."""
        return (time - START).div(SLICE, rounding_mode="floor")

    def answered(self, src: Tensor, dst: Tensor, num_common: Tensor) -> Tensor:
        """Probability that requests from `src` to `dst` are ever accepted, [M] float64.

        Args:
            src: [M] int64, who asks.
            dst: [M] int64, who is asked.
            num_common: [M], friends that both have when the slice of the request begins.
        """
        if "two_sided_answers" in self.without:
            return torch.full((src.numel(),), ANSWER_RATE, dtype=torch.float64)
        score = ANSWER_BIAS + self.openness[dst] + self.charm[src]
        if "communities" not in self.without:
            score = score + SAME_COMMUNITY * (self.community[src] == self.community[dst]).double()
        if "homophily" not in self.without:
            score = score + SAME_CELL * (self.cell[src] == self.cell[dst]).double()
        if "triadic_closure" not in self.without:
            score = score + COMMON_FRIENDS * num_common.double().log1p()
        return score.sigmoid()

    def answered_within(self, num_slices: Tensor) -> Tensor:
        """Probability that an answer, if there is one, comes at most so many slices later (float64)."""
        late = num_slices.double()
        if "delays" in self.without:
            return (late >= 1).double()
        z = (late.clamp(min=1.0) / DELAY_HOURS).log() / DELAY_SPREAD
        return torch.where(late >= 1, torch.special.ndtr(z), 0.0)

    def delays(self, size: int, generator: torch.Generator) -> Tensor:
        """How many slices answers take, at least 1: [size] int64, distributed as in `answered_within`."""
        hours = torch.randn(size, generator=generator, dtype=torch.float64)
        if "delays" in self.without:
            return torch.ones(size, dtype=torch.int64)
        return (DELAY_HOURS * (DELAY_SPREAD * hours).exp()).ceil().clamp(1, 2**31).long()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the world as a dict of tensors and plain values."""
        torch.save(asdict(self) | {"without": list(self.without)}, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a world that `save` wrote (`weights_only=True`)."""
        content: dict[str, Any] = torch.load(path, weights_only=True)
        return cls(**content | {"without": tuple(content["without"])})
