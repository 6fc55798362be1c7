"""The candidates of a training step: targets and sampled negatives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Candidates of a training step: its targets, and random users as negatives.

    Attributes:
        user: [C] int64, ascending; every target is among them.
        log_q: [C] float32, log-probability of being drawn as a negative; 0 for those not drawn.
        drawn: [C] bool, the candidates drawn as negatives; all of them if targets are in-batch negatives.
    """

    user: Tensor
    log_q: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, target: Tensor, random: Tensor, share: Tensor, *, in_batch: bool) -> Candidates:
        """The candidates of a step.

        Args:
            target: [B] int64, a sample from the distribution `share`.
            random: [R] int64, drawn uniformly among all users.
            share: [N] float64, each user's share of the training targets.
            in_batch: use the targets as negatives for each other.
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
        """Columns of the given candidates: int64, same shape."""
        return torch.searchsorted(self.user, target)

    def members(self, pairs: tuple[Tensor, Tensor], num_rows: int) -> Tensor:
        """Mask of the candidates among the pairs (row [M], user [M]) int64: [num_rows, C] bool."""
        row, user = pairs
        at = self.place(user).clamp(max=len(self.user) - 1)
        found = self.user[at] == user
        out = torch.zeros(num_rows, len(self.user), dtype=torch.bool)
        out[row[found], at[found]] = True
        return out
