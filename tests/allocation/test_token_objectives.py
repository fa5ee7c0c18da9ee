"""Fleets under objectives on tokens: simulated, on pools that do prefill and decode."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import InputError
from bestserve.fleet.referee import labelled_requests, measured_goodput, reader_of
from bestserve.fleet.stage import ClassLoad, Stage, stage_goodput, stage_target
from bestserve.fleet.tabulate import counts_from_arrival
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Lane, Lengths
from bestserve.solvers.allocation.tables import COLLOCATED, DECODE, PREFILL
from bestserve.specs.slo import SLO

STEP = StepTime(w=6e-3, c=26e-6, e=1e-6, a=0.35e-9, k=49e-9, a_step=0.8e-3, a_seq=35e-6)
ONE = np.ones(1)


def load(name: str, objectives: str, share: float = 1.0) -> ClassLoad:
    lengths = Lengths(inputs=600 * ONE, input_weights=ONE, outputs=80 * ONE, output_weights=ONE)
    return ClassLoad(name, share, lengths, SLO(objectives).target())


def test_each_class_is_read_at_its_own_pace():
    loads = (load("chat", "deadline:300+12", 0.5), load("batch", "e2el:10s", 0.5))
    stage = Stage(COLLOCATED, Lane(step=STEP, max_num_batched_tokens=512), 1, loads)
    labels = labelled_requests(loads, 200, 1, COLLOCATED).labels
    reader = reader_of(loads, labels, COLLOCATED)
    assert set(reader.pace[labels == 0]) == {0.012}
    assert set(reader.pace[labels == 1]) == {0.0}
    strict = measured_goodput(stage)
    loose = measured_goodput(
        Stage(COLLOCATED, stage.lane, 1, (load("chat", "deadline:300+30", 0.5), loads[1]))
    )
    assert 0 < strict < 0.9 * loose


def test_a_stage_answers_for_what_it_can():
    target = SLO("ttft:500 tpot:20 stall:200 itl:60@p99").target()
    assert stage_target(PREFILL, target).asked == ("ttft",)
    assert stage_target(DECODE, target).asked == ("tpot", "stall", "itl")
    assert not counts_from_arrival(target)
    assert counts_from_arrival(SLO("deadline:500+20").target())
    assert counts_from_arrival(SLO("ttft:500 fluidity:0.9 pace:20").target())


def test_what_no_formula_tells_is_measured():
    asked = []

    def measure(stage: Stage, near: float, floor: float) -> float:
        asked.append(near)
        return 1.5

    lane = Lane(step=STEP, max_num_batched_tokens=512)
    stage = Stage(COLLOCATED, lane, 2, (load("chat", "ttft:300 itl:40@p99"),))
    assert stage_goodput(stage, measure) == 3.0
    assert len(asked) == 1
    assert asked[0] > 0


def test_a_fleet_takes_them():
    chat = {
        "name": "chat", "rate": 8.0, "input_len": 800, "output_len": 120,
        "slo": {"deadline_first": "400ms", "deadline": "14ms"},
    }  # fmt: skip
    model = {
        "model": "meta-llama/Llama-3.1-8B", "tensor_parallel_sizes": [1],
        "max_num_batched_tokens": [1024], "classes": [chat],
    }  # fmt: skip
    gpus = [{"hardware": "h100-sxm", "count": 3, "price_per_hour": 2.0}]
    plan = bs.allocate(bs.Fleet(gpus=gpus, models=[model], objective="min_cost"))
    assert [pool.role for pool in plan.pools] == ["collocated"]
    assert [check.metric for check in plan.verification] == ["deadline"]


def test_schedules_name_what_they_do_not_know():
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B", hardware="h100-sxm", gpus=1,
        workload=bs.Workload(input_len=800, output_len=120), slo="deadline:400+14",
    )  # fmt: skip
    from bestserve.fleet.schedule.offers import offers_of_problem

    with pytest.raises(InputError, match="schedules know TTFT, TPOT and E2EL"):
        offers_of_problem(problem, "1m-tp1")


def test_checks_state_shares_of_gaps():
    loads = (load("chat", "itl:12@p95"),)
    stage = Stage(COLLOCATED, Lane(step=STEP, max_num_batched_tokens=512), 1, loads)
    from bestserve.fleet.referee import checked

    [check] = checked(stage, 5.0)
    assert check.metric == "itl"
    assert check.required == 0.95
    assert 0 < check.share < 1
