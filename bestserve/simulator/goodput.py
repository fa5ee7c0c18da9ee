"""Goodput by root finding on common random numbers."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from scipy.optimize import brentq

from bestserve.errors import InputError
from bestserve.models.refused import REFUSABLE
from bestserve.models.system import System, Target
from bestserve.simulator.inputs import Requests
from bestserve.simulator.prepared import Prepared, prepare
from bestserve.simulator.replicate import estimate, replication_seeds
from bestserve.simulator.run import OPEN_COOLDOWN, OPEN_WARMUP, run_prepared
from bestserve.simulator.run_length import run_length
from bestserve.simulator.saturation import saturation_rate

LEAST_LOAD = 1e-3
"""Share of the saturation rate taken as "no load": a target missed there is infeasible."""

TOLERANCE = 1e-3
"""Relative width at which the search stops: far below the noise of any practical run length."""

STRIDE = 0.02
"""First step away from a guess, in logarithms of the rate; each next one is four times longer."""


class Limit(enum.Enum):
    """What keeps the goodput from being higher; the value is the sentence a user reads."""

    TARGET = "a latency target is missed at higher rates"
    SATURATION = "the target holds up to saturation"
    INFEASIBLE = "the target is missed even at almost no load"
    REFUSED = "the KV cache of one replica cannot hold more than one request in 10,000"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGoodput:
    """Highest arrival rate at which the target holds.

    rate : mean over replications [req/s]; low, high : its 95 % confidence interval, `nan` with one
        replication
    rates : of each replication [req/s]; saturation : highest completion rate [req/s]
    limit : what stops a higher rate; binding : the objective with the least margin there
        ("ttft", "tpot", "e2el" or "joint"), empty if none is missed
    """

    rate: float
    low: float
    high: float
    rates: tuple[float, ...]
    saturation: float
    limit: Limit
    binding: str


def simulated_goodput(
    system: System,
    target: Target,
    *,
    requests: int | None = None,
    replications: int = 8,
    seed: int = 0,
    near: float | None = None,
    given: Requests | None = None,
) -> SimulatedGoodput:
    """Return the goodput of a system with open arrivals.

    Each replication sees the same requests at every rate, so that its margin falls almost
    monotonically and has one crossing; the interval is over replications. Rates
    beyond saturation are never accepted: a short run could meet a target while its queue grows.
    A system that refuses more than one request in 10,000 has no goodput (`Limit.REFUSED`).

    requests : of each replication; default: what the strictest percentile and the lengths need
        (`run_length`)
    near : a guess, e.g. the analytic goodput [req/s]; saves about half of the runs when close

    Raises InputError for closed loops, which set their own rate, and for targets without
    thresholds.
    """
    if system.arrivals.kind == "closed":
        raise InputError("goodput needs open arrivals: a closed loop sets its own rate")
    requests = run_length(system, target.strictest) if requests is None else requests
    rates: list[float] = []
    limits: list[Limit] = []
    bindings: list[str] = []
    capacities: list[float] = []
    guess = near
    for each in replication_seeds(seed, replications):
        prepared = prepare(system, requests, each, given)
        capacity, rate, limit, binding = 0.0, 0.0, Limit.REFUSED, ""
        if prepared.refused.mean() <= REFUSABLE:
            capacity = saturation_rate(system, requests=requests, seed=each, given=given)
            rate, limit, binding = _crossing(prepared, target, capacity, guess)
        guess = rate if rate > 0 else guess
        rates.append(rate)
        limits.append(limit)
        bindings.append(binding)
        capacities.append(capacity)
    found = estimate(rates)
    return SimulatedGoodput(
        rate=found.value,
        low=max(found.low, 0.0) if len(rates) > 1 else math.nan,
        high=found.high,
        rates=tuple(rates),
        saturation=estimate(capacities).value,
        limit=max(limits, key=limits.count),
        binding=max(bindings, key=bindings.count),
    )


def _crossing(
    prepared: Prepared, target: Target, capacity: float, guess: float | None
) -> tuple[float, Limit, str]:
    """Return the rate at which the target stops being met, below `capacity`, and why."""
    missed: dict[float, str] = {}

    @cache
    def room(at: float) -> float:
        """How far the target is met at the logarithm of a rate: the least of its odds ratios."""
        result = run_prepared(prepared, math.exp(at), (OPEN_WARMUP, OPEN_COOLDOWN))
        margins = result.margins(target)
        name = min(margins, key=margins.__getitem__)
        if margins[name] < 0:
            missed[at] = name
        required = target.required(name)
        least = 0.5 / len(prepared)
        share = min(max(margins[name] + required, least), 1 - least)
        # at the very share required the target is met
        return math.log(share * (1 - required) / ((1 - share) * required)) + least

    least, most = math.log(capacity * LEAST_LOAD), math.log(capacity)
    low, high = least, most
    if guess is not None and least < math.log(guess) < most:
        low, high = _around(room, math.log(guess), least, most)
    if high == most and room(most) >= 0:
        return capacity, Limit.SATURATION, ""
    if low == least and room(least) < 0:
        return 0.0, Limit.INFEASIBLE, missed[least]
    found = float(brentq(room, low, high, xtol=TOLERANCE))
    return math.exp(found), Limit.TARGET, missed[min(missed)]


def _around(
    room: Callable[[float], float], guess: float, least: float, most: float
) -> tuple[float, float]:
    """Return two logarithms of rates, the target met at the lower and missed at the higher one.

    They are looked for near a guess, further and further away; the ends need no look.
    """
    met = room(guess) >= 0
    near, stride = guess, STRIDE if met else -STRIDE
    while least < near + stride < most:
        if (room(near + stride) >= 0) != met:
            return min(near, near + stride), max(near, near + stride)
        near, stride = near + stride, 4 * stride
    return (near, most) if met else (least, near)
