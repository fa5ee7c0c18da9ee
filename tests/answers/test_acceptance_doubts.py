"""Drafts whose acceptance nobody states carry low trust and say why."""

from __future__ import annotations

import pytest

import bestserve as bs

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
