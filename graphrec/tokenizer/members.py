"""The members of a tokenizer: users with an STU, known by their raw ids."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from graphrec.data import USER, FriendGraph, UserIds
from graphrec.tokenizer.id_positions import append_ids, id_positions
from graphrec.tokenizer.stus import STUs


@dataclass(frozen=True)
class Members:
    """M users with an STU: first those known at the fit, then newcomers in order of arrival.

    Attributes:
        ids: raw ids.
        num_fitted: members known at the fit.
        stus: final STUs; users with equal STUs are ordered by `distance`.
        raw_codes: [M, L] int64, codes before collisions were resolved.
        distance: [M] float32, from a member's vector to that of their STU.
        since: [M] int64 seconds; the STU was assigned from strictly older events.
    """

    ids: UserIds
    num_fitted: int
    stus: STUs
    raw_codes: Tensor
    distance: Tensor
    since: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, kept: Tensor) -> Self:
        """The members of a mask [M] bool."""
        distance = self.distance[kept]
        return replace(
            self,
            ids=UserIds(self.ids.raw[kept]),
            num_fitted=int(kept[: self.num_fitted].sum()),
            stus=STUs(self.stus.codes[kept], self.stus.codebook_size, distance),
            raw_codes=self.raw_codes[kept],
            distance=distance,
            since=self.since[kept],
        )

    def append(self, raw: Tensor, *, codes: Tensor, raw_codes: Tensor, distance: Tensor, time: int) -> Self:
        """The members followed by n newcomers.

        Args:
            raw: [n] or [n, width], raw ids as in `UserIds.raw`.
            codes: [n, L] int64, final STUs.
            raw_codes: [n, L] int64.
            distance: [n] float32.
            time: seconds; these STUs were assigned from strictly older events.
        """
        return replace(
            self,
            ids=append_ids(self.ids, raw),
            stus=self.stus.append(codes, distance),
            raw_codes=torch.cat([self.raw_codes, raw_codes]),
            distance=torch.cat([self.distance, distance]),
            since=torch.cat([self.since, torch.full((len(codes),), time)]),
        )


class MemberIndex:
    """Positions of a graph's users among the members, looked up once for each graph and membership."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, Members, Tensor] | None = None

    def __call__(self, graph: FriendGraph, members: Members) -> Tensor:
        """The position of each user of the graph among the members, [N] int64; -1 for other users."""
        raw = graph[USER].raw_id
        if self._last is None or self._last[0] is not raw or self._last[1] is not members:
            self._last = raw, members, id_positions(graph.user_ids, members.ids)
        return self._last[2]


def floor_to_events(time: Tensor, graph: FriendGraph) -> Tensor:
    """Move each time back to one second after the last event before it (int64 seconds, same shape).

    Times before all events of the graph stay as they are.
    """
    moments = torch.cat([torch.tensor([torch.iinfo(torch.int64).min]), graph.events().time + 1])
    at = torch.searchsorted(moments, time, right=True) - 1
    return torch.where(at > 0, moments[at], time)
