"""Intervals of predictions and rankings: where they come from and how they are said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import bestserve as bs
from bestserve.answers.factors import BY_NAME, spreads
from bestserve.answers.intervals import FAMILIES, Z90
from bestserve.answers.residuals import RESIDUAL
from bestserve.catalog.calibration import save_calibration
from bestserve.cli import run
from bestserve.lowering import lower
from bestserve.results.prediction import telling
from bestserve.specs.calibration import Calibration, Constant, Provenance


@pytest.fixture
def problem() -> bs.Problem:
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        engine="vllm",
        workload=bs.Workload(input_len=1000, output_len=100),
        slo=bs.SLO("ttft:1000 tpot:50"),
    )


def record(problem: bs.Problem, share: float, *names: str) -> Calibration:
    """A record that repeats engine constants with standard errors of `share` of their values."""
    engine = lower(problem).engine
    return Calibration(
        provenance=Provenance(device="here", date="2026-11-22"),
        constants={
            f"engine.{n}": Constant(
                value=getattr(engine, n), unit="s", kind="measured", source="here",
                sd=share * getattr(engine, n),
            )
            for n in names
        },
    )  # fmt: skip


def test_every_prediction_lies_inside_its_intervals(problem: bs.Problem) -> None:
    for workload in (problem.workload, bs.Workload(input_len=1000, output_len=100,
                                                   max_concurrency=8)):  # fmt: skip
        asked = problem.replaced(workload=workload)
        found = bs.predict(asked, "1m-tp1", None if workload.closed else 2.0)
        kind = "closed" if workload.closed else "open"
        assert len(found.intervals) == 8
        for name, (low, high) in found.intervals.items():
            metric, statistic = name.split("_")
            value = getattr(getattr(found, metric), statistic)
            assert low < value < high
            assert low * high == pytest.approx(value**2)
        residual = RESIDUAL[kind, "dense"][FAMILIES.index("tpot")]
        low, high = found.intervals["tpot_mean"]
        assert math.log(high / low) / 2 > Z90 * residual  # the constants add to it


def test_a_rate_that_slower_constants_cannot_carry_has_no_upper_end(problem: bs.Problem) -> None:
    limit = bs.predict(problem, "1m-tp1", 1.0, method="analytic").stability_limit
    assert limit is not None
    found = bs.predict(problem, "1m-tp1", 0.995 * limit, method="analytic")
    assert found.intervals["ttft_mean"][1] == math.inf
    assert "the constants' uncertainty spans saturation" in found.explain()
    assert json.loads(found.to_json())["intervals"]["ttft_mean"][1] is None


def test_what_splitting_costs_is_said_until_it_is_known(
    problem: bs.Problem, tmp_path: Path
) -> None:
    split = problem.replaced(gpus=2)
    unknown = bs.predict(split, "1p1d-tp1", 2.0)
    assert unknown.trust.high
    assert "vllm's host is taken as nothing" in unknown.explain()
    assert not bs.predict(split, "2m-tp1", 2.0).trust.reasons
    assert not bs.predict(split.replaced(engine="sglang"), "1p1d-tp1", 2.0).trust.reasons
    own = {"engine.handover": Constant(value=0.1, unit="s", kind="measured", source="own log")}
    record = Calibration(provenance=Provenance(device="H100", date="2026-01-01"), constants=own)
    path = save_calibration(record, tmp_path / "split.toml")
    known = bs.predict(split.replaced(calibration=str(path)), "1p1d-tp1", 2.0)
    assert not known.trust.reasons
    assert known.e2el is not None
    assert unknown.e2el is not None
    assert known.e2el.mean == pytest.approx(unknown.e2el.mean + 0.1, rel=2e-3)


def test_a_calibration_record_narrows_the_intervals(problem: bs.Problem, tmp_path: Path) -> None:
    own = record(problem, 0.02, "a_step", "a_step_moe", "t_req", "t_req_moe")
    path = save_calibration(own, tmp_path / "own.toml")
    assert spreads(own)["a_step"] == pytest.approx(0.02)
    assert spreads(own)["a_seq"] == BY_NAME["a_seq"].between
    half_of_it = record(problem, 0.02, "a_step")
    assert spreads(half_of_it)["a_step"] == BY_NAME["a_step"].between
    wide = bs.predict(problem, "1m-tp1", 2.0).intervals
    narrow = bs.predict(problem.replaced(calibration=str(path)), "1m-tp1", 2.0).intervals
    for name in ("ttft_mean", "tpot_mean"):
        assert wide[name][0] < narrow[name][0] < narrow[name][1] < wide[name][1]


def test_own_step_times_have_none(problem: bs.Problem) -> None:
    step = bs.StepTime(w=6e-3, c=26e-6, e=0.0, a=0.35e-9, k=49e-9)
    own = bs.Problem(step_time=step, gpus=1, workload=problem.workload, slo=problem.slo)
    assert bs.predict(own, "1m-tp1", 1.0).intervals == {}


def test_a_ranking_states_those_of_its_winner(problem: bs.Problem) -> None:
    found = bs.rank(problem, verify=False)
    best = found.best
    again = bs.predict(problem, best.strategy, best.goodput, method="analytic")
    assert found.intervals == again.intervals
    assert ("90 % of measured runs" in found.explain()) == telling(found.intervals)
    assert json.loads(found.to_json())["intervals"].keys() == again.intervals.keys()
    said = replace(found, intervals={}).explain() != found.explain()
    assert said == telling(found.intervals)


def test_the_command_line_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1"]
    assert run(["predict", "1m-tp1", *flags, "--request-rate", "2"]) == 0
    assert "90 % of measured runs would have a mean TTFT of" in capsys.readouterr().out
