"""The brute-force oracle from the evidence folder, which is not an installed package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bestserve.solvers.allocation.highs import Options


def load_script(path: Path) -> ModuleType:
    """Import a file that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def oracle(root: Path) -> ModuleType:
    """Brute force, with the problems to try it on: `optimum`, `random_problem`, `stored`."""
    module = load_script(root / "solvers" / "allocation_oracle.py")
    problems = load_script(root / "solvers" / "allocation_problems.py")
    for name in ("random_problem", "stored", "to_json", "from_json"):
        setattr(module, name, getattr(problems, name))
    return module


@pytest.fixture(scope="session")
def exact() -> Options:
    return Options(gap=0.0)
