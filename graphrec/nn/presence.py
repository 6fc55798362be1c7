"""A small network that scores every user by recency, events received, degree and spectral cosine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphrec.features import NUM_PRESENCE_FEATURES
from graphrec.nn.cached_values import cached_value
from graphrec.nn.layers import Standardize


class PresenceScore(nn.Module):
    """A logit for each user from `presence_features`: one hidden layer that also standardizes them.

    It is small because it scores all users for every query. Its output starts at zero.

    Args:
        hidden_channels: H, width of the hidden ReLU layer.

    Shapes:
        forward: [NUM_PRESENCE_FEATURES, b, C] -> [b, C].
    """

    def __init__(self, hidden_channels: int = 16) -> None:
        super().__init__()
        self.standardize = Standardize(NUM_PRESENCE_FEATURES)
        self.hidden = nn.Linear(NUM_PRESENCE_FEATURES, hidden_channels)
        self.score = nn.Linear(hidden_channels, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [b, C] of C users for b queries."""
        flat = features.flatten(1)  # [F, b C]
        weight, bias = self._folded(*self.standardize.learn(flat.T))
        hidden = torch.addmm(bias[:, None], weight, flat).relu_()  # [H, b C]
        return (self.score.weight @ hidden + self.score.bias).view(features.shape[1:])

    def folded(self) -> tuple[Tensor, Tensor]:
        """The hidden layer with the learned standardization folded in: weights [H, F] and bias [H]."""
        mean, deviation = self.standardize.statistics
        sources = self.hidden.weight, self.hidden.bias, mean, deviation
        return cached_value(self, "folded", sources, lambda: self._folded(mean, deviation))

    def _folded(self, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
        weight = self.hidden.weight / deviation
        return weight, self.hidden.bias - weight @ mean
