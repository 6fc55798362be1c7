"""What the default tokenizer is trained for: ties told from other pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 0.05
"""Of soft codes, as a squared distance between vectors of length 1."""

MATCHED = 0.75
"""How much the pairs of ends of ties count against pairs of anybody, in the homophily of soft codes."""

TINY = 1e-9


class Objective(nn.Module):
    """Ties told from other pairs, by embeddings and by the first codes they would have; see `GNNRQVAE`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.zeros(0, dim))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, z: Tensor, people: Tensor, met: Tensor, view: Tensor) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            z: [2 B, D], the one ends of B pairs, then the others.
            people: [2 B] int64, who they are.
            met: [B] bool, which pairs are ties; the others are random.
            view: [B] int64, the moment at which they are looked at; only ends seen at one are told apart,
                since embeddings that say which moment it is would tell the others apart by that.
        """
        if int(met.sum()) < 2 or bool(met.all()):  # a last batch may have too few of either
            nothing = 0.0 * z.sum()
            return {"loss": nothing, "finding": nothing, "agreeing": nothing}
        one, other = people.view(2, -1)[:, met]
        barred = (one[:, None] == other) | (other[:, None] == other)
        barred |= view[met][:, None] != view[met]
        barred.fill_diagonal_(False)
        finding, agreeing = self._finding(z, met, barred), self._agreeing(z, met, barred, view)
        return {"loss": finding + agreeing, "finding": finding, "agreeing": agreeing}

    def _finding(self, z: Tensor, met: Tensor, barred: Tensor) -> Tensor:
        """How hard it is for the ends of ties to find each other among the ends of the batch's ties."""
        one, other = z.view(2, len(met), -1)[:, met]
        score = (self.log_scale.exp() * one @ other.T).masked_fill(barred, -1e4)
        goal = torch.arange(len(one), device=z.device)
        return (F.cross_entropy(score, goal) + F.cross_entropy(score.T, goal)) / 2

    def _agreeing(self, z: Tensor, met: Tensor, barred: Tensor, view: Tensor) -> Tensor:
        """Minus the log of the homophily of soft codes, and how unevenly these are used."""
        distance = self.codebook.square().sum(1) - 2.0 * z @ self.codebook.T
        one, other = (-distance / TEMPERATURE).softmax(1).view(2, len(met), -1)
        apart = ~barred & ~torch.eye(len(barred), dtype=torch.bool, device=z.device)
        alike = (one[met] * other[met]).sum(1).mean()
        matched = (one[met] @ other[met].T * apart).sum() / apart.sum().clamp(min=1)
        same = view[~met][:, None] == view[~met]
        uniform = (one[~met] @ other[~met].T * same).sum() / same.sum()
        chance = MATCHED * (matched + TINY).log() + (1.0 - MATCHED) * (uniform + TINY).log()
        use = torch.cat([one[~met], other[~met]]).mean(0)
        out: Tensor = chance - (alike + TINY).log() + (use * (len(use) * use + TINY).log()).sum()
        return out
