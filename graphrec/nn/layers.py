"""Small layers shared by several modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.data.checks import check_choice, check_counts, check_dropout
from graphrec.nn.cached_values import cached_value

Activation = Literal["gelu", "swiglu"]


class Standardize(nn.Module):
    """Standardizes features by the mean and standard deviation of the first batches in training.

    Args:
        num_features: F.
        num_batches: number of batches that the statistics are computed from.

    Shapes:
        forward: [..., F] -> [..., F], clamped to +-8.
    """

    seen: Tensor
    mean: Tensor
    square: Tensor

    def __init__(self, num_features: int, *, num_batches: int = 20) -> None:
        super().__init__()
        check_counts(num_features=num_features, num_batches=num_batches)
        self.num_batches = num_batches
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("square", torch.ones(num_features))

    def forward(self, x: Tensor) -> Tensor:
        """Standardize; in training, the first `num_batches` batches also update the mean and deviation."""
        mean, deviation = self.learn(x)
        return (x - mean).div_(deviation).clamp_(-8.0, 8.0)

    def learn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Update the statistics with a batch; return mean and standard deviation, [F] each."""
        if self.training and x.numel() and int(self.seen) < self.num_batches:
            flat = x.detach().reshape(-1, x.size(-1))
            self.seen = self.seen + 1  # not in place: autograd may still need the old value
            self.mean = self.mean + (flat.mean(0) - self.mean) / self.seen
            self.square = self.square + (flat.square().mean(0) - self.square) / self.seen
        return self.statistics

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, [F] each."""
        mean, square = self.mean, self.square
        return mean, cached_value(
            self, "deviation", (mean, square), lambda: (square - mean.square()).clamp(min=1e-4).sqrt()
        )


def check_heads(name: str, channels: int, num_heads: int) -> None:
    """Raise ValueError unless `channels` is divisible by `num_heads`."""
    if channels % num_heads:
        raise ValueError(f"{name} must be a multiple of num_heads, got {channels} and {num_heads}")


LARGE_INPUT = 2**18
"""Elements of an input from which on it is worth it to compile a kernel for its shape."""


def gelu(x: Tensor) -> Tensor:
    """GELU of [..., n, F], without gradients: no kernel is compiled for the shape of a small input.

    For a contiguous input torch calls oneDNN, which compiles code for each shape, and the numbers of
    neighbors and paths of a request are nearly always new. Transposed, it goes to torch's own kernel, which
    takes twice as long for each element.
    """
    return F.gelu(x) if x.numel() >= LARGE_INPUT else F.gelu(x.mT).mT


class GELU(nn.GELU):
    """GELU; without gradients, see `gelu`.

    Shapes:
        forward: [..., n, F] -> [..., n, F].
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply GELU."""
        return super().forward(x) if torch.is_grad_enabled() else gelu(x)


class SwiGLU(nn.Module):
    """A gated hidden layer, silu(x W) * (x V) (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    Shapes:
        forward: [..., in_channels] -> [..., hidden_channels].
    """

    def __init__(self, in_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.both = nn.Linear(in_channels, 2 * hidden_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, with one matrix product for gate and value."""
        gate, value = self.both(x).chunk(2, dim=-1)
        out: Tensor = nn.functional.silu(gate) * value
        return out


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Apply layers one after the other; without gradients, the usual ones without the overhead of modules."""
    if torch.is_grad_enabled():
        for layer in layers:
            x = layer(x)
        return x
    for layer in layers:
        if type(layer) is nn.Linear:
            x = F.linear(x, layer.weight, layer.bias)
        elif type(layer) is GELU:
            x = gelu(x)
        elif type(layer) is not nn.Dropout or layer.training:
            x = layer(x)
    return x


class MLP(nn.Sequential):
    """Layers one after the other, see `run_layers`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers."""
        return run_layers(self, x)


def feed_forward(
    in_channels: int,
    hidden_channels: int,
    out_channels: int,
    *,
    activation: Activation = "gelu",
    dropout: float = 0.0,
) -> MLP:
    """An MLP with one hidden layer; 'swiglu' has two thirds of the width, for about as many parameters."""
    check_counts(in_channels=in_channels, hidden_channels=hidden_channels, out_channels=out_channels)
    check_choice("activation", activation, get_args(Activation))
    check_dropout(dropout)
    if activation == "gelu":
        hidden: list[nn.Module] = [nn.Linear(in_channels, hidden_channels), GELU()]
    else:
        hidden_channels = max(1, 2 * hidden_channels // 3)
        hidden = [SwiGLU(in_channels, hidden_channels)]
    return MLP(*hidden, nn.Dropout(dropout), nn.Linear(hidden_channels, out_channels))


class MixtureOfExperts(nn.Module):
    """A dense mixture of experts: small networks weighted by the softmax of a gate (Jacobs et al. 1991).

    Every expert computes every input, so that each one gets gradients.

    Args:
        in_channels, hidden_channels, out_channels: widths of each expert.
        num_experts: number of experts.
        activation: 'gelu' or 'swiglu'.
        dropout: on the hidden layers.

    Shapes:
        forward: [B, in_channels] -> [B, out_channels].
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        *,
        num_experts: int = 4,
        activation: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts(num_experts=num_experts)
        self.experts = nn.ModuleList(
            feed_forward(in_channels, hidden_channels, out_channels, activation=activation, dropout=dropout)
            for _ in range(num_experts)
        )
        self.gate = nn.Linear(in_channels, num_experts)

    def forward(self, x: Tensor) -> Tensor:
        """The gate-weighted sum of the experts' outputs: [B, out_channels]."""
        said = torch.stack([expert(x) for expert in self.experts], dim=1)  # [B, E, out]
        out: Tensor = (self.gate(x).softmax(1)[:, None] @ said).squeeze(1)
        return out


def mlp(in_channels: int, hidden_channels: int, out_channels: int) -> MLP:
    """An MLP with two hidden GELU layers; its last layer starts at zero, for equal initial scores."""
    last = nn.Linear(hidden_channels, out_channels)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return MLP(
        nn.Linear(in_channels, hidden_channels),
        GELU(),
        nn.Linear(hidden_channels, hidden_channels),
        GELU(),
        last,
    )


def segment_logsumexp(logits: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Log-sum-exp of ragged rows: logits [M], row [M] int64 -> [num_rows], -inf for an empty row."""
    peak = logits.new_full((num_rows,), -torch.inf).scatter_reduce(0, row, logits.detach(), "amax")
    peak = torch.where(peak == -torch.inf, 0.0, peak)
    return logits.new_zeros(num_rows).index_add(0, row, (logits - peak[row]).exp()).log() + peak
