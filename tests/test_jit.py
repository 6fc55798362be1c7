"""Kernels are compiled wherever the package is installed."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event

import graphrec
from graphrec.jit import kernel


def double(values: np.ndarray) -> None:
    for i in range(len(values)):
        values[i] *= 2


def test_a_kernel_does_what_its_source_says() -> None:
    compiled, plain = np.arange(5), np.arange(5)
    kernel(double)(compiled)
    double(plain)
    assert compiled.tolist() == plain.tolist() == [0, 2, 4, 6, 8]


def test_garbage_is_not_collected_while_kernels_compile() -> None:
    seen: list[bool] = []

    class Watch(event.Listener):
        def on_start(self, event: Any) -> None:
            seen.append(gc.isenabled())

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Watch()):
        numba.njit(double)(np.arange(3))
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    gc.disable()
    try:
        numba.njit(double)(np.arange(3.0))
        assert not gc.isenabled()
    finally:
        gc.enable()


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


@pytest.mark.parametrize("home", ["writable", "read-only"])
def test_a_read_only_install_keeps_machine_code_at_home_or_nowhere(tmp_path: Path, home: str) -> None:
    """Files stand where folders would be made, which stops even root."""
    package = Path(graphrec.__file__).parent
    code = shutil.copytree(
        package, tmp_path / "code" / "graphrec", ignore=shutil.ignore_patterns("bundled", "__pycache__")
    )
    for folder in {file.parent for file in code.rglob("*.py")}:
        (folder / "__pycache__").touch()
    if home == "writable":
        (tmp_path / "home").mkdir()
    else:
        (tmp_path / "home").touch()
    script = (
        "import numpy as np, graphrec\n"
        "from graphrec.temporal.lookups import number_ticks\n"
        "tick = np.empty(4, np.int32)\n"
        "print(graphrec.__file__, number_ticks(np.array([5, 5, 6, 9]), tick), tick)\n"
    )
    unset = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "PYTHONPYCACHEPREFIX")
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        env={name: value for name, value in os.environ.items() if name not in unset}
        | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path / "code")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split(maxsplit=1) == [str(code / "__init__.py"), "3 [0 0 1 2]\n"]
    assert run.stderr == ""
    kept = [path.name for path in tmp_path.rglob("*.nbi")]
    assert bool(kept) == (home == "writable")
    assert not list(code.rglob("*.nbi"))
