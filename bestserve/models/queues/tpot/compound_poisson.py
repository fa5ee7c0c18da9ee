"""TPOT where a decode meets few prompts: sums of single stalls instead of smooth laws.

A request of D steps takes D·t + Σ stalls, the stalls of a Poisson number of clumps of prompts. With
few of them (prompts of equal length: on a lattice) three moments do not tell the law, but it is
compound Poisson: with φ the transform of one prompt's stall and clumps of geometric size,

    exp(θ (G(φ) − 1)),  G(s) = (1 − r) s/(1 − r s),  θ = (1 − r) E N,  (1 + r)/(1 − r) = Var N/E N

(Pólya-Aeppli). E N and Var N follow, per output class, from the mean and the variance of the sum:
short answers meet few prompts but in clumps. What decodes alone fluctuate is added as a uniform of
that variance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.distribution import Distribution
from bestserve.models.queues.lattice import split

CELLS = 384
"""Grid of the sum of stalls."""

GRID = 160
"""Points of the mixture kept."""

MOST_CLUMPED = 1e4
"""Prompts of a clump at most: where next to none are met, their spread is only rounding."""

QUANTILES = 640
"""Points, over all classes, from which they are chosen."""


class Sums(NamedTuple):
    """Mean and variance of a sum, by output class [c; s, s²]."""

    mean: Floats
    variance: Floats


class Atoms(NamedTuple):
    """A law of few values: the values, and their shares [m; s, 1]."""

    values: Floats
    share: Floats


def compound_poisson_mixture(
    weight: Floats, steps: Floats, base: Floats, smooth: Floats, sums: Sums, stalls: Atoms
) -> Distribution:
    """Return the law of (D·base + stalls)/D over output classes.

    weight, steps : shares and D of the classes [c]; base : mean time per token without stalls
    [c, s]; smooth : variance of the sum of the decode steps [c, s²]; sums : of the stalls;
    stalls : law of one prompt's stall
    """
    excess, variance = sums
    stall, share = stalls
    s1, s2 = float(share @ stall), float(share @ stall**2)
    count = np.maximum(excess, 0.0) / s1
    spread = variance - count * (s2 - s1**2)
    single = np.maximum(count * s1**2, np.maximum(spread, 1e-300) / MOST_CLUMPED)
    clump = np.maximum(spread / single, 1.0)
    r = ((clump - 1.0) / (clump + 1.0))[:, None]
    top = int(np.argmax(count))
    reach = count[top] * s1 + 6.0 * np.sqrt(count[top] * (s2 + (clump[top] - 1.0) * s1**2))
    cell = max(reach, 1.5 * float(stall.max())) / (CELLS - 2)
    if stall.size == 1:
        cell = s1 / max(np.floor(s1 / cell), 1.0)
    phi = np.fft.rfft(split(stall / cell, share, 2 * CELLS))
    clumped = (1.0 - r) * phi / (1.0 - r * phi) - 1.0
    mass = np.fft.irfft(np.exp((1.0 - r) * count[:, None] * clumped), axis=1)[:, :CELLS]
    cdf = np.minimum(np.cumsum(np.maximum(mass, 0.0), axis=1), 1.0)
    cdf[:, -1] = 1.0
    width = np.maximum(np.sqrt(12.0 * smooth) / cell, 1e-3)
    x = _points(weight, steps, base, cdf, width, cell)
    at = (x - base[:, None]) * steps[:, None] / cell
    area = np.concatenate((np.zeros((steps.size, 1)), np.cumsum(cdf, axis=1)), axis=1)
    low = _at(area, at - width[:, None] / 2)
    F = (_at(area, at + width[:, None] / 2) - low) / width[:, None]
    mean = float(weight @ (base + excess / steps))
    return Distribution.from_cdf(x, weight @ F, mean)


def _points(
    weight: Floats, steps: Floats, base: Floats, cdf: Floats, width: Floats, cell: float
) -> Floats:
    """Return the values at which to take the mixture, dense in both tails [g, s]."""
    per_class = max(QUANTILES // steps.size, 12)
    z = (np.arange(per_class) + 0.5) / per_class
    quantiles = np.sin(np.pi / 2 * z) ** 2
    cells = np.stack([np.searchsorted(row, quantiles) for row in cdf]).astype(np.float64)
    edge = np.array([-0.5, 0.5])
    x = base[:, None, None] + (cells[:, :, None] + edge * width[:, None, None]) * (
        cell / steps[:, None, None]
    )
    share = np.repeat(weight / per_class / 2, 2 * per_class)
    order = np.argsort(x, axis=None)
    points, cumulative = x.ravel()[order], np.cumsum(share[order])
    z = np.linspace(-1.0, 1.0, GRID)
    at = (1.0 + np.sin(np.pi / 2 * np.sin(np.pi / 2 * z))) / 2
    return np.unique(np.interp(at * cumulative[-1], cumulative, points))


def _at(area: Floats, cells: Floats) -> Floats:
    """Return ∫ cdf up to real positions, per row; the cdf is constant from cell to cell [c, g]."""
    inside = np.clip(cells, 0.0, area.shape[1] - 1.0)
    low = np.minimum(inside.astype(np.int64), area.shape[1] - 2)
    left = np.take_along_axis(area, low, axis=1)
    slope = np.take_along_axis(area, low + 1, axis=1) - left
    return np.asarray(left + slope * (inside - low) + np.maximum(cells - inside, 0.0))
