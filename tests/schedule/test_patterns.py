"""Schedules of the windows' cheapest patterns, against all ways and over many windows."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bestserve.fleet.schedule import programme
from bestserve.fleet.schedule.accounts import broken
from bestserve.fleet.schedule.patterns import chosen
from bestserve.fleet.schedule.programme import cheapest
from bestserve.fleet.schedule.terms import Pools, Prices, Reliability, Terms, Times

TWO_TYPES = Prices(np.array([4.0, 1.5]), np.array([np.nan, np.nan]))
FOUR_LAYOUTS = Pools(
    gpus=np.array([1, 1, 1, 2, 2, 2]),
    option=np.array([0, 1, 1, 2, 3, 3]),
    stream=np.zeros(4, dtype=np.int64),
    gpu_type=np.array([0, 0, 0, 1, 1, 1]),
)


def day(windows, pools, streams, **changes):
    rng = np.random.default_rng(0)
    hour = 2 * np.pi * np.arange(windows) / 144
    rates = 40 + 35 * np.sin(hour)[None] * rng.uniform(0.6, 1.0, (streams, 1))
    given = {
        "capacity": (3 + np.cos(hour)[None] * rng.uniform(-1, 1, (pools.gpus.size, 1)))
        * pools.gpus[:, None] ** 0.9,
        "rates": rates * rng.normal(1, 0.05, rates.shape),
        "durations": np.full(windows, 600.0),
        "pools": pools,
    }
    return Terms(**(given | changes))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prices", [None, TWO_TYPES], ids=["hours", "prices"])
def test_without_starts_they_are_the_optimum_and_their_own_bound(cases, seed, prices):
    asked = cases.fleet_terms(seed, prices=prices, times=Times(0.0))
    ways = cases.ways(asked, 3)
    found = chosen(asked)
    assert found.objective == pytest.approx(found.bound)
    assert found.objective == pytest.approx(cases.price(asked, ways).min())


@pytest.mark.parametrize("seed", range(6))
def test_with_starts_they_are_near_the_best_and_the_bound_is_below_it(cases, seed):
    asked = cases.fleet_terms(seed, times=Times(200.0))
    ways = cases.ways(asked, 3)
    best = cases.price(asked, ways)[cases.allowed(asked, ways)].min()
    found = chosen(asked)
    assert found.bound <= best * (1 + 1e-9)
    assert best * (1 - 1e-9) <= found.objective <= 1.02 * best
    assert broken(asked, found.counts) == ""


def test_those_that_fail_are_stood_in_for(cases):
    reliability = Reliability(np.full(3, 0.9), 0.9)
    asked = cases.fleet_terms(1, 2, times=Times(0.0), reliability=reliability)
    ways = cases.ways(asked, 5)
    found = chosen(asked)
    assert found.objective == pytest.approx(cases.price(asked, ways).min())
    assert broken(asked, found.counts) == ""


def test_a_day_of_four_layouts_is_planned_at_once_and_near_its_bound(monkeypatch):
    monkeypatch.setattr(programme, "_programmed", None)  # not needed
    asked = day(144, FOUR_LAYOUTS, 1)
    began = time.process_time()
    found = cheapest(asked)
    assert time.process_time() - began < 10
    assert found.gap < 0.02
    assert broken(asked, found.counts) == ""
    split = day(144, Pools.alone(1, 1), 1, capacity=asked.capacity[1:3])
    monkeypatch.undo()
    assert found.objective < cheapest(split).objective


def test_limits_of_all_streams_together_are_left_to_the_programme(cases):
    asked = cases.fleet_terms(0, most_changes=0)
    free = chosen(cases.fleet_terms(0))
    assert broken(asked, free.counts) == "more changes than allowed"
    assert broken(asked, cheapest(asked).counts) == ""
