"""Makes the shared cases importable without a package."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def cases(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module `cases` beside these tests."""
    return script("tests/schedule/cases.py")
