"""Limits on running sequences: the slot cap, the KV cache, and the wait for a free slot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.queues.held_tokens import HeldTokens
from bestserve.models.queues.requests import Requests
from bestserve.models.system import Lane

Floats = NDArray[np.float64]

_EXPONENTIAL_ATOMS = -np.log(1.0 - (np.arange(12) + 0.5) / 12)
_EXPONENTIAL_ATOMS /= _EXPONENTIAL_ATOMS.mean()


def running_limit(lane: Lane, requests: Requests) -> float:
    """Return how many sequences run at once when requests always wait [sequences]."""
    if not np.isfinite(lane.kv_capacity_tokens):
        return float(lane.max_num_seqs)
    return float(min(lane.max_num_seqs, HeldTokens.of(lane, requests).full_number))


def with_wait(law: Distribution, probability: float, mean: float) -> Distribution:
    """Return the law of X + W, W exponential with `mean` [s] with `probability`, else 0."""
    if probability <= 0:
        return law
    share = probability / _EXPONENTIAL_ATOMS.size
    parts = [law, *(law.shift(mean * a) for a in _EXPONENTIAL_ATOMS)]
    return Distribution.mixture(parts, [1 - probability] + [share] * _EXPONENTIAL_ATOMS.size)
