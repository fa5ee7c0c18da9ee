"""A prefill pool has no decode steps to take vacations with: the bulk chain idles instead."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.models.goodput import prefill_goodput
from bestserve.models.latency import latency
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Disaggregated, Lane, Lengths, Target

ONE = np.ones(1)
STEP = StepTime(w=6e-3, c=26e-6, e=0.0, a=0.35e-9, k=49e-9)


def fixed(inputs: float, outputs: float) -> Lengths:
    return Lengths(
        inputs=inputs * ONE, input_weights=ONE, outputs=outputs * ONE, output_weights=ONE
    )


def test_a_lone_prompt_takes_its_step():
    lane = Lane(step=STEP)
    system = Disaggregated(
        prefill=lane,
        prefill_replicas=1,
        decode=lane,
        decode_replicas=1,
        lengths=fixed(1000, 100),
    )
    found = latency(system, 1e-3)
    assert found.ttft.mean == pytest.approx(STEP(1000, 1000**2 / 2, 0, 1), rel=2e-3)


def test_goodput_of_a_prefill_lane_stays_below_its_capacity():
    lane = Lane(step=STEP)
    found = prefill_goodput(lane, fixed(1000, 100), Target(ttft=0.2))
    alone = 1 / STEP(1000, 1000**2 / 2, 0, 1)
    assert 0.3 * alone < found.rate < 1.3 * alone
    assert found.at.ttft.quantile(0.9) == pytest.approx(0.2, rel=5e-3)
