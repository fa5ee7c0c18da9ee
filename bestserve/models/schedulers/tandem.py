"""Prefill lanes feeding decode lanes through a KV transfer.

The stages are evaluated apart: departures of the prefill lanes look Poisson on the time scale of
decoding, so a decode lane sees Poisson arrivals whose clumping is that of the service's own
arrivals, thinned or dealt out. The transfer falls between the first and the second token.
"""

from __future__ import annotations

import numpy as np

from bestserve.models.queues.requests import Requests
from bestserve.models.system import Transfer


def transfer_moments(transfer: Transfer, requests: Requests, rate: float) -> tuple[float, float]:
    """Return mean and variance of the KV transfer of one request [s, s²].

    `rate` is that of all requests through the link [1/s]; a shared link adds the M/G/1 wait.
    Returns infinity when a shared link cannot carry the rate.
    """
    tokens = requests.prompt + requests.cached
    hidden = 1.0 - transfer.overlap
    time = hidden * (transfer.latency + transfer.seconds_per_token * tokens)
    m1, m2, m3 = (float(requests.weight @ time**p) for p in (1, 2, 3))
    mean, variance = m1, m2 - m1**2
    if transfer.shared and m1 > 0:
        load = rate * m1
        if load >= 1.0:
            return float("inf"), float("inf")
        wait = rate * m2 / (2 * (1 - load))
        mean += wait
        variance += wait**2 + rate * m3 / (3 * (1 - load))
    return mean, max(variance, 0.0)


def link_limit(transfer: Transfer, requests: Requests) -> float:
    """Return the rate that a shared link can carry [1/s]."""
    if not transfer.shared:
        return float("inf")
    tokens = requests.prompt + requests.cached
    per = float(requests.weight @ (transfer.latency + transfer.seconds_per_token * tokens))
    per *= 1.0 - transfer.overlap
    return 1.0 / per if per > 0 else float(np.inf)
