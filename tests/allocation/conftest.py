"""The brute-force oracle from the evidence folder, which is not an installed package."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from bestserve.solvers.allocation.highs import Options


@pytest.fixture(scope="session")
def oracle(script: Callable[[str], ModuleType]) -> ModuleType:
    """Brute force, with the problems to try it on: `optimum`, `random_problem`, `stored`."""
    module = script("solvers/allocation_oracle.py")
    problems = script("solvers/allocation_problems.py")
    for name in ("random_problem", "stored", "to_json", "from_json"):
        setattr(module, name, getattr(problems, name))
    return module


@pytest.fixture(scope="session")
def exact() -> Options:
    return Options(gap=0.0)
