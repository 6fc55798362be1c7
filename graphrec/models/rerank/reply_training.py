"""The loss, the batches and the calibration of a reply model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from graphrec.nn import ReplyNet

MIN_PROBABILITY = 1e-6
MIN_SCALE = 0.1
"""Smallest scale of the logits by calibration."""

CALIBRATION_PENALTY = 0.01
"""Weight of the penalty on calibration: as of one initiation in a hundred at its uncalibrated logit."""


class Examples(NamedTuple):
    """M initiations to train on.

    Attributes:
        features: [M, F] float32.
        replied: [M] bool, whether a reply is known.
        maturity: [M] float32 in [0, 1], fraction of replies that arrive by the initiation's age.
    """

    features: Tensor
    replied: Tensor
    maturity: Tensor


def delayed_reply_loss(logit: Tensor, replied: Tensor, maturity: Tensor) -> Tensor:
    """Mean negative log-likelihood of replies with delayed labels, []; see `ReplyModel`.

    Args:
        logit: [M].
        replied: [M] bool, whether a reply is known.
        maturity: [M] in [0, 1], see `Examples`.
    """
    silent = (1 - logit.sigmoid() * maturity).clamp(min=MIN_PROBABILITY).log()
    silent = torch.where(maturity == 1, F.logsigmoid(-logit), silent)
    return -torch.where(replied, F.logsigmoid(logit), silent).mean()


def calibrate(network: ReplyNet, judged: Examples) -> None:
    """Calibrate scale and shift of the logits in place, by the likelihood of held-out initiations."""
    features, replied, maturity = judged
    with torch.no_grad():
        logit = network(features)
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = CALIBRATION_PENALTY * (line - torch.tensor([1.0, 0.0])).square().sum()
        loss = delayed_reply_loss(line[0] * logit + line[1], replied, maturity) + penalty
        loss.backward()
        return loss

    optimizer.step(closure)
    scale, shift = line.detach()
    network.scale, network.shift = scale.clamp(min=MIN_SCALE), shift


class ReplyBatches:
    """Batches of examples, in an order fixed by (seed, epoch).

    Args:
        examples: all of them.
        size: number of examples in a batch.
        seed: fixes the order.
    """

    def __init__(self, examples: Examples, *, size: int, seed: int) -> None:
        self._examples, self._size, self._seed, self._epoch = examples, size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch; training engines call this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._examples.replied) // self._size)

    def __iter__(self) -> Iterator[Examples]:
        generator = torch.Generator().manual_seed(1_000_003 * self._seed + self._epoch)
        for rows in torch.randperm(len(self._examples.replied), generator=generator).split(self._size):
            yield Examples(*(part[rows] for part in self._examples))
