"""Makes the printed deployments importable without a package."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def printed(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module `deployments` beside these tests."""
    return script("tests/launch/deployments.py")
