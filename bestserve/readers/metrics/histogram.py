"""Histograms of a server: means, percentiles, and the length law that fits one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations in buckets.

    edges : upper ends, ascending, the last infinite; counts : observations in each, not cumulated
    total : sum of the observations
    """

    edges: Floats
    counts: Floats
    total: float

    @classmethod
    def of(cls, cumulative: Mapping[float, float], total: float) -> Histogram | None:
        """Return a histogram from cumulated buckets by upper end; None without observations."""
        edges = np.array(sorted(cumulative))
        if not edges.size or not math.isinf(edges[-1]):
            return None
        rising = np.maximum.accumulate([cumulative[e] for e in edges])
        counts = np.diff(rising, prepend=0.0)
        return cls(edges, counts, total) if counts.sum() > 0 else None

    @property
    def count(self) -> float:
        """Observations."""
        return float(self.counts.sum())

    @property
    def mean(self) -> float:
        """Their mean, exact."""
        return self.total / self.count

    def percentile(self, share: float) -> float | None:
        """Return the value below which a share lies, linear inside its bucket.

        None where it lies beyond the last finite edge.
        """
        rising = np.cumsum(self.counts)
        at = int(np.searchsorted(rising, share * rising[-1] - 1e-9))
        if at >= len(self.edges) - 1:
            return None
        low = self.edges[at - 1] if at else 0.0
        inside = (share * rising[-1] - (rising[at - 1] if at else 0.0)) / self.counts[at]
        return float(low + min(max(inside, 0.0), 1.0) * (self.edges[at] - low))

    def cv(self) -> float:
        """Return the coefficient of variation of the lognormal law with this mean that fits best.

        Maximum likelihood over the buckets; 0 where they cannot tell the values apart.
        """
        from scipy.optimize import minimize_scalar
        from scipy.special import ndtr

        if int((self.counts > 0).sum()) < 2 or self.mean <= 0:
            return 0.0
        logs = np.log(np.maximum(self.edges[:-1], 1e-9))

        def surprise(sigma: float) -> float:
            centre = math.log(self.mean) - sigma**2 / 2
            below = np.concatenate(([0.0], ndtr((logs - centre) / sigma), [1.0]))
            return -float(self.counts @ np.log(np.maximum(np.diff(below), 1e-12)))

        found = minimize_scalar(surprise, bounds=(0.01, 3.0), method="bounded")
        return math.sqrt(math.expm1(float(found.x) ** 2))
