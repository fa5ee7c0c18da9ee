"""The bulk chain under arrivals with memory: states (tokens waiting, phase of the arrivals).

As in `bulk`, a step that starts with V tokens waiting lasts f(V) and V' = V − x(V) + what arrives.
The arrivals of a step depend on the phase it starts in, and leave another: with Q(z) = λ (D0 + D1
φ(z)), φ the transform of the prompt length, the transform of both is exp(Q(z) f). Q is taken apart
into eigenvalues once per frequency; every time that is needed then costs an exponential of them.
Derived in `models/derive_streams.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bestserve.models.non_poisson.join_shortest_queue import Level
from bestserve.models.non_poisson.map_process import Stream
from bestserve.models.queues.bulk.chain import Chain
from bestserve.models.queues.bulk.server import BulkServer, Floats, Prompts

LEAST_TRANSFORM = 1e-6
"""Transforms of the prompt length are kept this far from 0, where Q of Erlang gaps has no
eigenvectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFlow:
    """The solved chain; arrays over (V, phase) are [top + 1, p].

    met : visits per cycle as arrivals see them, idle epochs in state 0 apart from vacations;
    idle : idle epochs per cycle by phase [p]; law : of the states at steps that decodes see;
    matrix : their transition rows [(top + 1) p, …]; values : h of Poisson's equation
    tau : mean step time of decodes [s]; ratio : geometric decay of the last state
    """

    met: Floats
    idle: Floats
    law: Floats
    matrix: Floats
    values: Floats
    tau: float
    ratio: float


class PhaseChain:
    """Grid, spectra and stationary law for one rate.

    level : how many arrivals steps collect where they do not follow time alone
    """

    def __init__(
        self,
        server: BulkServer,
        rate: float,
        prompts: Prompts,
        stream: Stream,
        points: int,
        level: Level | None = None,
    ) -> None:
        self.server, self.rate, self.prompts, self.stream = server, rate, prompts, stream
        # the grid reaches as far as the variance of the tokens of a step asks for
        more = max(stream.long_run, 0.0)
        wide = replace(prompts, square=prompts.square + more * prompts.mean**2)
        grid = Chain(server, rate, wide, points)
        self.d, self.top, self.m, self.full = grid.d, grid.top, grid.m, grid.full
        self.size, self.pmf, self.f_full = grid.size, grid.pmf, grid.f_full
        self.f = np.append(grid.f[: self.m + 1], np.full(self.top - self.m, grid.f_full))
        self.last = grid.last
        self.level = level
        self.collects, self.collects_full = self.f, self.f_full
        if level is not None:
            self.collects = level.collected(self.f)
            self.collects_full = float(self.collects[-1])
        # whole prompts of random length end behind the middle of their steps, by a mean residual
        mean = prompts.square / prompts.mean
        self.ends = 0.0 if server.cut else min(mean, server.packed) / (2 * self.d)
        self.p = stream.silent.shape[0]
        phi = grid.phi
        small = np.abs(phi) < LEAST_TRANSFORM
        self.phi = np.where(small, LEAST_TRANSFORM, phi)
        q = rate * (stream.silent + self.phi[:, None, None] * stream.arriving)
        found = np.linalg.eig(q)
        self.values: NDArray[np.complex128] = found.eigenvalues.astype(np.complex128)
        self.right: NDArray[np.complex128] = found.eigenvectors.astype(np.complex128)
        self.left = np.linalg.inv(self.right)
        self.silent = rate * stream.silent
        self.arriving = rate * stream.arriving

    def laws(self, durations: Floats) -> Floats:
        """Return P(cells, phase j after | phase i before) [k, p, p, size]."""
        factor = np.exp(durations[:, None, None] * self.values)
        spectra = np.einsum("fia,kfa,faj->kijf", self.right, factor, self.left, optimize=True)
        return np.fft.irfft(spectra, n=self.size, axis=3)

    def tail_ratio(self) -> float:
        """Return η with π(V) ∝ η^V far out: the walk's greatest eigenvalue is η^−full there."""
        cells = np.flatnonzero(self.pmf > 0)
        mass, spread = self.pmf[cells], 300.0 / cells[-1]

        def drift(s: float) -> float:
            grown = float(mass @ np.exp(s * cells))
            q = self.silent + grown * self.arriving
            return float(np.linalg.eigvals(q).real.max()) * self.collects_full - s * self.full

        low, high = 0.0, min(1e-3, spread)
        while drift(high) < 0.0:
            low, high = high, high * 2.0
            if high >= spread:
                return math.exp(-spread)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if drift(middle) < 0.0 else (low, middle)
            if high - low < 1e-4 * high:
                break
        return math.exp(-(low + high) / 2)

    def matrix(self) -> tuple[Floats, float]:
        """Return transition rows [top+1, p, top+1, p] with a vacation in state 0, and the tail."""
        top, m, p = self.top, self.m, self.p
        inside = self.laws(self.collects[: m + 1])
        rows = np.zeros((top + 1, p, top + 1, p))
        rows[: m + 1] = inside[:, :, :, : top + 1].transpose(0, 1, 3, 2)
        ratio = 0.0
        totals = inside.sum(axis=3)
        whole = np.empty((top + 1, p, p))
        whole[: m + 1] = totals
        if top > m:
            walk = self.laws(np.array([self.collects_full]))[0].transpose(0, 2, 1)
            whole[m + 1 :] = walk.sum(axis=1)
            down = math.floor(self.full + 1e-9)
            part = self.full - down
            if part > 1e-9:
                # a step takes `down` or `down + 1` cells so that its mean is right
                walk = part * walk
                walk[:, 1:] += (1 - part) / part * walk[:, :-1]
                down += 1
            for v in range(m + 1, top + 1):
                start = v - down
                rows[v, :, start:] = walk[:, : top + 1 - start]
            ratio = self.tail_ratio()
            geometric = (1 - ratio) * ratio ** np.arange(down + 1)
            rows[top] = 0.0
            for i in range(p):
                for j in range(p):
                    law = np.convolve(walk[i, : down + 1, j], geometric)[: down + 1]
                    rows[top, i, top - down :, j] = law
        np.maximum(rows, 0.0, out=rows)
        rows[:, :, top] += np.maximum(whole - rows.sum(axis=2), 0.0)
        return rows, ratio

    def flow(self) -> PhaseFlow:
        """Solve the chain as arrivals see it (with idle epochs) and as decodes do (without)."""
        from scipy.linalg import lu_factor, lu_solve

        rows, ratio = self.matrix()
        top, p, f = self.top, self.p, self.f
        n = top * p
        matrix = rows.reshape((top + 1) * p, (top + 1) * p)
        factors = lu_factor(np.eye(n) - matrix[p:, p:], check_finite=False)
        # an idle epoch ends with one prompt, in the phase that an arrival leaves
        ends = np.linalg.solve(-self.silent, self.arriving)
        length = np.linalg.solve(-self.silent, np.ones(p))
        fresh = np.einsum("ij,v->ivj", ends, self.pmf[: top + 1])
        fresh[:, top] += ends * max(1.0 - float(self.pmf[: top + 1].sum()), 0.0)
        sources = np.concatenate((matrix[:p, p:], fresh[:, 1:].reshape(p, n)))
        visits = lu_solve(factors, sources.T, trans=1, check_finite=False).T
        back = visits @ matrix[p:, :p]
        back[:p] += matrix[:p, :p]
        back[p:] += fresh[:, 0]
        idle, pause = self.server.idle, self.server.vacation
        share, start = 1.0, _stationary(back[p:])
        if idle < 1.0:
            # `idle` is the share of the prompt-free time: epochs by their mean lengths
            share, start = 0.0, _stationary(back[:p])
            for _ in range(4):
                rest = float(start @ length)
                share = idle * pause / ((1 - idle) * rest + idle * pause)
                start = _stationary((1 - share) * back[:p] + share * back[p:])
        each = np.concatenate(((1 - share) * start, share * start))
        met = np.vstack(((1 - share) * start, (each @ visits).reshape(top, p)))
        if idle < 1.0:
            seen = _stationary(back[:p])
            law = np.vstack((seen, (seen @ visits[:p]).reshape(top, p)))
        else:
            law = np.vstack((start, (start @ visits[p:]).reshape(top, p)))
        law /= law.sum()
        times = np.repeat(f, p)
        tau = float(law.ravel() @ times)
        values = np.zeros((top + 1) * p)
        if idle < 1.0:
            values = self._values(factors, matrix, times - tau, law.ravel())
        return PhaseFlow(
            met=met,
            idle=share * start,
            law=law,
            matrix=matrix,
            values=values,
            tau=tau,
            ratio=ratio,
        )

    def _values(
        self,
        factors: tuple[Floats, NDArray[np.signedinteger]],
        matrix: Floats,
        noise: Floats,
        law: Floats,
    ) -> Floats:
        """Return h of (I − P) h = noise with mean 0."""
        from scipy.linalg import lu_solve

        p = self.p
        sides = np.column_stack((noise[p:], matrix[p:, :p]))
        solved = lu_solve(factors, sides, check_finite=False)
        small = np.eye(p) - matrix[:p, :p] - matrix[:p, p:] @ solved[:, 1:]
        side = noise[:p] + matrix[:p, p:] @ solved[:, 0]
        first = np.linalg.lstsq(small, side, rcond=1e-9)[0]
        h = np.concatenate((first, solved[:, 0] + solved[:, 1:] @ first))
        return np.asarray(h - law @ h)


def _stationary(matrix: Floats) -> Floats:
    """Return the stationary law of a small chain, rows scaled to 1."""
    n = matrix.shape[0]
    rows = matrix / matrix.sum(axis=1, keepdims=True)
    system = np.vstack(((rows - np.eye(n)).T, np.ones(n)))
    found = np.linalg.lstsq(system, np.append(np.zeros(n), 1.0), rcond=None)[0]
    return np.maximum(found, 0.0)
