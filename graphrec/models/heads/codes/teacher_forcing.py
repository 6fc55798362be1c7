"""The likelihood of targets in training, code by code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphrec.models.heads.codes.prefix_scorer import Prefixes, PrefixScorer


@dataclass(frozen=True)
class TeacherForcing:
    """Log-likelihoods of the STUs of B targets, each code given those before it.

    Attributes:
        total: [B], log-probabilities of the targets.
        terms: loss and accuracy at each level, by name, [] each.
    """

    total: Tensor
    terms: dict[str, Tensor]

    @classmethod
    def of(cls, scorer: PrefixScorer, target: Tensor) -> Self:
        """The likelihoods of targets [B] int64 for the queries of a scorer."""
        forest = scorer.history.forest
        log_has, log_none = scorer.has_stu()
        path = forest.path(scorer.number.clamp(min=0), target)
        has = (path[:, 0] >= 0) & (scorer.number >= 0)
        row = has.nonzero().squeeze(1)
        total = torch.where(has, log_has, log_none)
        terms: dict[str, Tensor] = {}
        if not len(row):
            return cls(total, terms)
        path, right = path[row], torch.ones_like(row, dtype=torch.bool)
        codes, state = forest.code[path], None
        for level in range(forest.num_codebooks):
            prefixes = Prefixes(row, path[:, level], codes[:, 1 : level + 1], state)
            children = scorer.step(prefixes)
            at, log_p = children.at, children.log_p
            start = torch.searchsorted(at, torch.arange(len(row)))
            own = log_p[start + path[:, level + 1] - forest.first_child(path[:, level])]
            best = torch.full_like(own, -torch.inf).scatter_reduce(0, at, log_p.detach(), "amax")
            total = total.index_add(0, row, own)
            terms[f"loss_{level + 1}"] = -own.detach().mean()
            terms[f"accuracy_{level + 1}"] = (own >= best).float().mean()
            right &= own >= best
            state = children.state
        total = total.index_add(0, row, -forest.size[path[:, -1]].float().log())
        return cls(total, terms | {"accuracy": right.float().mean()})

    @property
    def loss_weights(self) -> dict[str, float]:
        """See `GlobalLikelihood`: no term of `metrics` is part of the loss."""
        return {}

    def log_p(self, rows: Tensor, excluded: tuple[Tensor, Tensor] | None) -> Tensor:
        """See `GlobalLikelihood`; `excluded` is ignored, without renormalization over candidates."""
        return self.total[rows]

    def metrics(self) -> dict[str, Tensor]:
        """See `GlobalLikelihood`: loss and accuracy at each level."""
        return self.terms
