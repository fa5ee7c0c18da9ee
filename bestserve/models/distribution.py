"""A latency law as its cumulative distribution on a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bestserve.arrays import Floats

MEAN_TOLD = 0.05
"""Relative difference of a law's mean and that of its grid, up to which they are one law's."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution function, linear between grid points, with its mean kept apart.

    x : values [m, s], increasing
    F : P(X ≤ x) [m, 1], non-decreasing, last one 1; `F[0] > 0` is an atom at `x[0]`
    mean : E[X] [s]; carried apart because models know it more exactly than the grid does

    >>> uniform = Distribution(np.array([0.0, 2.0]), np.array([0.0, 1.0]), 1.0)
    >>> uniform.quantile(0.9)
    1.8
    >>> round(uniform.std, 4)
    0.5774
    """

    x: Floats
    F: Floats
    mean: float

    @classmethod
    def point(cls, value: float) -> Distribution:
        """Return the law of a constant [s]; infinite for a system that never settles."""
        return cls(np.array([value]), np.array([1.0]), value)

    @classmethod
    def empirical(cls, values: Floats) -> Distribution:
        """Return the law of the finite ones of observed values [n, s]; of none, an infinite one.

        >>> Distribution.empirical(np.array([3.0, 1.0, np.inf, 2.0])).quantile(0.5)
        1.5
        """
        finite = np.sort(values[np.isfinite(values)])
        if not finite.size:
            return cls.point(float("inf"))
        return cls(finite, (np.arange(finite.size) + 1.0) / finite.size, float(finite.mean()))

    @classmethod
    def from_cdf(cls, x: Floats, F: Floats, mean: float | None = None) -> Distribution:
        """Return the law with cdf values `F` at `x`, made monotone and complete."""
        F = np.maximum.accumulate(np.minimum(np.maximum(F, 0.0), 1.0))
        if F[-1] < 1.0:
            F = F / F[-1]
        law = cls(x, F, 0.0)
        return cls(x, F, law._moment(1) if mean is None else mean)

    @property
    def read_mean(self) -> float:
        """E[X] as the grid has it [s]."""
        return self._moment(1)

    @property
    def told(self) -> bool:
        """Whether the grid tells the mean: not so of a law whose tail it does not reach."""
        return abs(self.read_mean - self.mean) <= MEAN_TOLD * abs(self.mean)

    @property
    def finite(self) -> bool:
        """Whether the mean exists: false for unstable systems."""
        return bool(np.isfinite(self.mean))

    def cdf(self, value: ArrayLike) -> Floats:
        """Return P(X ≤ value) [1]."""
        at = np.asarray(value, dtype=np.float64)
        inside = np.interp(at, self.x, self.F, left=0.0, right=1.0)
        return inside if self.finite else np.zeros_like(at)

    def quantile(self, probability: float) -> float:
        """Return the smallest x with P(X ≤ x) ≥ probability [s]."""
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability = {probability} must be within 0 and 1")
        if probability <= self.F[0]:
            return float(self.x[0])
        i = int(np.searchsorted(self.F, probability, side="left"))
        f0, f1 = self.F[i - 1], self.F[i]
        x0, x1 = self.x[i - 1], self.x[i]
        return float(x0 + (x1 - x0) * (probability - f0) / (f1 - f0))

    def _moment(self, power: int) -> float:
        """Return E[X^power] of the grid law, power 1 or 2."""
        mass = np.diff(self.F)
        a, b = self.x[:-1], self.x[1:]
        inner = (a + b) / 2 if power == 1 else (a * a + a * b + b * b) / 3
        return float(self.F[0] * self.x[0] ** power + mass @ inner)

    @property
    def variance(self) -> float:
        """Variance of the grid law [s²]."""
        if not self.finite:
            return float("inf")
        return max(self._moment(2) - self._moment(1) ** 2, 0.0)

    @property
    def std(self) -> float:
        """Standard deviation [s]."""
        return float(np.sqrt(self.variance))

    @property
    def third_cumulant(self) -> float:
        """E[(X − EX)³] of the grid law, each cell taken at its middle [s³]."""
        middle = np.concatenate(([self.x[0]], (self.x[:-1] + self.x[1:]) / 2))
        mass = np.concatenate(([self.F[0]], np.diff(self.F)))
        return float(mass @ (middle - mass @ middle) ** 3)

    def shift(self, offset: float) -> Distribution:
        """Return the law of X + offset."""
        return Distribution(self.x + offset, self.F, self.mean + offset)

    def scale(self, factor: float) -> Distribution:
        """Return the law of factor · X, factor > 0."""
        return Distribution(self.x * factor, self.F, self.mean * factor)

    @staticmethod
    def mixture(parts: Sequence[Distribution], weights: Sequence[float]) -> Distribution:
        """Return the law that is `parts[i]` with probability `weights[i]` (they sum to 1)."""
        if any(not p.finite for p, w in zip(parts, weights, strict=True) if w > 0):
            return Distribution.point(float("inf"))
        x = np.unique(np.concatenate([p.x for p in parts]))
        F = np.zeros_like(x)
        mean = 0.0
        for part, weight in zip(parts, weights, strict=True):
            F += weight * part.cdf(x)
            mean += weight * part.mean
        return Distribution.from_cdf(x, F, mean)
