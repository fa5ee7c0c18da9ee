"""Tables that the documentation takes from the code are those of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import bestserve

DOCS = Path(__file__).parents[2] / "docs"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.mark.parametrize("table", generator.TABLES)
def test_the_page_shows_what_the_code_has(table: str) -> None:
    page, make = generator.TABLES[table]
    shown = generator.between(table).search(page.read_text(encoding="utf-8"))
    assert shown is not None, f"{page.name} has no place for the table of {table}"
    assert shown[2].strip() == make(), "run python docs/generate.py"


def test_times_are_in_microseconds() -> None:
    table = generator.constants()
    assert "| `gemm.launch` | 3.3 | µs | measured | A; rounded by hand |" in table
    assert "| `moe.rate_local` | 16 | GB/s/SM |" in table


def test_the_interface_page_names_everything_public() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    for name in bestserve.__all__:
        assert name == "__version__" or f".{name}\n" in page, f"docs/api.md lacks {name}"


def test_the_interface_page_names_modules_that_exist() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^\.\. automodule:: (\S+)$", page, flags=re.MULTILINE)
    assert len(named) > 10
    for name in named:
        assert importlib.util.find_spec(name) is not None, name


def test_the_architecture_page_names_every_room() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    package = Path(bestserve.__file__).parent
    rooms = {p.parent.relative_to(package).as_posix() for p in package.rglob("*/__init__.py")}
    named = set(re.findall(r"^\| `([\w/]+)/` \|", page, flags=re.MULTILINE))
    assert named == {room for room in rooms if room != "."}


def test_every_key_of_a_fleet_file_has_a_meaning() -> None:
    for line in generator.fleet_keys().splitlines():
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
