"""Scores of the neighbors of queries by several components, and the mixture that they make with a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.nn.mixture_kernels import fill_gradients, fill_likelihoods, fill_shares


@dataclass(frozen=True)
class CandidateScores:
    """Unnormalized scores of the M neighbors of B queries by S components.

    Attributes:
        row, user: [M] int64, in ascending order.
        scores: [S, M] float32 log-scores, `ABSENT` where a component does not cover a neighbor.
        gate: [B, S + 1] float32 gate logits of the components and, last, of the head over all users.
        contact: [M] bool, whether a neighbor is a contact of the query's user.
        group_vote: [M] logits of each neighbor's vote for their prefix groups; None without votes.
    """

    row: Tensor
    user: Tensor
    scores: Tensor
    gate: Tensor
    contact: Tensor
    group_vote: Tensor | None = None

    def log_likelihood(
        self, query: Tensor, target: Tensor, excluded: tuple[Tensor, Tensor] | None, head_log_p: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of targets under the mixture, and under each component alone; differentiable.

        They are computed on the CPU.

        Args:
            query: [n] int64, distinct queries, below B.
            target: [n] int64, their targets.
            excluded: (row [K] ascending, user [K]) int64, users who are not candidates of a query; None for
                none.
            head_log_p: [n] log-probabilities of the targets among all users, from the head.

        Returns:
            [n], log-likelihoods under the mixture; [n], sums of the log-likelihoods under the head and each
            component that covers the target.
        """
        if excluded is None:
            excluded = query.new_empty(0), query.new_empty(0)
        whole = tuple(part.cpu() for part in (self.row, self.user, query, target, *excluded))
        real = tuple(part.cpu() for part in (self.scores, self.gate, head_log_p))
        out: Tensor = _Likelihood.apply(*whole, *real).to(head_log_p.device)
        return out[0], out[1]

    @torch.no_grad()
    def shares(self) -> tuple[Tensor, Tensor]:
        """Each neighbor's probability by the gated components, [M], and the head's gate weight, [B]."""
        row, scores, gate = self.row.cpu(), self.scores.cpu().contiguous(), self.gate.cpu().contiguous()
        inside, beyond = gate.new_zeros(len(row)), torch.empty_like(gate[:, 0])
        fill_shares(row.numpy(), scores.numpy(), gate.numpy(), inside.numpy(), beyond.numpy())
        return inside.to(self.gate.device), beyond.to(self.gate.device)


class _Likelihood(torch.autograd.Function):
    """`CandidateScores.log_likelihood` and its gradient, both from kernels."""

    @staticmethod
    def forward(
        ctx: Any,
        row: Tensor,
        user: Tensor,
        query: Tensor,
        target: Tensor,
        excluded_row: Tensor,
        excluded_user: Tensor,
        scores: Tensor,
        gate: Tensor,
        head_log_p: Tensor,
    ) -> Tensor:
        """Compute both log-likelihoods: [2, n]."""
        scores, gate, head_log_p = scores.contiguous(), gate.contiguous(), head_log_p.contiguous()
        query = query.contiguous()
        left = torch.ones(len(row), dtype=torch.bool)
        total = torch.empty(len(query), 2, gate.size(1), dtype=torch.float64)
        place, out = torch.empty_like(query), head_log_p.new_empty(2, len(query))
        fill_likelihoods(
            row.contiguous().numpy(),
            user.contiguous().numpy(),
            scores.numpy(),
            gate.numpy(),
            head_log_p.numpy(),
            query.numpy(),
            target.contiguous().numpy(),
            excluded_row.contiguous().numpy(),
            excluded_user.contiguous().numpy(),
            left.numpy(),
            total.numpy(),
            place.numpy(),
            out.numpy(),
        )
        ctx.save_for_backward(row, scores, head_log_p, query, left, total, place, out)
        ctx.gate_shape = gate.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients of scores, gate and the head's log-probabilities."""
        saved = ctx.saved_tensors
        scores, head_log_p = saved[1], saved[2]
        grad_scores, grad_gate = torch.zeros_like(scores), scores.new_zeros(ctx.gate_shape)
        grad_head = torch.empty_like(head_log_p)
        gradients = (grad_scores, grad_gate, grad_head)
        parts = (*saved, grad_out.contiguous(), *gradients)
        fill_gradients(*(part.numpy() for part in parts))
        return (*(None,) * 6, *gradients)
