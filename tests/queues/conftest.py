"""Makes the shared cases importable without a package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def cases() -> ModuleType:
    """The module `cases` beside these tests."""
    spec = importlib.util.spec_from_file_location(
        "queue_cases", Path(__file__).with_name("cases.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["queue_cases"] = module
    spec.loader.exec_module(module)
    return module
