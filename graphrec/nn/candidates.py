"""The candidates of a training step, and the softmax over everyone that is estimated from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """Users that the targets of a step are compared with: each other's targets, random users, or both.

    Attributes:
        user: [C] int64, ascending, the targets always among them.
        log_q: [C] float32, log-probability of being drawn; 0 where a user was not, and is a target alone.
        drawn: [C] bool, who was drawn; all, where the step's targets are negatives of each other.
    """

    user: Tensor
    log_q: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, target: Tensor, random: Tensor, share: Tensor, *, in_batch: bool) -> Candidates:
        """Collect a step's candidates.

        Args:
            target: [B] int64, which follow `share`.
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
        """Where users that are among them stand, int64, same shape."""
        return torch.searchsorted(self.user, target)

    def members(self, people: tuple[Tensor, Tensor], num_rows: int) -> Tensor:
        """Which of them are among each row's people, (row [M], user [M]): [num_rows, C] bool."""
        row, user = people
        at = self.place(user).clamp(max=len(self.user) - 1)
        found = self.user[at] == user
        out = torch.zeros(num_rows, len(self.user), dtype=torch.bool)
        out[row[found], at[found]] = True
        return out


def sampled_log_softmax(goal: Tensor, others: Tensor, log_q: Tensor, barred: Tensor) -> Tensor:
    """Log-probability of each row's target in the softmax over everyone, from a sample of the others.

    A negative counts as 1 / q of its kind, q the probability of being drawn, so that the estimated sum over
    everyone is unbiased (Horvitz & Thompson 1952; with popular users drawn more often, the logQ correction of
    Yi et al. 2019, https://doi.org/10.1145/3298689.3346996). The target itself counts once, and surely.

    Args:
        goal: [B] logits of the targets.
        others: [B, C] logits of the candidates.
        log_q: [C].
        barred: [B, C] bool, who is no negative: the user, the target, who was not drawn, who is no candidate.

    Returns:
        [B]; 0 where no negative is left.
    """
    logits = (others - log_q).masked_fill(barred, -torch.inf)
    return goal - torch.logaddexp(goal, logits.logsumexp(1))
