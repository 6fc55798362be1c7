"""The training objective of the default tokenizer: telling ties from other pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CODE_TEMPERATURE = 0.05
"""Temperature of soft codes, as a squared distance between vectors of length 1."""

MATCHED_PAIR_WEIGHT = 0.75
"""Weight of pairs of ends of ties, relative to random pairs, in the homophily of soft codes."""

EPSILON = 1e-9


class TieObjective(nn.Module):
    """The loss of embeddings and of their soft first codes in telling ties from other pairs; see `GNNRQVAE`.

    Args:
        dim: D, of embeddings.

    Shapes:
        codebook: parameter [K, D].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(0, dim))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, z: Tensor, people: Tensor, is_tie: Tensor, snapshot: Tensor) -> dict[str, Tensor]:
        """The loss of a batch of B pairs.

        Args:
            z: [2 B, D], embeddings of the first ends of the pairs, then of the second ends.
            people: [2 B] int64, the users they belong to.
            is_tie: [B] bool; the other pairs are random.
            snapshot: [B] int64, the snapshot each pair is embedded at. Only ends of one snapshot are
                compared, since embeddings that reveal their snapshot would otherwise tell pairs apart.

        Returns:
            scalars: 'loss', the sum of 'retrieval' and 'code_agreement'.
        """
        if int(is_tie.sum()) < 2 or bool(is_tie.all()):  # a last batch may have too few of either
            nothing = 0.0 * z.sum()
            return {"loss": nothing, "retrieval": nothing, "code_agreement": nothing}
        one, other = people.view(2, -1)[:, is_tie]
        negative_mask = (one[:, None] == other) | (other[:, None] == other)
        negative_mask |= snapshot[is_tie][:, None] != snapshot[is_tie]
        negative_mask.fill_diagonal_(False)
        retrieval = self._retrieval_loss(z, is_tie, negative_mask)
        agreement = self._code_agreement_loss(z, is_tie, negative_mask, snapshot)
        return {"loss": retrieval + agreement, "retrieval": retrieval, "code_agreement": agreement}

    def _retrieval_loss(self, z: Tensor, is_tie: Tensor, negative_mask: Tensor) -> Tensor:
        """Cross-entropy of retrieving the other end of each tie among the ends of the batch's ties."""
        one, other = z.view(2, len(is_tie), -1)[:, is_tie]
        score = (self.log_scale.exp() * one @ other.T).masked_fill(negative_mask, -1e4)
        target = torch.arange(len(one), device=z.device)
        return (F.cross_entropy(score, target) + F.cross_entropy(score.T, target)) / 2

    def _code_agreement_loss(
        self, z: Tensor, is_tie: Tensor, negative_mask: Tensor, snapshot: Tensor
    ) -> Tensor:
        """Minus the log of the homophily of soft codes, plus the divergence of their use from uniform."""
        distance = self.codebook.square().sum(1) - 2.0 * z @ self.codebook.T
        one, other = (-distance / CODE_TEMPERATURE).softmax(1).view(2, len(is_tie), -1)
        apart = ~negative_mask & ~torch.eye(len(negative_mask), dtype=torch.bool, device=z.device)
        alike = (one[is_tie] * other[is_tie]).sum(1).mean()
        matched = (one[is_tie] @ other[is_tie].T * apart).sum() / apart.sum().clamp(min=1)
        same = snapshot[~is_tie][:, None] == snapshot[~is_tie]
        uniform = (one[~is_tie] @ other[~is_tie].T * same).sum() / same.sum()
        chance = MATCHED_PAIR_WEIGHT * (matched + EPSILON).log()
        chance = chance + (1.0 - MATCHED_PAIR_WEIGHT) * (uniform + EPSILON).log()
        use = torch.cat([one[~is_tie], other[~is_tie]]).mean(0)
        out: Tensor = chance - (alike + EPSILON).log() + (use * (len(use) * use + EPSILON).log()).sum()
        return out
