"""A prefill pool has no decode steps to take vacations with: the bulk chain idles instead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bestserve.models.goodput import prefill_goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Disaggregated, Lane, Lengths, Target
from bestserve.simulator import simulate

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


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_what_the_host_spends_on_each_prompt_does_not_grow_with_its_length(cases, load):
    # by tokens alone P90 is 56 and 105 % high
    step = replace(STEP, a_seq=10e-3)
    system = Disaggregated(
        prefill=Lane(step=step, policy="prefill_priority"),
        prefill_replicas=1,
        decode=Lane(step=STEP),
        decode_replicas=3,
        lengths=cases.lengths(60, 100, 1.5),
    )
    rate = load * stability_rate(system)
    run = simulate(system, rate, requests=60_000, seed=3)
    found = latency(system, rate)
    assert found.ttft.quantile(0.9) == pytest.approx(np.quantile(run.ttft[run.kept], 0.9), rel=0.03)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_prompts_of_many_budgets_go_one_after_the_other(cases, spread):
    # the bulk chain's P99 is 13 to 17 % low, its mean 4 to 6 %
    system = Disaggregated(
        prefill=Lane(step=cases.SMALL, max_num_batched_tokens=1024),
        prefill_replicas=1,
        decode=Lane(step=cases.SMALL),
        decode_replicas=8,
        lengths=cases.lengths(16 * 1024, 20, spread),
    )
    rate = 0.8 * stability_rate(system)
    run = simulate(system, rate, requests=200_000, seed=4).summary("ttft")
    found = latency(system, rate)
    assert found.ttft.mean == pytest.approx(run.mean, rel=0.03)
    assert found.ttft.quantile(0.99) == pytest.approx(run.p99, rel=0.07)
