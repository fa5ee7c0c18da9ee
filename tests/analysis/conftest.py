"""Problems that are quick to look at: coefficients of one's own, and a small real model."""

from __future__ import annotations

import pytest

import bestserve as bs


@pytest.fixture(scope="session")
def own() -> bs.Problem:
    """Own step-time coefficients of about a 7B model on one GPU; TPOT binds."""
    return bs.Problem(
        step_time=bs.StepTime(w=6e-3, c=26e-6, e=0, a=0.35e-9, k=49e-9, a_step=1e-3),
        kv_capacity_tokens=200_000,
        gpus=4,
        workload=bs.Workload(
            input_len=bs.LogNormal(1000, cv=1.0), output_len=bs.LogNormal(250, cv=1.0)
        ),
        slo=bs.SLO("ttft:1000 tpot:25", percentile=90),
    )


@pytest.fixture(scope="session")
def real() -> bs.Problem:
    """A 70B model on eight H100."""
    return bs.Problem(
        model="meta-llama/Llama-3.1-70B",
        hardware="h100-sxm",
        gpus=8,
        workload=bs.Workload(
            input_len=bs.LogNormal(1000, cv=1.0), output_len=bs.LogNormal(250, cv=1.0)
        ),
        slo=bs.SLO("ttft:1000 tpot:50", percentile=90),
    )
