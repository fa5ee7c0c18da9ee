"""Prefill lanes feeding decode lanes through a KV transfer.

The stages are evaluated apart: departures of the prefill lanes look Poisson on the time scale of
decoding. The transfer falls between the first and the second token.
"""

from __future__ import annotations

from bestserve.models.queues.requests import Requests
from bestserve.models.system import Transfer


def transfer_moments(transfer: Transfer, requests: Requests, rate: float) -> tuple[float, float]:
    """Return mean and variance of the KV transfer of one request [s, s²].

    `rate` is that of one sender [1/s]. A shared link gives its transfers in flight equal parts of
    the bandwidth (M/G/1-PS): a work w takes w/(1 − ρ) on average, with variance near
    w ρ E[w²]/(E[w](1 − ρ)³) (both exact in the limit of long w). Infinite when ρ ≥ 1.
    """
    per_token = _seconds_per_token(transfer)
    m1, m2 = per_token * requests.kv1, per_token**2 * requests.kv2
    load = rate * m1 if transfer.shared else 0.0
    if load >= 1.0:
        return float("inf"), float("inf")
    spread = (m2 - m1**2) / (1 - load) ** 2 + load * m2 / (1 - load) ** 3
    return transfer.latency + m1 / (1 - load), max(spread, 0.0)


def link_limit(transfer: Transfer, requests: Requests) -> float:
    """Return the rate that the shared link of one sender can carry [1/s]."""
    work = _seconds_per_token(transfer) * requests.kv1
    return 1.0 / work if transfer.shared and work > 0 else float("inf")


def _seconds_per_token(transfer: Transfer) -> float:
    """Return the part of a token's transfer that prefill does not hide [s]."""
    return (1.0 - transfer.overlap) * transfer.seconds_per_token
