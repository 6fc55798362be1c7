"""Fixtures shared by the tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A folder with the original files of data sets, those not bundled among them; without one, skip."""
    named = os.environ.get("GRAPHREC_MIRROR")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "mirror"
    if not (folder / "snap" / "CollegeMsg.txt.gz").is_file():
        pytest.skip(f"no mirror of the data sets that are not bundled (GRAPHREC_MIRROR, or {folder})")
    return folder
