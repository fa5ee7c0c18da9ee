"""Widths of the intervals: taken from other suites, stretched until they hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType

import pytest

from bestserve.validation.comparison import RowComparison
from bestserve.validation.outcome import Outcome


@pytest.fixture(scope="module")
def widths(script: Callable[[str], ModuleType]) -> ModuleType:
    """The module of the accuracy run that makes them."""
    return script("validation/accuracy_intervals.py")


def rows(source: str, error: float, count: int = 60) -> list[RowComparison]:
    """Closed loops of one source whose TPOT is off by up to `error`, evenly."""
    return [
        RowComparison(
            id=f"{source}{n}", status=Outcome.PREDICTED, reason="", regime="closed", source=source,
            predicted={"tpot_mean_ms": math.exp(error * (n + 1) / count)},
            measured={"tpot_mean_ms": 1.0},
        )
        for n in range(count)
    ]  # fmt: skip


def source_of(row: RowComparison) -> str:
    return row.source


def test_a_residual_holds_nine_in_ten(widths: ModuleType) -> None:
    found = widths.residual_of([(0.01 * n, 0.0) for n in range(1, 101)])
    assert found == pytest.approx(0.91 / 1.645, rel=0.02)


def test_widths_of_a_suite_come_from_the_others(widths: ModuleType) -> None:
    every = [*rows("calm", 0.1), *rows("wild", 0.8)]
    found = widths.hits(every, {}, source_of)
    width = {row.source: w for row, cell, _, _, w in found if cell[2] == "tpot"}
    assert width["calm"] > 4 * width["wild"]


def test_stretched_widths_hold_on_suites_left_out(widths: ModuleType) -> None:
    every = [*rows("calm", 0.1), *rows("wild", 0.8), *rows("wide", 0.5)]
    found = widths.hits(every, {}, source_of)
    stretch = widths.stretches(found)
    inside = [e <= widths.reach(v, w * stretch[cell]) for _, cell, e, v, w in found]
    plain = [e <= widths.reach(v, w) for _, cell, e, v, w in found]
    assert sum(inside) / len(inside) == pytest.approx(0.9, abs=0.01)
    assert sum(plain) < sum(inside)
