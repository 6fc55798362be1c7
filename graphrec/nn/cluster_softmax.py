"""The two-level softmax over all users, cluster first, estimated from the candidates of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.features import Candidates

LOG_ZERO = -1e9
MIN_MASS = 1e-30
MAX_LOG_ODDS = 60.0
"""Clamp of a negative's logit minus the target's, so that the target's weight stays positive."""

LOSS_WEIGHTS = {"loss_cluster": 0.1, "imbalance": 1.0}
"""Loss weights of the next cluster's negative log-likelihood, and of uneven cluster sizes."""


@dataclass(frozen=True)
class ClusterSoftmax:
    """P(v) = sum over clusters c of P(c) P(v | c), for B targets among K candidates, with C clusters.

    Attributes:
        candidates: the K candidates.
        scores: [B, K] logits.
        assigned: [B, K] bool, candidates who are in a cluster at the query's time.
        membership: [K, C], shares of the candidates in the clusters.
        total_membership: [C], the sum of all users' soft memberships, estimated.
        log_cluster: [B, C], log-probabilities of the target's cluster.
        log_unassigned: [B], log-probability that the target is in no cluster.
        place: [B] int64, the targets' columns among the candidates.
        negative_mask: [B, K] bool, candidates that are negatives.
    """

    candidates: Candidates
    scores: Tensor
    assigned: Tensor
    membership: Tensor
    total_membership: Tensor
    log_cluster: Tensor
    log_unassigned: Tensor
    place: Tensor
    negative_mask: Tensor

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights with which terms of `metrics` are added to the loss."""
        return LOSS_WEIGHTS

    def log_p(self, rows: Tensor, excluded: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-probabilities of the targets of some queries.

        Args:
            rows: [n] int64, the queries.
            excluded: (row [M], user [M]) int64, users who are not candidates of a query, rows counting all B;
                P(c) does not leave them out.

        Returns:
            [n].
        """
        device, negative = self.scores.device, self.negative_mask
        if excluded is not None:
            negative = negative & ~self.candidates.members(excluded, len(negative)).to(device)
        rows = rows.to(device)
        place, assigned = self.place[rows], self.assigned[rows]
        target = self.scores[rows, place]
        others = self.scores[rows] - self.candidates.log_q.to(device) - target[:, None]
        others = others.clamp(max=MAX_LOG_ODDS).masked_fill(~negative[rows], LOG_ZERO)
        total = others.masked_fill(assigned, LOG_ZERO).logsumexp(1)
        outside = self.log_unassigned[rows] - torch.logaddexp(total, torch.zeros_like(total))
        # In each cluster the target weighs its share, the others theirs, all over the largest weight.
        top = others.detach().amax(1).clamp(min=0.0)
        mass = torch.where(assigned, (others - top[:, None]).exp(), 0.0) @ self.membership  # [n, C]
        share = self.membership[place]
        own = share * (-top).exp()[:, None]
        within = own.clamp(min=MIN_MASS).log() - (own + mass).clamp(min=MIN_MASS).log()
        inside = torch.where(share > 0, self.log_cluster[rows] + within, LOG_ZERO).logsumexp(1)
        return torch.where(assigned.gather(1, place[:, None]).squeeze(1), inside, outside)

    def metrics(self) -> dict[str, Tensor]:
        """Negative log-likelihood and accuracy of the next cluster, and the unevenness of cluster sizes."""
        at = torch.arange(len(self.place), device=self.place.device)
        counts = self.assigned[at, self.place]
        number = counts.sum().clamp(min=1)
        share = self.membership[self.place].detach()
        spread = self.total_membership / self.total_membership.sum().clamp(min=MIN_MASS)
        right = self.log_cluster.argmax(1) == share.argmax(1)
        return {
            "loss_cluster": -((share * self.log_cluster).sum(1) * counts).sum() / number,
            "imbalance": (spread * (spread * len(spread)).clamp(min=MIN_MASS).log()).sum(),
            "accuracy_cluster": (right & counts).sum() / number,
        }
