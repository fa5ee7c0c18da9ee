"""How many tokens a step of speculative decoding yields, and how many steps an answer takes.

A step yields X = 1 + accepted drafts: P(X > j) = a₁ … a_j, j ≤ γ. An answer of D tokens after the
first takes N(D) steps, a renewal count whose moments follow from N(D) = 1 + N(D − X). Requests
differ: their log odds of acceptance are normal, placed so that E[1/E[X]] and its coefficient of
variation between requests are the ones given.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.special import normal_quantile

EXACT = 64
"""Tokens up to which N(D) is found by recursion; beyond, its cumulants grow linearly."""

CLASSES = 5
"""Gauss-Hermite classes of requests in the formulas."""

WIDEST = 6.0
"""Largest standard deviation of the log odds that is looked for [1]."""


class Steps(NamedTuple):
    """Moments of N(D): mean, variance and third central moment, one an answer [q]."""

    mean: Floats
    variance: Floats
    third: Floats


class Drafting(NamedTuple):
    """What decides how many tokens a step yields.

    acceptance : chance of each draft if all before it are accepted, of at least `drafts` [1]
    spread : CV of 1/E[X] between requests [1]; spread_at : at how many drafts
    drafts : γ [tokens]
    """

    acceptance: tuple[float, ...]
    spread: float
    spread_at: int
    drafts: int

    @property
    def tokens(self) -> float:
        """E[X] of the mean request [tokens]."""
        return float(tokens_per_step(np.array(self.acceptance[: self.drafts])))


PLAIN = Drafting((), 0.0, 0, 0)
"""Nothing is drafted: a step yields a token."""


def tokens_per_step(acceptance: Floats) -> Floats:
    """Return E[X] of chances […, γ]: 1 + a₁ + a₁a₂ + … [tokens].

    >>> tokens_per_step(np.array([0.7, 0.7, 0.7])).round(3)
    np.float64(2.533)
    """
    return np.asarray(1.0 + np.cumprod(acceptance, axis=-1).sum(axis=-1))


def chance_of(tokens: Floats, drafts: int) -> Floats:
    """Return the chance a, the same for every draft, at which E[X] is `tokens` [q].

    >>> chance_of(np.array([2.533]), 3).round(3)
    array([0.7])
    """
    low, high = np.zeros(np.shape(tokens)), np.ones(np.shape(tokens))
    for _ in range(50):
        middle = (low + high) / 2
        below = tokens_per_step(np.repeat(middle[..., None], drafts, axis=-1)) < tokens
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)


def widest_spread(acceptance: tuple[float, ...]) -> float:
    """Return the largest `spread` that requests with this mean acceptance can have [1]."""
    if not acceptance:
        return 0.0
    z, weight = _normal(CLASSES)
    return float(_placed(np.array(acceptance), np.array([WIDEST]), z, weight).variation[0])


@lru_cache(maxsize=256)
def request_classes(
    acceptance: tuple[float, ...], spread: float, spread_at: int, count: int = 0
) -> tuple[Floats, Floats]:
    """Return the acceptance of classes of requests [c, γ] and their shares [c].

    acceptance, spread, spread_at : of `Drafting`
    count : classes of equal share, as a simulation draws; 0: Gauss-Hermite nodes
    """
    every = np.array(acceptance)
    if spread == 0 or not acceptance:
        return every[None, :], np.ones(1)
    chances = every[:spread_at]
    z, weight = _normal(CLASSES) if count == 0 else (_quantiles(count), np.full(count, 1 / count))
    low, high = 0.0, WIDEST
    for _ in range(2):
        grid = np.linspace(low, high, 33)
        found = _placed(chances, grid, z, weight).variation
        at = int(np.clip(np.searchsorted(found, spread), 1, grid.size - 1))
        low, high = float(grid[at - 1]), float(grid[at])
    width = float(np.interp(spread, found, grid))
    shift = float(_placed(chances, np.array([width]), z, weight).shift[0])
    return _of_odds(_odds(every) + (shift + width * z)[:, None]), weight


class _Placed(NamedTuple):
    """Shift of the log odds that keeps E[1/E[X]], and the CV of 1/E[X], by width [s]."""

    shift: Floats
    variation: Floats


def _placed(chances: Floats, widths: Floats, z: Floats, weight: Floats) -> _Placed:
    """Place classes around mean chances [γ].

    widths : standard deviations of the log odds [s]; z, weight : of the classes [c]
    """
    odds = _odds(chances)
    wanted = 1.0 / tokens_per_step(chances)
    low, high = np.full(widths.size, -40.0), np.full(widths.size, 40.0)
    for _ in range(60):
        shift = (low + high) / 2
        accepted = _of_odds(odds + (shift[:, None] + widths[:, None] * z)[..., None])
        more = (weight / tokens_per_step(accepted)).sum(axis=1) > wanted
        low, high = np.where(more, shift, low), np.where(more, high, shift)
    each = 1.0 / tokens_per_step(accepted)
    mean = each @ weight
    variation = np.sqrt(np.maximum((each**2) @ weight - mean**2, 0.0)) / mean
    return _Placed(shift, variation)


def _odds(chances: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(chances) - np.log1p(-chances))


def _of_odds(odds: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * odds)))


def _normal(count: int) -> tuple[Floats, Floats]:
    nodes, weight = np.polynomial.hermite_e.hermegauss(count)
    return nodes, weight / weight.sum()


def _quantiles(count: int) -> Floats:
    return normal_quantile((np.arange(count) + 0.5) / count)


def steps_of(tokens: Floats, drafting: Drafting) -> Steps:
    """Return the moments of the steps that answers take.

    tokens : D ≥ 0 after the first token [q]. Between whole numbers moments are linear.

    >>> steps_of(np.array([1.0, 4.0, 5.0]), Drafting((1.0, 1.0, 1.0), 0.0, 3, 3)).mean
    array([1., 1., 2.])
    """
    drafts = drafting.drafts
    if drafts == 0:
        return Steps(tokens, np.zeros_like(tokens), np.zeros_like(tokens))
    chances, weight = request_classes(drafting.acceptance, drafting.spread, drafting.spread_at)
    table, slope = _cumulants(chances[:, :drafts].tobytes(), drafts)
    whole = np.arange(EXACT + 1.0)
    inside = np.minimum(tokens, EXACT)
    each = np.empty((3, weight.size, tokens.size))
    for k in range(3):
        for c in range(weight.size):
            each[k, c] = np.interp(inside, whole, table[k, c])
        each[k] += slope[k][:, None] * np.maximum(tokens - EXACT, 0.0)
    mean = weight @ each[0]
    apart = each[0] - mean
    return Steps(
        mean=mean,
        variance=weight @ (each[1] + apart**2),
        third=weight @ (each[2] + 3.0 * each[1] * apart + apart**3),
    )


@lru_cache(maxsize=256)
def _cumulants(chances: bytes, drafts: int) -> tuple[Floats, Floats]:
    """Return the cumulants of N(0 … EXACT) [3, c, EXACT + 1] and their slopes beyond [3, c]."""
    accepted = np.frombuffer(chances).reshape(-1, drafts)
    count = len(accepted)
    alive = np.concatenate((np.ones((count, 1)), np.cumprod(accepted, axis=1)), axis=1)
    law = alive - np.concatenate((alive[:, 1:], np.zeros((count, 1))), axis=1)
    raw = np.zeros((3, count, EXACT + 1))
    for d in range(1, EXACT + 1):
        left = np.maximum(d - np.arange(1, drafts + 2), 0)
        one, two, three = ((law * raw[k][:, left]).sum(axis=1) for k in range(3))
        raw[0, :, d] = 1.0 + one
        raw[1, :, d] = 1.0 + 2.0 * one + two
        raw[2, :, d] = 1.0 + 3.0 * one + 3.0 * two + three
    mean, square, cube = raw
    variance = np.maximum(square - mean**2, 0.0)
    third = cube - 3.0 * mean * square + 2.0 * mean**3
    table = np.stack((mean, variance, third))
    # the recursion has settled long before its end
    back = EXACT // 4
    slope = (table[:, :, EXACT] - table[:, :, EXACT - back]) / back
    return table, slope
