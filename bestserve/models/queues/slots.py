"""The wait for a free slot: its law, what it does to TTFT and to the spread of TPOT."""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.distribution import Distribution
from bestserve.models.queues.occupancy import Occupancy
from bestserve.models.queues.requests import Requests

WAITING = 1e-4
"""Share of requests that wait for a slot from which TTFT has their wait."""

LIMITED = 1e-3
"""Share of requests that wait for a slot from which slots limit how the number running varies."""

_EXPONENTIAL_ATOMS = -np.log(1.0 - (np.arange(12) + 0.5) / 12)
_EXPONENTIAL_ATOMS /= _EXPONENTIAL_ATOMS.mean()


def with_wait(law: Distribution, probability: float, mean: float) -> Distribution:
    """Return the law of X + W, W exponential with `mean` [s] with `probability`, else 0."""
    if probability <= 0 or mean <= 0 or not law.finite:
        return law
    waits = mean * _EXPONENTIAL_ATOMS
    x = np.concatenate((law.x, law.x[-1] + waits))
    after = sum(law.cdf(x - wait) for wait in waits) / waits.size
    F = (1 - probability) * law.cdf(x) + probability * after
    return Distribution.from_cdf(x, F, law.mean + probability * mean)


def mean_wait(state: Occupancy, requests: Requests, batch_mates: float, spare: float) -> float:
    """Return the mean wait of those that wait for a slot [s]; 0 where next to none do.

    batch_mates : others that ask for a slot at the same time; spare : saturated rate less λ [1/s]
    """
    if state.wait <= WAITING:
        return 0.0
    d_scv = requests.d2 / requests.d1**2 - 1.0 if requests.d1 > 0 else 0.0
    return (1.0 + batch_mates + max(d_scv, 0.0)) / 2 / spare


def limited(variance: Floats, state: Occupancy, damping: float) -> Floats:
    """Return a variance of sums of steps where slots keep the number running from varying [c, s²].

    In the linear noise, that number has variance mean/damping.
    """
    if state.wait <= LIMITED:
        return variance
    return variance * min(1.0, state.variance * damping / max(state.mean, 1e-9))


def queued(state: Occupancy, mean: float, ttft: float) -> float:
    """Return the part of mean TTFT that is a wait for a slot [1]; mean : as of `mean_wait`.

    ttft : mean without that wait [s]
    """
    return state.wait * mean / (ttft + state.wait * mean)
