"""What a real vLLM on a CPU did, replayed: the stored page is true, and the queue is right."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

VALIDATION = Path(__file__).parents[2] / "validation"


@pytest.fixture(scope="module")
def page() -> Any:
    sys.path.insert(0, str(VALIDATION))
    try:
        return importlib.import_module("real_engine_report")
    finally:
        sys.path.remove(str(VALIDATION))


@pytest.fixture(scope="module")
def constants(page: Any) -> dict[str, float]:
    return page.fit([log for log in page.load() if log.run.fit])


def test_the_stored_page_names_every_run_that_was_measured(page: Any) -> None:
    logs = page.load()
    assert {log.run.name for log in logs} == {run.name for run in page.RUNS}
    text = page.REPORT.read_text()
    for log in logs:
        assert page.row(log, "measured", page.figures(log.ttft), page.figures(log.tpot)) in text


def test_prompts_wait_as_long_as_measured_at_the_speed_of_the_run(
    page: Any, constants: dict[str, float]
) -> None:
    poisson = [log for log in page.load() if log.run.name.startswith("poisson")]
    assert len(poisson) == 4
    for log in poisson:
        at_own = page.slowed(constants, page.own_speed(log, constants))
        ttft, tpot = page.replayed(log, at_own)
        for predicted, measured in ((ttft, log.ttft), (tpot, log.tpot)):
            for percentile in (50, 90):
                ratio = np.percentile(predicted, percentile) / np.percentile(measured, percentile)
                assert 0.88 < ratio < 1.12, (log.run.name, percentile, ratio)
