"""Mixtures over output lengths of three-moment laws: the percentiles of TPOT and E2EL.

Each class is a shifted gamma law (Pearson III) with given mean, variance and third cumulant κ; its
lower end is kept above the fastest possible step by raising κ to 2v²/(m − low).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.models.distribution import Distribution
from bestserve.models.queues.tpot.pearson import (
    Laws,
    Spread,
    Unstalled,
    component_rows,
    cut_classes,
    smooth_mixture,
)

_Z = np.array([-3.5, -2.5, -1.8, -1.2, -0.7, -0.3, 0.0, 0.3, 0.7, 1.2, 1.8, 2.5, 3.5, 5.0])
_Z_SHARE = np.array(
    [0.004, 0.016, 0.05, 0.1, 0.14, 0.14, 0.1, 0.14, 0.14, 0.1, 0.05, 0.016, 0.003, 0.001]
)
GRID, EVEN = 112, 8
"""Grid points of a mixture, and those of them spread evenly; doubling them moves P99 by less than
0.1 %."""

# as many points in both tails as in the middle: percentiles are read there
_QUANTILES = (1.0 + np.sin(np.pi / 2 * np.sin(np.pi / 2 * np.linspace(-1.0, 1.0, GRID - EVEN)))) / 2
_SPREAD = Spread(_Z_SHARE, _QUANTILES, EVEN)

SKEW = 3.0
"""Skewness of a component at most: beyond it a gamma law has no body left, and percentiles below
the 99th lie in the body. Between 2.5 and 4 on 450 settings it makes little difference."""


@dataclass(frozen=True, slots=True)
class Components:
    """Components of the TPOT law: output classes, each cut into unstalled and stalled requests.

    cls : class of each component [k]; share : within its class [k]; laws : their moments and bounds
    """

    cls: Ints
    share: Floats
    laws: Laws

    def cdf(self, x: Floats) -> Floats:
        """Return P(X ≤ x) of each component; `x` is [g] or [k, g] → [k, g]."""
        return component_cdf(np.atleast_2d(x), self.laws)


def cut(classes: Laws, unstalled: Unstalled) -> Components:
    """Return components that keep each class's three moments, unstalled requests set apart.

    What is left of the third moment for the others is kept within what a law on [low, high] can
    have.
    """
    cls, share, mean, variance, third = cut_classes(classes, unstalled, SKEW)
    return Components(cls, share, Laws(mean, variance, third, classes.low, classes.high))


def mixture(weight: Floats, laws: Laws) -> Distribution:
    """Return Σ weight[c] · law c, on a grid chosen from the laws' own spread.

    Classes whose upper tail would pass `laws.high` take a beta law on [low, high] instead.
    """
    mean, low = laws.mean, laws.low
    variance = np.maximum(laws.variance, (1e-7 * mean) ** 2)
    room = np.maximum(mean - low, 1e-9 * mean)
    third = np.maximum(laws.third, 2.0 * variance**2 / room)
    points = (mean[:, None] + np.sqrt(variance)[:, None] * _Z).ravel()
    x, F = smooth_mixture(
        points, points.argsort(), _SPREAD, weight, Laws(mean, variance, third, low, laws.high)
    )
    return Distribution.from_cdf(x, F, float(weight @ mean))


def component_cdf(x: Floats, laws: Laws) -> Floats:
    """Return P(X ≤ x) of each law [k, g]: Pearson III, or beta where `high` is near.

    x : [1, g] or [k, g] [s]

    >>> one = np.ones(1)
    >>> exponential = component_cdf(np.array([[2.0]]), Laws(one, one, 2 * one, 0.0, np.inf))
    >>> round(float(exponential[0, 0]), 6)
    0.864665
    """
    return np.asarray(component_rows(np.broadcast_to(x, (laws.mean.size, x.shape[1])), laws))
