"""Special functions of the default questions, without SciPy: loading it takes longer than they do.

Each is held to SciPy's in `tests/models/test_special.py`. What is asked more rarely takes SciPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit, table

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)

_RULE = table(__name__, "_RULE", np.stack(((_NODES + 1) / 2, _WEIGHTS / 2), axis=1))
"""Gauss-Legendre nodes and weights on [0, 1]."""

NOTHING = -60.0
"""Logarithm of a density over that of the mode from which nothing is left beyond it."""

LARGE_SHAPE = 60.0
"""Shape beyond which the gamma law is integrated: its series would take more terms than nodes."""


@njit(cache=True)
def normal_cdf(z: Floats) -> Floats:
    """Return Φ(z) [n]."""
    found = np.empty(z.size)
    for i in range(z.size):
        found[i] = 0.5 * math.erfc(-z[i] * math.sqrt(0.5))
    return found


@njit(cache=True)
def _normal_quantile(p: float) -> float:
    """Return Φ⁻¹(p), 0 < p ≤ 1/2: Abramowitz and Stegun 26.2.23, then Halley's steps."""
    t = math.sqrt(-2.0 * math.log(p))
    z = (2.515517 + t * (0.802853 + t * 0.010328)) / (
        1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    ) - t
    for _ in range(3):
        density = math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)
        step = (0.5 * math.erfc(-z * math.sqrt(0.5)) - p) / density
        z -= step / (1.0 + step * z / 2.0)
    return z


@njit(cache=True)
def normal_quantile(p: Floats) -> Floats:
    """Return Φ⁻¹(p) [n]; −∞ at 0, ∞ at 1."""
    found = np.empty(p.size)
    for i in range(p.size):
        if p[i] <= 0.0 or p[i] >= 1.0:
            found[i] = -math.inf if p[i] <= 0.0 else math.inf
        elif p[i] <= 0.5:
            found[i] = _normal_quantile(p[i])
        else:
            found[i] = -_normal_quantile(1.0 - p[i])
    return found


@njit(cache=True)
def _gamma_series(shape: float, x: float) -> float:
    """Return P(shape, x) from its power series, for x below shape + 1 (DLMF 8.7.1)."""
    term = 1.0 / shape
    total = term
    i = 1.0
    while term > 1e-16 * total:
        term *= x / (shape + i)
        total += term
        i += 1.0
    return total * math.exp(shape * math.log(x) - x - math.lgamma(shape))


@njit(cache=True)
def _gamma_fraction(shape: float, x: float) -> float:
    """Return Q(shape, x) from its continued fraction, for x above shape + 1 (DLMF 8.9.2)."""
    b = x + 1.0 - shape
    c = 1e300
    d = 1.0 / b
    h = d
    step = 0.0
    i = 1.0
    while abs(step - 1.0) > 1e-15 and i < 500.0:
        an = -i * (i - shape)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        step = d * c
        h *= step
        i += 1.0
    return h * math.exp(shape * math.log(x) - x - math.lgamma(shape))


@njit(cache=True)
def _gamma_tail(shape: float, x: float) -> float:
    """Return Q(shape, x) of a large shape: the density integrated from x to where it ends."""
    mode = shape - 1.0
    width = math.sqrt(mode)
    above = x > mode
    if mode * math.log1p((x - mode) / mode) - (x - mode) < NOTHING:
        return 0.0 if above else 1.0
    if above:
        end = max(mode + 11.5 * width, x + 6.0 * width)
    else:
        end = max(0.0, min(mode - 7.5 * width, x - 5.0 * width))
    total = 0.0
    for i in range(_RULE.shape[0]):
        off = x + (end - x) * _RULE[i, 0] - mode
        # relative to the mode's density, so that nothing cancels
        total += _RULE[i, 1] * math.exp(mode * math.log1p(off / mode) - off)
    # Stirling's series of the mode's density
    density = math.exp((1.0 / (360.0 * mode**2) - 1.0 / 12.0) / mode) / math.sqrt(
        2.0 * math.pi * mode
    )
    part = total * (end - x) * density
    return part if above else 1.0 + part


@njit(cache=True)
def gamma_tails(shape: Floats, x: Floats) -> Floats:
    """Return the regularised upper incomplete gamma function Q(shape, x), x ≥ 0 [n]."""
    found = np.empty(x.size)
    for i in range(x.size):
        if x[i] <= 0.0:
            found[i] = 1.0
        elif shape[i] > LARGE_SHAPE:
            found[i] = _gamma_tail(shape[i], x[i])
        elif x[i] < shape[i] + 1.0:
            found[i] = 1.0 - _gamma_series(shape[i], x[i])
        else:
            found[i] = _gamma_fraction(shape[i], x[i])
    return found


@lru_cache(maxsize=64)
def student_quantile(freedom: int, p: float) -> float:
    """Return the p-quantile of Student's t with a whole number of degrees of freedom, p ≥ 1/2.

    Its distribution function is a finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    odd = freedom % 2

    def inside(angle: float) -> float:
        """P(|T| ≤ √freedom tan(angle))."""
        cosine, sine = math.cos(angle), math.sin(angle)
        term = cosine if odd else 1.0
        total = 0.0
        for k in range(1 + odd, freedom, 2):
            total += term
            term *= cosine * cosine * k / (k + 1)
        return 2 / math.pi * (angle + sine * total) if odd else sine * total

    angle = root(lambda a: inside(a) - (2 * p - 1), 0.0, math.pi / 2, 1e-15)
    return math.sqrt(freedom) * math.tan(angle)


def root(function: Callable[[float], float], low: float, high: float, tolerance: float) -> float:
    """Return where a function changes its sign between `low` and `high`, within `tolerance`.

    Brent, Algorithms for Minimization without Derivatives (1973), chapter 4, with the same steps
    as SciPy's `brentq`. ValueError if the ends have one sign.
    """
    before, at, f_before, f_at = low, high, function(low), function(high)
    if f_before * f_at > 0:
        raise ValueError("the function has the same sign at both ends")
    if f_before == 0.0:
        return before
    other, f_other, step, last = before, f_before, 0.0, 0.0
    while f_at != 0.0:
        if f_before != 0.0 and (f_before < 0) != (f_at < 0):
            other, f_other = before, f_before
            step = last = at - before
        if abs(f_other) < abs(f_at):
            before, at, other = at, other, at
            f_before, f_at, f_other = f_at, f_other, f_at
        close = (tolerance + 4 * np.finfo(float).eps * abs(at)) / 2
        half = (other - at) / 2
        if abs(half) < close:
            break
        if abs(last) > close and abs(f_at) < abs(f_before):
            if before == other:  # secant
                trial = -f_at * (at - before) / (f_at - f_before)
            else:  # inverse quadratic
                one = (f_before - f_at) / (before - at)
                two = (f_other - f_at) / (other - at)
                trial = (
                    -f_at * (f_other * two - f_before * one) / (two * one * (f_other - f_before))
                )
            if 2 * abs(trial) < min(abs(last), 3 * abs(half) - close):
                last, step = step, trial
            else:
                last = step = half
        else:
            last = step = half
        before, f_before = at, f_at
        at += step if abs(step) > close else math.copysign(close, half)
        f_at = function(at)
    return at
