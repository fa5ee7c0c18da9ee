"""The goodput that runs show: where the target stops holding, and how exactly that is told."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import bestserve as bs
from bestserve.answers.crossing import Crossing
from bestserve.answers.goodput import _capped
from bestserve.answers.referee import mean_batch, saturation
from bestserve.answers.simulated import Simulated, growth
from bestserve.answers.witness import (
    CONFIRMED,
    MISSED,
    PRECISE,
    REFUSED,
    SCREENED,
    SURE,
    Court,
    Evidence,
    measured_goodput,
)
from bestserve.errors import InputError
from bestserve.lowering import lower
from bestserve.lowering.lengths import lower_lengths
from bestserve.models.attainment import margin
from bestserve.models.binding import Binding
from bestserve.models.latency import stability_rate
from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Lane, System, Target
from bestserve.models.trust import Trust
from bestserve.simulator.run_length import TURNOVERS


def system(strategy: str = "4m-tp1", burstiness: float = 1.0, **changes) -> System:
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=64,
        workload=bs.Workload(
            input_len="lognormal(800, cv=1)", output_len="geometric(150)", burstiness=burstiness
        ),
        **changes,
    )
    return lower(problem).system(strategy)


@pytest.mark.parametrize("burstiness", [1.0, 0.25])
def test_a_goodput_meets_its_target_and_no_more(burstiness):
    whole = system("4m-tp1", burstiness, routing="round_robin")
    target = Target(ttft=0.5, tpot=0.02)
    found = measured_goodput(whole, target)
    runs = Simulated(system=whole, seed=77)
    assert margin(runs(0.95 * found.rate), target)[0] > 0
    assert margin(runs(1.05 * found.rate), target)[0] < 0
    assert found.low < found.rate < found.high


def test_guesses_move_no_goodput():
    whole = system("4m-tp1", routing="least_outstanding")
    target = Target(ttft=0.5, tpot=0.02)
    rates = [measured_goodput(whole, target, near=near).rate for near in (None, 1.0, 50.0, 1e6)]
    assert rates == pytest.approx([rates[0]] * 4, rel=PRECISE / 2)


def test_intervals_hold_what_other_requests_show():
    """Of eight draws none is further from their mean than its own interval, 95 % wide, and half."""
    whole, target = system("1m-tp1"), Target(ttft=0.3, tpot=0.02)
    told = [Court(target, seed=seed).settles(whole, near=30.0) for seed in range(1, 9)]
    assert all(0 < each.half <= 1.5 * PRECISE for each in told)
    mean = float(np.mean([each.rate for each in told]))
    assert all(abs(np.log(each.rate / mean)) < 1.5 * each.half for each in told)
    spread = float(np.std([each.rate for each in told], ddof=1)) / mean
    assert spread < PRECISE / 1.96 * 1.3


def test_a_vague_run_grows_until_it_tells():
    """99th percentiles of spread prompts take more requests than usual."""
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="l40s",
        gpus=4,
        workload=bs.Workload(input_len="lognormal:2000,0.8", output_len="lognormal:60,1"),
        slo="ttft:1000@p99 tpot:40@p99",
    )
    whole, target = lower(problem).system("3p1d-tp1"), problem.slo.target()
    court = Court(target)
    usual = court.hears(whole, 9.3)
    settled = court.settles(whole, 9.3, claim=9.3)
    assert max(court.drawn) > 3 * min(court.drawn)
    assert settled.half < 0.7 * usual.half
    # 8 runs of 700,000 and more: 9.03, standard deviation 0.07
    assert settled.rate == pytest.approx(9.03, rel=0.025)


def test_a_run_replaces_what_runs_at_a_time_without_a_tpot_objective(monkeypatch):
    """Thousands may decode at once, and hold prompts up only when they do."""
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=1,
        engine="sglang",
        max_num_seqs=4096,
        workload=bs.Workload(input_len=20, output_len="lognormal:400,0.3"),
        slo="ttft:900@p90",
    )
    # precise as it is
    monkeypatch.setattr("bestserve.answers.witness.PRECISE", math.inf)
    whole, first = lower(problem).system("1m-tp1"), problem.slo.target()
    longer = []
    for target in (first, replace(first, tpot=1.0)):
        court = Court(target)
        runs = replace(court.runs(whole, 1.0, SCREENED), running=0.0)
        ends = Crossing(*(runs.look(share * stability_rate(whole), first) for share in (0.9, 0.95)))
        assert ends.below.result is not None
        longer.append(court._longer(runs, ends, 1))
    batch = mean_batch(ends.below.result)
    assert TURNOVERS * batch > 1.5 * runs.size
    assert longer[0] * runs.size > TURNOVERS * batch
    assert longer[1] is None


def test_a_row_far_behind_is_out_after_a_short_run():
    whole, target = system("1m-tp1"), Target(ttft=0.3, tpot=0.02)
    goodput = measured_goodput(whole, target).rate
    court = Court(target)
    assert not court.reaches(whole, 1.3 * goodput, near=goodput)
    assert court.reaches(whole, 0.9 * goodput, near=0.8 * goodput)
    short, usual = sorted(court.drawn)
    assert short == pytest.approx(SCREENED * usual, rel=0.01)
    alone = Court(target)
    assert not alone.reaches(whole, 1.3 * goodput)
    assert set(alone.drawn) == {usual}


@pytest.mark.parametrize(("half", "apart", "sure"), [
    (0.03, 0.0, True), (0.01, 0.02, True), (0.03, 0.02, False), (0.06, 0.0, False),
])  # fmt: skip
def test_what_is_confirmed_is_near_with_its_interval(half, apart, sure):
    told = Evidence(rate=10.0, low=10 * np.exp(-half), high=10 * np.exp(half))
    assert told.confirms(10 * np.exp(apart)) == sure
    assert told.confirms(10 * np.exp(-apart)) == sure
    assert (half + apart <= CONFIRMED) == sure
    assert told.trust(Trust.of("a reason")).high == (half <= SURE)


def test_what_stops_a_higher_rate_has_a_name():
    easy = measured_goodput(system("1m-tp1"), Target(e2el=1e4))
    assert easy.binding in (Binding.STABILITY, Binding.E2EL)
    assert easy.rate == pytest.approx(stability_rate(system("1m-tp1")), rel=0.03)
    hard = measured_goodput(system("2m-tp1", burstiness=0.5), Target(ttft=1e-3))
    assert (hard.rate, hard.binding, hard.detail) == (0.0, Binding.INFEASIBLE, MISSED)
    joint = measured_goodput(system("1m-tp1"), Target(ttft=0.3, tpot=0.02, joint=True))
    marginal = measured_goodput(system("1m-tp1"), Target(ttft=0.3, tpot=0.02))
    assert 0 < joint.rate <= marginal.rate
    whole = system("1m-tp1")
    assert isinstance(whole, Collocated)
    tiny = replace(whole, lane=replace(whole.lane, kv_capacity_tokens=100.0))
    none = measured_goodput(tiny, Target(ttft=1.0))
    assert (none.rate, none.detail) == (0.0, REFUSED)
    closed = Arrivals(kind="closed", concurrency=4, num_prompts=8)
    with pytest.raises(InputError, match="closed loop"):
        measured_goodput(replace(whole, arrivals=closed), Target(ttft=1.0))


def stalled() -> System:
    """A lane where prompts go first and slots are few: waiting prompts share steps near saturation.

    P99 TPOT is 92 ms at 80 % load and 74 ms at 97 %.
    """
    step = StepTime(w=0.0185, c=9.4e-5, e=0.0, a=1e-10, k=3e-8, a_step=4e-4, a_seq=1e-5)
    lane = Lane(step=step, policy="prefill_priority", max_num_seqs=64, max_num_batched_tokens=2048)
    workload = bs.Workload(input_len="lognormal(200, cv=1)", output_len="geometric(50)")
    return Collocated(lane=lane, replicas=1, lengths=lower_lengths(workload))


@pytest.mark.parametrize("near", [None, 0.3, 0.75, 0.98])
def test_a_goodput_beyond_rates_that_miss_the_target_does_not_count(near):
    whole, target = stalled(), Target(tpot=0.085, tpot_percentile=0.99)
    runs = Simulated(system=whole)
    guess = None if near is None else near * runs.limit
    found = measured_goodput(whole, target, near=guess)
    assert 0.6 < found.rate / runs.limit < 0.8
    for share in (0.3, 0.6, 0.95):
        assert margin(runs(share * found.rate), target)[0] > 0


def in_step() -> bs.Problem:
    """Prefill first, answers of one length: runs fall in step, and share steps of prompts."""
    return bs.Problem(
        model="Qwen/Qwen3-4B",
        hardware="b300-sxm",
        gpus=8,
        engine="sglang",
        max_num_batched_tokens=2048,
        workload=bs.Workload(input_len="geometric:3.9", output_len=19, burstiness=0.5),
        slo="ttft:882@p95 tpot:13.9@p95",
    )


def test_a_run_that_starts_in_service_confirms_the_formulas_saturated_rate():
    """Long runs jam beyond it; one that starts with all at once carries half as much again."""
    problem = in_step()
    system = lower(problem).system("8m-tp1-seqs96")
    limit = stability_rate(system)
    assert saturation(system, None) == pytest.approx(limit, rel=0.01)
    lane = replace(system, replicas=1)
    long = Simulated(system=lane, share=0.9, times=10, seed=7)
    grown = [growth(long.run(share * limit / 8)) for share in (0.97, 1.03)]
    assert grown[0] < 0.002 < grown[1]
    found = bs.goodput(problem, "8m-tp1-seqs96")
    assert found.goodput == pytest.approx(limit, rel=0.01)
    assert found.high < 1.25 * found.goodput
    assert found.confirmed
    assert found.trust.high


@pytest.mark.parametrize(("shown", "sure"), [(1.0, True), (1.02, True), (1.1, False)])
def test_a_cap_is_sure_where_a_run_bears_it_out(monkeypatch, shown, sure):
    system = lower(in_step()).system("8m-tp1-seqs96")
    limit = stability_rate(system)
    monkeypatch.setattr("bestserve.answers.saturation.saturation", lambda *_: shown * limit)
    told = Evidence(rate=1.3 * limit, low=1.1 * limit, high=1.5 * limit)
    left = _capped(system, told, limit, None)
    assert left.rate == limit
    assert left.confirms(limit) == sure
    assert (left.high > 1.2 * limit) == (not sure)
