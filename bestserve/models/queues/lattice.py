"""Laws on an integer grid: split atoms, group rows, FFT sizes, sums of constants and uniforms."""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk import loops

TIME_POINTS = 1600


@njit(cache=True)
def split(position: Floats, weight: Floats, size: int) -> Floats:
    """Return masses at real positions on the integer grid, means kept [size]."""
    masses = np.zeros(size)
    for i in range(position.size):
        at = min(position[i], size - 2.0)
        low = int(at + 1e-9)
        part = max(at - low, 0.0)
        masses[low] += weight[i] * (1.0 - part)
        masses[low + 1] += weight[i] * part
    return masses


def fft_size(n: int) -> int:
    """Return a size ≥ n whose FFT is fast: 2^a or 3·2^a."""
    power = 1 << (n - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= n else power


def thinned(values: Floats, weight: Floats, count: int) -> Floats:
    """Return `count` equally likely values with the same mean: means of quantile bins."""
    if values.size == 1:
        return values
    order = np.argsort(values)
    values, share = values[order], np.cumsum(weight[order])
    partial = np.concatenate(([0.0], np.cumsum(values * weight[order])))
    edges = np.interp(np.linspace(0, 1, count + 1), np.concatenate(([0.0], share)), partial)
    return np.diff(edges) * count


def weighted_quantile(values: Floats, weight: Floats, p: float) -> float:
    """Return the p-quantile of weighted atoms."""
    order = np.argsort(values)
    at = int(np.searchsorted(np.cumsum(weight[order]), p))
    return float(values[order[min(at, values.size - 1)]])


class Ramps:
    """Histogram of sums of a constant and a uniform, kept as its second difference."""

    def __init__(self, horizon: float) -> None:
        self.h = horizon / (TIME_POINTS - 3)
        self.slope = np.zeros(TIME_POINTS + 1)
        self.total = 0.0
        self.moment = 0.0

    def add(self, mass: Floats, start: Floats, width: Floats) -> None:
        """Add masses [r, c] spread evenly over [start[c], start[c] + width[r]] [s]."""
        self.note(*loops.add_ramps(self.slope, self.h, mass, start, width))

    def note(self, mass: float, moment: float) -> None:
        """Count mass and moment [1, s] that compiled loops have added to `slope`."""
        self.total += mass
        self.moment += moment

    def distribution(self) -> Distribution:
        """Return the law of what was added."""
        x, F = _integrated(self.slope, self.h, self.total)
        return Distribution(x, F, self.moment / self.total)


@njit(cache=True)
def _integrated(slope: Floats, h: float, total: float) -> tuple[Floats, Floats]:
    """Return grid and distribution function, complete, of a density's differences [m; s, 1]."""
    size = slope.size - 1
    x, F = np.empty(size), np.empty(size)
    density, mass, highest = 0.0, 0.0, 0.0
    for i in range(size):
        x[i] = i * h
        highest = min(max(highest, mass), 1.0)
        F[i] = highest
        density += slope[i]
        mass += density * (h / total)
    for i in range(size):
        F[i] /= highest
    return x, F
