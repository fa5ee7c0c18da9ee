"""One interval of a goodput: its parts named, never empty, never vague beside a high trust."""

from __future__ import annotations

import math

import pytest

import bestserve as bs
from bestserve.answers.errors import Calibration, calibration, moved
from bestserve.answers.factors import apply_factors, spreads_of, varied
from bestserve.answers.intervals import Z90
from bestserve.lowering import lower
from bestserve.models.goodput import goodput
from bestserve.results.prediction import telling

FIXED = bs.Workload(input_len=2000, output_len=300)


def problem(**changes) -> bs.Problem:
    values = {
        "model": "meta-llama/Llama-3.1-70B",
        "hardware": "h100-sxm",
        "gpus": 8,
        "workload": FIXED,
        "slo": "ttft:1000 tpot:50",
    }
    return bs.Problem(**(values | changes))


@pytest.fixture(scope="module")
def ranking():
    return bs.rank(problem())


def test_an_interval_is_made_of_its_parts_and_never_empty(ranking):
    for row in ranking.table:
        assert set(row.errors) == {"sampling", "model", "calibration"}
        whole = math.exp(math.hypot(*row.errors.values()))
        assert row.low == pytest.approx(row.goodput / whole)
        assert row.high == pytest.approx(row.goodput * whole)
        assert row.errors["model"] >= 0.01
        assert row.errors["calibration"] > 0.02
    said = ranking.explain().splitlines()[0]
    assert f"{ranking.best.low:.3g} to {ranking.best.high:.3g}" in said
    assert "calibration" in said


def test_a_strategy_alone_has_the_interval_of_its_row(ranking):
    best = ranking.best
    alone = bs.goodput(problem(), best.strategy)
    assert alone.errors == pytest.approx(best.errors, rel=0.05, abs=2e-3)


def test_own_step_times_have_no_calibration_error():
    stated = bs.Problem(
        step_time=bs.StepTime(w=6e-3, c=26e-6, e=0, a=0, k=5e-8),
        gpus=2,
        workload=FIXED,
        slo="ttft:2000 tpot:50",
    )
    assert bs.goodput(stated, "2m-tp1").errors["calibration"] == 0


def test_ties_are_rows_that_what_is_uncertain_leaves_open(ranking):
    first = ranking.best
    assert not first.tied
    for row in ranking.table[1:]:
        parts = [row.errors["sampling"], row.errors["model"]]
        parts += [first.errors["sampling"], first.errors["model"]]
        assert row.tied == (math.log(first.goodput / row.goodput) <= math.hypot(*parts))
    tied = [row.strategy for row in ranking.table if row.tied]
    assert ("it ties with" in ranking.explain()) == bool(tied)


def test_vague_intervals_are_not_printed():
    assert not telling({"ttft_mean": (0.0, math.inf), "tpot_mean": (0.02, 0.03)})
    assert not telling({"ttft_mean": (0.01, 1.0), "tpot_mean": (0.02, 0.03)})
    assert telling({"ttft_mean": (0.1, 0.5), "tpot_mean": (0.0, 0.0)})
    near = bs.predict(problem(), "2m-tp4", 8.0)
    assert "0 ms or more" not in near.explain()


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        (
            {
                "model": "Qwen/Qwen3-32B",
                "workload": bs.Workload(input_len="lognormal:1500,1", output_len="lognormal:400,1"),
                "slo": "ttft:500",
            },
            "2m-tp4-seqs384",
        ),
        ({}, "2m-tp4"),
        ({"slo": "ttft:100000 tpot:80"}, "2m-tp4"),
    ],
)
def test_constants_move_a_goodput_as_far_as_searches_with_them_say(asked, strategy):
    """Near a knee a line through latencies said ± 270 %, where searches say 9 %."""
    stated, parsed = lower(problem(**asked)), bs.Strategy.parse(strategy)
    target = stated.problem.slo.target()

    def rate(factors):
        return goodput(apply_factors(stated, factors).system(parsed), target).rate

    base = rate({})
    told = calibration(stated, parsed, moved(stated, parsed, base), target)
    sizes = spreads_of(stated)
    changes = [
        math.log(rate({f.name: math.exp(sizes[f.name])}) / base) for f in varied(stated, False)
    ]
    exact = Z90 * math.hypot(*changes)
    assert exact / 1.5 < told.error < 1.7 * exact
    assert told.trust.high


def test_what_leaves_everything_open_is_not_trusted():
    vague = Calibration(error=0.8, measure="TTFT of short prompts")
    assert not vague.trust.high
    assert vague.trust.reasons == (
        "constants leave the goodput open by a factor of 2.2: measure TTFT of short prompts and "
        "calibrate",
    )
    assert Calibration(error=0.6, measure="anything").trust.high
