"""The table of universal constants in the documentation is the one in the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("constants_table", DOCS / "constants_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_constants_of_the_code(generator: ModuleType) -> None:
    _, shown, _ = generator.split(generator.PAGE.read_text(encoding="utf-8"))
    assert shown == generator.table(), "run python docs/constants_table.py"


def test_rows_show_times_in_microseconds(generator: ModuleType) -> None:
    table = generator.table()
    assert "| `gemm.launch` | 3.3 | µs | measured | A; rounded by hand |" in table
    assert "| `moe.rate_local` | 16 | GB/s/SM |" in table
