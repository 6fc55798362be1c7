"""The softmax over all users, estimated from the candidates of a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphrec.features import Candidates


def sampled_log_softmax(goal: Tensor, others: Tensor, log_q: Tensor, excluded: Tensor) -> Tensor:
    """Estimate each target's log-probability in the softmax over all users from sampled negatives.

    Each negative is weighted 1 / q, where q is its probability of being drawn, so that the estimated
    partition function is unbiased (Horvitz & Thompson 1952; with popular users drawn more often, the logQ
    correction of Yi et al. 2019, https://doi.org/10.1145/3298689.3346996). The target is weighted 1.

    Args:
        goal: [B] logits of the targets.
        others: [B, C] logits of the candidates.
        log_q: [C] log-probabilities of being drawn.
        excluded: [B, C] bool, candidates that are not negatives: the query's user, the target, users not
            drawn, users outside the event's slice.

    Returns:
        [B]; 0 if no negative is left.
    """
    logits = (others - log_q).masked_fill(excluded, -torch.inf)
    return goal - torch.logaddexp(goal, logits.logsumexp(1))


@dataclass(frozen=True)
class SampledSoftmax:
    """The softmax over users of B targets, estimated from the C candidates of a training step.

    Attributes:
        candidates: the C candidates.
        scores: [B, C] logits.
        place: [B] int64, the targets' columns among the candidates.
        negative_mask: [B, C] bool, candidates that are negatives.
    """

    candidates: Candidates
    scores: Tensor
    place: Tensor
    negative_mask: Tensor

    @classmethod
    def of_all(cls, logits: Tensor, user: Tensor, target: Tensor) -> Self:
        """The exact softmax over all N users but the query's own: every user is a candidate.

        Args:
            logits: [B, N].
            user: [B] int64, the queries' users.
            target: [B] int64.
        """
        users = torch.arange(logits.size(1))
        candidates = Candidates(users, torch.zeros(len(users)), torch.ones(len(users), dtype=torch.bool))
        return cls(candidates, logits, target, (users != user[:, None]) & (users != target[:, None]))

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of terms of `metrics` in the loss: none."""
        return {}

    @property
    def _target_logit(self) -> Tensor:
        return self.scores.gather(1, self.place[:, None].to(self.scores.device)).squeeze(1)

    def log_p(self, rows: Tensor, excluded: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-probabilities of the targets of queries `rows` [n] int64: [n]; see `GlobalLikelihood`."""
        out, device = ~self.negative_mask, self.scores.device
        if excluded is not None:
            out = out | self.candidates.members(excluded, len(out))
        out, log_q, rows = out[rows].to(device), self.candidates.log_q.to(device), rows.to(device)
        return sampled_log_softmax(self._target_logit[rows], self.scores[rows], log_q, out)

    @torch.no_grad()
    def metrics(self) -> dict[str, Tensor]:
        """Accuracy, MRR and mean rank of the targets among the candidates, [] each."""
        others = self.scores.masked_fill(~self.negative_mask.to(self.scores.device), -torch.inf)
        above = (others > self._target_logit[:, None]).sum(1).float()
        return {
            "accuracy": (above == 0).float().mean(),
            "mrr": (1.0 / (1.0 + above)).mean(),
            "mean_rank": 1.0 + above.mean(),
        }
