"""The documentation quotes the report on fleets as it is, and the report keeps what it claims."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fleets(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("validation/fleets.py")


def test_the_documentation_quotes_the_report(fleets: ModuleType) -> None:
    page = fleets.PAGE.read_text(encoding="utf-8")
    blocks = fleets.quoted(fleets.REPORT.read_text(encoding="utf-8"))
    assert fleets.quote(page, blocks) == page, "run python validation/fleets.py"


def test_every_fleet_is_in_the_report_and_beats_uniform_strategies(fleets: ModuleType) -> None:
    rows = fleets.quoted(fleets.REPORT.read_text(encoding="utf-8"))["gains"].splitlines()[2:]
    assert {row.split("|")[1].strip() for row in rows} == set(fleets.FLEETS)
    assert len(rows) >= 5
    for row in rows:
        gains = re.findall(r"\(([+-][\d.]+)%", row)
        assert gains
        assert all(float(gain) >= 0 for gain in gains), row
        assert "holds" in row, row


def test_fleets_of_the_report_are_valid(fleets: ModuleType) -> None:
    for name, fleet in fleets.FLEETS.items():
        made = fleet()
        assert made.models, name
        assert all(g.price_per_hour for g in made.gpus), name
