"""The number of CPUs granted to this process, and of threads that may work at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

EXPLICIT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of threads of torch."""

BLAS_USERS = ("numpy", "scipy.linalg", "faiss")
"""Modules that bring a BLAS of their own, each with threads of its own."""

_AT_IMPORT = torch.get_num_threads()
_outside: ContextVar[int | None] = ContextVar("threads before intra_op_threads", default=None)


def granted_cpus(process: Path = Path("/proc/self")) -> int:
    """CPUs this process may use: those of its affinity, and no more than the quota of its control groups.

    A quota of 2.5 CPUs counts as 2, since a third thread would be stopped half of the time; at least 1.

    Args:
        process: the process's folder in proc, with `cgroup` and `mountinfo`.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_quota(process)
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cgroup_quota(process: Path = Path("/proc/self")) -> float | None:
    """The smallest quota, in CPUs, of a process's control groups (version 1 or 2); None without a quota."""
    try:
        groups = (process / "cgroup").read_text().splitlines()
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    path_of: dict[str, str] = {}
    for line in groups:  # such as 0::/user.slice or 4:cpu,cpuacct:/docker/3f
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            path_of["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            path_of["cgroup"] = path
    found = []
    for line in mounts:  # ... ROOT POINT OPTIONS ... - KIND SOURCE SUPEROPTIONS
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3 or right[0] not in path_of:
            continue
        kind, root, point = right[0], _plain(left[3]), Path(_plain(left[4]))
        if kind == "cgroup" and "cpu" not in right[2].split(","):
            continue
        found += [quota for folder in _folders(point, root, path_of[kind]) if (quota := _quota(folder))]
    return min(found, default=None)


def _folders(point: Path, root: str, path: str) -> list[Path]:
    """The folders of a control group and its ancestors, as far as they are mounted."""
    inside = path if root == "/" else path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else ""
    parts = [part for part in inside.split("/") if part]
    if ".." in parts:  # the group lies outside the process's own view of them
        parts = []
    return [point.joinpath(*parts[:size]) for size in range(len(parts), -1, -1)]


def _quota(folder: Path) -> float | None:
    """The CPUs of one group: `cpu.max` of version 2, `cpu.cfs_quota_us` and its period of version 1."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # no such group or no quota, which is 'max' or -1
        return None


def _plain(path: str) -> str:
    """A path of mountinfo, in which a blank is written in octal."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def num_workers() -> int:
    """The number of worker threads, each with one intra-op thread, that may run at once.

    A number set by OMP_NUM_THREADS, MKL_NUM_THREADS or `torch.set_num_threads` is kept; otherwise it is the
    number of granted CPUs, divided by the processes that torchrun started on this machine.
    """
    outside = _outside.get()
    now = torch.get_num_threads() if outside is None else outside
    if _is_explicit(now):
        return now
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if torch.distributed.is_torchelastic_launched() else 1
    return max(1, min(now, granted_cpus() // here))


def _is_explicit(now: int) -> bool:
    return now != _AT_IMPORT or any(os.environ.get(name) for name in EXPLICIT)


@contextmanager
def one_intra_op_thread() -> Iterator[None]:
    """Let torch use one thread for each operation, unless another number was set.

    With many small operations, threads that wait for each other at the end of each one lose far more time on
    a busy machine than they gain on an idle one (see docs/threads.md). The order of sums, and so every digit,
    does not depend on the number of CPUs. `num_workers` does not change; the number of threads is restored at
    exit.
    """
    now = torch.get_num_threads()
    if now == 1 or _outside.get() is not None or _is_explicit(now):
        yield
        return
    token = _outside.set(now)
    torch.set_num_threads(1)
    try:
        with one_blas_thread():
            yield
    finally:
        torch.set_num_threads(now)
        _outside.reset(token)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let the BLAS of NumPy, SciPy and faiss use one thread, unless another number was set.

    It applies to the libraries imported so far. BLAS threads keep spinning after every product, even a small
    one.
    """
    if any(os.environ.get(name) for name in (*EXPLICIT, "OPENBLAS_NUM_THREADS")):
        yield
        return
    with _blas(tuple(name in sys.modules for name in BLAS_USERS)).limit(limits=1, user_api="blas"):
        yield


@lru_cache(maxsize=1)
def _blas(imported: tuple[bool, ...]) -> ThreadpoolController:
    """The BLAS libraries that are loaded, for the modules imported so far."""
    return ThreadpoolController()
