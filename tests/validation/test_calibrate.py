"""Calibration: it finds what runs can tell, says what they cannot, and its record is applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bestserve as bs
from bestserve.answers.doubts import calibration_doubts
from bestserve.answers.factors import BY_NAME, FACTORS, apply_factors, scaled_values
from bestserve.catalog.calibration import load_calibration, save_calibration
from bestserve.cli import run
from bestserve.errors import DataError, InputError
from bestserve.lowering import lower
from bestserve.models.step.moe import expert_efficiency
from bestserve.readers.tidy import TidyRow
from bestserve.specs.calibration import Calibration, Constant, Provenance, units
from bestserve.validation.calibrate import calibrate_rows
from bestserve.validation.compare import compare_row
from bestserve.validation.map_fit import fit_factors
from bestserve.validation.replay import predict, prepare, system_of

Make = Callable[..., TidyRow]
TRUTH = {"a_step": 3.0, "t_req": 3.0}
LOADS = ((1, 200.0), (4, 500.0), (16, 1000.0), (64, 500.0), (2, 3000.0), (32, 200.0))


@pytest.fixture(scope="module")
def runs(make: Make) -> list[TidyRow]:
    """Runs of a deployment whose host and front end are three times as slow as the preset."""
    out = []
    for number, (clients, prompt) in enumerate(LOADS):
        row = make(id=str(number), concurrency=clients, input_len_mean=prompt, num_prompts=40)
        prepared = prepare(row)
        system = system_of(prepared, apply_factors(prepared.lowered, TRUTH))
        figures, _ = predict(system, prepared.protocol)
        out.append(
            replace(row, ttft_mean_ms=figures["ttft_mean_ms"], tpot_mean_ms=figures["tpot_mean_ms"])
        )
    return out


def errors(rows: Sequence[TidyRow], calibration: Any = None) -> list[float]:
    """Absolute errors of TTFT and TPOT."""
    found = [compare_row(r, calibration, with_intervals=False) for r in rows]
    return [abs(e) for c in found for e in c.errors.values()]


def test_three_runs_already_help(runs: list[TidyRow]) -> None:
    fit = calibrate_rows(runs[:3], held_out=False)
    before, after = errors(runs[3:]), errors(runs[3:], fit.record)
    assert np.median(after) < 0.5 * np.median(before)


@pytest.mark.slow
def test_the_truth_lies_within_the_uncertainty(runs: list[TidyRow]) -> None:
    fit = calibrate_rows(runs, jobs=1)
    found = {f.name: f for f in fit.factors}
    for name, value in TRUTH.items():
        assert found[name].identified
        assert abs(np.log(found[name].value / value)) < 3 * found[name].posterior_sd
        assert found[name].posterior_sd < found[name].prior_sd
    assert fit.held_out is not None
    assert fit.held_out.tpot_before is not None
    assert fit.held_out.tpot_after is not None
    assert fit.held_out.tpot_after < 0.3 * fit.held_out.tpot_before
    assert "unseen runs, TPOT" in fit.explain()


def test_what_runs_cannot_tell_stays_and_is_named(make: Make) -> None:
    lone = make(concurrency=1, input_len_mean=50.0, tpot_mean_ms=6.5, ttft_mean_ms=None)
    fit = calibrate_rows([lone])
    unknown = {f.name: f for f in fit.factors if not f.identified}
    assert {"t_req", "compute", "a_seq"} <= set(unknown)
    assert all(f.value == 1.0 for f in unknown.values())
    assert BY_NAME["t_req"].needs in fit.explain()
    assert "engine.t_req" not in fit.record.constants


def test_priors_hold_without_information(make: Make) -> None:
    prepared = [prepare(make(ttft_mean_ms=None, tpot_mean_ms=7.0))]
    factor = BY_NAME["t_req"]
    values, deviations = fit_factors(prepared, [factor])
    assert values[0] == pytest.approx(1.0)
    assert deviations[0] == pytest.approx(factor.prior, rel=0.02)


def test_nothing_to_fit_is_an_error_that_says_what_would_help(make: Make) -> None:
    with pytest.raises(DataError, match=r"identify no constant.*TTFT of short prompts"):
        calibrate_rows([make(ttft_mean_ms=None, tpot_mean_ms=7.0)], only=("t_req",))


def test_refusals(make: Make) -> None:
    with pytest.raises(InputError, match="several engines"):
        calibrate_rows([make(), make(engine="SGLang")])
    with pytest.raises(InputError, match=r"no factor 'a_steps'; nearest: a_step"):
        calibrate_rows([make()], only=("a_steps",))
    with pytest.raises(DataError, match="no run can be replayed"):
        calibrate_rows([make(gpu="NVIDIA X9000")])
    with pytest.raises(InputError, match="no log"):
        bs.calibrate()


def test_a_record_survives_the_disk_and_is_applied(make: Make, tmp_path: Path) -> None:
    fit = calibrate_rows([make(tpot_mean_ms=20.0, ttft_mean_ms=200.0, concurrency=c)
                          for c in (1, 8)], held_out=False)  # fmt: skip
    path = save_calibration(fit.record, tmp_path / "own.toml")
    record = load_calibration(path)
    assert record.record() == fit.record.record()
    assert all(c.unit == units()[n] and c.sd > 0 for n, c in record.constants.items())
    assert record.provenance.hardware == "h100-sxm"
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        engine="vllm-0.11",
        workload=bs.Workload(input_len=1000, output_len=100),
    )
    plain, own = lower(problem), lower(problem.replaced(calibration=str(path)))
    assert own.engine.a_step > plain.engine.a_step
    assert own.engine.max_num_seqs == plain.engine.max_num_seqs
    slower = bs.predict(problem.replaced(calibration=str(path)), "1m-tp1", 1.0)
    faster = bs.predict(problem, "1m-tp1", 1.0)
    assert slower.tpot is not None
    assert faster.tpot is not None
    assert slower.tpot.mean > faster.tpot.mean


def test_every_factor_names_constants_that_exist(make: Make) -> None:
    low = prepare(make()).lowered
    values = scaled_values({f.name: 1.0 for f in FACTORS}, low.constants, low.engine)
    assert set(values) <= set(units())
    assert apply_factors(low, {f.name: 1.0 for f in FACTORS}).engine == low.engine
    doubled = apply_factors(low, {"memory": 0.5})
    assert doubled.constants.gemm.memory == pytest.approx(0.5 * low.constants.gemm.memory)


# -- mixtures of experts -------------------------------------------------------------------------

EXPERTS = {"model": "openai/gpt-oss-120b", "tp": 2, "num_gpus": 2, "precision": "mxfp4"}


@pytest.fixture(scope="module")
def expert_runs(make: Make) -> list[TidyRow]:
    """Runs of a deployment whose expert kernels reach half of their listed rates."""
    truth = {"experts": 0.5, "gamma": 1.8, "t_req": 2.0}
    out = []
    for number, (clients, prompt) in enumerate(LOADS):
        row = make(
            id=str(number),
            concurrency=clients,
            input_len_mean=4 * prompt,
            num_prompts=40,
            **EXPERTS,
        )
        prepared = prepare(row)
        system = system_of(prepared, apply_factors(prepared.lowered, truth))
        figures, _ = predict(system, prepared.protocol)
        out.append(
            replace(row, ttft_mean_ms=figures["ttft_mean_ms"], tpot_mean_ms=figures["tpot_mean_ms"])
        )
    return out


def test_three_runs_help_a_mixture_of_experts(expert_runs: list[TidyRow]) -> None:
    fit = calibrate_rows(expert_runs[:3], held_out=False)
    before, after = errors(expert_runs[3:]), errors(expert_runs[3:], fit.record)
    assert np.median(after) < 0.5 * np.median(before)


@pytest.mark.parametrize(("factor", "which"), [("compute", 0), ("experts", 0), ("memory", 1)])
def test_factors_reach_the_listed_expert_kernels(make: Make, factor: str, which: int) -> None:
    low = prepare(make(**EXPERTS)).lowered
    kernel = low.engine.moe_kernel("mxfp4", low.device.generation)
    assert kernel.compute is not None  # a listed row, not the universal constants
    moved = apply_factors(low, {factor: 0.8})
    before, after = (
        expert_efficiency(low.device, "mxfp4", kernel, c)[which]
        for c in (low.constants, moved.constants)
    )
    assert after == pytest.approx(0.8 * before)


def test_factors_that_share_a_constant_multiply(make: Make) -> None:
    low = prepare(make(**EXPERTS)).lowered
    both = scaled_values({"compute": 0.5, "experts": 0.5}, low.constants, low.engine)
    assert both["moe.compute_listed"] == pytest.approx(0.25)
    assert both["gemm.compute_bf16"] == pytest.approx(0.5 * low.constants.gemm.compute_bf16)


# -- a record away from home ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def record(runs: list[TidyRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    fit = calibrate_rows(runs[:3], only=("a_step", "t_req"), held_out=False)
    return save_calibration(fit.record, tmp_path_factory.mktemp("record") / "own.toml")


HOME = {"model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm", "engine": "vllm-0.11"}
ABROAD = {
    "h200-sxm": {"hardware": "h200-sxm"},
    "Qwen/Qwen3-8B": {"model": "Qwen/Qwen3-8B"},
    "sglang": {"engine": "sglang"},
    "tp 2": {"strategy": "1m-tp2"},
}


@pytest.mark.parametrize("used", ABROAD)
def test_a_record_applied_to_something_else_lowers_trust(record: Path, used: str) -> None:
    stated = {**HOME, "strategy": "1m-tp1", **ABROAD[used]}
    strategy = stated.pop("strategy")
    problem = bs.Problem(
        gpus=2,
        workload=bs.Workload(input_len=1000, output_len=100),
        slo=bs.SLO("ttft:1000 tpot:50"),
        calibration=str(record),
        **stated,
    )
    for answer in (bs.predict(problem, strategy, 1.0), bs.goodput(problem, strategy)):
        assert not answer.trust.high
        (reason,) = [r for r in answer.trust.reasons if r.startswith("calibrated")]
        assert reason.endswith(f"applied to {used}")
        assert reason in answer.to_json()


@pytest.mark.parametrize("spelling", [HOME["model"], "llama-3.1-8b", "Llama-3.1-8B-Instruct"])
def test_a_record_at_home_is_trusted(record: Path, spelling: str) -> None:
    problem = bs.Problem(
        gpus=2,
        workload=bs.Workload(input_len=1000, output_len=100),
        slo=bs.SLO("ttft:1000 tpot:50"),
        calibration=str(record),
        **{**HOME, "model": spelling},
    )
    assert bs.predict(problem, "2m-tp1", 1.0).trust.high
    assert not any("calibrated" in r for r in bs.goodput(problem, "2m-tp1").trust.reasons)


def test_a_measured_board_and_its_constants_belong_together(tmp_path: Path) -> None:
    board = tmp_path / "mine.hardware.toml"
    board.write_text('extends = "h100-sxm"\ntitle = "mine"\n', encoding="utf-8")
    measured = Calibration(
        provenance=Provenance(device="H100", date="2026-11-22", hardware="h100-sxm"),
        constants={"gemm.memory": Constant(value=0.8, unit="1", kind="measured", source="here")},
    )
    path = save_calibration(measured, tmp_path / "mine.calibration.toml")
    asked = {"gpus": 1, "workload": bs.Workload(input_len=1000, output_len=100)}
    problem = bs.Problem(**{**HOME, **asked, "hardware": str(board)}, calibration=str(path))
    assert calibration_doubts(problem) == ()
    other = problem.replaced(hardware="h200-sxm")
    assert calibration_doubts(other) == ("calibrated with GPU h100-sxm, applied to h200-sxm",)


def test_the_command_line_says_it_on_stderr(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["predict", "1m-tp1", "--model", HOME["model"], "--hardware", "h200-sxm", "--gpus", "1"]
    flags += ["--engine", HOME["engine"], "--isl", "1000", "--osl", "100", "--request-rate", "1"]
    flags += ["--calibration", str(record), "--format", "json"]
    assert run(flags) == 0
    out, err = capsys.readouterr()
    said = "calibrated with GPU h100-sxm, applied to h200-sxm"
    assert [said in line for line in err.splitlines()].count(True) == 1
    assert said in json.loads(out)["trust"]["reasons"]


def test_validate_warns_of_a_foreign_record(runs: list[TidyRow], record: Path, make: Make) -> None:
    found = compare_row(
        replace(runs[0], gpu="NVIDIA H200"), load_calibration(record), with_intervals=False
    )
    assert "calibrated with GPU h100-sxm, applied to h200-sxm" in found.notes
