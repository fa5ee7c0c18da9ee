"""One queue shared by k servers (M/G/k).

P(wait) by Erlang's C formula; given a wait, its transform is Ĝ (1 − ρ)/(1 − ρ R̂), R the
equilibrium residual of S/k and G the shortest of k residuals of S (van Hoorn & Tijms 1982). Its
mean is set to the mix c_s² W(M/M/k) + (1 − c_s²) W(M/D/k) with Cosmetatos' form of the latter
(1975; 1 % against Crommelin's exact values), where c_s² ≤ 1. The simplest closed form is
E W = C ES/(k(1−ρ)) · (c_a² + c_s²)/2 (Allen-Cunneen).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bestserve.models.queues.gig1 import CELLS_PER_SERVICE, Wait
from bestserve.models.queues.lattice import split

Floats = NDArray[np.float64]


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that an arrival waits in M/M/k, offered = λ E[S] < k.

    >>> round(erlang_c(2, 1.0), 6)
    0.333333
    """
    blocking = 1.0
    for k in range(1, servers + 1):
        blocking = offered * blocking / (k + offered * blocking)
    return blocking / (1 - offered / servers * (1 - blocking))


def allen_cunneen(
    servers: int, rate: float, s1: float, scv_gap: float, scv_service: float
) -> float:
    """Return the approximate mean wait of GI/G/k [s]."""
    load = rate * s1 / servers
    wait = erlang_c(servers, rate * s1) * s1 / (servers * (1 - load))
    return wait * (scv_gap + scv_service) / 2


def mgk_wait(service: Floats, weight: Floats, rate: float, servers: int) -> Wait | None:
    """Return the stationary wait of M/G/k, or `None` when the load is 1 or more.

    service, weight : atoms of S [m, s] and shares; rate : λ of all servers together [1/s]

    >>> exact = mgk_wait(np.array([1.0]), np.array([1.0]), 1.4, 2)
    >>> 0.40 < exact.mean < 0.52          # M/D/2, ρ = 0.7
    True
    """
    s1, s2 = float(weight @ service), float(weight @ service**2)
    load = rate * s1 / servers
    if load >= 1.0 or rate <= 0:
        return None
    h = s1 / CELLS_PER_SERVICE / min(servers, 4)
    guess = rate / servers * s2 / (2 * (1 - load)) / servers
    size = 1 << int(np.ceil(np.log2(1.5 * (20 * guess + 8 * s1 + service.max()) / h)))
    residual_k = _residual(service / servers, weight, h, size)
    full = np.cumsum(_residual(service, weight, h, size))
    shortest = np.diff(np.concatenate(([0.0], 1 - (1 - np.minimum(full, 1.0)) ** servers)))
    transform = np.fft.rfft(shortest) * (1 - load) / (1 - load * np.fft.rfft(residual_k))
    waiting = np.maximum(np.fft.irfft(transform, size), 0.0)
    waiting /= waiting.sum()
    p_wait = erlang_c(servers, rate * s1)
    scv = s2 / s1**2 - 1.0
    if scv < 1.0:
        k = servers
        exponential = allen_cunneen(k, rate, s1, 1.0, 1.0)
        bend = (1 - load) * (k - 1) * ((4 + 5 * k) ** 0.5 - 2) / (16 * k * load)
        target = scv * exponential + (1 - scv) * exponential / 2 * (1 + min(bend, 0.25))
        found = p_wait * float(waiting @ np.arange(size)) * h
        h *= target / max(found, 1e-300)
    pmf = p_wait * waiting
    pmf[0] += 1 - p_wait
    return Wait(h, pmf, float(pmf @ np.arange(size)) * h, load)


def _residual(service: Floats, weight: Floats, h: float, size: int) -> Floats:
    """Return masses of the equilibrium residual of the service time on the grid [size]."""
    s = split(service / h, weight, size)
    tail = np.maximum(1.0 - np.cumsum(s), 0.0)
    residual = tail / 2
    residual[1:] += tail[:-1] / 2
    return np.asarray(residual / residual.sum())
