"""Compiled loops of mixtures: grid, Pearson III and beta laws, unstalled requests set apart."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats, Ints
from bestserve.host.compiled import njit, table

NORMAL_END = 4.8
"""Standard normal deviations beyond which a distribution function is 0 or 1 (1e-6)."""

SERIES_END = 1e-8
"""Relative size of the terms at which series end."""

TWO_POINT = 0.98
"""Variance of a beta law at most, as a part of that of the law on its two ends."""

LEAST_PART = 0.05
"""Share of unstalled decodes, and part of the variance left to the others, from which they are set
apart: less tells nothing."""

KNOTS = 64
"""Knots of the normal law per standard deviation."""

_Z = np.arange(-5 * KNOTS, 5 * KNOTS + 1) / KNOTS
_SLOPE = np.exp(-(_Z**2) / 2) / math.sqrt(2 * math.pi) / KNOTS
_NORMAL = table(
    __name__,
    "_NORMAL",
    np.stack(([0.5 * math.erfc(-z * math.sqrt(0.5)) for z in _Z], _SLOPE), axis=1),
)
"""Φ and its slope per knot, from −5 to 5."""


class Laws(NamedTuple):
    """Laws known by three moments, with the bounds that all of them keep.

    mean, variance, third : central moments [k; s, s², s³]; low, high : no value is outside [s]
    """

    mean: Floats
    variance: Floats
    third: Floats
    low: float
    high: float


class Unstalled(NamedTuple):
    """Decodes of each class that meet no prompt: share, mean and variance [c; 1, s, s²]."""

    share: Floats
    mean: Floats
    variance: Floats


class Spread(NamedTuple):
    """How the grid of a mixture is spread.

    share : of each point of a law [z]; quantiles : of all points, at which the grid stands; even :
    how many more stand evenly
    """

    share: Floats
    quantiles: Floats
    even: int


@njit(cache=True)
def _gamma_cdf(shape: float, log_gamma: float, y: float) -> float:
    """Return the regularised lower incomplete gamma function: series, or Lentz's fraction."""
    if y <= 0.0:
        return 0.0
    front = math.exp(shape * math.log(y) - y - log_gamma)
    if y < shape + 1.0:
        term = 1.0 / shape
        total = term
        for i in range(1, 200):
            term *= y / (shape + i)
            total += term
            if term < SERIES_END * total:
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
        if abs(step - 1.0) < SERIES_END:
            break
    return 1.0 - front * h


@njit(cache=True)
def _normal_cdf(z: float) -> float:
    """Return Φ(z): cubic Hermite interpolation of `_NORMAL`, within 1e-10, 0 or 1 beyond it."""
    if abs(z) >= 5.0:
        return 0.0 if z < 0.0 else 1.0
    at = (z + 5.0) * KNOTS
    i = int(at)
    t = at - i
    left, right = _NORMAL[i, 1], _NORMAL[i + 1, 1]
    rise = _NORMAL[i + 1, 0] - _NORMAL[i, 0]
    bend = t * (left + right - 2.0 * rise) + 3.0 * rise - 2.0 * left - right
    return float(_NORMAL[i, 0] + t * (left + t * bend))


@njit(cache=True)
def _add_pearson3(F: Floats, x: Floats, roots: Floats, weight: float, laws: Laws, k: int) -> None:
    """Add weight · P(X ≤ x) of the shifted gamma law with the moments of law k, at ascending x [g].

    Exact for shapes below 2; above, the Wilson-Hilferty cube-root normal form, within 2.5e-3.
    roots : cube roots of x, less where the law begins, in any unit [g]; taken here if empty
    """
    means, variances, thirds, _, _ = laws
    mean, variance, kappa = means[k], variances[k], thirds[k]
    shape = 4.0 * variance**3 / kappa**2
    per = 2.0 * variance / kappa
    log_gamma = math.lgamma(shape) if shape < 2.0 else 0.0
    middle, stretch = 1.0 - 1.0 / (9.0 * shape), 3.0 * math.sqrt(shape)
    unit = (per / shape) ** (1.0 / 3.0)
    root = middle - NORMAL_END / stretch
    least = shape * root**3 if shape >= 2.0 and root > 0.0 else 0.0
    g = np.searchsorted(x, mean + (least - shape) / per)
    while g < x.size:
        if shape < 2.0:
            value = _gamma_cdf(shape, log_gamma, (x[g] - mean) * per + shape)
        else:
            if roots.size:
                root = roots[g] * unit
            else:
                root = max((x[g] - mean) * per / shape + 1.0, 0.0) ** (1.0 / 3.0)
            value = _normal_cdf((root - middle) * stretch)
        F[g] += weight * value
        g += 1
        if value > 1.0 - 1e-6:
            break
    while g < x.size:
        F[g] += weight
        g += 1


@njit(cache=True)
def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (Lentz's method)."""
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    h = d
    for i in range(1, 1000):
        even = i * (b - i) * x / ((a + 2 * i - 1.0) * (a + 2 * i))
        d = 1.0 / (1.0 + even * d)
        c = 1.0 + even / c
        h *= d * c
        odd = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1.0))
        d = 1.0 / (1.0 + odd * d)
        c = 1.0 + odd / c
        step = d * c
        h *= step
        if abs(step - 1.0) < SERIES_END:
            break
    return h


@njit(cache=True)
def _add_beta(F: Floats, x: Floats, weight: float, laws: Laws, k: int) -> None:
    """Add weight · P(X ≤ x) of the beta law on [low, high] with the moments of law k [g].

    The incomplete beta function is taken by its continued fraction, from the end where that is
    short (Didonato and Morris 1992).
    """
    means, variances, _, low, high = laws
    mean, variance = means[k], variances[k]
    span = high - low
    m = min(max((mean - low) / span, 1e-6), 1.0 - 1e-6)
    v = min(variance / span**2, TWO_POINT * m * (1.0 - m))
    a = m * (m * (1.0 - m) / v - 1.0)
    b = a * (1.0 - m) / m
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    turn = (a + 1.0) / (a + b + 2.0)
    for g in range(x.size):
        y = (x[g] - low) / span
        if y >= 1.0:
            F[g] += weight
        elif y > 0.0:
            front = math.exp(a * math.log(y) + b * math.log1p(-y) - log_beta)
            if y < turn:
                F[g] += weight * front * _beta_fraction(a, b, y) / a
            else:
                F[g] += weight * (1.0 - front * _beta_fraction(b, a, 1.0 - y) / b)


@njit(cache=True)
def _is_capped(mean: float, variance: float, high: float) -> bool:
    """Whether the upper tail of a gamma law would pass `high`."""
    return mean + 3.5 * math.sqrt(variance) > high


@njit(cache=True)
def _add_component(F: Floats, x: Floats, roots: Floats, weight: float, laws: Laws, k: int) -> None:
    """Add weight · P(X ≤ x): a beta law where `high` is near, else a gamma law (see both)."""
    means, variances, _, _, high = laws
    if _is_capped(means[k], variances[k], high):
        _add_beta(F, x, weight, laws, k)
    else:
        _add_pearson3(F, x, roots, weight, laws, k)


@njit(cache=True)
def component_rows(x: Floats, laws: Laws) -> Floats:
    """Return P(X ≤ x[k, g]) of each law [k, g], x ascending."""
    F = np.zeros(x.shape)
    for k in range(x.shape[0]):
        _add_component(F[k], x[k], x[k, :0], 1.0, laws, k)
    return F


@njit(cache=True)
def _grid(
    points: Floats, order: Ints, weight: Floats, spread: Spread, low: float, high: float
) -> Floats:
    """Return distinct ascending values at which to take a mixture, within [low, high] [g].

    They are `quantiles` of the points [c·z], which weigh weight[c] · share[z] and ascend
    in `order`; `even` values evenly spaced over all of them; and `low`.
    """
    share, quantiles, even = spread
    n = points.size
    total = np.empty(n)
    mass = 0.0
    for i in range(n):
        c, z = divmod(order[i], share.size)
        mass += weight[c] * share[z]
        total[i] = mass
    first, last = points[order[0]], points[order[n - 1]]
    start = max(first, low)
    x = np.empty(quantiles.size + even + 1)
    x[0] = low
    size, i, k = 1, 0, 0
    for j in range(quantiles.size + 1):
        value = last
        if j < quantiles.size:
            level = quantiles[j] * mass
            while i < n and total[i] < level:
                i += 1
            if i == 0:
                value = first
            elif i < n:
                left = points[order[i - 1]]
                part = (level - total[i - 1]) / (total[i] - total[i - 1])
                value = left + (points[order[i]] - left) * part
        while k < even and (
            j == quantiles.size or start + (last - start) * k / (even - 1) <= value
        ):
            spaced = min(max(start + (last - start) * k / (even - 1), low), high)
            if spaced > x[size - 1]:
                x[size] = spaced
                size += 1
            k += 1
        value = min(max(value, low), high)
        if value > x[size - 1]:
            x[size] = value
            size += 1
    return x[:size]


@njit(cache=True)
def smooth_mixture(
    points: Floats, order: Ints, spread: Spread, weight: Floats, laws: Laws
) -> tuple[Floats, Floats]:
    """Return the grid x of a mixture (see `_grid`) and Σ weight[k] P(X_k ≤ x) [g].

    Laws that begin at `low`, κ = 2v²/(m − low), share the cube roots of x − low.
    """
    mean, variance, kappa, low, high = laws
    x = _grid(points, order, weight, spread, low, high)
    F = np.zeros(x.size)
    roots = np.empty(x.size)
    for g in range(x.size):
        roots[g] = (x[g] - low) ** (1.0 / 3.0)
    for k in range(weight.size):
        begins = mean[k] - 2.0 * variance[k] ** 2 / kappa[k]
        known = roots.size if abs(begins - low) <= 1e-12 * mean[k] else 0
        _add_component(F, x, roots[:known], weight[k], laws, k)
    return x, F


@njit(cache=True)
def cut_class(
    mean: float,
    variance: float,
    third: float,
    unstalled: float,
    unstalled_mean: float,
    unstalled_variance: float,
) -> tuple[float, float, float, float]:
    """Return share, mean, variance and third moment of the stalled requests of a class.

    A class whose moments leave the others no spread, with few unstalled requests or none but those,
    is not cut: its share is 1.
    """
    if not LEAST_PART < unstalled < 1.0 or unstalled_mean >= mean:
        return 1.0, mean, variance, third
    rest = 1.0 - unstalled
    m = (mean - unstalled * unstalled_mean) / rest
    gap, step = unstalled_mean - mean, m - mean
    v = (variance - unstalled * (unstalled_variance + gap**2)) / rest - step**2
    if v < LEAST_PART * variance:
        return 1.0, mean, variance, third
    k = (
        (third - unstalled * (3 * unstalled_variance * gap + gap**3)) / rest
        - 3 * v * step
        - step**3
    )
    return rest, m, v, k


@njit(cache=True)
def cut_classes(
    classes: Laws, unstalled: Unstalled, skew: float
) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Return class, share, mean, variance and third moment of the components of all classes.

    `skew` limits the skewness of what is left; see `mixture.cut`.
    """
    mean, variance, third, low, high = classes
    unstalled_share, unstalled_mean, unstalled_variance = unstalled
    n = mean.size
    cls = np.empty(2 * n, dtype=np.int64)
    out = np.empty((4, 2 * n))
    size = n
    for i in range(n):
        share, m, v, k = cut_class(
            mean[i],
            variance[i],
            third[i],
            unstalled_share[i],
            unstalled_mean[i],
            unstalled_variance[i],
        )
        k = min(k, skew * max(v, 0.0) ** 1.5)
        v = max(v, (1e-7 * m) ** 2)
        k = max(k, 2 * v**2 / max(m - low, 1e-9 * m))
        if high < np.inf:
            reach = max(high - m, 1e-9)
            k = min(k, max(v * (reach - v / reach), 1e-6 * v**1.5))
        cls[i] = i
        out[0, i], out[1, i], out[2, i], out[3, i] = share, m, v, k
        if share < 1.0:
            v = max(unstalled_variance[i], (1e-4 * unstalled_mean[i]) ** 2)
            cls[size] = i
            out[0, size], out[1, size], out[2, size] = 1.0 - share, unstalled_mean[i], v
            out[3, size] = 2 * v**2 / max(unstalled_mean[i] - low, 1e-9)
            size += 1
    return cls[:size], out[0, :size], out[1, :size], out[2, :size], out[3, :size]
