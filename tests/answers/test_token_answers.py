"""Answers under objectives on tokens: by formula where the joint law tells, else by runs."""

from __future__ import annotations

import json

import pytest

import bestserve as bs
from bestserve.cli import run as command
from bestserve.errors import InputError

STEP = {
    "w": 6e-3, "c": 26e-6, "e": 1e-6, "a": 0.35e-9, "k": 49e-9, "a_step": 0.8e-3, "a_seq": 35e-6
}  # fmt: skip


def problem(objectives: str, **slo: object) -> bs.Problem:
    return bs.Problem(
        step_time=bs.StepTime(**STEP), gpus=2, kv_capacity_tokens=400_000,
        max_num_batched_tokens=1024, layouts=("collocated",),
        workload=bs.Workload(input_len="lognormal:800,0.8", output_len="lognormal:150,0.8"),
        slo=bs.SLO(objectives, **slo),
    )  # fmt: skip


def test_deadlines_are_told_by_formula_and_by_runs():
    asked = problem("deadline:300+25")
    law = bs.predict(asked, "1m", request_rate=8, method="analytic")
    run = bs.predict(asked, "1m", request_rate=8, method="simulated")
    assert law.attainment_by["deadline"] == pytest.approx(run.attainment_by["deadline"], abs=0.06)
    assert law.readers == {}
    assert set(run.readers) == {
        "wait_mean", "wait_p99", "stall_mean", "stall_p99", "fluidity_mean", "itl_p50", "itl_p90",
        "itl_p99", "itl_max",
    }  # fmt: skip
    assert 0 < run.readers["itl_p50"] < run.readers["itl_p99"] <= run.readers["itl_max"]
    assert "readers wait" in run.explain()


def test_what_no_formula_tells_is_simulated_or_refused():
    asked = problem("ttft:300 stall:150 pace:25 itl:60@p99")
    found = bs.predict(asked, "1m", request_rate=8)
    assert found.method == "simulated"
    assert set(found.attainment_by) == {"ttft", "stall", "itl"}
    assert found.attainment is not None
    with pytest.raises(InputError, match="no formula tells stall and itl"):
        bs.predict(asked, "1m", request_rate=8, method="analytic")
    row = bs.goodput(asked, "1m")
    assert row.method == "simulated"
    with pytest.raises(InputError, match="no formula tells"):
        bs.goodput(asked, "1m", method="analytic")


def test_rank_asks_runs_where_formulas_tell_only_the_order():
    ranking = bs.rank(problem("ttft:300 itl:45@p99"))
    assert ranking.best.method == "simulated"
    assert "itl" in ranking.best.binding.key or ranking.best.binding.key == "ttft"
    with pytest.raises(InputError, match="no formula tells itl"):
        bs.rank(problem("ttft:300 itl:45@p99"), verify=False)


def test_goodput_under_deadlines_says_what_binds():
    row = bs.goodput(problem("deadline:300+25"), "1m")
    assert row.binding.value == "token deadlines"
    strict = bs.goodput(problem("deadline:300+20"), "1m")
    assert strict.goodput < row.goodput
    looser = bs.goodput(problem("deadline:300+20 slack:300"), "1m")
    assert strict.goodput < looser.goodput


def test_files_and_flags_say_the_same(tmp_path, capsys):
    path = tmp_path / "problem.toml"
    path.write_text(
        'model = "meta-llama/Llama-3.1-8B"\nhardware = "h100-sxm"\ngpus = 1\n'
        "[workload]\ninput_len = 800\noutput_len = 100\n"
        '[slo]\nttft = "300ms"\ndeadline = "15ms"\nslack = "50ms"\n'
    )
    assert command(["predict", "1m-tp1", "--problem", str(path), "--request-rate", "4",
                    "--method", "analytic", "--format", "json"]) == 0  # fmt: skip
    of_file = json.loads(capsys.readouterr().out)
    assert command([
        "predict", "1m-tp1", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm",
        "--gpus", "1", "--input-len", "800", "--output-len", "100", "--goodput", "ttft:300",
        "deadline:15", "slack:50", "--request-rate", "4", "--method", "analytic",
        "--format", "json",
    ]) == 0  # fmt: skip
    of_flags = json.loads(capsys.readouterr().out)
    assert of_file["attainment_by"] == of_flags["attainment_by"]
    assert set(of_file["attainment_by"]) == {"ttft", "deadline"}
