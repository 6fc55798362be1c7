"""Training of a `WindowNetwork` by the likelihood of its labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from graphrec.data.checks import check_count, check_number, check_seed
from graphrec.models.windows.examples import WindowExamples
from graphrec.nn.window import WindowNetwork


@dataclass(frozen=True)
class WindowConfig:
    """How a `ListRanker` is trained.

    Attributes:
        hidden_channels: width of the network's layers.
        dropout: probability.
        max_epochs: passes over the examples.
        batch_size: examples a step.
        learning_rate: the largest of a one-cycle schedule.
        weight_decay: of AdamW.
        seed: fixes examples, initial weights, order and dropout.

    Raises:
        TypeError: a value of another kind.
        ValueError: a value is out of range.
    """

    hidden_channels: int = 64
    dropout: float = 0.1
    max_epochs: int = 4
    batch_size: int = 2048
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_channels", "max_epochs", "batch_size"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))
        for name in ("dropout", "learning_rate", "weight_decay"):
            object.__setattr__(self, name, check_number(name, getattr(self, name), minimum=0.0))
        object.__setattr__(self, "seed", check_seed(self.seed))


def train_window_network(
    network: WindowNetwork, examples: WindowExamples, config: WindowConfig
) -> list[dict[str, float]]:
    """Train on examples, by binary cross-entropies of both outcomes; return the learning curve.

    Draws come from torch's global generator. Without any initiation the network is not trained.
    """
    x, label, weight = examples.x, examples.label, examples.weight
    total = (label * weight).sum(0)
    if not len(x) or not float(total[0]):
        return []
    share = (total / weight.sum(0).clamp(min=1.0)).clamp(1e-9, 0.5)
    network.start(x, weight[:, 0], share)
    steps = -(-len(x) // config.batch_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.max_epochs * steps + 1, pct_start=0.1
    )
    network.train()
    curve = []
    for epoch in range(config.max_epochs):
        loss_sum = 0.0
        for rows in torch.randperm(len(x)).split(config.batch_size):
            loss = F.binary_cross_entropy_with_logits(network(x[rows]), label[rows], weight[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss_sum += float(loss.detach()) * len(rows)
        curve.append({"epoch": float(epoch), "loss": loss_sum / len(x)})
    network.eval()
    return curve
