"""Single precision, whatever torch's default is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_lock = Lock()
_entered = 0
_default = torch.float32


@contextmanager
def single_precision() -> Iterator[None]:
    """Inside, new floating-point tensors are float32; then torch's default type is again what it was.

    The default holds for all threads, so the first who comes in changes it and the last who leaves restores
    it. Also a decorator: `@single_precision()`.
    """
    global _entered, _default
    with _lock:
        if not _entered:
            _default = torch.get_default_dtype()
            if _default != torch.float32:
                torch.set_default_dtype(torch.float32)
        _entered += 1
    try:
        yield
    finally:
        with _lock:
            _entered -= 1
            if not _entered and _default != torch.float32:
                torch.set_default_dtype(_default)
