"""Small parts that scorers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Shifts and scales features by the mean and deviation of the first batches seen in training.

    Args:
        num_features: F.
        num_batches: how many batches set the statistics.

    Shapes:
        forward: [..., F] -> [..., F], clamped to +-8.
    """

    seen: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, num_features: int, *, num_batches: int = 20) -> None:
        super().__init__()
        self.num_batches = num_batches
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("square", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardise, taking note of a batch while still learning how."""
        mean, deviation = self.learn(x)
        return ((x - mean) / deviation).clamp(-8.0, 8.0)

    def learn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, [F] each, after taking note of a batch."""
        if self.training and x.numel() and int(self.seen) < self.num_batches:
            flat = x.detach().reshape(-1, x.size(-1))
            self.seen += 1
            self.mean += (flat.mean(0) - self.mean) / self.seen
            self.square += (flat.square().mean(0) - self.square) / self.seen
        return self.mean, (self.square - self.mean.square()).clamp(min=1e-4).sqrt()


def mlp(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    """Two hidden GELU layers; the last layer starts at zero, so that training starts from a flat score."""
    last = nn.Linear(hidden_channels, out_channels)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.GELU(),
        nn.Linear(hidden_channels, hidden_channels),
        nn.GELU(),
        last,
    )


def segment_logsumexp(logits: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Log-sum-exp of ragged rows: logits [M], row [M] int64 -> [num_rows], -inf for a row without any."""
    peak = logits.new_full((num_rows,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    peak = torch.where(peak == -torch.inf, 0.0, peak)
    return logits.new_zeros(num_rows).index_add(0, row, (logits - peak[row]).exp()).log() + peak
