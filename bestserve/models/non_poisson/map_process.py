"""Arrivals with memory: Markovian arrival processes of a few phases.

A stream of mean rate 1 is a pair of matrices: phases change at rates D0 without and D1 with an
arrival, (D0 + D1) 1 = 0. Independent gamma gaps of shape a and scale θ = 1/a are

* for a whole: a exponential stages of mean θ (Erlang);
* for a < 1: exponential with mean θ Y, Y ~ Beta(a, 1 − a), as a gamma density of shape below 1 is a
  mixture of exponentials; Gauss nodes of that law keep the gap's first moments;
* else whole stages, the last of them replaced by two with its mean and variance and the rest's.

Derived in `models/derive_streams.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NODES = 5
"""Exponentials, or one more, that stand for a gamma gap of shape below 1."""

NEAR = np.array([0.2, 1.0, 5.0, 25.0])
"""Multiples of the time that matters between which short gaps are kept in bins: Gauss nodes alone
lose most of them where arrivals are rare, these at most a twentieth."""

SLOWEST = 0.15
"""Upper end of those bins at most, as a part of the slowest exponential's mean."""

LEAST_SHAPE, MOST_STAGES = 0.02, 6.0
"""Shapes of gamma gaps beyond which they are taken as these: longer bursts ask for too many states
of the chain, and six stages are nearly evenly spaced over the steps seen here."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A Markovian arrival process of mean rate 1: `silent` D0 and `arriving` D1 [p, p]."""

    silent: Floats
    arriving: Floats

    @property
    def phases(self) -> Floats:
        """Stationary law of the phase [p]."""
        n = self.silent.shape[0]
        rows = np.vstack(((self.silent + self.arriving).T, np.ones(n)))
        return np.asarray(np.linalg.lstsq(rows, np.append(np.zeros(n), 1.0), rcond=None)[0])

    def excess_dispersion(self, frequency: Floats) -> Floats:
        """Return I(ω) = S(ω)/λ − 1, S the arrivals' spectrum; `frequency` per mean gap [k].

        2 Re π D1 (iω − D)⁻¹ (D1 1 − 1), D = D0 + D1: transform of the covariance density. Its
        limit at ω = 0 is c² − 1 for independent gaps of squared CV c².
        """
        n = self.silent.shape[0]
        law = self.phases
        # without the stationary part, which has no covariance
        core = np.outer(np.ones(n), law) - (self.silent + self.arriving)
        matrix = 1j * frequency[:, None, None] * np.eye(n) + core
        end = np.broadcast_to(self.arriving.sum(axis=1)[:, None] - 1.0, (frequency.size, n, 1))
        solved = np.linalg.solve(matrix, end)[:, :, 0]
        return np.asarray(2.0 * (solved @ (law @ self.arriving)).real)

    @property
    def long_run(self) -> float:
        """I(0): variance of the arrivals in a long time over their mean, less 1."""
        return float(self.excess_dispersion(np.zeros(1))[0])

    def thinned(self, lanes: int) -> Stream:
        """Return the stream of one of `lanes` that each arrival picks at random."""
        return Stream(self.silent * lanes + (lanes - 1.0) * self.arriving, self.arriving)


def poisson() -> Stream:
    """Return independent exponential gaps."""
    return Stream(-np.ones((1, 1)), np.ones((1, 1)))


def gamma_gaps(shape: float, scale: float = 1.0) -> Stream:
    """Return independent gamma gaps of squared CV 1/shape.

    scale : time that matters, in mean gaps: bursts within it are told apart

    >>> round(gamma_gaps(0.25).long_run, 2)
    3.0
    """
    shape = min(max(shape, LEAST_SHAPE), MOST_STAGES)
    if shape < 1.0 - 1e-9:
        means, chances = _beta_nodes(shape, shape * scale)
        rates = shape / means
        return Stream(-np.diag(rates), np.outer(rates, chances))
    stages = int(shape + 1e-9)
    rest = shape - stages
    means = np.full(stages, 1.0 / shape)
    if rest > 1e-6:
        apart = ((1.0 - rest) / (1.0 + rest)) ** 0.5
        last = (1.0 + rest) / shape * np.array([1.0 + apart, 1.0 - apart]) / 2.0
        means = np.concatenate((means[:-1], last))
    arriving = np.zeros((means.size, means.size))
    arriving[-1, 0] = 1.0 / means[-1]
    return Stream(np.diag(1.0 / means[:-1], 1) - np.diag(1.0 / means), arriving)


def _beta_nodes(a: float, scale: float) -> tuple[Floats, Floats]:
    """Return nodes and weights that stand for Beta(a, 1 − a), fine around `scale`."""
    edges = scale * NEAR
    edges = np.concatenate(([0.0], edges[edges < SLOWEST], [1.0]))
    nodes, weights = [], []
    for low, high in pairwise(edges):
        count = 1 if high < 1.0 else max(NODES - edges.size + 2, 2)
        moments = _beta_moments(a, low, high, 2 * count)
        found = _gauss(moments / moments[0], count)
        nodes.append(found[0])
        weights.append(found[1] * moments[0])
    return np.concatenate(nodes), np.concatenate(weights)


def _beta_moments(a: float, low: float, high: float, most: int) -> Floats:
    """Return E[Y^j; low < Y ≤ high], j ≤ most, of Y ~ Beta(a, 1 − a)."""
    from scipy.special import betainc

    j = np.arange(most + 1)
    whole = np.cumprod(np.concatenate(([1.0], (a + j[:-1]) / (1.0 + j[:-1]))))
    return np.asarray(whole * (betainc(a + j, 1.0 - a, high) - betainc(a + j, 1.0 - a, low)))


def _gauss(moments: Floats, count: int) -> tuple[Floats, Floats]:
    """Return Gauss nodes and weights from 2·count + 1 moments, the first 1 (Golub-Welsch)."""
    hankel = np.array([moments[i : i + count + 1] for i in range(count + 1)])
    upper = np.linalg.cholesky(hankel).T
    diagonal = np.diag(upper)
    steps = np.diag(upper, 1) / diagonal[:-1]
    off = diagonal[1:count] / diagonal[: count - 1]
    jacobi = np.diag(np.diff(np.concatenate(([0.0], steps)))) + np.diag(off, 1) + np.diag(off, -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[0] ** 2
