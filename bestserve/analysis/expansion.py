"""Expansion of a function of independent normal variables in Hermite polynomials.

Orthonormal polynomials make variance, Sobol indices and conditional means sums over coefficients
(polynomial chaos; Sudret, Reliability Engineering & System Safety 93 (2008) 964-979).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats, Ints

DEGREE = 2
"""Goodput is close to exponential in each factor; kinks where objectives change hands need more
samples, not higher degrees."""

RIDGE = 1e-4
"""Shrinks coefficients that the samples hardly determine, relative to the largest."""

FOLDS = 8


@dataclass(frozen=True, slots=True)
class Expansion:
    """Σ coefficient · Π He_k(z_i)/√k!, with multi-indices [terms, variables].

    explained : share of the variance predicted on samples left out; nan when not asked for [1]
    """

    powers: Ints
    coefficients: Floats
    explained: float

    @property
    def mean(self) -> float:
        """The mean: the coefficient of the constant."""
        return float(self.coefficients[0])

    @property
    def variance(self) -> float:
        """The variance: the other coefficients, squared."""
        return float(np.sum(self.coefficients[1:] ** 2))

    def __call__(self, z: Floats) -> Floats:
        """Return the values at points [n, variables]."""
        return design(z, self.powers) @ self.coefficients

    def indices(self) -> tuple[Floats, Floats]:
        """Return first-order and total Sobol indices [variables]; 0 without variance."""
        parts = self.coefficients**2
        total_variance = self.variance
        if total_variance <= 0:
            zero = np.zeros(self.powers.shape[1])
            return zero, zero.copy()
        involved = self.powers > 0
        alone = involved.sum(axis=1) == 1
        first = (involved & alone[:, None]).T @ parts / total_variance
        return first, involved.T @ parts / total_variance

    def given(self, variable: int, z: Floats) -> Floats:
        """Return the conditional mean given one variable's values [n]."""
        others = np.delete(self.powers, variable, axis=1).sum(axis=1) == 0
        points = np.zeros((len(z), self.powers.shape[1]))
        points[:, variable] = z
        return design(points, self.powers[others]) @ self.coefficients[others]


def fit(z: Floats, values: Floats, *, held_out: bool = True) -> Expansion:
    """Return the expansion of values [n] at standard normal points [n, variables]."""
    powers = multi_indices(z.shape[1], DEGREE)
    matrix = design(z, powers)
    coefficients = _solve(matrix, values)
    explained = float("nan")
    if held_out:
        missed = np.zeros_like(values)
        for fold in range(FOLDS):
            out = np.arange(len(values)) % FOLDS == fold
            missed[out] = values[out] - matrix[out] @ _solve(matrix[~out], values[~out])
        spread = float(np.var(values))
        explained = 1.0 - float(np.mean(missed**2)) / spread if spread > 0 else 1.0
    return Expansion(powers, coefficients, explained)


def multi_indices(variables: int, degree: int) -> Ints:
    """Return all exponents of total degree ≤ degree, the constant first [terms, variables]."""
    every = itertools.product(range(degree + 1), repeat=variables)
    kept = sorted((p for p in every if sum(p) <= degree), key=lambda p: (sum(p), p))
    return np.array(kept, dtype=np.int64)


def design(z: Floats, powers: Ints) -> Floats:
    """Return the orthonormal polynomials at points [n, terms]."""
    degree = int(powers.max())
    hermite = [np.ones_like(z), z]
    for k in range(1, degree):
        hermite.append(z * hermite[k] - k * hermite[k - 1])
    norm = np.cumprod([1.0, *range(1, degree + 1)])
    table = np.stack([h / np.sqrt(n) for h, n in zip(hermite, norm, strict=False)])
    columns = np.arange(z.shape[1])
    return np.stack([np.prod(table[p, :, columns], axis=0) for p in powers], axis=1)


def _solve(matrix: Floats, values: Floats) -> Floats:
    # The constant is not shrunk: centre first.
    centre = values.mean()
    normal = matrix.T @ matrix
    penalty = RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
    penalty[0, 0] = 0.0
    coefficients = np.linalg.solve(normal + penalty, matrix.T @ (values - centre))
    coefficients[0] += centre
    return np.asarray(coefficients)
