"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Wall-clock deadlines fail on busy machines; correctness does not depend on them.
settings.register_profile("bestserve", deadline=None)
settings.load_profile("bestserve")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout, for tests of files that are not installed."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements beside the checkout; tests that need it say so and skip."""
    folder = Path(os.environ.get("BESTSERVE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"needs the measurements in {folder.name}/ beside the checkout, which is absent"
        )
    return folder
