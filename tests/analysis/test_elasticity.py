"""Elasticities: three independent ways must agree, and scaling laws must hold exactly."""

from __future__ import annotations

import math

import pytest

import bestserve as bs
from bestserve.analysis.elasticity import elasticities
from bestserve.analysis.operating import goodput_near, operate
from bestserve.analysis.parameters import perturbed
from bestserve.errors import InputError, UnknownNameError
from bestserve.lowering import lower
from bestserve.models.goodput import goodput

PHYSICS = ("hardware.flops_bf16", "hardware.memory_bandwidth", "hardware.link_bandwidth")
TIMES = tuple(f"step_time.{n}" for n in ("w", "c", "a", "k", "a_step"))


@pytest.fixture(scope="module")
def report(real):
    others = ("workload.input_len", "workload.output_len", "engine.a_step", "slo.tpot", "slo.ttft")
    figures = (*PHYSICS, *others, "hardware.launch_time")
    return elasticities(real, "2m-tp4", figures=figures)


@pytest.mark.parametrize(
    "name",
    ["hardware.flops_bf16", "hardware.memory_bandwidth", "workload.input_len", "slo.tpot"],
)
def test_implicit_function_agrees_with_searching_again(real, report, name):
    h = 0.05
    up, down = (operate(perturbed(real, name, math.exp(s * h)), "2m-tp4").rate for s in (1, -1))
    assert report.of(name).goodput == pytest.approx(math.log(up / down) / (2 * h), abs=0.03)


@pytest.mark.parametrize("strategy", ["1m-tp8", "1p1d-tp4"])
def test_exact_derivatives_of_the_step_time_chain_to_the_same_goodput(real, strategy):
    found = elasticities(real, strategy, figures=PHYSICS)
    chained = [r for r in found.rows if r.chained is not None]
    assert {"hardware.memory_bandwidth", "hardware.flops_bf16"} <= {r.parameter for r in chained}
    for row in chained:
        assert row.chained == pytest.approx(row.goodput, abs=0.02), row.parameter


def test_time_scaling_leaves_rates_times_times_unchanged(own):
    """All times × x means all rates ÷ x: the elasticities to every time sum to −1 (Euler)."""
    found = elasticities(own, "4m-tp1", figures=(*TIMES, "slo.tpot"))
    # G(x·times, x·objective) = G/x, so the elasticities to times and objective add up to −1.
    assert sum(r.goodput for r in found.rows) == pytest.approx(-1.0, abs=0.02)
    # Slower steps at the same rate also meet more load, so TPOT grows faster than the times.
    assert sum(found.of(n).tpot["mean"] for n in TIMES) > 1.0


def test_an_objective_that_does_not_bind_moves_nothing(report):
    assert report.of("slo.ttft").goodput == pytest.approx(0.0, abs=1e-9)
    assert report.of("hardware.launch_time").goodput == pytest.approx(0.0, abs=1e-9)


def test_signs_are_those_of_physics(report):
    for name in ("hardware.flops_bf16", "hardware.memory_bandwidth", "hardware.link_bandwidth"):
        row = report.of(name)
        assert row.goodput > 0
        assert all(row.ttft[s] < 0 and row.tpot[s] < 0 for s in row.ttft)
    for name in ("workload.input_len", "workload.output_len", "engine.a_step"):
        assert report.of(name).goodput < 0


@pytest.mark.slow
def test_simulation_on_common_random_numbers_agrees_with_the_formulas(own):
    figures = ("workload.input_len", "step_time.phi", "step_time.c", "step_time.k", "slo.tpot")
    analytic = elasticities(own, "4m-tp1", method="analytic", figures=figures)
    simulated = elasticities(own, "4m-tp1", method="simulated", figures=figures)
    assert simulated.method == "simulated"
    for row in analytic.rows:
        other = simulated.of(row.parameter)
        assert other.goodput == pytest.approx(row.goodput, abs=0.06 + 4 * other.sd), row.parameter


def test_goodput_from_a_guess_is_the_goodput(own, real):
    for problem, strategy in ((own, "4m-tp1"), (real, "1m-tp8")):
        system = lower(problem).system(strategy)
        target = problem.slo.target()
        exact = goodput(system, target).rate
        for factor in (0.3, 0.95, 4.0):
            near = goodput_near(system, target, factor * exact)
            assert near == pytest.approx(exact, rel=0.006), (strategy, factor)


def test_goodput_from_a_guess_knows_what_is_infeasible(own):
    hard = own.replaced(slo=bs.SLO("ttft:1000 tpot:1"))
    system = lower(hard).system("4m-tp1")
    assert goodput_near(system, hard.slo.target(), 10.0) == 0.0


def test_stability_binds_when_objectives_are_loose(own):
    loose = own.replaced(slo=bs.SLO("ttft:1000000 tpot:1000000"), kv_capacity_tokens=None)
    found = elasticities(loose, "4m-tp1", method="analytic", figures=TIMES)
    assert found.binding == "stability"
    assert sum(r.goodput for r in found.rows) == pytest.approx(-1.0, abs=0.02)
    assert "capacity" in found.explain()


@pytest.mark.parametrize(("tokens", "moves"), [(1000, True), (10, False)])
def test_whole_number_lengths_use_the_change_they_really_make(own, tokens, moves):
    """1 % of 1,000 tokens are ten tokens; 1 % of ten are none, so nothing can be said."""
    fixed = own.replaced(workload=bs.Workload(input_len=tokens, output_len=bs.Geometric(250)))
    (row,) = elasticities(fixed, "4m-tp1", method="analytic", figures=["workload.input_len"]).rows
    assert (-1.5 < row.goodput < -0.5) if moves else math.isnan(row.goodput)


def test_report_says_it_in_words_and_rows(real, report):
    text = report.explain()
    assert "stopped by its TPOT objective" in text
    assert "waits mostly for memory" in text
    rows = report.records()
    assert len(rows) == len(report.rows)
    assert abs(rows[0]["goodput"]) >= abs(rows[-1]["goodput"])
    assert "<table>" in report._repr_html_()
    assert '"kind": "sensitivityreport"' in report.to_json()
    with pytest.raises(UnknownNameError, match=r"slo\.tpot"):
        report.of("slo.tpo")
    with pytest.raises(UnknownNameError, match=r"slo\.tpot"):
        elasticities(real, "2m-tp4", figures=["slo.tpo"])


def test_closed_loops_and_missing_objectives_are_refused(real):
    with pytest.raises(InputError, match="objectives"):
        elasticities(real.replaced(slo=None), "2m-tp4")
    closed = real.workload.scaled(max_concurrency=8)
    with pytest.raises(InputError, match="open arrivals"):
        elasticities(real.replaced(workload=closed), "2m-tp4")


def test_default_strategy_is_the_best_of_the_ranking(own):
    pair = own.replaced(gpus=2, max_num_batched_tokens=4096)
    found = bs.sensitivity(pair, figures=["slo.tpot"], method="analytic")
    assert found.strategy == bs.rank(pair, verify=False).best.strategy


def test_a_rate_beyond_saturation_has_no_elasticities(own):
    with pytest.raises(InputError, match="ask below"):
        bs.sensitivity(own, "2m-tp1", request_rate=1e4)


SPLIT = tuple(f"engine.{n}" for n in ("decode_host", "prefill_host", "prefill_phi", "handover"))


def test_what_splitting_costs_moves_split_services_alone(real):
    split = real.replaced(engine="sglang", model="openai/gpt-oss-120b", slo="ttft:500 tpot:20")
    found = elasticities(split, "1p-tp2+3d-tp2")
    assert set(SPLIT) <= {r.parameter for r in found.rows}
    assert found.binding == "ttft"
    assert found.of("engine.prefill_host").goodput < -0.1
    assert found.of("engine.prefill_phi").goodput < -0.1
    assert found.of("engine.decode_host").tpot["mean"] > 0.05
    assert found.of("engine.handover").tpot["mean"] > 0
    assert found.of("engine.handover").ttft["mean"] == 0
    together = elasticities(split, "4m-tp2")
    assert not set(SPLIT) & {r.parameter for r in together.rows}
