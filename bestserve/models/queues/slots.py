"""Limits on running sequences: the slot cap, the KV cache, and the wait for a free slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.queues.requests import Requests
from bestserve.models.system import Lane

Floats = NDArray[np.float64]

_EXPONENTIAL_ATOMS = -np.log(1.0 - (np.arange(12) + 0.5) / 12)
_EXPONENTIAL_ATOMS /= _EXPONENTIAL_ATOMS.mean()


def running_limit(lane: Lane, requests: Requests) -> float:
    """Return how many sequences run at once when requests always wait [sequences].

    The KV cache of K tokens holds (K − E[R²]/2E[R]) / E[R D]·E[D] sequences that reserve R: mean
    footprint in use, less half of the next request's that does not fit yet. What is reserved
    beyond the prompt is `kv_reserve` of the output, the rest is occupied as it is generated.
    """
    capacity = lane.kv_capacity_tokens
    if not np.isfinite(capacity):
        return float(lane.max_num_seqs)
    pad = (lane.kv_block - 1) / 2
    reserve = lane.kv_reserve
    footprint = reserve * requests.peak_context + (1 - reserve) * requests.context + pad
    admitted = reserve * requests.reserve2 + (1 - reserve) * requests.kv1
    fits = (capacity - admitted / 2) / max(footprint, 1.0)
    return float(min(lane.max_num_seqs, max(fits, 0.0)))


def with_wait(law: Distribution, probability: float, mean: float) -> Distribution:
    """Return the law of X + W, W exponential with `mean` [s] with `probability`, else 0."""
    if probability <= 0:
        return law
    share = probability / _EXPONENTIAL_ATOMS.size
    parts = [law, *(law.shift(mean * a) for a in _EXPONENTIAL_ATOMS)]
    return Distribution.mixture(parts, [1 - probability] + [share] * _EXPONENTIAL_ATOMS.size)
