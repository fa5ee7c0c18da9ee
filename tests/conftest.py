"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# Wall-clock deadlines fail on busy machines; correctness does not depend on them.
settings.register_profile("bestserve", deadline=None)
settings.load_profile("bestserve")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as their words, whatever ran the tests: xdist gives workers 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout, for tests of files that are not installed."""
    return ROOT


@pytest.fixture(scope="session")
def script(root: Path) -> Callable[[str], ModuleType]:
    """Imports a file of the checkout that belongs to no package: `script("models/x.py")`."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(path).stem, root / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickles look their module up by name.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of measurements beside the checkout; tests that need it say so and skip."""
    folder = Path(os.environ.get("BESTSERVE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(
            f"needs the measurements in {folder.name}/ beside the checkout, which is absent"
        )
    return folder
