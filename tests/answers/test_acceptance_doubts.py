"""Drafts whose acceptance nobody states carry low trust, say why, and widen the answer."""

from __future__ import annotations

import math

import pytest

import bestserve as bs
from bestserve.analysis.uncertainty import uncertainty
from bestserve.answers.factors import ACCEPTANCE, varied
from bestserve.lowering import lower

SPEC = {"method": "eagle3", "num_speculative_tokens": 3}
LENGTHS = {"input_len": 500, "output_len": 200}


def predicted(strategy: str = "1m-tp1", **speculative: object) -> bs.Prediction:
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=2, workload=LENGTHS,
        speculative_config={**SPEC, **speculative},
    )  # fmt: skip
    return bs.predict(problem, strategy, 1.0, method="analytic")


@pytest.mark.parametrize("strategy", ["1m-tp1", "1p1d-tp1"])
def test_assumed_acceptance_is_not_trusted(strategy):
    trust = predicted(strategy).trust
    assert not trust.high
    assert any("--acceptance" in reason for reason in trust.reasons)


def test_stated_acceptance_and_no_drafts_have_no_such_doubt():
    for found in (predicted(acceptance=0.7), predicted("1m-tp1-spec0")):
        assert not any("--acceptance" in reason for reason in found.trust.reasons)


@pytest.mark.parametrize(("dataset", "high"), [("sharegpt", False), ("gsm8k", True)])
def test_acceptance_that_follows_the_length_of_answers_is_not_trusted(dataset, high):
    trust = predicted(method="eagle", acceptance=dataset).trust
    assert trust.high == high
    assert any("follows the length of answers" in reason for reason in trust.reasons) != high


def stated(**speculative: object) -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=1,
        workload={"input_len": 1000, "output_len": 250}, slo="ttft:1000 tpot:15",
        speculative_config={**SPEC, **speculative},
    )  # fmt: skip


def test_assumed_acceptance_widens_a_goodput_as_far_as_its_bounds_move_it():
    """±1.645 standard deviations of the log odds are the bounds, .55 and .80."""
    found = bs.goodput(stated(), "1m-tp1-spec3", method="analytic")
    low, high = (
        bs.goodput(stated(acceptance=a), "1m-tp1-spec3", method="analytic").goodput
        for a in (0.55, 0.80)
    )
    whole = math.log(high / low) / 2
    assert whole / 1.5 < found.errors["acceptance"] < 1.5 * whole
    own = bs.goodput(stated(acceptance=0.7), "1m-tp1-spec3", method="analytic")
    assert "acceptance" not in own.errors
    assert found.high / found.low > own.high / own.low


def test_no_drafts_depend_on_no_acceptance():
    found = bs.goodput(stated(), "1m-tp1-spec0", method="analytic")
    assert found.errors["acceptance"] == 0


def test_a_ranking_names_acceptance_among_what_is_open():
    found = bs.rank(stated(), verify=False)
    for row in found.table:
        drafts = bs.Strategy.parse(row.strategy).pools[-1].drafts
        assert (row.errors["acceptance"] > 0) == (drafts != 0)
    assert "acceptance" in found.explain().splitlines()[0]


def test_assumed_acceptance_widens_predictions_and_takes_part_in_uncertainty():
    wide, narrow = (
        bs.predict(stated(**known), "1m-tp1", 5.0, method="analytic").intervals["tpot_mean"]
        for known in ({}, {"acceptance": 0.7})
    )
    assert wide[1] / wide[0] > narrow[1] / narrow[0]
    assert ACCEPTANCE in varied(lower(stated()), split=False)
    assert ACCEPTANCE not in varied(lower(stated(acceptance=0.7)), split=False)
    own = uncertainty(stated(), strategies=["1m-tp1-spec3"], samples=16, jobs=1)
    share = next(i for i in own.indices if i.factor is ACCEPTANCE)
    assert share.total > 0.01
    assert "--acceptance" in share.factor.needs


def test_own_step_times_leave_acceptance_open_alone():
    own = bs.Problem(
        step_time=bs.StepTime(w=6e-3, c=26e-6, e=0, a=0, k=5e-8), gpus=1, workload=LENGTHS,
        slo="ttft:2000 tpot:50", speculative_config=SPEC,
    )  # fmt: skip
    assert varied(lower(own), split=False) == (ACCEPTANCE,)
    errors = bs.goodput(own, "1m-tp1", method="analytic").errors
    assert errors["calibration"] == 0
    assert errors["acceptance"] > 0.02
