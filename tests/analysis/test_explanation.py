"""The waterfall adds up, names the bound and the nearest miss, and compares two strategies."""

from __future__ import annotations

import math

import pytest

import bestserve as bs
from bestserve.cli import run
from bestserve.errors import InfeasibleError


@pytest.mark.parametrize("strategy", ["1m-tp8", "1p1d-tp4"])
def test_parts_sum_to_the_percentile_at_the_goodput(real, strategy):
    told = bs.explain(real, strategy)
    found = bs.goodput(real, strategy, method="analytic")
    assert told.goodput == pytest.approx(found.goodput)
    for fall, value in ((told.waterfall("ttft"), found.ttft), (told.waterfall("tpot"), found.tpot)):
        assert sum(p.seconds for p in fall.parts) == pytest.approx(fall.value)
        assert fall.value == pytest.approx(value)
        assert fall.records()[-1]["sum_ms"] == pytest.approx(value * 1e3)
    for step in told.steps:
        assert sum(p.seconds for p in step.operators) == pytest.approx(step.seconds, rel=1e-6)


def test_the_bound_and_the_nearest_miss_are_named(real):
    told = bs.explain(real, "2m-tp4")
    assert told.binding == "tpot"
    assert told.room["tpot"] == pytest.approx(0.0, abs=5e-3)
    assert told.room["ttft"] > 0
    miss = 1 - math.exp(-told.room["ttft"])
    assert told.verdict() == (
        f"It stops at its TPOT objective; the nearest miss is its TTFT objective, {miss:.0%} "
        "below the threshold."
    )
    text = told.explain()
    for stage in ("prefill step", "decode step", "Memory:", "Capacity:", "Goodput:", "P90 TTFT"):
        assert stage in text


def test_own_coefficients_are_explained_without_operators(own):
    told = bs.explain(own, "4m-tp1")
    assert told.steps == ()
    assert told.memory == ""
    assert "decode step" in told.explain()


def test_joint_objectives_name_the_joint_attainment(own):
    joint = own.replaced(slo=bs.SLO("ttft:1000 tpot:25", joint=True, attainment=0.9))
    assert bs.explain(joint, "4m-tp1").verdict().startswith("It stops at its joint attainment")


def test_versus_puts_the_better_one_first_whatever_the_order(real):
    one, other = bs.explain(real, "1m-tp8", "2m-tp4"), bs.explain(real, "2m-tp4", "1m-tp8")
    assert one.explain() == other.explain()
    assert one.first.goodput > one.second.goodput
    text = one.explain()
    assert f"{one.first.strategy} carries" in text
    assert "saturates at" in text
    mine, theirs = one.at_rate["tpot"]
    assert mine <= 0.05 * 1.005
    assert theirs is None or theirs > mine
    rows = one.records()
    assert len(rows) == 7
    assert rows[0][f"{one.first.strategy}_ms"] >= 0
    assert set(one.content()) == {"problem", "strategies", "first", "second", "at_rate"}


def test_command_tells_one_and_compares_two(capsys):
    problem = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "2"]
    assert run(["explain", "2m-tp1", *problem]) == 0
    assert "the nearest miss" in capsys.readouterr().out
    assert run(["explain", "2m-tp1", "1m-tp2", *problem]) == 0
    assert "per GPU)" in capsys.readouterr().out
    assert run(["explain", "9m-tp1", *problem]) == 3
    assert "needs 9 GPUs" in capsys.readouterr().err


def test_what_cannot_be_met_says_the_arithmetic(real):
    with pytest.raises(InfeasibleError, match="a request alone"):
        bs.explain(real.replaced(slo=bs.SLO("ttft:1000 tpot:1")), "2m-tp4")


@pytest.mark.parametrize("command", ["explain", "sensitivity"])
def test_answers_as_json_can_be_repeated(command, tmp_path, capsys):
    problem = ["--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1",
               "--input-len", "500", "--output-len", "geometric:100"]  # fmt: skip
    assert run([command, "1m-tp1", *problem, "--format", "json"]) == 0
    first = capsys.readouterr().out
    path = tmp_path / "answer.json"
    path.write_text(first, encoding="utf-8")
    assert run(["rerun", str(path)]) == 0
    assert capsys.readouterr().out == first
