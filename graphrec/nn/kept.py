"""Values that follow from weights, kept until these change."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from graphrec.inference import lasting_tensors

Value = TypeVar("Value")
Mark = tuple[int, int, torch.device]
"""The number of changes in place of a tensor, and where its values are."""


def kept_value(
    module: nn.Module, name: str, sources: Sequence[Tensor], compute: Callable[[], Value]
) -> Value:
    """Return a value computed from tensors of a module; without gradients, it is kept until these change.

    Args:
        module: it keeps the value, outside of its state.
        name: of the value in the module.
        sources: parameters and buffers that the value follows from.
        compute: returns the value, a tensor or a tuple of them.
    """
    if any(source.is_inference() for source in sources):  # they do not count their changes
        return compute()
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        return compute()
    kept: dict[str, tuple[Sequence[Tensor], list[Mark], Value]] = module.__dict__.setdefault("_kept", {})
    last = kept.get(name)
    marks = [(source._version, source.data_ptr(), source.device) for source in sources]
    if last is not None and last[1] == marks and all(map(operator.is_, last[0], sources)):
        return last[2]
    with lasting_tensors():
        value = compute()
    kept[name] = tuple(sources), marks, value
    return value
