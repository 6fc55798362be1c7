"""Single precision, independent of torch's default."""

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
    """Make new floating-point tensors float32 inside the context, and restore torch's default after it.

    The default is shared by all threads: the first thread to enter changes it, the last to leave restores
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
