"""The network that says whether a user turns to a person within a window, and whether that becomes a tie."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_DEVIATIONS = 5.0
"""Standardized inputs are clipped to so many deviations: later graphs may be larger than that of the fit."""

NUM_RANKS, UNTRAINED_LOGIT = 4, -5.0
"""Inputs that are ranks; and the logit of a candidate who leads in all of them, before training."""


class WindowNetwork(nn.Module):
    """A multilayer perceptron with one logit for an initiation and one for a tie.

    Until `start` is called, the logits fall with the ranks among the inputs: without anything to learn from,
    candidates who lead in several respects come first.

    Args:
        in_channels: F, of which the last `NUM_RANKS` are logs of ranks.
        hidden_channels: H, width of both hidden layers.
        dropout: probability.

    Shapes:
        forward: [M, F] -> [M, 2].
    """

    mean: Tensor
    deviation: Tensor
    is_started: Tensor

    def __init__(self, in_channels: int, hidden_channels: int = 64, dropout: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_channels))
        self.register_buffer("deviation", torch.ones(in_channels))
        self.register_buffer("is_started", torch.zeros((), dtype=torch.bool))
        self.layers = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, hidden_channels),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.out = nn.Linear(hidden_channels, 2)

    @torch.no_grad()
    def start(self, x: Tensor, weight: Tensor, share: Tensor) -> None:
        """Standardize by training inputs, and begin at the shares of both outcomes.

        Args:
            x: [n, F].
            weight: [n], how many examples each stands for.
            share: [2], above 0 and below 1.
        """
        self.mean.copy_((x * weight[:, None]).sum(0) / weight.sum())
        self.deviation.copy_(x.std(0, correction=0) + 1e-6)
        self.out.weight.mul_(0.1)
        self.out.bias.copy_(torch.logit(share))
        self.is_started.fill_(True)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [M, 2] of initiations and ties."""
        if not self.is_started:
            return (UNTRAINED_LOGIT - x[:, -NUM_RANKS:].sum(1, keepdim=True)).expand(-1, 2)
        scaled = ((x - self.mean) / self.deviation).clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
        out: Tensor = self.out(self.layers(scaled))
        return out


def log_probability(logit: Tensor, length: Tensor) -> Tensor:
    """Turn logits for one window into log-probabilities for another length.

    Outcomes are taken to come at a constant rate: P = 1 - exp(-length x rate).

    Args:
        logit: [M].
        length: [M] or [], in windows, above 0.

    Returns:
        [M] float64.
    """
    return (-torch.expm1(-F.softplus(logit.double()) * length)).clamp(min=1e-300).log()
