"""Number of running sequences: processor sharing with a speed that depends on the number.

    π(n) ∝ ∏_{i≤n} λ E[D] t(i)/i,  n ≤ B;   E[TPOT] = E_π[t(N+1)] = E[N] / (λ E[D])

is insensitive to the law of D (Cohen 1979; Tijms, A First Course in Stochastic Models, 5.4):
each of n sequences gets one token per t(n), which is processor sharing of requests of size D at
rate n/t(n). Beyond the slot limit B requests wait and the occupancy has a geometric tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Stationary number of sequences running (waiting ones beyond the limit counted in `wait`).

    probability : π(0 … B−1) and, last, π(running = B) [B+1]
    mean : E[running]; variance : Var[running]
    tpot : mean step time that an arriving request will see [s]
    wait : share of arrivals that find every slot taken
    load : λ E[D] t(B) / B, below 1 when stable
    """

    probability: Floats
    mean: float
    variance: float
    tpot: float
    wait: float
    load: float

    @property
    def idle(self) -> float:
        """Probability that nothing runs."""
        return float(self.probability[0])


def occupancy(rate: float, steps: float, step_times: Floats) -> Occupancy:
    """Return the occupancy under Poisson arrivals.

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
    p, mean, variance, seen = _birth_death(rate, steps, step_times)
    return Occupancy(p, mean, variance, seen, float(p[-1]), load)


@njit(cache=True)
def _birth_death(rate: float, steps: float, times: Floats) -> tuple[Floats, float, float, float]:
    """Return π(0 … B) ∝ ∏ λ E[D] t(i)/i, tail beyond B folded into it, with mean, variance, tpot.

    Products run away from the largest term, so that nothing overflows. rate : λ [1/s]; steps :
    E[D]; times : t(1 … B) [s]; the load λ E[D] t(B)/B must be below 1.
    """
    slots = times.size
    offered = rate * steps
    p = np.zeros(slots + 1)
    top = 0
    for n in range(1, slots + 1):
        if offered * times[n - 1] < n:
            break
        top = n
    p[top] = 1.0
    for n in range(top + 1, slots + 1):
        p[n] = p[n - 1] * offered * times[n - 1] / n
    for n in range(top, 0, -1):
        p[n - 1] = p[n] * n / (offered * times[n - 1])
    p[slots] /= 1.0 - offered * times[slots - 1] / slots
    total = 0.0
    for n in range(slots + 1):
        total += p[n]
    mean = 0.0
    square = 0.0
    seen = 0.0
    for n in range(slots + 1):
        p[n] /= total
        mean += n * p[n]
        square += n * n * p[n]
        seen += p[n] * times[min(n, slots - 1)]
    return p, mean, square - mean * mean, seen
