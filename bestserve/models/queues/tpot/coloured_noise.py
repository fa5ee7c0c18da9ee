"""Fluctuation of the step time under arrivals with memory: `noise` with a coloured spectrum.

The arrivals in a step have spectrum λτ (1 + I(ω)), I of `Stream.excess_dispersion`, so that E|ĥ|²
of the linear noise gains I(ω) |E ĥ|². How prompts follow each other is left to the bulk chain:
their own spectrum enters white, as `Response.jump2`, memory included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bestserve.models.queues.requests import Requests
from bestserve.models.queues.tpot.noise import Response

Floats = NDArray[np.float64]


def frequencies(requests: Requests, rate: float, tau: float) -> Floats:
    """Return the angular frequencies of the noise's spectrum, per mean gap [k]."""
    size = requests.power.shape[1]
    per_step = np.pi * np.arange(size) / ((size - 1) * requests.width)
    return np.asarray(per_step / (rate * tau))


def coloured_sum(
    requests: Requests, response: Response, rate: float, tau: float, excess: Floats
) -> Floats:
    """Return the variance of the sum of D steps by bins of D, as `noise.variance_of_sum` [s²].

    excess : I at `frequencies` [k]; white c² − 1 where gaps are independent and short
    """
    r, a, k = requests, response.alpha, response.k
    mean = a * (r.response[0] + 1j * r.response[1]) + k * (r.response[2] + 1j * r.response[3])
    density = r.width * (a * a * r.power[0] + a * k * r.power[1] + k * k * r.power[2])
    cross = 2 * response.jump1 * mean.real
    density = density + response.jump2 + cross + excess * (np.abs(mean) ** 2 + cross)
    gain = np.abs(1.0 - rate * (mean + response.jump1)) ** 2
    covariance = np.fft.irfft(rate * tau * r.width * np.maximum(density, 0.0) / gain)
    covariance = covariance[: r.survival.size + 2]
    # Var of a sum over m bins: m R0 + 2 Σ_{u<m} (m − u) R_u
    sums = np.arange(covariance.size) * covariance[0]
    sums[2:] += 2 * np.cumsum(np.cumsum(covariance[1:-1]))
    return np.maximum(sums, 0.0)
