"""Values computed from weights, cached until these change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from graphrec.inference import lasting_tensors

Value = TypeVar("Value")


class CachedValue(NamedTuple, Generic[Value]):
    """A value, and the tensors that it follows from.

    Attributes:
        sources: the tensors, each with the number of its changes in place and where its values are.
        value: the value.
    """

    sources: list[tuple[Tensor, int, int]]
    value: Value

    def follows_from(self, sources: Sequence[Tensor]) -> bool:
        """Tell whether these are the tensors, unchanged."""
        for now, (source, version, place) in zip(sources, self.sources, strict=True):
            if now is not source or now._version != version or now.data_ptr() != place:
                return False
        return True


def cached_value(
    module: nn.Module, name: str, sources: Sequence[Tensor], compute: Callable[[], Value]
) -> Value:
    """Return a value computed from tensors of a module; without gradients, it is cached until these change.

    Args:
        module: the value is cached in it, outside of its state.
        name: of the value in the module.
        sources: parameters and buffers that the value follows from.
        compute: returns the value, a tensor or a tuple of them.
    """
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        return compute()
    cached: dict[str, CachedValue[Value]] = module.__dict__.setdefault("_cached", {})
    last = cached.get(name)
    if last is not None and last.follows_from(sources):
        return last.value
    if any(source.is_inference() for source in sources):  # they do not count their changes
        return compute()
    with lasting_tensors():
        value = compute()
    cached[name] = CachedValue([(source, source._version, source.data_ptr()) for source in sources], value)
    return value
