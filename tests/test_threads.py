"""Threads: as many as CPUs are granted, one for each small operation, and everything as it was afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import graph_of, random_rows
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor, nn

import graphrec.threads
from graphrec.threads import cgroup_quota, granted_cpus, num_workers, one_intra_op_thread
from graphrec.tokenizer import RandomCodes
from graphrec.train import train


class Planted:
    """A process's folder in proc, and control groups, as files."""

    def __init__(self, root: Path) -> None:
        self.root, self.process = root, root / "proc"
        self.process.mkdir()
        self.mounts: list[str] = []

    def mount(self, point: str, kind: str, root: str = "/", options: str = "rw") -> None:
        where = str(self.root / point).replace(" ", "\\040")
        self.mounts.append(f"30 24 0:26 {root} {where} rw,nosuid shared:9 - {kind} {kind} {options}")
        (self.process / "mountinfo").write_text(
            "\n".join(["22 1 8:1 / / rw - ext4 /dev/sda rw", *self.mounts])
        )

    def group(self, *lines: str) -> None:
        (self.process / "cgroup").write_text("\n".join(lines) + "\n")

    def file(self, path: str, content: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    @property
    def quota(self) -> float | None:
        return cgroup_quota(self.process)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def test_version_2_in_a_container(planted: Planted) -> None:
    planted.mount("cg", "cgroup2")
    planted.group("0::/")
    planted.file("cg/cpu.max", "150000 100000\n")
    assert planted.quota == 1.5


def test_version_2_takes_the_least_of_the_groups_around(planted: Planted) -> None:
    planted.mount("cg", "cgroup2")
    planted.group("0::/pods/mine")
    planted.file("cg/pods/cpu.max", "300000 100000\n")
    planted.file("cg/pods/mine/cpu.max", "max 100000\n")
    assert planted.quota == 3.0
    planted.file("cg/pods/mine/cpu.max", "50000 100000\n")
    assert planted.quota == 0.5


def test_version_1_inside_a_container_whose_path_is_the_hosts(planted: Planted) -> None:
    planted.mount("cg/cpu dir", "cgroup", root="/docker/3f", options="rw,cpu,cpuacct")
    planted.mount("cg/memory", "cgroup", root="/docker/3f", options="rw,memory")
    planted.group("5:memory:/docker/3f", "4:cpu,cpuacct:/docker/3f", "0::/docker/3f")
    planted.file("cg/cpu dir/cpu.cfs_quota_us", "400000\n")
    planted.file("cg/cpu dir/cpu.cfs_period_us", "100000\n")
    planted.file("cg/memory/cpu.max", "10000 100000\n")
    assert planted.quota == 4.0


def test_version_1_without_a_quota(planted: Planted) -> None:
    planted.mount("cg/cpu", "cgroup", options="rw,cpu")
    planted.group("4:cpu:/slice")
    planted.file("cg/cpu/slice/cpu.cfs_quota_us", "-1\n")
    planted.file("cg/cpu/slice/cpu.cfs_period_us", "100000\n")
    assert planted.quota is None


@pytest.mark.parametrize("content", ["max 100000\n", "", "soon 100000\n", "0 100000\n", "100000 0\n"])
def test_no_quota_or_one_that_cannot_be_read(content: str, planted: Planted) -> None:
    planted.mount("cg", "cgroup2")
    planted.group("0::/../outside")
    planted.file("cg/cpu.max", content)
    assert planted.quota is None


def test_where_there_is_no_proc(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None
    assert granted_cpus(tmp_path) >= 1


@pytest.mark.parametrize(("quota", "granted"), [("max", 8), ("250000", 2), ("50000", 1), ("9900000", 8)])
def test_a_quota_is_rounded_down_and_bounded_by_the_affinity(
    quota: str, granted: int, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    planted.mount("cg", "cgroup2")
    planted.group("0::/")
    planted.file("cg/cpu.max", f"{quota} 100000\n")
    assert granted_cpus(planted.process) == granted


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_a_process_pinned_to_one_cpu_is_granted_one() -> None:
    cpu = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{cpu}]); import graphrec.threads as t; print(t.granted_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which torch has chosen two threads by itself, on a machine with two CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(graphrec.threads, "_AT_IMPORT", 2)
    monkeypatch.setattr(graphrec.threads, "granted_cpus", lambda: 2)
    for name in graphrec.threads.EXPLICIT:
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_one_thread_inside_and_as_it_was_afterwards() -> None:
    with one_intra_op_thread():
        assert (torch.get_num_threads(), num_workers()) == (1, 2)
        with one_intra_op_thread():
            assert (torch.get_num_threads(), num_workers()) == (1, 2)
        assert torch.get_num_threads() == 1
    assert (torch.get_num_threads(), num_workers()) == (2, 2)
    with pytest.raises(RuntimeError), one_intra_op_thread():
        raise RuntimeError
    assert torch.get_num_threads() == 2


def blas_threads() -> set[int]:
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


@pytest.mark.usefixtures("two_threads")
def test_one_thread_of_every_blas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with threadpool_limits(2, "blas"):
        assert blas_threads() == {2}
        with one_intra_op_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
        with one_intra_op_thread():
            assert blas_threads() == {2}


@pytest.mark.usefixtures("two_threads")
def test_small_operations_outside_of_fits_use_one_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    sort = Tensor.argsort
    monkeypatch.setattr(
        Tensor, "argsort", lambda *args, **kw: (seen.append(torch.get_num_threads()), sort(*args, **kw))[1]
    )
    graph = graph_of(random_rows(0, users=20, events=200))
    seen.clear()
    RandomCodes(num_codebooks=1, codebook_size=64).fit(graph, until=int(graph.events().time[-1]) + 1)
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_what_was_asked_for_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    with one_intra_op_thread():
        assert (torch.get_num_threads(), num_workers()) == (3, 3)
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(graphrec.threads, "granted_cpus", lambda: 1)
    with one_intra_op_thread():
        assert (torch.get_num_threads(), num_workers()) == (2, 2)


@pytest.mark.usefixtures("two_threads")
def test_never_more_workers_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphrec.threads, "granted_cpus", lambda: 1)
    assert num_workers() == 1


@pytest.mark.usefixtures("two_threads")
def test_processes_of_torchrun_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphrec.threads, "granted_cpus", lambda: 8)
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert num_workers() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert num_workers() == 2


@pytest.mark.usefixtures("two_threads")
def test_training_has_one_thread_and_gives_the_others_back() -> None:
    network, seen = nn.Linear(1, 1), []

    def losses(batch: Any, _: int) -> dict[str, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return {"loss": network(batch).square().mean(), "events": torch.tensor(1.0)}

    def validate() -> dict[str, float]:
        seen.append(num_workers())
        return {"val_score": 0.0}

    options: dict[str, Any] = {"steps_per_epoch": 1, "max_epochs": 1, "patience": 1, "progress": False}
    train(network, [torch.ones(1, 1)], losses=losses, validate=validate, **options)
    assert seen == [1, 2]
    assert torch.get_num_threads() == 2


def test_importing_changes_no_number_of_threads() -> None:
    script = "import torch; n = torch.get_num_threads(); import graphrec.threads; "
    script += "assert torch.get_num_threads() == n"
    subprocess.run([sys.executable, "-c", script], check=True)
