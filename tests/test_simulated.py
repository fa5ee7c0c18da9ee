"""Runs of the same requests at any rate, and smaller systems whose requests fare alike."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve as bs
from bestserve.answers.shrunk import shrunk
from bestserve.answers.simulated import Simulated
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.models.attainment import attainment, margin
from bestserve.models.latency import latency, stability_rate
from bestserve.models.system import System, Target
from bestserve.simulator import SimulationResult, simulate


def system(strategy: str = "8m-tp1", burstiness: float = 1.0, **changes) -> System:
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=64,
        workload=bs.Workload(
            input_len="lognormal(800, cv=1)", output_len="geometric(150)", burstiness=burstiness
        ),
        **changes,
    )
    return lower(problem).system(strategy)


def p90(result: SimulationResult) -> list[float]:
    return [
        float(np.nanquantile(getattr(result, name)[result.kept], 0.9)) for name in ("ttft", "tpot")
    ]


@pytest.mark.parametrize(("strategy", "kept"), [("32m-tp1", 1), ("32p16d-tp1", 3)])
@pytest.mark.parametrize("burstiness", [1.0, 0.5])
def test_lanes_that_take_turns_are_told_by_few(strategy, kept, burstiness):
    whole = system(strategy, burstiness, routing="round_robin")
    smaller, factor = shrunk(whole)
    lanes = getattr(smaller, "replicas", 0) or smaller.prefill_replicas + smaller.decode_replicas
    assert lanes <= 2 * kept
    rate = 0.7 * stability_rate(whole)
    all_of_them = p90(simulate(whole, rate, requests=100_000, seed=1))
    assert p90(simulate(smaller, rate / factor, requests=60_000, seed=2)) == pytest.approx(
        all_of_them, rel=0.03
    )


def test_lanes_chosen_by_their_kv_are_all_looked_at():
    whole = system("64m-tp1", routing="least_kv")
    assert shrunk(whole) == (whole, 1.0)


def test_of_poisson_arrivals_runs_say_what_the_formulas_say():
    whole = system("4m-tp1")
    rate = 0.6 * stability_rate(whole)
    run, formula = Simulated(system=whole)(rate), latency(whole, rate)
    for name in ("ttft", "tpot", "e2el"):
        found, known = getattr(run, name), getattr(formula, name)
        assert found.quantile(0.9) == pytest.approx(known.quantile(0.9), rel=0.04)
    assert run.stability_rate == pytest.approx(formula.stability_rate, rel=0.04)


def test_latencies_belong_together_where_requests_were_observed():
    run = Simulated(system=system("2m-tp1"))(20.0)
    target = Target(ttft=run.ttft.quantile(0.8), tpot=run.tpot.quantile(0.8), joint=True)
    result = Simulated(system=system("2m-tp1")).run(20.0)
    assert attainment(run, target) == pytest.approx(result.attainment(target))
    assert 0.6 < attainment(run, target) < 0.8


@pytest.mark.parametrize("routing", ["round_robin", "least_outstanding", "power_of_two"])
def test_runs_that_share_their_numbers_are_smooth_in_the_rate(routing):
    runs = Simulated(system=system("8m-tp1", routing=routing))
    rates = runs.limit * np.linspace(0.5, 0.9, 9)
    for name in ("ttft", "tpot"):
        values = [getattr(runs(rate), name).quantile(0.9) for rate in rates]
        assert np.all(np.diff(values) > -0.02 * np.array(values[:-1])), values


@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm"])
@pytest.mark.parametrize("strategy", ["2m-tp1", "1p1d-tp1"])
@pytest.mark.parametrize("burstiness", [0.25, 0.5, 4.0])
def test_bursts_meet_prompts_beyond_the_budget(engine, strategy, burstiness):
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=2,
        engine=engine,
        max_num_batched_tokens=2048,
        workload=bs.Workload(
            input_len="lognormal(8000, cv=1)", output_len="geometric(100)", burstiness=burstiness
        ),
        slo="ttft:20000 tpot:100",
    )
    carried = bs.goodput(problem, strategy)
    assert carried.goodput > 0
    found = bs.predict(problem, strategy, 0.5 * carried.goodput)
    assert found.method == "simulated"
    assert found.attainment > 0.9
    with pytest.raises(InputError, match=f"burstiness {burstiness:g}"):
        bs.predict(problem, strategy, 1.0, method="analytic")


@pytest.mark.parametrize("changes", [
    {"routing": "round_robin"}, {"routing": "least_outstanding"}, {"burstiness": 0.5},
])  # fmt: skip
def test_rankings_of_what_no_formula_knows_are_simulated(changes):
    def problem(gpus: int) -> bs.Problem:
        workload = bs.Workload(
            input_len="lognormal(800, cv=1)",
            output_len="geometric(150)",
            burstiness=changes.get("burstiness", 1.0),
        )
        return bs.Problem(
            model="meta-llama/Llama-3.1-8B",
            hardware="h100-sxm",
            gpus=gpus,
            workload=workload,
            slo="ttft:500 tpot:25",
            routing=changes.get("routing", "random"),
            layouts=("collocated",),
        )

    few, many = bs.rank(problem(4)), bs.rank(problem(16))
    for found in (few, many):
        assert all(row.method == "simulated" for row in found.table)
        assert [row.goodput for row in found.table] == sorted(
            (row.goodput for row in found.table), reverse=True
        )
    assert many.best.goodput_per_gpu > 0.98 * few.best.goodput_per_gpu
    again = Simulated(system=lower(problem(16)).system(many.best.strategy), share=0.99, seed=7)
    target = Target(ttft=0.5, tpot=0.025)
    assert margin(again(0.95 * many.best.goodput), target)[0] > 0
    assert margin(again(1.06 * many.best.goodput), target)[0] < 0
    with pytest.raises(InputError, match="no formula"):
        bs.rank(problem(4), verify=False)
