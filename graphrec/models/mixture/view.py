"""The view of a graph that a fitted mixture recommender reads: index, embedding rows, features."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph
from graphrec.data.growing_column import GrowingColumn
from graphrec.features import Profiles
from graphrec.inference import lasting_tensors
from graphrec.temporal import SpectralEmbeddings, Timeline

SPECTRAL_DIM = 32


@dataclass(frozen=True)
class TrainingPeriod:
    """The settings that a fit takes from its training period for all later queries.

    Attributes:
        until: seconds; training used strictly older events.
        snapshot_events: number of events between two snapshots of spectral embeddings and codes.
        half_life: seconds after which an event counts half in recent popularity.
    """

    until: int
    snapshot_events: int
    half_life: float


@dataclass(frozen=True)
class GraphView:
    """A graph, its index, and each user's row in embedding tables. On the CPU.

    Attributes:
        graph: N users.
        timeline: its index.
        period: the training period.
        row: [N] int64, each user's row in embedding tables, from 1 on; 0 for users unknown in training.
        order: [N] int64, all users: the known ones by row, then the others by their profiles, then those who
            came with appended events.
        profiles: users' features; None if the graph has none.
        spectral: spectral embeddings of the contact graph; None if they are not used.
        seed: of all random draws.
    """

    graph: FriendGraph
    timeline: Timeline
    period: TrainingPeriod
    row: Tensor
    order: Tensor
    profiles: Profiles | None
    spectral: SpectralEmbeddings | None
    seed: int
    _columns: tuple[GrowingColumn, GrowingColumn] | None = field(default=None, repr=False)

    @classmethod
    def of(
        cls,
        graph: FriendGraph,
        known: Tensor,
        period: TrainingPeriod,
        *,
        spectral: bool,
        seed: int,
        since: int = 0,
    ) -> Self:
        """Index a graph.

        Args:
            graph: the graph.
            known: [n] int64, the users of rows 1..n.
            period: the training period.
            spectral: whether spectral embeddings are used.
            seed: of the start of the spectral iteration, and of the draws of a head.
            since: seconds; no query is earlier.
        """
        timeline, profiles = Timeline.of(graph), Profiles.of(graph, until=period.until)
        users = users_by_profile(profiles, graph.num_users, until=period.until)
        row = torch.zeros_like(users)
        row[known] = torch.arange(1, known.numel() + 1)
        order = torch.cat([known, users[row[users] == 0]])
        embeddings = None
        if spectral:
            start = torch.randn(graph.num_users, SPECTRAL_DIM, generator=torch.Generator().manual_seed(seed))
            start = torch.empty_like(start).index_copy_(0, order, start)
            tick = int(timeline.tick(torch.tensor(since)))
            embeddings = SpectralEmbeddings(timeline, start, every=period.snapshot_events, since=tick)
        return cls(graph, timeline, period, row, order, profiles, embeddings, seed)

    def follow(self, graph: FriendGraph) -> Self:
        """Return the view of a graph that has grown from this one; the work grows with what is new.

        Where users have features, these are standardized again if users came: features without join times
        are those of all users.
        """
        timeline, profiles = Timeline.of(graph, follows=True), self.profiles
        columns = self._columns or (GrowingColumn(self.row), GrowingColumn(self.order))
        new = torch.arange(len(columns[0].view), graph.num_users)
        columns[0].append(torch.zeros_like(new))
        columns[1].append(new)
        if profiles is not None and (len(new) or profiles.may_change):
            profiles = Profiles.of(graph, until=self.period.until)
        out = replace(
            self,
            graph=graph,
            timeline=timeline,
            row=columns[0].view,
            order=columns[1].view,
            profiles=profiles,
            spectral=None if self.spectral is None else self.spectral.follow(timeline),
            _columns=columns,
        )
        out.__dict__["num_known"] = self.num_known
        return out

    @cached_property
    def num_known(self) -> int:
        """Number of users with an embedding row of their own."""
        return int((self.row > 0).sum())

    @property
    def known(self) -> Tensor:
        """The users of rows 1..n: [n] int64."""
        return self.order[: self.num_known]

    @property
    def raw_ids(self) -> Tensor:
        """The raw ids of the users of rows 1..n, as the graph holds them."""
        ids: Tensor = self.graph[USER].raw_id[self.known]
        return ids

    @property
    def profile_columns(self) -> int:
        """Number of columns of `Profiles.x`, F + 1; 0 without profiles."""
        return 0 if self.profiles is None else self.profiles.x.size(1)

    @cached_property
    @lasting_tensors()
    def target_share(self) -> Tensor:
        """Each user's share of the targets of all training events: [N] float64."""
        tick = self.timeline.tick(torch.tensor(self.period.until))
        target = self.timeline.events.dst[: int(self.timeline.end_of_log(tick))]
        target = target[target >= 0]
        return torch.bincount(target, minlength=self.graph.num_users).double() / len(target)

    def rows_at(self, user: Tensor, tick: Tensor) -> Tensor:
        """Embedding rows of users before ticks (int64, same shape); 0 until a user's first event."""
        return torch.where(self.timeline.first_tick[user] < tick, self.row[user], 0)

    def just_before(self, tick: Tensor) -> int:
        """The earliest time, in seconds, at which all events before a tick [] int64 are known."""
        return int(self.timeline.instants[tick - 1]) + 1 if int(tick) else 0


def users_by_profile(profiles: Profiles | None, num_users: int, *, until: int) -> Tensor:
    """All users sorted by a hash of their profiles, or by index without profiles: [N] int64."""
    if profiles is None:
        return torch.arange(num_users)
    return profiles.key(until).argsort(stable=True)
