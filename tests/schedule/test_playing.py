"""The simulator follows a schedule: draining, moving, starting late, failing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bestserve as bs
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.load import Arrived, Load, Window
from bestserve.fleet.schedule.playing import Manner, by_window, draw, play
from bestserve.fleet.schedule.stints import Broken, Roster, stints
from bestserve.lowering import lower
from bestserve.lowering.lengths import lower_lengths
from bestserve.simulator import Requests, simulate
from bestserve.specs.strategy import Strategy

LONG = bs.Workload(input_len=500, output_len=2000)


def deployment(workload=LONG, strategy="1m-tp1"):
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=8,
        workload=workload,
        slo="ttft:1000 tpot:50",
    )
    return Deployment(lower(problem), Strategy.parse(strategy), problem.slo.target())


def windows(rates, workload=LONG, width=60.0):
    rows = tuple(Window(i * width, width, r, 0) for i, r in enumerate(rates))
    return Load(rows, (lower_lengths(workload),))


def test_one_instance_all_day_is_the_plain_simulation():
    load, one = windows((1.0, 1.0)), deployment()
    arrived = draw(load, 1)
    found = play(one, load, np.ones((1, 2), dtype=np.int64), arrived, Manner())
    system = one.lowered.system(Strategy.parse("1m-tp1"))
    trace = type(system.arrivals)(kind="trace", times=arrived.times)
    given = Requests(input_len=arrived.input_len, output_len=arrived.output_len)
    alone = simulate(replace(system, arrivals=trace), given=given)
    assert found.ttft == pytest.approx(alone.ttft, abs=1e-9)
    assert found.tpot == pytest.approx(alone.tpot, rel=1e-9)
    assert found.draining.size == 0


@pytest.mark.parametrize("strategy", ["1m-tp1", "1p1d-tp1"])
def test_who_stops_finishes_what_it_has_or_hands_it_on(strategy):
    load = windows((3.0, 3.0, 3.0))
    counts = np.array([[2, 1, 1]] * len(Strategy.parse(strategy).pools))
    arrived = draw(load, 1)
    stays = play(deployment(strategy=strategy), load, counts, arrived, Manner())
    moves = play(deployment(strategy=strategy), load, counts, arrived, Manner(moves=True))
    assert stays.draining.max() > 1.0
    assert stays.gpu_seconds == pytest.approx(stays.draining.sum())
    prefill_only = 0.0 if strategy == "1m-tp1" else stays.draining[0]
    assert moves.draining.sum() == pytest.approx(prefill_only, abs=0.2)
    for found in (stays, moves):
        assert np.isfinite(found.e2el).all()
    # who is done before the stop does not notice; of the others some end on the other instance
    done = arrived.times + stays.e2el < 60.0
    assert done.any()
    assert moves.e2el[done] == pytest.approx(stays.e2el[done])
    assert np.any(moves.e2el[~done] != stays.e2el[~done])
    assert moves.e2el.mean() == pytest.approx(stays.e2el.mean(), rel=0.2)


def test_a_moved_request_generates_what_was_left():
    load, one = windows((0.02, 0.0), width=50.0), deployment()
    arrived = Arrived(*(np.array([v]) for v in (45.0, 0, 500, 2000, 0)))
    counts = np.array([[2, 1]])
    played = [
        play(one, load, counts, arrived, Manner(moves=m, seed=s))
        for m in (False, True)
        for s in range(8)
    ]
    alone = played[0].e2el[0]
    moved = [f.e2el[0] for f in played[8:]]
    transfer = one.moving(one.pools[0])
    # on the instance that stays nothing happens; from the other it takes the transfer and a step
    cost = transfer.latency + 2500 * transfer.seconds_per_token
    assert min(moved) == pytest.approx(alone)
    assert alone < max(moved) < alone + cost + 0.1


def test_what_starts_late_leaves_the_others_alone_meanwhile():
    load = windows((1.0, 40.0), bs.Workload(input_len=1000, output_len=100))
    counts, arrived = np.array([[1, 4]]), draw(load, 1)
    one = deployment(bs.Workload(input_len=1000, output_len=100))
    early = play(one, load, counts, arrived, Manner())
    late = play(one, load, counts, arrived, Manner(late=40.0))
    met = [by_window(arrived, 2, x, one.target).met["ttft"][1] for x in (early, late)]
    assert met[0] > 0.95 > met[1] + 0.3


def test_who_is_on_an_instance_that_fails_is_lost():
    load, one = windows((1.0, 1.0)), deployment()
    arrived = draw(load, 1)
    broken = (Broken(np.array([0]), np.array([60.0]), np.array([80.0])),)
    counts = np.array([[1, 1]])
    found = play(one, load, counts, arrived, Manner(broken=broken))
    sound = play(one, load, counts, arrived, Manner())
    lost = ~np.isfinite(found.e2el)
    during = (arrived.times >= 60) & (arrived.times < 80)
    ending = (arrived.times < 60) & (arrived.times + sound.e2el > 60)
    assert np.array_equal(lost, during | ending)


def test_stints_are_the_times_between_start_and_stop():
    roster = Roster(np.array([0.0, 10.0, 20.0, 30.0]), np.array([1, 2, 1, 2]), 0.0, Broken.none())
    found = [(s.instance, s.start, s.end) for s in stints(roster)]
    assert found == [(0, -np.inf, np.inf), (1, 10.0, 20.0), (1, 30.0, np.inf)]
