"""The temporal split of an event log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from graphrec.data.checks import check_choice
from graphrec.data.errors import DataError
from graphrec.data.graph import FriendGraph

Part = Literal["val", "test"]


@dataclass(frozen=True)
class TemporalSplit:
    """Training before `t_val`, validation from `t_val` to before `t_test`, test from `t_test` on.

    With m events in order of time, `t_val` is the time of event floor(0.8 m) and `t_test` that of event
    floor(0.9 m), so events of one time are in one part, and so are both directions of a pair at one time.

    Attributes:
        t_val, t_test: first second of validation and of test.
        num_train, num_val, num_test: number of events in each part.
        start, end: time of the first and of the last event.
    """

    t_val: int
    t_test: int
    num_train: int
    num_val: int
    num_test: int
    start: int
    end: int

    @classmethod
    def of(cls, graph: FriendGraph) -> TemporalSplit:
        """Split a graph; raises DataError if a part would be empty."""
        time = graph.events().time
        size = time.numel()
        t_val, t_test = (int(time[int(size * tenths // 10)]) for tenths in (8, 9))
        num_train, before_test = torch.searchsorted(time, torch.tensor([t_val, t_test])).tolist()
        split = cls(
            t_val=t_val,
            t_test=t_test,
            num_train=num_train,
            num_val=before_test - num_train,
            num_test=size - before_test,
            start=int(time[0]),
            end=int(time[-1]),
        )
        if not (split.num_train and split.num_val and split.num_test):
            raise DataError(
                f"{size} events cannot be split by time into training, validation and test: "
                f"{split.num_train}, {split.num_val} and {split.num_test} events fall into them "
                "(events of one time stay together)"
            )
        return split

    def window(self, part: Part) -> tuple[int, int]:
        """Return a part's first second and the second after its last; raises ValueError if unknown."""
        check_choice("part", part, get_args(Part))
        return (self.t_val, self.t_test) if part == "val" else (self.t_test, self.end + 1)

    def event_ids(self, part: Part) -> Tensor:
        """Return log positions of a part's events, [n] int64; raises ValueError for an unknown part."""
        check_choice("part", part, get_args(Part))
        start = self.num_train + (self.num_val if part == "test" else 0)
        return torch.arange(start, start + (self.num_val if part == "val" else self.num_test))
