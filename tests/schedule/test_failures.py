"""Spares: binomial as derived, kept in the long run of drawn failures."""

from __future__ import annotations

import numpy as np
import pytest

from bestserve.fleet.schedule.failures import at_least, totals, up_share
from bestserve.fleet.schedule.programme import cheapest
from bestserve.fleet.schedule.stints import Broken, Roster
from bestserve.fleet.schedule.terms import Reliability, up_instances


def test_two_instances_by_hand():
    assert at_least(1, 2, 0.9) == pytest.approx(1 - 0.1**2)
    assert at_least(2, 2, 0.9) == pytest.approx(0.81)
    assert at_least(0, 2, 0.9) == 1.0
    assert list(totals(0.9, 0.98, 2)) == [0, 2, 4]


@pytest.mark.parametrize("availability", [0.9, 0.999])
def test_totals_are_the_least_that_are_enough(availability):
    for k, n in enumerate(totals(0.95, availability, 12)):
        assert at_least(k, int(n), 0.95) >= availability
        assert k == n == 0 or at_least(k, int(n) - 1, 0.95) < availability or n == k


def test_drawn_failures_have_the_share_of_the_formula():
    rng = np.random.default_rng(0)
    broken = Broken.drawn(40, (9000.0, 1000.0), (0.0, 2e6), rng)
    times = rng.uniform(0, 2e6, 200_000)
    down = broken.down(rng.integers(0, 40, times.size), times)
    assert down.mean() == pytest.approx(0.1, abs=0.005)
    at = np.linspace(1e5, 2e6, 20_000)
    up = sum(~broken.down(np.full(at.size, i), at) for i in range(10))
    assert np.mean(up >= 8) == pytest.approx(at_least(8, 10, 0.9), abs=0.02)
    assert up_share(2, 9000 / 1800, 1000) == pytest.approx(0.9)


def test_a_request_finds_an_instance_that_is_up():
    rng = np.random.default_rng(0)
    broken = Broken(np.array([0, 0, 1]), np.array([10.0, 30.0, 30.0]), np.array([20.0, 40.0, 35.0]))
    roster = Roster(np.zeros(1), np.array([2]), 0.0, broken)
    where, up = roster.choose(np.array([15.0] * 50 + [32.0] * 50 + [37.0] * 50), rng)
    assert set(where[:50]) == {1}
    assert list(up) == [True] * 50 + [False] * 50 + [True] * 50
    assert set(where[100:]) == {1}
    hits = broken.hit(np.array([0, 0, 1]), np.array([5.0, 12.0, 5.0]), np.array([11.0, 29.0, 29.0]))
    assert list(hits) == [True, False, False]


def test_spares_cost_and_rise_with_availability(cases):
    hours = []
    for availability in (None, 0.9, 0.99):
        reliability = None if availability is None else Reliability(np.full(2, 0.85), availability)
        asked = cases.terms(0, 4, reliability=reliability)
        found = cheapest(asked)
        assert np.all(up_instances(asked, found.counts) >= asked.working)
        hours.append(found.objective)
    assert hours[0] < hours[1] < hours[2]
