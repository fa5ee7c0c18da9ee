"""Goodput by bisection on common random numbers."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from bestserve.errors import InputError
from bestserve.models.system import System, Target
from bestserve.simulator.inputs import Requests
from bestserve.simulator.prepared import Prepared, prepare
from bestserve.simulator.replicate import estimate, replication_seeds
from bestserve.simulator.run import OPEN_COOLDOWN, OPEN_WARMUP, run_prepared
from bestserve.simulator.saturation import saturation_rate

LEAST_LOAD = 1e-3
"""Share of the saturation rate taken as "no load": a target missed there is infeasible."""

TOLERANCE = 1e-3
"""Relative width at which bisection stops: far below the noise of any practical run length."""


class Limit(enum.Enum):
    """What keeps the goodput from being higher; the value is the sentence a user reads."""

    TARGET = "a latency target is missed at higher rates"
    SATURATION = "the target holds up to saturation"
    INFEASIBLE = "the target is missed even at almost no load"
    REFUSED = "no request fits the KV cache of one replica"


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
    requests: int = 20000,
    replications: int = 8,
    seed: int = 0,
    near: float | None = None,
    given: Requests | None = None,
) -> SimulatedGoodput:
    """Return the goodput of a system with open arrivals.

    Each replication sees the same requests at every rate, so that its margin falls almost
    monotonically and bisection finds its one crossing; the interval is over replications. Rates
    beyond saturation are never accepted: a short run could meet a target while its queue grows.

    near : a guess, e.g. the analytic goodput [req/s]; saves about half of the runs when close

    Raises InputError for closed loops, which set their own rate, and for targets without
    thresholds.
    """
    if system.arrivals.kind == "closed":
        raise InputError("goodput needs open arrivals: a closed loop sets its own rate")
    rates: list[float] = []
    limits: list[Limit] = []
    bindings: list[str] = []
    capacities: list[float] = []
    guess = near
    for each in replication_seeds(seed, replications):
        capacity = saturation_rate(system, requests=requests, seed=each, given=given)
        rate, limit, binding = 0.0, Limit.REFUSED, ""
        if capacity > 0:
            prepared = prepare(system, requests, each, given)
            rate, limit, binding = _bisect(prepared, target, capacity, guess)
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


def _bisect(
    prepared: Prepared, target: Target, capacity: float, guess: float | None
) -> tuple[float, Limit, str]:
    """Return the rate at which the margin crosses zero, below `capacity`, and why."""

    def missed(rate: float) -> str:
        """The objective missed by most at a rate, or nothing."""
        result = run_prepared(prepared, rate, (OPEN_WARMUP, OPEN_COOLDOWN))
        margin, name = min((m, name) for name, m in result.margins(target).items())
        return name if margin < 0 else ""

    low, high = capacity * LEAST_LOAD, capacity
    binding = ""
    verified = False
    if guess is not None and low < guess < high:
        for span in (0.02, 0.1):
            name = missed(guess)
            if name:
                high, binding = guess, name
                guess = guess * (1 - span)
            else:
                low, verified = guess, True
                guess = guess * (1 + span)
            if not low < guess < high:
                break
    if not binding:
        binding = missed(high)
        if not binding:
            return high, Limit.SATURATION, ""
    if not verified:
        name = missed(low)
        if name:
            return 0.0, Limit.INFEASIBLE, name
    while high > low * (1 + TOLERANCE):
        middle = math.sqrt(low * high)
        name = missed(middle)
        if name:
            high, binding = middle, name
        else:
            low = middle
    return math.sqrt(low * high), Limit.TARGET, binding
