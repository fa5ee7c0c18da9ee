"""What a step takes of many whole prompts: a random number of tokens, at times one huge prompt.

Whole prompts of random length are taken in order while they fit the budget M, at least one. Given
V > M tokens waiting, the prompts' ends are the points of a renewal process with a point at V, and
the step ends at the last point before M, or takes the first prompt alone if that is longer:

    P(X = x | V) ∝ (g·U)(x) Σ_{y > M − x} f(y) U(V − x − y)   for x ≤ M,
    P(X = y | V) ∝ g(y) U(V − y)                               for y > M,

f the law of a prompt, g that of the first one, U = Σ θ^n f*^n. With a arrivals since the last step
on average, n prompts wait with a chance in proportion to a^n/n!, so that a second one is a/2 times
as likely as the first: θ = a/2, at most 1 (many steps' arrivals, any number as likely as another);
`models/derive_whole_prompts.py` lists all sequences.
The first prompt is fresh, or, behind a step that was full, the one that did not fit: longer, as a
prompt of y tokens crosses the budget in y places.
"""

from __future__ import annotations

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.queues.lattice import fft_size


def taken(pmf: Floats, m: int, top: int, growth: float, full: float) -> Floats:
    """Return P(X = x | V = v) for v = m + 1 … top [top − m, top + 1].

    pmf : cells of a prompt [≥ top + 1]; m : the budget in cells; growth : θ; full : share of the
    full steps that follow a full step

    >>> law = taken(np.array([0, 0, 1.0, 0, 0, 0, 0]), 3, 6, 1.0, 0.0)
    >>> [int(row.argmax()) for row in law[::2]]  # prompts of two cells: one fits into three
    [2, 2]
    """
    f = pmf[: top + 1]
    cells = np.arange(top + 1, dtype=np.float64)
    behind = f * np.minimum(cells, max(m, 1))
    behind /= max(float(behind.sum()), 1e-300)
    large, fresh = float(behind[m + 1 :].sum()), float(f[m + 1 :].sum())
    by_itself = large / (1.0 + large - fresh)  # after a huge prompt the next is fresh
    g = (1 - full + full * by_itself) * f + full * (1 - by_itself) * behind
    renewals = _renewals(f, growth)
    return _taken(growth * f, g, renewals, m)


def _renewals(f: Floats, growth: float) -> Floats:
    """Return U = Σ θ^n f*^n in cells 0 … top."""
    n = 2 * fft_size(f.size)
    # damped by 1e-9 over the period, so that what wraps around is nothing
    damping = 10.0 ** (-9.0 / n * np.arange(f.size))
    return np.asarray(
        np.fft.irfft(1.0 / (1.0 - growth * np.fft.rfft(f * damping, n)), n)[: f.size] / damping
    )


@njit(cache=True)
def _taken(f: Floats, g: Floats, renewals: Floats, m: int) -> Floats:
    top = f.size - 1
    starts = np.zeros(m + 1)
    for x in range(m + 1):
        for y in range(x + 1):
            starts[x] += g[y] * renewals[x - y]
    law = np.zeros((top - m, top + 1))
    # a prompt of y cells from x on, in front of `cells` in all, ends beyond the budget if y > m − x
    for cells in range(1, top + 1):
        crossed = 0.0
        for y in range(cells, 0, -1):
            crossed += f[y] * renewals[cells - y]
            x = m + 1 - y
            if 0 <= x <= top - cells:
                law[cells + x - m - 1, max(x, 1)] += starts[x] * crossed
    for row in range(top - m):
        v = m + 1 + row
        for y in range(m + 1, v + 1):
            law[row, y] += g[y] * renewals[v - y]
        total = law[row].sum()
        for x in range(1, v + 1):
            # what hardly ever happens would widen the chain's band
            if law[row, x] < 1e-5 * total:
                law[row, x] = 0.0
        total = law[row].sum()
        if total > 0.0:
            for x in range(1, v + 1):
                law[row, x] /= total
        else:
            law[row, m] = 1.0
    return law


@njit(cache=True)
def rows(matrix: Floats, law: Floats, arrived: Floats, m: int) -> None:
    """Fill rows m + 1 … of a transition matrix: x cells off, what arrives meanwhile on.

    law : as of `taken`; arrived : law of the cells that arrive in a step of x cells [x, cells]
    """
    size = matrix.shape[0]
    for v in range(m + 1, size):
        for j in range(size):
            matrix[v, j] = 0.0
        for x in range(1, v + 1):
            p = law[v - m - 1, x]
            if p > 0.0:
                for j in range(v - x, size):
                    matrix[v, j] += p * arrived[x, j - v + x]


@njit(cache=True, fastmath={"reassoc", "contract"})
def covered(
    law: Floats,
    weight: Floats,
    blend: Floats,
    laws: Floats,
    m: int,
    noise: Floats,
    one: Floats,
    other: Floats,
) -> tuple[float, float]:
    """Return Σ_v weight_v Σ_x P(x | v) noise_x E[g(v − x + arrivals)] of g = one and g = other.

    blend, laws : of the cells that arrive in a step of x cells, blend[x] @ laws [x, k; k, cells];
    noise : per number of cells taken, less its mean given v … [top − m, top + 1]; one, other :
    functions of the next state [states]
    """
    size, count = one.size, laws.shape[0]
    left = np.zeros((size, count))
    for row in range(law.shape[0]):
        v = m + 1 + row
        for x in range(1, v + 1):
            p = law[row, x] * weight[row]
            if p > 1e-10:
                for k in range(count):
                    left[v - x, k] += p * noise[row, x] * blend[x, k]
    total, total_other = 0.0, 0.0
    for first in range(size):
        for k in range(count):
            if left[first, k] == 0.0:
                continue
            value, value_other = 0.0, 0.0
            for j in range(size - first):
                value += laws[k, j] * one[first + j]
                value_other += laws[k, j] * other[first + j]
            total += left[first, k] * value
            total_other += left[first, k] * value_other
    return total, total_other


@njit(cache=True)
def full_steps(
    law: Floats,
    weight: Floats,
    length: Floats,
    m: int,
    tail: Floats,
    groups: int,
) -> tuple[Floats, Floats, Floats]:
    """Return full steps as arrivals meet them, in groups by the cells they take.

    weight : of states m + 1 …; length : time of a step with x cells [s]; tail : law of the cells
    beyond the last state. Returns mass and mean length [g], and the law of the cells left behind
    [g, cells]
    """
    top = m + law.shape[0]
    size = top + 1
    by_x = np.zeros(size)
    for row in range(law.shape[0]):
        for x in range(1, m + 2 + row):
            by_x[x] += weight[row] * law[row, x] * length[x]
    total = by_x.sum()
    group = np.zeros(size, dtype=np.int64)
    mass, mean = np.zeros(groups), np.zeros(groups)
    below = 0.0
    for x in range(1, size):
        # narrow groups of long steps, where percentiles are read
        above = max(1.0 - (below + by_x[x] / 2) / max(total, 1e-300), 0.0)
        g = min(int(groups * (1.0 - above**0.5)), groups - 1)
        group[x] = g
        below += by_x[x]
        mass[g] += by_x[x]
        mean[g] += by_x[x] * length[x]
    left = np.zeros((groups, size + tail.size - 1))
    for row in range(law.shape[0]):
        v = m + 1 + row
        for x in range(1, v + 1):
            w = weight[row] * law[row, x] * length[x]
            if w <= 0.0:
                continue
            g = group[x]
            if v < top:
                left[g, v - x] += w
            else:
                for k in range(tail.size):
                    left[g, v - x + k] += w * tail[k]
    for g in range(groups):
        if mass[g] > 0.0:
            mean[g] /= mass[g]
            for k in range(left.shape[1]):
                left[g, k] /= mass[g]
    return mass, mean, left


@njit(cache=True)
def riding(f: Floats, growth: float, m: int) -> tuple[Floats, Floats]:
    """Return, by cells up to the end of a request that a full step takes at once, how likely what
    follows overruns the budget (up to a factor) and the mean cells of that step [m + 1].

    Prompts that follow ride along until one does not fit; each more is θ times as likely.
    f : cells of a prompt; growth : θ
    """
    longer = np.zeros(m + 1)
    total = 0.0
    for y in range(m + 1):
        total += f[y]
        longer[y] = max(1.0 - total, 0.0)
    chance, mean = np.zeros(m + 1), np.zeros(m + 1)
    for c in range(m, -1, -1):
        weight = longer[m - c]
        cells = weight * c
        for y in range(1, m - c + 1):
            ride = growth * f[y] * chance[c + y]
            weight += ride
            cells += ride * mean[c + y]
        chance[c] = weight
        mean[c] = cells / weight if weight > 0.0 else float(c)
    return chance, mean


@njit(cache=True)
def steps_to(law: Floats, m: int) -> tuple[Floats, Floats, Floats]:
    """Return, by cells up to a request's end, its mean number of steps, the mean cells of the last
    one if it is not the request's alone, and the chance that it is [top + 1].

    That a prompt ends there is all that `law` knows of V, so that it serves here too.
    """
    top = m + law.shape[0]
    steps, by_itself, remain = np.ones(top + 1), np.zeros(top + 1), np.empty(top + 1)
    for v in range(top + 1):
        remain[v] = v
    for v in range(m + 1, top + 1):
        row = v - m - 1
        mean, cells, own = 1.0, 0.0, law[row, v]
        for x in range(1, v):
            p = law[row, x]
            if p > 0.0:
                rest = v - x
                mean += p * steps[rest]
                cells += p * (1.0 - by_itself[rest]) * remain[rest]
                own += p * by_itself[rest]
        steps[v], by_itself[v] = mean, min(own, 1.0)
        remain[v] = cells / (1.0 - own) if own < 1.0 - 1e-9 else float(m)
    return steps, remain, by_itself
