"""Requests that the KV cache cannot hold: the same share everywhere, and never a gain."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bestserve as bs
from bestserve.answers.witness import REFUSED, measured_goodput
from bestserve.errors import InfeasibleError
from bestserve.models.attainment import attainment
from bestserve.models.goodput import goodput
from bestserve.models.latency import latency, stability_rate
from bestserve.models.refused import refused
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target
from bestserve.results.document import AnswerStatus
from bestserve.simulator import simulate

TARGET = Target(ttft=2.0, tpot=0.05)


@pytest.mark.parametrize("capacity", [1_000.0, 2_500.0, 6_000.0, 50_000.0])
@pytest.mark.parametrize("block", [1, 16])
def test_share_is_what_the_simulator_refuses(
    cases: ModuleType, capacity: float, block: int
) -> None:
    law = cases.lengths(1000, 200, 1.0, 1.0)
    whole = cases.collocated("chunked", law, kv_capacity_tokens=capacity, kv_block=block)
    tandem = cases.disaggregated(2, 1, law, kv_block=block)
    for lane in ("prefill", "decode"):
        small = replace(getattr(tandem, lane), kv_capacity_tokens=capacity)
        for system in (whole, replace(tandem, **{lane: small})):
            run = simulate(system, 1.0, requests=20_000, seed=3)
            assert refused(system).share == pytest.approx(run.refused.mean(), abs=2e-3)


@settings(max_examples=30)
@given(
    st.sampled_from(["chunked", "prefill_priority", "mixed", "tandem"]),
    st.floats(0.2, 30.0),
    st.floats(1.05, 3.0),
    st.sampled_from([0.0, 1.0]),
)
def test_less_memory_never_raises_goodput(
    cases: ModuleType, kind: str, requests: float, factor: float, reserve: float
) -> None:
    law = cases.lengths(1000, 200, 0.8, 0.8)

    def at(capacity: float) -> float:
        memory = {"kv_capacity_tokens": capacity, "kv_reserve": reserve}
        if kind == "tandem":
            return goodput(cases.disaggregated(2, 1, law, **memory), TARGET).rate
        return goodput(cases.collocated(kind, law, **memory), TARGET).rate

    assert at(1100 * requests) <= at(1100 * requests * factor) * 1.03


def test_one_slot_that_long_answers_hold_has_a_saturated_rate(cases: ModuleType) -> None:
    law = cases.lengths(1000, 200, 0.8, 0.8)
    one = cases.collocated("prefill_priority", law, kv_capacity_tokens=2200.0)
    assert stability_rate(one) > 0.0


@pytest.mark.parametrize("routing", ["random", "round_robin", "least_outstanding"])
def test_simulated_goodput_of_a_refusing_system_is_none(cases: ModuleType, routing: str) -> None:
    law = cases.lengths(1000, 200, 1.0, 1.0)
    small = cases.collocated("chunked", law, kv_capacity_tokens=5_000.0)
    assert 1e-4 < refused(small).share < 0.1
    routed = replace(small, routing=routing, replicas=2)
    found = measured_goodput(routed, TARGET)
    assert (found.rate, found.detail) == (0.0, REFUSED)
    assert found.status is LatencyStatus.SOME_REFUSED
    assert goodput(small, TARGET).status is LatencyStatus.SOME_REFUSED
    assert "5,000 tokens" in goodput(small, TARGET).detail


def test_refused_requests_miss_every_objective(cases: ModuleType) -> None:
    law = cases.lengths(1000, 200, 1.0, 1.0)
    small = cases.collocated("chunked", law, kv_capacity_tokens=5_000.0)
    found = latency(small, 1.0)
    share = refused(small).share
    assert attainment(found, Target(ttft=100.0)) == pytest.approx(1 - share)
    run = simulate(small, 1.0, requests=20_000)
    assert run.attainment(Target(ttft=100.0)) == pytest.approx(1 - share, abs=2e-3)
    assert not found.trust.high


def llama(size: str, gpus: int, hardware: str, **workload: str) -> bs.Problem:
    return bs.Problem(
        model=f"meta-llama/Llama-3.1-{size}",
        hardware=hardware,
        gpus=gpus,
        workload=bs.Workload(**workload),
        slo=bs.SLO("ttft:4000 tpot:60"),
    )


def test_long_prompts_on_a_small_gpu() -> None:
    problem = llama(
        "8B", 4, "rtx-4090", input_len="lognormal(6000, cv=1)", output_len="lognormal(300, cv=1)"
    )
    with pytest.raises(InfeasibleError, match=r"do not fit the KV cache.*per GPU"):
        bs.goodput(problem, "4m-tp1")
    found = bs.predict(problem, "4m-tp1", 1.0)
    assert found.status is AnswerStatus.SOME_REFUSED
    assert found.method == "simulated"
    assert 1e-3 < found.refused < 0.1
    assert found.attainment is not None
    assert found.attainment <= 1 - found.refused + 1e-3
    assert "% of the requests are refused" in found.explain()
    run = bs.simulate(problem, "4m-tp1", 1.0)
    assert np.mean(run.refused) == pytest.approx(found.refused, abs=2e-3)


def test_what_refuses_is_not_ranked() -> None:
    problem = llama(
        "8B", 2, "rtx-4090", input_len="lognormal(6000, cv=1)", output_len="lognormal(300, cv=1)"
    )
    found = bs.rank(problem)
    one_gpu = re.compile(r"-tp1(?!-pp)")  # a stage of a pipeline keeps half of the weights
    assert found.table
    assert not any(one_gpu.search(row.strategy) for row in found.table)
    refusing = [r for r in found.rejected if r.status is AnswerStatus.SOME_REFUSED]
    assert any("m-tp1" in r.strategy and "it holds" in r.reason for r in refusing)


def test_a_refusing_prefill_pool_is_rejected() -> None:
    problem = llama(
        "70B", 16, "h100-sxm", input_len="lognormal(2000, cv=0.8)", output_len="fixed(300)"
    )
    with pytest.raises(InfeasibleError, match="KV cache of a prefill lane"):
        bs.goodput(problem, "4p-tp2-tokens16384+1d-tp8")
