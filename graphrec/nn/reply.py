"""The network that predicts whether an initiation is replied to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.data.checks import check_counts, check_dropout
from graphrec.nn.layers import Standardize, mlp


class ReplyNet(nn.Module):
    """The logit of a reply: a linear layer plus a small MLP that starts at zero, then a calibration.

    Args:
        num_features: F.
        hidden_channels: of the MLP.
        dropout: on its input and its hidden layers.

    Shapes:
        forward: [M, F] -> [M].
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, num_features: int, *, hidden_channels: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        check_counts(num_features=num_features, hidden_channels=hidden_channels)
        check_dropout(dropout)
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))
        self.standardize = Standardize(num_features)
        self.linear = nn.Linear(num_features, 1)
        first, second, third, fourth, last = mlp(num_features, hidden_channels, 1)
        drop = nn.Dropout(dropout)
        self.correction = nn.Sequential(drop, first, second, drop, third, fourth, drop, last)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """The calibrated logits of M initiations: [M]."""
        x = self.standardize(features)
        out: Tensor = (self.linear(x) + self.correction(x)).squeeze(1)
        return self.scale * out + self.shift
