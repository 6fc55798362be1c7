"""The two-level softmax over everyone, cluster first, estimated from the candidates of a training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphrec.nn.candidates import Candidates

NOBODY = -1e9
TINY = 1e-30
MOST = 60.0
"""Log-odds of a negative to a target count as at most so much, so that nothing vanishes."""


@dataclass(frozen=True)
class RoutedSoftmax:
    """P(v) = sum over clusters c of P(c) P(v | c), of B targets among K candidates; C clusters.

    Attributes:
        candidates: K of them.
        scores: [B, K] logits.
        placed: [B, K] bool, who is in a cluster at the query's time.
        membership: [K, C], shares.
        spread: [C], the sum of everyone's soft memberships, estimated.
        log_cluster: [B, C]; log_lobby: [B], of whoever is in none.
        place: [B] int64, where the targets are among the candidates.
        never: [B, K] bool, who is no negative.
    """

    candidates: Candidates
    scores: Tensor
    placed: Tensor
    membership: Tensor
    spread: Tensor
    log_cluster: Tensor
    log_lobby: Tensor
    place: Tensor
    never: Tensor

    def log_p(self, rows: Tensor, people: tuple[Tensor, Tensor] | None) -> Tensor:
        """Log-probabilities of the targets of queries `rows` [n], where people (row, user) are no candidates.

        The next cluster is judged as if all were candidates.
        """
        device, barred = self.scores.device, self.never
        if people is not None:
            barred = barred | self.candidates.members(people, len(barred)).to(device)
        rows = rows.to(device)
        place, placed = self.place[rows], self.placed[rows]
        goal = self.scores[rows, place]
        others = self.scores[rows] - self.candidates.log_q.to(device) - goal[:, None]
        others = others.clamp(max=MOST).masked_fill(barred[rows], NOBODY)
        total = others.masked_fill(placed, NOBODY).logsumexp(1)
        lobby = self.log_lobby[rows] - torch.logaddexp(total, torch.zeros_like(total))
        # In each cluster the target weighs its share, the others theirs, all over the largest weight.
        top = others.detach().amax(1).clamp(min=0.0)
        mass = torch.where(placed, (others - top[:, None]).exp(), 0.0) @ self.membership  # [n, C]
        share = self.membership[place]
        goal = share * (-top).exp()[:, None]
        within = goal.clamp(min=TINY).log() - (goal + mass).clamp(min=TINY).log()
        inside = torch.where(share > 0, self.log_cluster[rows] + within, NOBODY).logsumexp(1)
        is_placed = placed.gather(1, place[:, None]).squeeze(1)
        return torch.where(is_placed, inside, lobby)

    def metrics(self) -> dict[str, Tensor]:
        """How likely the next clusters are, how evenly people spread."""
        at = torch.arange(len(self.place), device=self.place.device)
        counts = self.placed[at, self.place]
        number = counts.sum().clamp(min=1)
        share = self.membership[self.place].detach()
        spread = self.spread / self.spread.sum().clamp(min=TINY)
        right = self.log_cluster.argmax(1) == share.argmax(1)
        return {
            "loss_cluster": -((share * self.log_cluster).sum(1) * counts).sum() / number,
            "imbalance": (spread * (spread * len(spread)).clamp(min=TINY).log()).sum(),
            "accuracy_cluster": (right & counts).sum() / number,
        }
