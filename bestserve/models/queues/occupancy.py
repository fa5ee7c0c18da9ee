"""Number of running sequences: processor sharing with a speed that depends on the number.

    π(n) ∝ ∏_{i≤n} λ E[D] t(i)/i,  n ≤ B;   E[TPOT] = E_π[t(N+1)] = E[N] / (λ E[D])

is insensitive to the law of D (Cohen 1979; Tijms, A First Course in Stochastic Models, 5.4):
each of n sequences gets one token per t(n), which is processor sharing of requests of size D at
rate n/t(n). Beyond the slot limit B requests wait and the occupancy has a geometric tail.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit

RARELY = 1e-3
"""How much rarer than the first mode a minimum of π must be for the process to stay before it."""


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Stationary number of sequences running (waiting ones beyond the limit counted in `wait`).

    probability : π(0 … B−1) and, last, π(running = B) [B+1]
    mean : E[running]; variance : Var[running]
    tpot : mean step time that an arriving request will see [s]
    wait : share of arrivals that find every slot taken
    load : λ E[D] t(B) / B, below 1 when stable
    second : share of π in a second mode, whether cut off or not [1]
    """

    probability: Floats
    mean: float
    variance: float
    tpot: float
    wait: float
    load: float
    second: float = 0.0

    @property
    def idle(self) -> float:
        """Probability that nothing runs."""
        return float(self.probability[0])


def occupancy(rate: float, steps: float, step_times: Floats) -> Occupancy:
    """Return the occupancy under Poisson arrivals.

    Where λ E[D] t(n)/n crosses 1 more than once π has a second mode, at more sequences. A process
    that begins empty hardly ever gets there past a deep minimum: π is then cut at it.
    rate : λ [1/s]; steps : E[D] [1]; step_times : t(1 … B) [B, s]

    >>> o = occupancy(2.0, 10.0, np.full(400, 0.05))   # constant step time: M/G/∞, λE[D]t = 1
    >>> round(o.mean, 6), round(o.variance, 6), round(o.tpot, 6)
    (1.0, 1.0, 0.05)
    """
    slots = step_times.size
    load = float(rate * steps * step_times[-1] / slots)
    if load >= 1.0:
        full = np.zeros(slots + 1)
        full[-1] = 1.0
        return Occupancy(full, float(slots), 0.0, float(step_times[-1]), 1.0, load)
    p, mean, variance, seen, second = _birth_death(rate, steps, step_times)
    return Occupancy(p, mean, variance, seen, float(p[-1]), load, second)


@njit(cache=True)
def _birth_death(
    rate: float, steps: float, times: Floats
) -> tuple[Floats, float, float, float, float]:
    """Return π(0 … B) ∝ ∏ λ E[D] t(i)/i, tail beyond B folded in, mean, variance, tpot, `second`.

    Products are sums of logarithms, so that nothing overflows. rate : λ [1/s]; steps : E[D];
    times : t(1 … B) [s]; the load λ E[D] t(B)/B must be below 1.
    """
    slots = times.size
    offered = rate * steps
    p = np.zeros(slots + 1)
    first, low, last = 0, -1, slots
    highest = 0.0
    for n in range(1, slots + 1):
        ratio = offered * times[n - 1] / n
        p[n] = p[n - 1] + (math.log(ratio) if ratio > 0.0 else -math.inf)
        if low < 0 and p[n] > p[first]:
            first = n
        if ratio > 1.0 and n - 1 > first and low < 0:
            low = n - 1
        highest = max(highest, p[n])
    beyond = -math.log1p(-offered * times[slots - 1] / slots)
    p[slots] += beyond
    highest = max(highest, p[slots])
    total = 0.0
    kept = 0.0
    for n in range(slots + 1):
        mass = math.exp(p[n] - highest)
        total += mass
        if low < 0 or n <= low:
            kept += mass
    second = 1.0 - kept / total
    if low >= 0 and p[low] - p[first] < math.log(RARELY):
        last, highest = low, p[first]
    total = 0.0
    for n in range(slots + 1):
        p[n] = math.exp(p[n] - highest) if n <= last else 0.0
        total += p[n]
    mean = 0.0
    square = 0.0
    seen = 0.0
    for n in range(slots + 1):
        p[n] /= total
        mean += n * p[n]
        square += n * n * p[n]
        seen += p[n] * times[min(n, slots - 1)]
    return p, mean, square - mean * mean, seen, second
