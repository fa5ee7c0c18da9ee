"""One question, one verdict: all name the same goodput and the same saturated rate."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bestserve as bs
from bestserve.analysis.elasticity import elasticities
from bestserve.answers.errors import VAGUE
from bestserve.answers.witness import CONFIRMED
from bestserve.fleet.allocate import allocate
from bestserve.lowering import lower
from bestserve.reporting.data import latency_charts
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup

MODELS = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "mistralai/Mistral-Small-24B-Base-2501")
GPUS = ("h100-sxm", "l40s", "b200-sxm")
ENGINES = ("vllm", "sglang", "tensorrt-llm")


def drawn(number: int) -> bs.Problem:
    """A random question of the catalogue; some are bursty or routed, so that no formula answers."""
    rng = np.random.default_rng([15, number])

    def between(low: float, high: float) -> float:
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))

    def lengths(low: float, high: float) -> str:
        mean = round(between(low, high))
        kind = rng.choice(["fixed", "lognormal", "geometric"])
        return f"{kind}:{mean}" + (",0.8" if kind == "lognormal" else "")

    hard = number % 3 == 0
    return bs.Problem(
        model=str(rng.choice(MODELS)),
        hardware=str(rng.choice(GPUS)),
        gpus=int(rng.choice([2, 4])),
        engine=str(rng.choice(ENGINES)),
        routing="round_robin" if hard else "random",
        workload=bs.Workload(input_len=lengths(100, 4000), output_len=lengths(10, 400)),
        slo=f"ttft:{between(400, 8000):.0f} tpot:{between(25, 120):.0f}",
    )


@pytest.fixture(scope="module", params=range(6))
def ranked(request) -> tuple[bs.Problem, bs.Ranking]:
    problem = drawn(request.param)
    return problem, bs.rank(problem)


def test_all_name_the_goodput_of_the_winner(ranked):
    problem, ranking = ranked
    best = ranking.best
    alone = bs.goodput(problem, best.strategy)
    assert alone.goodput == pytest.approx(best.goodput)
    assert (alone.method, alone.confirmed) == (best.method, best.confirmed)
    told = bs.explain(problem, best.strategy)
    assert told.goodput == pytest.approx(best.goodput)
    figures = ("hardware.memory_bandwidth",)
    moved = elasticities(problem, best.strategy, figures=figures)
    assert moved.goodput == pytest.approx(best.goodput)
    assert moved.method == best.method


def test_all_name_the_saturated_rate_of_the_winner(ranked):
    problem, ranking = ranked
    best = ranking.best
    capacity = bs.explain(problem, best.strategy).capacity
    assert best.goodput / best.utilisation == pytest.approx(capacity)
    drawn_at = bs.curves(problem, best.strategy, rates=[0.5 * best.goodput])
    assert drawn_at.points[0].stability_limit == pytest.approx(capacity)
    there = bs.predict(problem, best.strategy, 0.7 * best.goodput)
    assert there.stability_limit == pytest.approx(capacity)


def test_the_winner_is_what_other_requests_show(ranked):
    problem, ranking = ranked
    best = ranking.best
    simulated = bs.goodput(problem, best.strategy, method="simulated")
    assert best.goodput == pytest.approx(simulated.goodput, rel=0.05)
    if best.confirmed:
        # of other seeds and three times the requests, with an allowance for their own error
        again = bs.simulate(problem, best.strategy, 0.94 * best.goodput, requests=60_000, seed=11)
        assert again.meets(problem.slo.target())
        assert abs(math.log(best.goodput / best.simulated_goodput)) <= CONFIRMED


def test_no_interval_is_empty_or_vague_beside_a_high_trust(ranked):
    _, ranking = ranked
    for row in ranking.table:
        assert row.low < row.goodput < row.high
        if row.trust.high:
            assert row.errors["calibration"] <= VAGUE
            assert row.errors["sampling"] <= 0.05


def test_a_report_names_the_goodput_and_the_saturated_rate_of_the_winner(ranked):
    problem, ranking = ranked
    best = ranking.best
    charts = latency_charts(lower(problem), [best])
    drawn = [float(row["request_rate"]) for row in charts[0].records]
    assert max(drawn) <= 0.98 * best.goodput / best.utilisation
    for chart in charts:
        until = float(chart.summary.split(f"{best.strategy} to ")[1].split()[0])
        assert until >= 0.99 * best.goodput
        if chart.key == f"{best.binding.key}-curve":
            assert until == pytest.approx(best.goodput, rel=5e-3)


def as_fleet(problem: bs.Problem) -> Fleet:
    """The same question, asked of a whole fleet; collocated."""
    workload = problem.workload
    chat = FleetClass(
        name="chat",
        input_len=workload.input_len,
        output_len=workload.output_len,
        slo=problem.slo,
        rate=1.0,
    )
    model = FleetModel(
        model=problem.model, engine=problem.engine, classes=(chat,), layouts=("collocated",)
    )
    group = GpuGroup(hardware=problem.hardware, count=problem.gpus)
    return Fleet(gpus=(group,), models=(model,))


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_a_plan_names_the_goodput_of_its_pools(number):
    problem = drawn(number)
    plan = allocate(as_fleet(problem), certify=False)
    assert plan.pools
    for pool in plan.pools:
        alone = bs.goodput(problem, pool.strategy)
        # less where fresh requests do not bear it out
        exactly = 4e-3 if plan.corrections == 0 else CONFIRMED
        assert pool.goodput == pytest.approx(alone.goodput, rel=exactly)
