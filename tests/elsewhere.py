"""A device that is not there: real values on the CPU, under a GPU's rule of who may meet whom.

Inside `Elsewhere(network)`, the network's tensors and whatever is made with or moved to `FAR` count as being
on that device, say so when asked, and may not be mixed with others: where a GPU would refuse, so does this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

FAR = torch.device("hpu")  # torch knows the name, and here has nothing behind it
NEAR = torch.device("cpu")
INDEXING = {Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put, Tensor.index_put_}


class _Far(Tensor):
    """A tensor that counts as being on `FAR`."""


def is_device(x: Any) -> bool:
    return isinstance(x, torch.device) or (isinstance(x, str) and x in ("cpu", "hpu"))


class Elsewhere(TorchFunctionMode):
    """Puts a network on `FAR` for as long as it lasts; `met` counts the operations there.

    Raises:
        RuntimeError: an operation was given tensors from both devices.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = {id(tensor) for tensor in (*network.parameters(), *network.buffers())}
        self.met = 0
        self._modules = list(network.modules())

    def __enter__(self) -> Elsewhere:
        self._forget_cached_values()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._forget_cached_values()

    def _forget_cached_values(self) -> None:
        """What was computed from the network's tensors is on their device, too."""
        for module in self._modules:
            module.__dict__.pop("_cached", None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            if func == Tensor.device.__get__:  # type: ignore[attr-defined]
                return FAR if self._is_far(args[0]) else NEAR
            for named in self._named(func, args, kwargs):
                args = tuple(NEAR if is_device(x) else x for x in args)
                kwargs |= {"device": NEAR} if "device" in kwargs else {}
                return self._placed(func(*args, **kwargs), torch.device(named) == FAR)
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            far = any(map(self._is_far, tensors)) and func is not Tensor.cpu
            if far:
                self.met += 1
                self._check(func, args, tensors)
            return self._placed(func(*args, **kwargs), far, args[0] if far and args else None)

    def _is_far(self, tensor: Tensor) -> bool:
        return isinstance(tensor, _Far) or id(tensor) in self._network

    def _named(self, func: Any, args: Any, kwargs: Any) -> Iterator[Any]:
        """The device that a call asks for, if any."""
        if kwargs.get("device") is not None:
            yield kwargs["device"]
        if func is Tensor.to:
            yield from (x for x in args[1:] if is_device(x))
            yield from (FAR if self._is_far(x) else NEAR for x in args[1:] if isinstance(x, Tensor))

    def _check(self, func: Any, args: Any, tensors: list[Tensor]) -> None:
        if func in INDEXING and self._is_far(args[0]):  # indices may be on the CPU, values may not
            tensors = [args[0], *(x for x in args[2:] if isinstance(x, Tensor))]
        near = [x for x in tensors if not self._is_far(x) and x.dim() > 0]  # one number may be anywhere
        if (near and func is not Tensor.copy_) or func is Tensor.numpy:
            shapes = ", ".join(f"{'far' if self._is_far(x) else 'cpu'} {list(x.shape)}" for x in tensors)
            raise RuntimeError(f"{func.__name__} of tensors that are not on its device: {shapes}")

    def _placed(self, out: Any, far: bool, same: Any = None) -> Any:
        """The result, as tensors of their device."""
        if isinstance(out, Tensor) and out is not same and id(out) not in self._network:
            return out.as_subclass(_Far if far else Tensor)  # type: ignore[arg-type]
        if isinstance(out, (tuple, list)) and any(isinstance(x, Tensor) for x in out):
            return type(out)([self._placed(x, far, same) for x in out])
        return out
