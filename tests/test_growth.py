"""How CPU time grows with a question: the benchmark's own arithmetic, and what it has kept."""

from __future__ import annotations

import json
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def growth(script) -> ModuleType:
    """The benchmark."""
    return script("benchmarks/growth.py")


def test_the_exponent_is_a_slope_of_logarithms(growth):
    assert growth.exponent({"10": 3.0, "100": 30.0}) == pytest.approx(1.0)
    assert growth.exponent({"1": 2.0, "4": 9.0, "16": 32.0}) == pytest.approx(1.0)
    assert growth.exponent({"2": 5.0, "8": 5.0}) == 0.0


def test_nothing_kept_grows_faster_than_linearly(growth):
    kept = [json.loads(path.read_text()) for path in growth.HISTORY.glob("*.json")]
    assert kept
    for run in kept:
        assert set(run) == set(growth.SUBJECTS)
        assert max(growth.exponent(times) for times in run.values()) <= growth.STEEPEST


def test_sizes_ascend(growth):
    for _, sizes in growth.SUBJECTS.values():
        if sizes is not growth.trace:  # writes files
            listed = [size for size, _ in sizes()]
            assert listed == sorted(listed)
            assert len(listed) >= 3
