"""Inference mode of requests, and the tensors that outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def lasting_tensors() -> Iterator[None]:
    """Make tensors that are kept after a request, whose inference mode would bar them from training later.

    Outside of inference mode it is `torch.no_grad()`. Also a decorator: `@lasting_tensors()`.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield
