"""Compiled loops of occupancy and mixture, which arrays do slowly or with much overhead."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FAR = 6.0
"""Standard normal deviations beyond which a distribution function is 0 or 1 (1e-9)."""


@njit(cache=True)
def birth_death(rate: float, steps: float, times: Floats) -> tuple[Floats, float, float, float]:
    """Return π(0 … B) ∝ ∏ λ E[D] t(i)/i, tail beyond B folded into it, with mean, variance, tpot.

    Products run away from the largest term, so that nothing overflows. rate : λ [1/s]; steps :
    E[D]; times : t(1 … B) [s]; the load λ E[D] t(B)/B must be below 1.
    """
    slots = times.size
    offered = rate * steps
    p = np.zeros(slots + 1)
    top = 0
    for n in range(1, slots + 1):
        if offered * times[n - 1] < n:
            break
        top = n
    p[top] = 1.0
    for n in range(top + 1, slots + 1):
        p[n] = p[n - 1] * offered * times[n - 1] / n
    for n in range(top, 0, -1):
        p[n - 1] = p[n] * n / (offered * times[n - 1])
    p[slots] /= 1.0 - offered * times[slots - 1] / slots
    total = 0.0
    for n in range(slots + 1):
        total += p[n]
    mean = 0.0
    square = 0.0
    seen = 0.0
    for n in range(slots + 1):
        p[n] /= total
        mean += n * p[n]
        square += n * n * p[n]
        seen += p[n] * times[min(n, slots - 1)]
    return p, mean, square - mean * mean, seen


@njit(cache=True)
def _gamma_cdf(shape: float, y: float) -> float:
    """Return the regularised lower incomplete gamma function: series, or Lentz's fraction."""
    if y <= 0.0:
        return 0.0
    front = math.exp(shape * math.log(y) - y - math.lgamma(shape))
    if y < shape + 1.0:
        term = 1.0 / shape
        total = term
        for i in range(1, 200):
            term *= y / (shape + i)
            total += term
            if term < 1e-12 * total:
                break
        return front * total
    b = y + 1.0 - shape
    c = 1e300
    d = 1.0 / b
    h = d
    for i in range(1, 200):
        an = -i * (i - shape)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        step = d * c
        h *= step
        if abs(step - 1.0) < 1e-12:
            break
    return 1.0 - front * h


@njit(cache=True)
def pearson3(x: float, mean: float, variance: float, kappa: float) -> float:
    """Return P(X ≤ x) of the shifted gamma law with these central moments.

    Exact for shapes below 2; above, the Wilson-Hilferty cube-root normal form, within 2.5e-3.
    """
    shape = 4.0 * variance**3 / kappa**2
    y = (x - mean) * 2.0 * variance / kappa + shape
    if y <= 0.0:
        return 0.0
    if shape < 2.0:
        return _gamma_cdf(shape, y)
    z = ((y / shape) ** (1.0 / 3.0) - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * math.sqrt(shape)
    if z > FAR:
        return 1.0
    if z < -FAR:
        return 0.0
    return 0.5 * math.erfc(-z * math.sqrt(0.5))


@njit(cache=True)
def pearson3_rows(x: Floats, mean: Floats, variance: Floats, kappa: Floats) -> Floats:
    """Return P(X ≤ x[k, g]) of each component [k, g]; mean, variance, kappa : [k]."""
    F = np.empty(x.shape)
    for k in range(x.shape[0]):
        for g in range(x.shape[1]):
            F[k, g] = pearson3(x[k, g], mean[k], variance[k], kappa[k])
    return F


@njit(cache=True)
def pearson3_sum(
    x: Floats, weight: Floats, mean: Floats, variance: Floats, kappa: Floats
) -> Floats:
    """Return Σ weight[k] P(X_k ≤ x[g]) for ascending x [g]."""
    F = np.zeros(x.size)
    for k in range(weight.size):
        shape = 4.0 * variance[k] ** 3 / kappa[k] ** 2
        root = 1.0 - 1.0 / (9.0 * shape) - FAR / (3.0 * math.sqrt(shape))
        y = shape * root**3 if shape >= 2.0 and root > 0.0 else 0.0
        first = np.searchsorted(x, mean[k] + (y - shape) * kappa[k] / (2.0 * variance[k]))
        done = False
        for g in range(first, x.size):
            value = 1.0 if done else pearson3(x[g], mean[k], variance[k], kappa[k])
            done = value > 1.0 - 1e-9
            F[g] += weight[k] * value
    return F
