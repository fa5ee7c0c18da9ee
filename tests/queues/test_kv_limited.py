"""Lanes that their KV cache limits: stability and trust against the simulator."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

import bestserve as bs
from bestserve.answers.witness import measured_goodput
from bestserve.models.binding import Binding
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.queues.requests import prepare
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, Disaggregated, Target
from bestserve.results.document import AnswerStatus
from bestserve.simulator import simulate
from bestserve.simulator.saturation import saturation_rate

ENGINES = {
    "vllm": {"policy": "chunked", "kv_block": 16},
    "sglang": {"policy": "prefill_priority"},
    "tensorrt-llm": {"policy": "mixed", "kv_block": 32, "kv_reserve": 1.0},
}


def limited(
    cases: ModuleType, engine: str, prompt: int, output: int, sequences: int, role: str = "m"
) -> Collocated | Disaggregated:
    """Return a system whose (decode) lane has memory for so many sequences and slots for more."""
    law = cases.lengths(prompt, output, 0.6, 0.8)
    longest = float(law.inputs.max() + law.outputs.max())
    capacity = max(sequences * prepare(law).context, 1.2 * longest)
    whole = cases.collocated(
        law=law, max_num_seqs=1024, kv_capacity_tokens=capacity, **ENGINES[engine]
    )
    if role == "m":
        return whole  # type: ignore[no-any-return]
    prefill = replace(whole.lane, kv_capacity_tokens=float("inf"))
    return Disaggregated(
        prefill=prefill, prefill_replicas=32, decode=whole.lane, decode_replicas=1, lengths=law
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("role", ["m", "d"])
@pytest.mark.parametrize(
    ("prompt", "output", "sequences"),
    [(1000, 200, 40), (300, 600, 40), (2000, 300, 100), (3000, 60, 150)],
)
def test_stability_limit_of_a_full_cache(
    cases: ModuleType, engine: str, role: str, prompt: int, output: int, sequences: int
) -> None:
    system = limited(cases, engine, prompt, output, sequences, role)
    # without the evictions 5 to 20 % more
    assert stability_rate(system) == pytest.approx(saturation_rate(system), rel=0.05)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("role", ["m", "d"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_trusted_latencies_are_right_and_a_full_cache_is_not_trusted(
    cases: ModuleType, engine: str, role: str, share: float
) -> None:
    system = limited(cases, engine, 500, 400, 40, role)
    rate = share * saturation_rate(system)
    found = latency(system, rate)
    if found.status is not LatencyStatus.OK or not found.trust.high:
        assert share > 0.4
        return
    assert share < 0.95
    run = simulate(system, rate, requests=60_000, seed=2)
    measured = np.nanquantile(run.tpot[run.kept], 0.9)
    assert found.tpot.quantile(0.9) == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_goodput_that_evictions_limit_is_doubted(cases: ModuleType, engine: str) -> None:
    system = limited(cases, engine, 300, 600, 60, "d")
    loose = Target(tpot=1.0)
    found = goodput(system, loose)
    assert found.binding is Binding.STABILITY
    assert not found.trust.high
    # and near all the same
    measured = measured_goodput(system, loose)
    assert found.rate == pytest.approx(measured.rate, rel=0.06)


@pytest.mark.parametrize("policy", ["chunked", "prefill_priority"])
@pytest.mark.parametrize("requests", [1.05, 1.5, 3.0, 100.0])
def test_prefill_lane_with_little_memory(cases: ModuleType, policy: str, requests: float) -> None:
    law = cases.lengths(1000, 1, 0.5)
    capacity = requests * float(law.inputs.max())
    lane = cases.collocated(policy, law, kv_capacity_tokens=capacity, kv_block=16).lane
    system = Disaggregated(
        prefill=lane, prefill_replicas=1, decode=lane, decode_replicas=1, lengths=law
    )
    limit = saturation_rate(system)
    assert stability_rate(system) == pytest.approx(limit, rel=0.01)
    found = latency(system, 0.7 * limit)
    run = simulate(system, 0.7 * limit, requests=60_000, seed=2)
    off = found.ttft.quantile(0.9) / np.quantile(run.ttft[run.kept], 0.9) - 1
    assert abs(off) < 0.02 or not found.trust.high


def problem(model: str, gpus: int, objectives: str, **workload: str | int) -> bs.Problem:
    return bs.Problem(
        model=model,
        hardware="h100-sxm",
        gpus=gpus,
        workload=bs.Workload(**workload),  # type: ignore[arg-type]
        slo=bs.SLO(objectives),
    )


def test_a_decode_pool_is_not_promised_what_it_cannot_carry() -> None:
    asked = problem(
        "meta-llama/Llama-3.1-70B", 16, "ttft:1000 tpot:50", input_len=2000, output_len=300
    )
    found = bs.goodput(asked, "3p1d-tp4")
    # 17.8 at high trust before evictions counted; a run carries 16.0, and 13.5 once it is full
    assert found.goodput < 16.5
    assert bs.goodput(asked, "3p1d-tp4", method="analytic").goodput < 16.5
    assert bs.predict(asked, "3p1d-tp4", 0.95 * found.goodput).ttft is not None
    assert bs.predict(asked, "3p1d-tp4", 17.0).status is AnswerStatus.UNSTABLE


def test_saturation_of_formula_and_simulation() -> None:
    asked = problem(
        "Qwen/Qwen3-32B",
        8,
        "ttft:500",
        input_len="lognormal(1500, cv=1)",
        output_len="lognormal(400, cv=1)",
    )
    formula = bs.goodput(asked, "4m-tp2", method="analytic")
    simulated = bs.goodput(asked, "4m-tp2")
    assert not formula.trust.high
    # 25.4 against 22.96 before evictions counted
    limits = [g.goodput / g.utilisation for g in (formula, simulated)]
    assert limits[0] == pytest.approx(limits[1], rel=0.03)
