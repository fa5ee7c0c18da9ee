"""What instances carry of arrivals that a trace recorded: its windows played, not taken as Poisson.

Arrivals of a trace come in bursts and trends inside a window, which no Poisson law of the window's
mean rate has. So each window's own requests are played on n lanes under random routing, several
draws of it, for the fewest instances with which as many meet the objectives as must; then faster,
up to the speed at which these just do. That speed times the window's rate over n is what an
instance carries.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from bestserve.arrays import Floats
from bestserve.fleet.schedule.capacity import Deployment
from bestserve.fleet.schedule.load import Arrived, Load
from bestserve.fleet.schedule.runs import Run, answered_by
from bestserve.simulator import Requests

RUN_IN = 60.0
"""Requests of so long before a window are on the lanes when it begins [s]."""

ENOUGH = 6_000
"""Requests that make a share: of a window with fewer, the routing is drawn more often."""

FEW, MANY = 2, 8
"""Draws of the routing, at least and at most."""

BEYOND = 3
"""Times the instances of a Poisson load at which no number is enough for a window."""

CLOSE = 0.01
"""Speed to which the search closes in [1]."""


def carried_by_instances(deployment: Deployment, load: Load, gaps: str) -> Floats:
    """Return the rate that an instance of each pool carries [pool, window; req/s].

    gaps : "recorded" plays the windows of a trace that has its requests
    """
    rates = deployment.per_instance(load)[:, load.kinds]
    if load.recorded is None or gaps == "poisson":
        return rates
    for i, instances in enumerate(deployment.pools):
        if not answered_by(instances.role, deployment.target).asked:
            continue
        run = Run(instances, deployment.target, deployment.transfer)
        for w, window in enumerate(load.windows):
            mine, lead = of_window(load, w)
            if mine.times.size > lead:
                found = _carried(run, mine, window.start, window.rate, rates[i, w])
                rates[i, w] = rates[i, w] if found is None else found
    return rates


def of_window(load: Load, window: int) -> tuple[Arrived, int]:
    """Return a window's requests behind those just before it, and how many these are."""
    recorded = load.recorded
    assert recorded is not None
    start = load.windows[window].start
    first = int(np.searchsorted(recorded.times, start - RUN_IN))
    begin, end = np.searchsorted(recorded.window, [window, window + 1])
    return recorded[np.arange(first, end)], int(begin) - first


def _carried(run: Run, arrived: Arrived, start: float, rate: float, guess: float) -> float | None:
    """Return the rate an instance carries of a window's requests, which come at `rate` [req/s].

    guess : what a Poisson load would leave it; None where no number of instances is enough.
    """
    first = max(math.ceil(rate / guess), 1)
    n, most = first, BEYOND * first + 3
    while played_margin(run, arrived, start, n) < 0:
        n += 1
        if n > most:
            return None
    while 1 < n <= first and played_margin(run, arrived, start, n - 1) >= 0:
        n -= 1
    fastest = n / (n - 1) if n > 1 else max(guess / rate, 1.0)
    low, high = 1.0, fastest
    while high - low > CLOSE:
        middle = (low + high) / 2
        held = played_margin(run, faster(arrived, middle), start / middle, n) >= 0
        low, high = (middle, high) if held else (low, middle)
    return low * rate / n


def faster(arrived: Arrived, speed: float) -> Arrived:
    """Return requests that come at `speed` times their rate."""
    return replace(arrived, times=arrived.times / speed)


def played_margin(run: Run, arrived: Arrived, start: float, instances: int) -> float:
    """Return by how much requests from `start` on meet what a pool is asked, at least [1]."""
    shares = played_shares(run, arrived, start, instances)
    target = answered_by(run.instances.role, run.target)
    return min(share - target.required(name) for name, share in shares.items())


def played_shares(run: Run, arrived: Arrived, start: float, instances: int) -> dict[str, float]:
    """Return which share of the requests from `start` on meets what a pool answers for [1]."""
    given = Requests(
        input_len=arrived.input_len, output_len=arrived.output_len, cached=arrived.cached
    )
    draws = min(max(ENOUGH // max(arrived.times.size, 1), FEW), MANY)
    sums: dict[str, float] = {}
    for seed in range(draws):
        lanes = instances * run.instances.lanes
        for name, good in run.met(given, arrived.times, lanes, seed=seed, after=start).items():
            sums[name] = sums.get(name, 0.0) + float(good.mean()) / draws
    return sums
