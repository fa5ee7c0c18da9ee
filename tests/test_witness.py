"""One verdict for one question: a goodput stands before runs at that rate, whoever is asked."""

from __future__ import annotations

import math

import pytest

import bestserve as bs
from bestserve.answers import precision
from bestserve.answers.intervals import Z90
from bestserve.answers.witness import CONFIRMED, Z95, Evidence
from bestserve.errors import InputError
from bestserve.models.trust import Trust
from bestserve.results.ranking import RankedStrategy

AGREED, SURE = 0.03, 0.05


def sampling(row: RankedStrategy) -> float:
    """Half-width of the 95 % interval of a row's runs."""
    return row.errors["sampling"] * Z95 / Z90


SERVED = {
    "full caches": (
        {
            "model": "meta-llama/Llama-3.1-70B",
            "hardware": "h100-sxm",
            "gpus": 16,
            "workload": bs.Workload(input_len=2000, output_len=300),
            "slo": "ttft:1000 tpot:50",
        },
        "3p1d-tp4",
    ),
    "a knee": (
        {
            "model": "Qwen/Qwen3-32B",
            "hardware": "h100-sxm",
            "gpus": 8,
            "workload": bs.Workload(input_len="lognormal:1500,1", output_len="lognormal:400,1"),
            "slo": "ttft:500",
        },
        "4m-tp2",
    ),
    "plain": (
        {
            "model": "meta-llama/Llama-3.1-8B",
            "hardware": "h100-sxm",
            "gpus": 4,
            "workload": bs.Workload(input_len="lognormal:1000,0.8", output_len="lognormal:200,1"),
            "slo": "ttft:1000 tpot:50",
        },
        "4m-tp1",
    ),
}


@pytest.fixture(params=list(SERVED))
def served(request) -> tuple[bs.Problem, str]:
    stated, strategy = SERVED[request.param]
    return bs.Problem(**stated), strategy


def told(trust: Trust) -> str:
    return "; ".join(trust.reasons)


def test_a_goodput_holds_in_a_run_with_other_requests(served):
    problem, strategy = served
    found = bs.goodput(problem, strategy)
    run = bs.simulate(problem, strategy, 0.98 * found.goodput, requests=40_000, seed=7)
    met = run.meeting(problem.slo.target())
    assert min(v for m, v in met.items() if m != "joint") >= 0.88


def test_where_formula_and_runs_differ_the_run_is_shown_and_trust_is_its_own(served):
    problem, strategy = served
    found = bs.goodput(problem, strategy)
    formula = bs.goodput(problem, strategy, method="analytic")
    assert found.confirmed == (
        abs(math.log(found.goodput / found.simulated_goodput)) + sampling(found) <= CONFIRMED
    )
    assert not formula.confirmed
    assert formula.simulated_goodput is None
    apart = abs(formula.goodput / found.simulated_goodput - 1)
    if found.method == "analytic":
        assert found.goodput == formula.goodput
        assert apart <= AGREED * 1.02
    else:
        assert found.goodput == found.simulated_goodput
    if apart > AGREED * 1.02:
        assert found.method == "simulated"
        assert "simulation, which is shown" in told(found.trust)
    assert found.trust.high == (sampling(found) <= SURE)


@pytest.mark.parametrize(("answer", "doubted"), [("geometric:32", True), (256, False)])
def test_a_rough_run_dispels_no_doubt_in_a_formula_that_it_agrees_with(
    monkeypatch, answer, doubted
):
    problem = bs.Problem(
        model="openai/gpt-oss-120b",
        hardware="h100-sxm",
        gpus=2,
        engine="sglang",
        workload=bs.Workload(input_len="lognormal:1500,1", output_len=answer),
    )
    asked = problem, "1m-tp2", 6.0
    assert bs.predict(*asked, method="analytic").trust.high == (not doubted)
    told_well = bs.predict(*asked)
    assert told_well.trust.high
    monkeypatch.setattr(precision, "ROUGH", 1e-6)
    monkeypatch.setattr(precision, "MOST_TIMES", 1)
    assert bs.predict(*asked).trust.high == (not doubted)


def test_prediction_at_the_goodput_meets_the_objectives(served):
    problem, strategy = served
    found = bs.goodput(problem, strategy)
    there = bs.predict(problem, strategy, found.goodput * 0.99)
    assert there.status.name == "OK"
    assert min(there.attainment_by.values()) >= 0.87


def test_everyone_names_the_same_goodput_and_saturation(served):
    problem, strategy = served
    found = bs.goodput(problem, strategy)
    told = bs.explain(problem, strategy)
    drawn = bs.curves(problem, strategy, rates=[0.5 * found.goodput, 0.9 * found.goodput])
    assert told.goodput == pytest.approx(found.goodput)
    assert [p.stability_limit for p in drawn.points] == pytest.approx([told.capacity] * 2)
    assert max(found.goodput / found.utilisation, found.goodput) == pytest.approx(
        told.capacity, rel=0.02
    )


def test_the_first_row_stands_before_a_run_and_nothing_unheard_reaches_beyond_it(served):
    problem, _ = served
    found = bs.rank(problem)
    best = found.best
    assert best.confirmed
    alone = bs.goodput(problem, best.strategy)
    assert alone.goodput == pytest.approx(best.goodput)
    assert alone.simulated_goodput == pytest.approx(best.simulated_goodput)
    assert alone.method == best.method


def test_formulas_alone_are_asked_for_by_name():
    stated, strategy = SERVED["plain"]
    problem = bs.Problem(**stated)
    assert bs.predict(problem, strategy, 20.0, method="analytic").method == "analytic"
    assert not any(row.confirmed for row in bs.rank(problem, verify=False).table)


def test_a_method_that_is_none_is_refused_everywhere():
    stated, strategy = SERVED["plain"]
    problem = bs.Problem(**stated)
    for ask in (
        lambda: bs.predict(problem, strategy, 1.0, method="exact"),
        lambda: bs.goodput(problem, strategy, method="exact"),
        lambda: bs.curves(problem, strategy, method="exact"),
        lambda: bs.sensitivity(problem, strategy, method="exact"),
    ):
        with pytest.raises(InputError, match="'exact' is none of auto, analytic, simulated"):
            ask()


def test_a_goodput_that_a_growing_queue_caps_is_the_one_that_is_named():
    evidence = Evidence(rate=5.0, low=4.9, high=5.1, said="simulation, which is shown, 5")
    capped = evidence.capped(4.2, 0.012)
    assert told(capped.trust(Trust(True))) == (
        "the objectives hold up to 5 req/s, but the queue grows from 4.2 req/s on, which is shown"
    )
    assert "which is shown, 5" in told(evidence.trust(Trust(True)))
