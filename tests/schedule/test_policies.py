"""Other ways to run a load: late when it rises, short at a ratio without a queue."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve as bs
from bestserve.fleet.schedule.accounts import carries
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.forecasts import SHARE, forecasts, seasonal, worth
from bestserve.fleet.schedule.policies import (
    TARGET,
    compared,
    compared_splits,
    late,
    sized,
    thresholds,
)
from bestserve.fleet.schedule.programme import cheapest
from bestserve.fleet.schedule.ratio import instance_rates
from bestserve.fleet.schedule.splits import best_split
from bestserve.fleet.schedule.terms import Pools, Times
from bestserve.lowering import lower
from bestserve.lowering.lengths import lower_lengths
from bestserve.specs.strategy import Strategy

DAY = np.concatenate([np.full(10, 2.0), np.full(10, 20.0), np.full(4, 2.0)])


@pytest.fixture
def rising(cases):
    return cases.terms(
        0,
        24,
        capacity=np.full((2, 24), 2.0),
        rates=DAY[None],
        durations=np.full(24, 3600.0),
        times=Times(1800.0),
    )


def test_who_waits_is_late_when_load_rises(rising):
    history = np.tile(DAY, 3)[None]
    plan = cheapest(rising).counts
    found = {p.name: p for p in compared(rising, plan, forecasts(history, 24, 24), None)}
    static, bound = found["static: never changes"], found["bound: changes are free"]
    reactive, ahead = found["forecast: the window before"], found["forecast: the day before"]
    one_late = found["this plan, one window late"]
    assert reactive.carried.worst == pytest.approx(0.1)  # 2 of 20 req/s, all the window
    assert ahead.carried.worst == static.carried.worst == 1.0
    assert found["this plan, begun as the window begins"].carried.worst == pytest.approx(0.55)
    assert one_late.carried.worst == pytest.approx(0.1)
    assert one_late.carried.without_backlog < one_late.carried.share
    assert bound.gpu_hours <= cheapest(rising).objective <= static.gpu_hours
    assert found[f"thresholds at {TARGET:.0%}"].carried.worst == pytest.approx(4 / 20)


def test_a_backlog_outlasts_its_window(cases):
    asked = cases.terms(
        0,
        4,
        capacity=np.full((1, 4), 2.0),
        rates=np.array([[2.0, 4.0, 1.0, 1.0]]),
        durations=np.full(4, 100.0),
        pools=Pools.alone(1),
        times=Times(0.0),
    )
    found = carries(asked, np.ones((1, 4), dtype=np.int64))
    assert found.share == pytest.approx(6 / 8)
    assert found.worst == pytest.approx(0.5)
    # 200 wait after the second window, 100 after the third: only the first is served as it comes
    assert found.without_backlog == pytest.approx(2 / 8)


def test_thresholds_let_small_changes_be(cases):
    asked = cases.terms(
        0,
        4,
        capacity=np.full((1, 4), 1.0),
        rates=np.array([[8.0, 8.3, 8.3, 16.0]]),
        durations=np.full(4, 600.0),
        pools=Pools.alone(1),
    )
    assert list(thresholds(asked)[0]) == [10, 10, 10, 10]
    assert list(late(asked, thresholds(asked), 1)[0]) == [10, 10, 10, 10]


def test_forecast_of_a_day_that_repeats_itself_is_right():
    day = 5 + 4 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    found = seasonal(np.concatenate([day, day, 1.3 * day]), 24)
    assert found[49:] == pytest.approx(1.3 * day[1:])
    assert np.isnan(found[:25]).all()
    names = [f.name for f in forecasts(np.tile(day, 2)[None], 24, 24)]
    assert names == ["the window before", "the day before"]


def test_a_better_forecast_is_worth_more(cases):
    rng = np.random.default_rng(1)
    shape = 20 + 18 * np.sin(np.arange(24) / 24 * 2 * np.pi)
    levels = 1 + 0.25 * np.sin(np.arange(96) / 80 * 2 * np.pi)
    history = (np.tile(shape, 4) * levels * rng.normal(1, 0.02, 96))[None]
    asked = cases.terms(
        0, 24, capacity=np.full((1, 24), 1.0), rates=history[:, -24:], pools=Pools.alone(1),
        durations=np.full(24, 3600.0), times=Times(60.0),
    )  # fmt: skip
    expected = forecasts(history, 24, 24)
    values = {f.name: f for f in worth(asked, expected, lambda r: sized(asked, r))}
    last, day, both = values.values()
    assert both.p90 < min(last.p90, day.p90)
    assert both.saved < last.saved
    assert both.saved < day.saved
    for forecast in expected:
        value = values[forecast.name]
        wait = 60.0 if forecast.late else 0.0
        assert carries(asked, sized(asked, forecast.rates * value.margin), wait).share >= SHARE
        assert forecast.margin >= 1.0


def test_the_ratio_rule_is_its_formula():
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        gpus=8,
        workload=bs.Workload(input_len=1000, output_len=301),
        slo="ttft:1000 tpot:50",
    )
    strategy = Strategy.parse("1p1d-tp1")
    deployment = Deployment(lower(problem), strategy, problem.slo.target())
    lengths = lower_lengths(problem.workload)
    started, ended = instance_rates(deployment, lengths)
    prefill, decode = deployment.pools
    ttft = float(prefill.lane.step(1000, 500_000, 0, 1))
    batch = min(decode.lane.kv_capacity_tokens / (1000 + 301 / 2), decode.lane.max_num_seqs)
    tpot = float(decode.lane.step(batch, 0, batch * (1000 + 301 / 2), batch))
    assert started == pytest.approx(1 / ttft)
    assert ended == pytest.approx(batch / (300 * tpot))


def test_a_split_that_reacts_is_late(cases):
    capacity = np.array([[4.0, 1.0] * 6, [1.0, 4.0] * 6])
    asked = cases.terms(
        0, 12, capacity=capacity, rates=np.full((1, 12), 3.0), pools=Pools.alone(1, 1),
        durations=np.full(12, 600.0), times=Times(0.0, 60.0),
    )  # fmt: skip
    plan = best_split(asked, 5)
    found = {
        p.name.partition(":")[0]: p
        for p in compared_splits(asked, 5, plan.counts, capacity[:, :12])
    }
    assert found["reactive"].carried.share < found["static"].carried.share < plan.carried
    assert found["bound"].carried.share >= plan.carried
    assert found["DOPD's ratio, mix known"].carried.share <= plan.carried + 1e-9
