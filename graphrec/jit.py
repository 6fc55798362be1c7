"""Compile kernels: loops over typed arrays where tensor operations would be all overhead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile a function of NumPy arrays and numbers to machine code at its first call.

    It runs without the GIL, and its integers and indices are neither checked nor bounded: callers check. The
    machine code is kept on disk beside the source or, where that cannot be written, in the user's cache
    folder; where neither can, it is compiled once a process.
    """
    return _compiled(function)


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
    """Compile a small function into each kernel that calls it."""
    return cast(Function, numba.njit(inline="always", nogil=True, error_model="numpy")(function))


int64: Any = numba.int64
"""Casts in kernels. A bare 0 is a type of its own there: functions called with it are compiled once more."""
