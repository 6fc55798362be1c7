"""AdamW whose cost for an embedding table grows with the rows of a batch, not of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def sparse_tables(network: nn.Module) -> list[Tensor]:
    """The weights of `nn.Embedding(..., sparse=True)` modules, each once."""
    modules = (module for module in network.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag))
    return list(dict.fromkeys(module.weight for module in modules if module.sparse))


def adamw(network: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW for a network, row-sparse for its sparse tables."""
    tables = sparse_tables(network)
    others = [weight for weight in network.parameters() if all(weight is not table for table in tables)]
    if not tables:
        return torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, fused=True)
    return RowSparseAdamW(others, tables, lr=lr, weight_decay=weight_decay)


class RowSparseAdamW(torch.optim.Optimizer):
    """torch's `AdamW` and `SparseAdam` as one optimizer, with one state to save and one schedule.

    In a table, only rows in the gradient change, as under AdamW with weight decay; others wait ("lazy" Adam).
    Bias is corrected by the table's steps, not the row's. With every row in every gradient it is AdamW, but
    for where `eps` enters (before that correction).

    Args:
        others: parameters with dense gradients; may be none.
        tables: parameters [rows, D] with sparse gradients.
        lr: learning rate.
        weight_decay: decoupled, of the rows touched and of all `others`.
    """

    def __init__(
        self, others: Iterable[Tensor], tables: Iterable[Tensor], *, lr: float, weight_decay: float
    ) -> None:
        self.dense = torch.optim.AdamW(
            [{"params": list(others)}], lr=lr, weight_decay=weight_decay, fused=True
        )
        self.sparse = torch.optim.SparseAdam([{"params": list(tables), "weight_decay": weight_decay}], lr=lr)
        super().__init__([*self.dense.param_groups, *self.sparse.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let both parts use this optimizer's own groups, which a schedule changes, and its state."""
        self.dense.param_groups, self.sparse.param_groups = [self.param_groups[0]], [self.param_groups[1]]
        self.dense.state = self.sparse.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a saved state."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters with a gradient. Returns the loss of the closure, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.dense.step()
        group = self.param_groups[1]
        for table in group["params"]:
            if table.grad is not None:
                table.grad = table.grad.coalesce()
                rows = table.grad.indices()[0]
                table[rows] *= 1.0 - group["lr"] * group["weight_decay"]
        self.sparse.step()
        return loss


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients, sparse ones included, so that their joint norm is at most `max_norm`.

    Returns:
        the joint norm before.
    """
    gradients = []
    for weight in parameters:
        if weight.grad is not None and weight.grad.is_sparse:
            weight.grad = weight.grad.coalesce()  # a row looked up twice is one row of the sum
            gradients.append(weight.grad.values())
        elif weight.grad is not None:
            gradients.append(weight.grad)
    norm = nn.utils.get_total_norm(gradients)
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return float(norm)
