"""One report for all tests, and a browser if there is one."""

from __future__ import annotations

import shutil

import pytest

import bestserve as bs

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="session")
def problem() -> bs.Problem:
    """A small model on two GPUs; one batch limit, so that the ranking is quick."""
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=2,
        max_num_batched_tokens=4096,
        workload=bs.Workload(
            input_len=bs.LogNormal(1000, cv=0.8), output_len=bs.LogNormal(200, cv=1.0)
        ),
        slo=bs.SLO("ttft:1000 tpot:30"),
    )


@pytest.fixture(scope="session")
def report(problem: bs.Problem):
    axes = {"workload.input_len": ["x0.5", "x2"], "hardware.memory_bandwidth": ["x1", "x2"]}
    return bs.report(problem, axes=axes, verify=False)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium; tests that need it say so and skip."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs a Chromium to open the report in (apt-get install chromium)")
    return found
