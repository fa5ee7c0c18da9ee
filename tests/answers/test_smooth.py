"""Smooth goodput as the objective of a ranking."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bestserve as bs
from bestserve.answers.smooth import best_rate, reader_of, smooth_at
from bestserve.cli import run as command
from bestserve.errors import InputError
from bestserve.lowering import Lowered

STEP = bs.StepTime(w=12.3e-3, c=37.3e-6, e=27e-6, a=0.75e-9, k=28.7e-9, a_step=4.36e-3, a_seq=13e-6)


def problem(slo: str) -> bs.Problem:
    return bs.Problem(
        step_time=STEP, kv_capacity_tokens=450_000, gpus=3, slo=slo,
        workload=bs.Workload(
            input_len="lognormal(2000, cv=0.8)", output_len="lognormal(300, cv=1)"
        ),
    )  # fmt: skip


def test_the_search_finds_the_top_of_a_hill():
    asked = []

    def hill(rate: float) -> float:
        asked.append(rate)
        return -((np.log(rate) - np.log(7.0)) ** 2)

    assert best_rate(hill, 2.0, 20.0) == pytest.approx(7.0, rel=0.01)
    assert len(asked) < 15
    assert best_rate(lambda rate: rate, 2.0, 20.0) == pytest.approx(20.0, rel=0.01)


def test_readers_follow_the_objectives():
    assert reader_of(bs.SLO("ttft:800 tpot:40").target()).pace == 0.04
    reader = reader_of(bs.SLO("deadline:1000+50").target())
    assert (reader.first, reader.pace) == (1.0, 0.05)
    for slo in ("ttft:500", "tpot:50", "e2el:9s"):
        with pytest.raises(InputError, match="when a reader starts"):
            bs.rank_smooth(problem(slo))


def test_waiting_costs_what_is_said():
    system = Lowered(problem("ttft:1000 tpot:50")).system("3m-tokens512")
    reader = reader_of(bs.SLO("ttft:1000 tpot:50").target())
    values = [smooth_at(system, 11.0, reader, c, requests=2000, seed=3) for c in (0.0, 20.0, 40.0)]
    tokens, once, twice = (v for v, _ in values)
    assert tokens - twice == pytest.approx(2 * (tokens - once))
    assert values[1][1] > 0
    # tokens of a request are 300 in the mean
    assert tokens / 300 == pytest.approx(11.0, rel=0.1)
    assert tokens - once == pytest.approx(20.0 * values[1][1] * tokens / 300, rel=0.1)


def test_each_strategy_stands_at_its_best_rate():
    found = bs.rank_smooth(problem("ttft:1000 tpot:35"))
    values = [row.smooth_goodput for row in found.table]
    assert values == sorted(values, reverse=True)
    assert found.cost == pytest.approx(1 / 0.035)
    best = found.table[0]
    system, reader = (
        Lowered(found.problem).system(best.strategy),
        reader_of(found.problem.slo.target()),
    )
    beside = [
        np.mean([smooth_at(system, f * best.rate, reader, found.cost, requests=4000, seed=s)[0]
                 for s in (101, 102)])
        for f in (0.8, 1.2)
    ]  # fmt: skip
    assert best.smooth_goodput > max(beside) - 2 * best.error
    # no cliff at a share of requests: the best rate lies above the goodput by attainment
    assert best.rate > best.goodput
    dear = bs.rank_smooth(problem("ttft:1000 tpot:35"), wait_cost=200.0)
    assert dear.table[0].rate < best.rate
    assert dear.table[0].wait < best.wait


def test_the_command_prints_and_repeats_it(tmp_path, capsys):
    path = tmp_path / "problem.json"
    path.write_text(json.dumps({
        "step_time": {"w": 12.3e-3, "c": 37.3e-6, "e": 27e-6, "a": 0.75e-9, "k": 28.7e-9},
        "kv_capacity_tokens": 450_000, "gpus": 1, "layouts": ["collocated"],
        "workload": {"input_len": 2000, "output_len": 300}, "slo": "ttft:1000 tpot:50",
    }))  # fmt: skip
    assert command(["rank", "--problem", str(path), "--by", "smooth"]) == 0
    said = capsys.readouterr().out
    assert "smooth tokens per s" in said
    assert "less 20 for each second that a reader waits" in said
    assert command(["rank", "--problem", str(path), "--by", "smooth", "--wait-cost", "50",
                    "--format", "json"]) == 0  # fmt: skip
    answer = capsys.readouterr().out
    assert json.loads(answer)["cost"] == 50
    again = tmp_path / "answer.json"
    again.write_text(answer)
    assert command(["rerun", str(again), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["table"] == json.loads(answer)["table"]
    assert command(["rank", "--problem", str(path), "--wait-cost", "50"]) == 2
    assert command(["rank", "--problem", str(path), "--by", "smooth", "--compare-routing",
                    "random"]) == 2  # fmt: skip
