"""Kernels are compiled wherever the package is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest

from graphrec.jit import kernel


def double(values: np.ndarray) -> None:
    for i in range(len(values)):
        values[i] *= 2


def test_a_kernel_does_what_its_source_says() -> None:
    compiled, plain = np.arange(5), np.arange(5)
    kernel(double)(compiled)
    double(plain)
    assert compiled.tolist() == plain.tolist() == [0, 2, 4, 6, 8]


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_, asked = numba.njit, []

    def without_folder(*args: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available")
        return compile_(*args, **options)

    monkeypatch.setattr(numba, "njit", without_folder)
    values = np.arange(3)
    kernel(double)(values)
    assert (values.tolist(), asked) == ([0, 2, 4], [True, False])


def test_kernels_run_as_plain_python_under_a_debugger() -> None:
    script = (
        "import warnings, torch; warnings.simplefilter('ignore')\n"
        "from graphrec.data import EventLog, FriendGraph\n"
        "from graphrec.temporal import Timeline, lookups\n"
        "log = EventLog.from_arrays([1, 2, 3], [2, 1, 1], [5, 6, 6])\n"
        "timeline = Timeline(FriendGraph.from_events(log))\n"
        "found = timeline.distinct_contacts(torch.tensor([0]), torch.tensor([2]))\n"
        "print(type(lookups.list_contacts).__name__, sorted(found.user.tolist()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "function [1, 2]\n", run.stderr
