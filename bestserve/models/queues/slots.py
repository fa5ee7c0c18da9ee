"""The wait for a free slot."""

from __future__ import annotations

import numpy as np

from bestserve.models.distribution import Distribution

_EXPONENTIAL_ATOMS = -np.log(1.0 - (np.arange(12) + 0.5) / 12)
_EXPONENTIAL_ATOMS /= _EXPONENTIAL_ATOMS.mean()


def with_wait(law: Distribution, probability: float, mean: float) -> Distribution:
    """Return the law of X + W, W exponential with `mean` [s] with `probability`, else 0."""
    if probability <= 0:
        return law
    share = probability / _EXPONENTIAL_ATOMS.size
    parts = [law, *(law.shift(mean * a) for a in _EXPONENTIAL_ATOMS)]
    return Distribution.mixture(parts, [1 - probability] + [share] * _EXPONENTIAL_ATOMS.size)
