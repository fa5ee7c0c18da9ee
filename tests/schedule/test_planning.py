"""Plans: exact against all ways on small instances, for each constraint."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bestserve.errors import InfeasibleError
from bestserve.fleet.schedule.accounts import bill, broken, gpu_hours, started, stopped
from bestserve.fleet.schedule.programme import cheapest, most_carried
from bestserve.fleet.schedule.splits import (
    best_split,
    free_split,
    served,
    splits,
    static_split,
    switching,
)
from bestserve.fleet.schedule.terms import Budget, Pools, Prices, Reliability, Times

RESERVES = Prices(np.array([4.0]), np.array([2.5]))
TWO_TYPES = Prices(np.array([4.0, 1.5]), np.array([2.5, 1.0]))


def reliable(pools, up=0.9, availability=0.95):
    """Instances that fail often."""
    return Reliability(np.full(pools, up), availability)


def least(cases, asked, most):
    """The lowest bill of all ways, and how many ways there are."""
    ways = cases.ways(asked, most)
    bills = cases.price(asked, ways)[cases.allowed(asked, ways)]
    return bills.min(), bills.size


ONE_OFFER = {
    "hours": {},
    "on demand": {"prices": Prices(np.array([4.0]), np.array([np.nan]))},
    "reserved": {"prices": RESERVES},
    "slow starts": {"times": Times(700.0)},
    "stay": {"times": Times(30.0, 60.0, 1200.0)},
    "changes": {"most_changes": 1},
    "gpus": {"most_gpus": np.array([26])},
    "headroom": {"headroom": 0.2},
    "budget": {"budgets": (Budget("max_cost", np.array([1.5]), 40.0),)},
    "least": {"least": np.array([2, 3])},
    "spares": {"reliability": reliable(2)},
    "all": {
        "prices": RESERVES,
        "times": Times(200.0, 60.0, 900.0),
        "most_changes": 2,
        "reliability": reliable(2, 0.95, 0.97),
    },
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", ONE_OFFER.values(), ids=ONE_OFFER)
def test_cheapest_schedule_is_that_of_all_ways(cases, seed, changes):
    asked = cases.terms(seed, **changes)
    best, count = least(cases, asked, int(asked.needed.max()))
    found = cheapest(asked)
    assert count > 1
    assert found.objective == pytest.approx(best, rel=1.1e-3)
    assert found.bound <= best * (1 + 1e-6)
    assert found.gap <= 1.1e-3
    assert cases.allowed(asked, found.counts[None])[0]
    assert broken(asked, found.counts) == ""
    assert cases.price(asked, found.counts[None])[0] == pytest.approx(found.objective)


TWO_OFFERS = {
    "hours": {},
    "two prices": {"prices": TWO_TYPES},
    "stay": {"times": Times(30.0, 60.0, 700.0)},
    "changes": {"most_changes": 1},
    "gpus of a type": {"most_gpus": np.array([2, 5])},
    "budget": {"budgets": (Budget("max_power", np.array([2.0, 1.0]), 7.0),)},
    "least": {"least": np.array([2, 2, 1])},
    "configurations": {"most_pools": 2},
    "spares": {"reliability": reliable(3, 0.9, 0.9)},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("changes", TWO_OFFERS.values(), ids=TWO_OFFERS)
def test_several_types_and_streams_are_planned_as_by_all_ways(cases, seed, changes):
    asked = cases.fleet_terms(seed, 2 if "reliability" in changes else 3, **changes)
    most = 5 if "reliability" in changes else 3
    best, count = least(cases, asked, most)
    found = cheapest(asked)
    assert count > 1
    assert found.objective == pytest.approx(best, rel=1.1e-3)
    assert found.bound <= best * (1 + 1e-6)
    assert cases.allowed(asked, found.counts[None])[0]
    assert broken(asked, found.counts) == ""


@pytest.mark.parametrize("seed", range(3))
def test_most_load_of_several_streams_is_that_of_all_ways(cases, seed):
    asked = cases.fleet_terms(seed, 2, most_gpus=np.array([1, 3]), times=Times(0.0))
    best = 0.0
    for way in itertools.product(range(4), repeat=6):
        counts = np.array(way).reshape(3, 2)
        used = asked.pools.by_type(counts)
        if np.any(used > asked.most_gpus[:, None]):
            continue
        able = np.array([counts[:2] * asked.capacity[:2], counts[2:] * asked.capacity[2:]], object)
        carried = np.minimum(asked.rates, np.array([part.sum(axis=0) for part in able], float))
        best = max(best, float((carried @ asked.durations).sum()))
    total = float((asked.rates @ asked.durations).sum())
    found = most_carried(asked)
    assert found.objective == pytest.approx(best / total, rel=2e-3)
    assert found.bound >= best / total - 1e-9


def test_a_broken_term_is_named(cases):
    asked = cases.fleet_terms(
        0, times=Times(0.0, 0.0, 700.0), most_changes=1, most_gpus=np.array([3, 9])
    )
    counts = np.full((3, 3), 5)
    assert broken(asked, counts) == "more GPUs than there are"
    assert broken(asked, 0 * counts) == "a window does not carry its rate"
    wide = cases.fleet_terms(0, times=Times(0.0, 0.0, 700.0), most_changes=1)
    counts[0] = 5, 6, 7
    assert broken(wide, counts) == "more changes than allowed"
    counts[0] = 5, 11, 5
    assert broken(cases.fleet_terms(0, times=Times(0.0, 0.0, 9e4)), counts) == (
        "an instance stops before its least stay"
    )


def test_constant_load_needs_no_changes(cases):
    asked = cases.terms(1, capacity=np.full((2, 4), 2.0), rates=np.full((1, 4), 5.0))
    assert np.array_equal(
        cheapest(asked).counts, asked.needed.max(axis=1, keepdims=True) * [[1] * 4]
    )


def test_free_starts_leave_what_each_window_needs(cases):
    asked = cases.terms(2, windows=12, times=Times(0.0))
    assert cheapest(asked).objective == pytest.approx(gpu_hours(asked, asked.needed))


def test_more_expensive_starts_never_cost_less_and_start_less(cases):
    free, dear = (
        cases.terms(3, windows=12, times=Times(0.0)),
        cases.terms(3, windows=12, times=Times(3600.0)),
    )
    few, many = cheapest(dear), cheapest(free)
    starts = [started(p.counts).sum() for p in (few, many)]
    assert few.objective >= many.objective
    assert starts[0] <= starts[1]


def test_too_few_gpus_name_the_window(cases):
    asked = cases.terms(1, most_gpus=np.array([7]))
    with pytest.raises(InfeasibleError, match=r"window \d of 4 needs \d+ GPUs"):
        cheapest(asked)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "changes",
    [{}, {"most_changes": 1}, {"times": Times(0.0, 200.0, 1000.0)}, {"reliability": reliable(2)}],
    ids=["plain", "changes", "stay", "failures"],
)
def test_best_split_is_that_of_all_ways(cases, seed, changes):
    asked = cases.terms(seed, **({"times": Times(0.0, 200.0)} | changes))
    gain, starts = served(asked, splits(asked, 16)), asked.starts
    loss = [switching(asked, splits(asked, 16), w) for w in range(4)]
    best = -np.inf
    for path in itertools.product(range(gain.shape[0]), repeat=4):
        since, value = -np.inf, gain[path[0], 0]
        for w in range(1, 4):
            if path[w] != path[w - 1]:
                if starts[w] - since < asked.times.stay:
                    break
                since = starts[w]
                value -= loss[w][path[w - 1], path[w]]
            value += gain[path[w], w]
        else:
            best = max(best, value)
    total = float((asked.rates @ asked.durations).sum())
    found = best_split(asked, 16)
    assert found.carried == pytest.approx(best / total)
    assert found.carried >= static_split(asked, 16).carried - 1e-6
    assert found.carried <= free_split(asked, 16).carried + 1e-6


def test_of_splits_that_carry_as_much_the_emptier_is_taken_unless_it_changes_for_little(cases):
    capacity = np.array([[4.0, 4.0, 4.2, 1.2], [2.0, 2.0, 2.1, 8.0]])
    asked = cases.terms(
        0, capacity=capacity, rates=np.full((1, 4), 3.0), durations=np.full(4, 600.0),
        pools=Pools.alone(1, 1), times=Times(0.0, 0.0),
    )  # fmt: skip
    found = best_split(asked, 6)
    assert found.carried == pytest.approx(1.0, abs=1e-6)
    assert [tuple(c) for c in found.counts.T] == [(2, 4), (2, 4), (2, 4), (5, 1)]


def test_a_programme_and_dynamic_programming_agree_where_changes_are_free(cases):
    for seed in range(3):
        asked = cases.terms(
            seed, 8, times=Times(0.0, 0.0), pools=Pools.alone(1, 1), most_gpus=np.array([5])
        )
        assert most_carried(asked).objective == pytest.approx(
            best_split(asked, 5).carried, rel=2e-3
        )


def test_a_least_stay_costs_and_is_kept(cases):
    rates = np.array([[1.0, 6.0, 1.0, 6.0, 1.0, 1.0]])
    asked = cases.terms(0, 6, rates=rates, durations=np.full(6, 600.0), times=Times(0.0))
    kept = cases.terms(
        0, 6, rates=rates, durations=np.full(6, 600.0), times=Times(0.0, 0.0, 1800.0)
    )
    free, bound = cheapest(asked), cheapest(kept)
    assert bound.objective > free.objective
    assert not cases.allowed(kept, free.counts[None])[0]
    assert bill(kept, bound.counts).total == pytest.approx(gpu_hours(kept, bound.counts))
    assert stopped(bound.counts).sum() <= stopped(free.counts).sum()


def test_what_cannot_be_planned_says_what_to_allow(cases):
    # each window fits on 9 GPUs (1 + 8, then 5 + 4), but one that starts runs beside one that stops
    asked = cases.terms(
        1,
        2,
        capacity=np.array([[4.0, 0.8], [2.0, 4.0]]),
        rates=np.full((1, 2), 4.0),
        pools=Pools.alone(1, 4),
        durations=np.full(2, 600.0),
        most_gpus=np.array([9]),
        most_changes=5,
    )
    assert cases.carries(asked, (1, 2), 0)
    assert cases.carries(asked, (5, 1), 1)
    with pytest.raises(InfeasibleError, match=r"allow more GPUs.*more changes a window"):
        cheapest(asked)
