"""Windows of a trace planned with the arrivals that it recorded."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve as bs
from bestserve.errors import InputError
from bestserve.fleet.schedule.answer import case_of
from bestserve.fleet.schedule.bursts import played_shares
from bestserve.fleet.schedule.load import Arrived
from bestserve.fleet.schedule.runs import Run

WINDOW = 300.0


def trace(folder, bursty):
    """Fifty requests a second on average for ten minutes, in bursts of 20 s every minute or not."""
    rng = np.random.default_rng(3)
    times = np.sort(rng.random(24_000) * 2 * WINDOW)
    if bursty:
        times = 60 * np.floor(times / 60) + (times % 60) / 3
    rows = zip(times, rng.integers(200, 1800, 24_000), rng.integers(20, 300, 24_000), strict=True)
    lines = [f"{t:.4f},{i},{o}" for t, i, o in rows]
    path = folder / f"{bursty}.csv"
    path.write_text("\n".join(["arrival,input_len,output_len", *lines, "650,1,1"]))
    columns = {"arrival": "arrival", "input_len": "input_len", "output_len": "output_len"}
    return bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=64,
        workload=bs.Workload(trace=str(path), trace_columns=columns, trace_unit="s"),
        slo="ttft:500 tpot:30",
    )


@pytest.mark.parametrize("strategy", ["1m-tp1", "1p1d-tp1"])
def test_bursts_are_planned_for_and_then_hold(tmp_path, strategy):
    asked = trace(tmp_path, bursty=True)
    found = {}
    for gaps in ("poisson", "recorded"):
        options = bs.ScheduleOptions(window=WINDOW, start_time=60, gaps=gaps)
        found[gaps] = bs.schedule(asked, strategy=strategy, options=options)
    assert not all(w.holds for w in found["poisson"].windows)
    assert all(w.holds for w in found["recorded"].windows), found["recorded"].explain()
    assert found["recorded"].gpu_hours > found["poisson"].gpu_hours


def test_arrivals_without_bursts_need_what_a_poisson_law_says(tmp_path):
    asked = trace(tmp_path, bursty=False)
    rates = {}
    for gaps in ("poisson", "recorded"):
        options = bs.ScheduleOptions(window=WINDOW, gaps=gaps)
        rates[gaps] = case_of(asked, None, "1m-tp1", options).terms.capacity
    assert rates["recorded"] == pytest.approx(rates["poisson"], rel=0.04)


def test_shares_count_what_a_pool_answers_for_after_its_run_in(tmp_path):
    case = case_of(trace(tmp_path, bursty=False), None, "1p1d-tp1", bs.ScheduleOptions(window=300))
    one = case.offers[0].deployment
    prefill, decode = (Run(pool, one.target, one.transfer) for pool in one.pools)
    n = 400
    late = Arrived(
        times=np.concatenate([np.zeros(n), 100 + 5.0 * np.arange(n)]),
        window=np.zeros(2 * n, dtype=np.int64),
        input_len=np.full(2 * n, 1000),
        output_len=np.full(2 * n, 50),
        cached=np.zeros(2 * n, dtype=np.int64),
    )
    # the crowd at zero misses; who comes after it, one by one, does not
    assert played_shares(prefill, late, 50.0, 1)["ttft"] == pytest.approx(1)
    assert 0.4 < played_shares(prefill, late, 0.0, 1)["ttft"] < 0.6
    assert played_shares(decode, late, 50.0, 1)["tpot"] == pytest.approx(1)


def test_words_that_options_do_not_know_are_refused():
    with pytest.raises(InputError, match="recorded and poisson"):
        bs.ScheduleOptions(gaps="gamma")
    with pytest.raises(InputError, match="gpu-hours, money and load"):
        bs.ScheduleOptions(objective="hours")
