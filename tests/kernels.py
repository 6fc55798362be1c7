"""Another processor: what its kernels may make of the same sums.

In which order a matrix product or a sum is added up depends on the processor, the library, the number of
threads and the shapes of the operands, so two results agree to the last bit only where all of these do.
Inside `OtherKernels()` every such result is off by about its rounding error, differently for each shape and
place: what holds there holds on other processors.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

PRODUCTS = {
    aten.mm.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten.bmm.default: (0, 1),
    aten.baddbmm.default: (1, 2),
    aten.mv.default: (0, 1),
    aten.addmv.default: (1, 2),
    aten.dot.default: (0, 1),
}
"""Operators that multiply matrices, and the places of the two factors among their arguments."""

SUMS = {aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.cumsum.default}
"""Operators that add up numbers; of their absolute values, they give the size of the rounding error."""

SOFTMAXES = {aten._softmax.default, aten._log_softmax.default}
"""Operators that add up each row: its elements are off together, so that equal ones stay equal."""


class OtherKernels(TorchDispatchMode):
    """Adds noise of about the rounding error to whatever is summed; `met` counts how often.

    Args:
        ulps: the noise's largest size, in units of the last place of the sum of absolute terms.
        seed: of the noise, which depends on it, on the operator and on the shapes of its operands alone.
    """

    def __init__(self, *, ulps: float = 2.0, seed: int = 0) -> None:
        super().__init__()
        self.ulps, self.seed, self.met = ulps, seed, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in PRODUCTS:
            one, other = (args[place] for place in PRODUCTS[func])
            if one.is_sparse:
                return out
            return out + self._noise(func, args, out) * (one.abs() @ other.abs())
        if func in SUMS and out.is_floating_point():
            return out + self._noise(func, args, out) * func(args[0].abs(), *args[1:], **kwargs)
        if func in SOFTMAXES:
            noise = self._noise(func, args, out).select(args[1], 0).unsqueeze(args[1]) if out.dim() else 0.0
            return out + noise * out.abs() if func is aten._softmax.default else out + noise
        if func is aten.logsumexp.default:
            return torch.where(out.isfinite(), out + self._noise(func, args, out), out)
        if func is aten.native_layer_norm.default:
            return (out[0] * (1 + self._noise(func, args, out[0])), *out[1:])
        return out

    def _noise(self, func: Any, args: Any, out: Tensor) -> Tensor:
        """Numbers of the shape of a result, [-1, 1] times the unit of the last place of 1."""
        self.met += 1
        shapes = [tuple(x.shape) for x in args if isinstance(x, Tensor)]
        seed = zlib.crc32(repr((str(func), shapes, self.seed)).encode())
        noise = torch.rand(out.shape, generator=torch.Generator().manual_seed(seed), dtype=out.dtype)
        return self.ulps * torch.finfo(out.dtype).eps * (2 * noise - 1)
