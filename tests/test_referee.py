"""The referee on large fleets: a run must not mistake its own filling for capacity."""

from __future__ import annotations

import pytest

import bestserve as bs
from bestserve.answers.referee import coverage
from bestserve.answers.shrunk import ALIKE, shrunk
from bestserve.lowering import lower
from bestserve.models.system import Collocated, Disaggregated
from bestserve.simulator.run_length import run_length


def problem(gpus: int, burstiness: float = 1.0, **changes) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="mi300x",
        gpus=gpus,
        workload=bs.Workload(input_len=500, output_len=200, burstiness=burstiness),
        slo="ttft:1000 tpot:50",
        **changes,
    )


def carried(gpus: int, strategy: str, **changes) -> float:
    return bs.goodput(problem(gpus, **changes), strategy, method="simulated").goodput


def test_a_thousand_replicas_carry_a_thousand_times_one():
    assert carried(1024, "1024m-tp1") == pytest.approx(1024 * carried(1, "1m-tp1"))


def test_large_pools_carry_what_the_formulas_say():
    analytic = bs.goodput(problem(64), "32p32d-tp1", method="analytic").goodput
    assert carried(64, "32p32d-tp1") == pytest.approx(analytic, rel=0.06)


@pytest.mark.parametrize("changes", [
    {"routing": "round_robin"}, {"routing": "least_outstanding"}, {"burstiness": 0.2},
])  # fmt: skip
def test_a_larger_fleet_carries_no_less_a_replica(changes):
    sixteen, many = carried(16, "16m-tp1", **changes), carried(64, "64m-tp1", **changes)
    assert many >= 4 * sixteen * 0.98
    assert many <= 4 * sixteen * 1.15


def test_pools_shrink_by_a_common_factor_and_traces_never():
    system = lower(problem(64)).system("24p40d-tp1")
    assert isinstance(system, Disaggregated)
    smaller, factor = shrunk(system)
    assert isinstance(smaller, Disaggregated)
    assert (smaller.prefill_replicas, smaller.decode_replicas, factor) == (6, 10, 4)
    assert min(smaller.prefill_replicas, smaller.decode_replicas) >= ALIKE
    coprime, factor = shrunk(lower(problem(64)).system("23p41d-tp1"))
    assert isinstance(coprime, Disaggregated)
    assert (coprime.prefill_replicas, coprime.decode_replicas) == (5, 9)
    assert factor == pytest.approx(41 / 9)


def test_thinned_gaps_come_closer_to_poisson():
    system = lower(problem(64, burstiness=0.2)).system("64m-tp1")
    smaller, factor = shrunk(system)
    assert isinstance(smaller, Collocated)
    assert smaller.replicas * factor == 64
    assert smaller.arrivals.scv == pytest.approx(1 + (5 - 1) / factor)


def test_what_a_run_cannot_fill_is_doubted():
    enough = coverage(lower(problem(400, routing="least_kv")).system("400m-tp1"), None)
    assert not enough.high
    assert "replicas" in enough.reasons[0]


def test_run_length_grows_with_the_tail_the_replicas_and_what_they_hold():
    one = lower(problem(1)).system("1m-tp1")
    many = lower(problem(16)).system("16m-tp1")
    asked = bs.Workload(input_len="lognormal:500,2", output_len=200)
    spread = lower(problem(1).replaced(workload=asked)).system("1m-tp1")
    usual = run_length(one, 0.9)
    assert run_length(one, 0.5) == usual
    assert 5 * usual < run_length(one, 0.99) < 10 * usual
    assert 2 * usual < run_length(spread, 0.9) < 3 * usual
    assert run_length(many, 0.9) == 4 * usual
    assert run_length(one, 0.9, running=1000.0) == 24_000
