"""Compiled linear algebra of the bulk chain: elimination, solutions, the walk of its far rows."""

from __future__ import annotations

import math

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit


@njit(cache=True, fastmath={"contract"})
def _eliminate_row(a: Floats, low: int, n: int, top: int) -> None:
    """Clear column n of the rows `top` … n − 1 and leave their factors there."""
    pivot = 1.0 / a[n, n]
    for i in range(top, n):
        f = a[i, n] * pivot
        a[i, n] = f
        for j in range(max(n - low, 0), n):
            a[i, j] -= f * a[n, j]


@njit(cache=True, fastmath={"contract"})
def eliminate(a: Floats, low: int) -> None:
    """Factor a = U L in place, from the last row up: U unit upper, L lower of `low` bands.

    a : I − P of a transient chain whose steps go down by at most `low` states [n, n]. Diagonally
    dominant by rows, so that no pivots are needed. Four rows are cleared in one pass over those
    above them: memory traffic, not arithmetic, takes the time.
    """
    n = a.shape[0] - 1
    while n >= 4:
        m = n - 3
        for row in range(n, m, -1):
            _eliminate_row(a, low, row, m)
        first = max(m - low, 0)
        for i in range(m):
            e = a[i, n] / a[n, n]
            f = (a[i, n - 1] - e * a[n, n - 1]) / a[n - 1, n - 1]
            g = (a[i, n - 2] - e * a[n, n - 2] - f * a[n - 1, n - 2]) / a[n - 2, n - 2]
            h = (a[i, m] - e * a[n, m] - f * a[n - 1, m] - g * a[n - 2, m]) / a[m, m]
            a[i, n] = e
            a[i, n - 1] = f
            a[i, n - 2] = g
            a[i, m] = h
            for j in range(first, m):
                a[i, j] -= e * a[n, j] + f * a[n - 1, j] + g * a[n - 2, j] + h * a[m, j]
        n -= 4
    while n >= 1:
        _eliminate_row(a, low, n, 0)
        n -= 1


@njit(cache=True)
def transient(matrix: Floats, restart: float, low: int) -> Floats:
    """Return I − P without state 0, factored by `eliminate`.

    matrix : P; restart : chance of a step to end in state 0 by force
    """
    n = matrix.shape[0] - 1
    a = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            a[i, j] = -matrix[i + 1, j + 1]
        a[i, i] += 1.0 + restart
    eliminate(a, low)
    return a


@njit(cache=True, fastmath={"contract"})
def solve_rows(a: Floats, low: int, s: Floats) -> Floats:
    """Return x with xᵀ (U L) = sᵀ from the factors of `eliminate`; s, x : [n, k]."""
    n, k = s.shape
    x, found = np.empty((k, n)), np.empty((n, k))
    for i in range(n):
        for c in range(k):
            x[c, i] = s[i, c]
    for i in range(n - 1, -1, -1):
        for c in range(k):
            value = x[c, i] / a[i, i]
            x[c, i] = value
            for j in range(max(i - low, 0), i):
                x[c, j] -= a[i, j] * value
    for i in range(n):
        for c in range(k):
            value = x[c, i]
            for j in range(i + 1, n):
                x[c, j] -= a[i, j] * value
            found[i, c] = value
    return found


@njit(cache=True)
def solve_columns(a: Floats, low: int, b: Floats) -> Floats:
    """Return x with (U L) x = b from the factors of `eliminate`; b, x : [n]."""
    n = b.size
    x = b.copy()
    for i in range(n - 1, -1, -1):
        total = x[i]
        for j in range(i + 1, n):
            total -= a[i, j] * x[j]
        x[i] = total
    for i in range(n):
        total = x[i]
        for j in range(max(i - low, 0), i):
            total -= a[i, j] * x[j]
        x[i] = total / a[i, i]
    return x


@njit(cache=True)
def walk_rows(matrix: Floats, walk: Floats, m: int, down: int) -> None:
    """Fill rows m + 1 … of `matrix` with a random walk: `down` cells off, `walk` on."""
    size = matrix.shape[0]
    for v in range(m + 1, size):
        for j in range(size):
            k = j - v + down
            matrix[v, j] = walk[k] if 0 <= k < walk.size else 0.0


@njit(cache=True)
def tail_ratio(pmf: Floats, jumps: float, full: float) -> float:
    """Return η with π(i) ∝ η^i far out: η^full exp(jumps (φ(1/η) − 1)) = 1; 0 without jumps.

    pmf : cells of a prompt; jumps : prompts that arrive in a full step; full : cells it takes
    """
    if jumps <= 0.0:
        return 0.0
    last = 0
    mean = 0.0
    square = 0.0
    for i in range(pmf.size):
        if pmf[i] > 0.0:
            last = i
            mean += i * pmf[i]
            square += i * i * pmf[i]
    s = min(2.5 * (full - jumps * mean) / (jumps * square), 300.0 / last)
    for _ in range(30):
        value = 0.0
        slope = 0.0
        factor = math.exp(s)
        growth = 1.0
        for i in range(last + 1):
            value += growth * pmf[i]
            slope += growth * pmf[i] * i
            growth *= factor
        value = jumps * (value - 1.0) - full * s
        slope = jumps * slope - full
        if slope <= 0.0:
            s *= 1.5
            continue
        step = value / slope
        s -= step
        if abs(step) < 1e-9 * s:
            break
    return math.exp(-s) if s > 0.0 else 0.0
