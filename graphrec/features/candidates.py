"""The users that the targets of a training step are compared with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Users that the targets of a step are compared with: each other's targets, random users, or both.

    Attributes:
        user: [C] int64, ascending; every target is among them.
        log_q: [C] float32, log-probability of being drawn as a negative; 0 for those not drawn.
        drawn: [C] bool, the users drawn as negatives: all, where targets are negatives of each other.
    """

    user: Tensor
    log_q: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, target: Tensor, random: Tensor, share: Tensor, *, in_batch: bool) -> Candidates:
        """The candidates of a step.

        Args:
            target: [B] int64, distributed as `share`.
            random: [R] int64, drawn uniformly among all users.
            share: [N] float64, each user's share of the targets of training.
            in_batch: whether the targets are negatives of each other.
        """
        user = torch.unique(torch.cat([target, random]))
        expected = torch.full((len(user),), len(random) / len(share), dtype=torch.float64)
        if in_batch:
            expected += len(target) * share[user]
            drawn = torch.ones_like(user, dtype=torch.bool)
        else:
            drawn = torch.isin(user, random)
        log_q = torch.log1p(-torch.exp(-expected)).float()
        return cls(user, torch.where(drawn, log_q, 0.0), drawn)

    def place(self, target: Tensor) -> Tensor:
        """The columns of users that are among the candidates: int64, same shape."""
        return torch.searchsorted(self.user, target)

    def members(self, pairs: tuple[Tensor, Tensor], num_rows: int) -> Tensor:
        """Which candidates are among the pairs (row [M], user [M]) int64 of each row: [num_rows, C] bool."""
        row, user = pairs
        at = self.place(user).clamp(max=len(self.user) - 1)
        found = self.user[at] == user
        out = torch.zeros(num_rows, len(self.user), dtype=torch.bool)
        out[row[found], at[found]] = True
        return out
