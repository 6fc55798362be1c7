"""How the tests run: on every core that is granted, one thread each; and the fixtures they share."""

from __future__ import annotations

import gc
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, at the pace of any machine.
settings.register_profile(
    "graphrec", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("graphrec")

# Workers and the programs they start fill the cores by themselves. Read when torch is first imported.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Numba keeps a kernel's machine code until the kernel's own file changes, though it holds that of functions
# in other files too. Here it is kept for exactly the present sources of all kernels.
ROOT = Path(__file__).parents[1]
SOURCES = [path.read_bytes() for path in sorted((ROOT / "graphrec").rglob("*.py"))]
KERNELS = hashlib.sha256(b"".join(source for source in SOURCES if b"graphrec.jit" in source)).hexdigest()
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".pytest_cache" / f"kernels-{KERNELS[:16]}"))


def granted_cores() -> int:
    """Cores this process may use: those of its affinity, or fewer where a control group's quota says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the suite among workers, unless files or tests are named, `-n` is given, or a debugger is."""
    option = config.option
    if hasattr(config, "workerinput"):  # a worker must not start workers of its own
        return
    if not config.pluginmanager.hasplugin("xdist") or option.numprocesses is not None or option.tx:
        return
    whole = all(Path(argument).is_dir() for argument in config.args)
    if whole and not (option.usepdb or option.trace or option.collectonly):
        option.numprocesses = "auto"
        option.dist = "worksteal" if option.dist == "no" else option.dist


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` starts; none where there is one core, since each reads all tests anew."""
    cores = int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", granted_cores()))
    return cores if cores > 1 else 0


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what is imported out of the garbage collector's sight: a collection, of which every fit ends in
    one, took more time than the fit."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A folder with the original files of data sets, those not bundled among them; without one, skip."""
    named = os.environ.get("GRAPHREC_MIRROR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "mirror"
    if not (folder / "snap" / "CollegeMsg.txt.gz").is_file():
        pytest.skip(f"no mirror of the data sets that are not bundled (GRAPHREC_MIRROR, or {folder})")
    return folder
