"""Compile kernels: loops over typed arrays where tensor operations would be all overhead."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core import event as compiler_event

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function of NumPy arrays and numbers to machine code at its first call.

    It runs without the GIL, and its integers and indices are neither checked nor bounded: callers check. The
    machine code is kept on disk beside the source or, where that cannot be written, in the user's cache
    folder; where neither can, it is compiled once a process.
    """
    return _compiled(function, no_cfunc_wrapper=True)


def subkernel(function: Function) -> Function:
    """Compile a function that kernels alone call, not Python: this takes a third less time to compile."""
    return _compiled(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def _compiled(function: Function, **more: Any) -> Function:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, **more}
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError:  # numba finds no folder to keep it in
        return cast(Function, numba.njit(**options)(function))


def inlined(function: Function) -> Function:
    """Compile a function into each kernel that calls it: a small one, or one with a single caller.

    A `subkernel` with one caller would be optimized twice, alone and within the caller.
    """
    return cast(Function, numba.njit(inline="always", nogil=True, error_model="numpy")(function))


int64: Any = numba.int64
"""Casts in kernels. A bare 0 is a type of its own there: functions called with it are compiled once more."""


class _WithoutGarbageCollection(compiler_event.Listener):
    """Pauses the cyclic garbage collector while numba compiles.

    A compiler makes very many objects, and each full collection looks through all that were ever imported:
    together a sixth of the time. numba compiles in one thread at a time, and nests.
    """

    def __init__(self) -> None:
        self._depth, self._resume = 0, False

    def on_start(self, event: Any) -> None:
        """Pause at the outermost kernel."""
        if self._depth == 0:
            self._resume = gc.isenabled()
            gc.disable()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        """Resume after it."""
        self._depth -= 1
        if self._depth == 0 and self._resume:
            gc.enable()


compiler_event.register("numba:compile", _WithoutGarbageCollection())
