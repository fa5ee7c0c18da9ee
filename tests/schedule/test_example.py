"""The example on recorded load, with the traces beside the checkout, and without them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def example(script):
    return script("examples/schedule_a_trace/schedule_a_trace.py")


def test_traces_that_are_missing_are_named(example, tmp_path, capsys):
    assert example.main(tmp_path, tmp_path) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said] == ["azure", "servegen"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["azure", "servegen"])
def test_a_recorded_load_is_planned_and_drawn(example, shared, tmp_path, name):
    folder = Path(shared) / "traces"
    found = getattr(example, name)(folder)
    if found is None:
        pytest.skip(f"{name}: its traces are not beside the checkout")
    assert found.gpu_hours < found.policies[0].gpu_hours
    assert found.gap < 0.01
    assert found.requests > 10_000
    assert found.save(tmp_path / f"{name}.svg").stat().st_size > 1000
