"""The Markov chain of waiting prompt tokens: grid, transition rows, visits between decode steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.queues.bulk import elimination, loops
from bestserve.models.queues.bulk.server import BulkServer, Pace, Prompts
from bestserve.models.queues.bulk.whole_prompts import rows, taken
from bestserve.models.queues.lattice import fft_size, split

REACH, WHOLE_REACH = 2.5, 4.0
"""States at most, per point asked for, of prompts that are cut and of whole ones: with 2 the
backlog of prompts of several chunks was cut off at high load (mean TTFT up to 25 % low)."""

CELLS_PER_STEP, FEWEST_CELLS = 15, 7
"""Cells of a full step where the budget binds, at 128 points, and at few points."""

CHUNKS = 1.5
"""Chunks of a mean prompt from which steps have fewer cells: such prompts are as well resolved."""

MOST_STATES = 300
"""States of a chain that prompts of many chunks may ask for: time grows with their square, and 1200
states are no more accurate."""

MOST_LOAD = 0.98
"""Load that the grid is laid out for at most: its width grows as 1/(1 − load²)."""

REACH_ALONE, REACH_LARGE = 2.5, 7.0
"""Decay lengths 1/θ of the backlog that the grid reaches beyond the spread of a step without a
budget, and beyond the largest prompt."""

FEW_CELLS, LEAST_KEPT = (4.0, 16.0, 64.0, math.inf), 0.5
"""Prompts that make up for those raised to one cell: the shortest ones that keep so much of what
they have beyond one."""

RESTART = 1e-9
"""Chance of a step to end in state 0 by force: bounds the visits between two of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The solved chain.

    matrix : transition rows as decodes see them; factors : of I − matrix without state 0 (see
    `elimination.eliminate`); visits : to states 1 … top after a vacation, an idle time, a restart
    [top, 3]; law : of the state at steps that decodes see; fresh : masses and times to the first
    token of prompts that find the server idle, ended : law of the state in which that step starts
    """

    matrix: Floats
    factors: Floats
    visits: Floats
    law: Floats
    ratio: float
    fresh: tuple[Floats, Floats]
    ended: Floats
    pace: Pace


class Chain:
    """One evaluation: grid, transition rows, stationary law.

    Rows are laws of CP(λ f), smooth in f: they are transformed at few durations (`nodes`) and
    interpolated between them (`blend`).
    """

    def __init__(
        self,
        server: BulkServer,
        rate: float,
        prompts: Prompts,
        points: int,
        *,
        raised: bool = False,
    ) -> None:
        self.server, self.rate, self.prompts = server, rate, prompts
        self.l1 = prompts.mean
        self.d, self.top = _grid(server, rate, prompts, points)
        self.full = server.packed / self.d
        self.m = min(math.floor(server.largest / self.d + 1e-9), self.top)
        self.size = fft_size(2 * self.top + 2)
        cells = raised_cells(prompts, self.d) if raised else prompts.tokens / self.d
        self.pmf = split(cells, prompts.share, self.size)
        self.phi = np.fft.rfft(self.pmf)
        seen = self.d**2 * float(self.pmf @ np.arange(self.size, dtype=np.float64) ** 2)
        self.cut_off = max(1.0 - seen / prompts.square, 0.0)
        self.one_prompt = prompts.sizes / self.d
        idle, pause = server.idle, server.vacation
        # share of prompt-free states that are idle ones, by their mean durations
        self.q = idle * pause / ((1 - idle) / rate + idle * pause) if idle < 1 else 1.0
        self.whole = not server.cut and self.m < self.top
        most = self.top if self.whole else self.m
        tokens = self.d * np.arange(most + 2, dtype=np.float64)
        tokens[0], tokens[-1] = 0.1 * self.d, server.packed
        f = server.step(tokens)
        self.f_full = float(f[-1])
        # last steps of a request, between grid points: 0.1, 1, 2, … cells, a full step
        inside = min(self.m, math.ceil(self.full) - 1)
        self.last = np.concatenate((f[: inside + 1], f[-1:]))
        self.f = np.full(self.top + 1, self.f_full)
        self.f[1 : most + 1] = f[1:-1]
        self.f[0] = pause
        self.longest = float(self.f[: most + 1].max())
        self.nodes = chebyshev(self.longest, rate)
        self.blend = blend(self.nodes, self.longest, self.f[: most + 1])
        self.log_phi = rate * (self.phi - 1.0)
        # by state: how far a step goes down at most, and how long it is on average
        self.low, self.step_time = self.m + 1, self.f

    def _take_at_random(self) -> None:
        """Prepare the law of what full steps take of whole prompts, and their mean times."""
        self.growth, again = self._prompts_per_step()
        self.taken = taken(self.pmf, self.m, self.top, self.growth, again)
        self.low = int(np.flatnonzero(self.taken.max(axis=0))[-1]) + 1
        inside = slice(self.m + 1)
        self.step_time = np.concatenate((self.f[inside], self.taken @ self.f))

    def _prompts_per_step(self) -> tuple[float, float]:
        """Return θ of `taken` and the share of full steps that follow a full step, nearly ρ.

        θ is half the mean arrivals in a step before the budget binds: in decode-only steps, in
        those of one prompt, and in full ones.
        """
        load = self.rate * self.l1 * self.f_full / self.server.packed
        decode_only = (1.0 - load) * (1.0 - self.server.idle) * (self.server.vacation > 0)
        one_prompt = self.rate * float(self.f[max(min(round(self.l1 / self.d), self.m), 1)])
        before = (decode_only * self.rate * self.server.vacation + load * one_prompt) / (
            decode_only + load
        )
        mean = (1.0 - load) * before + load * (one_prompt + self.rate * self.f_full) / 2
        return min(mean / 2, 1.0), load

    def cells(self, h: float) -> loops.Cells:
        """Return the grid as compiled loops take it; h : bin of a histogram of times [s]."""
        return loops.Cells(
            h=h,
            budget=self.m,
            full=self.full,
            f_full=self.f_full,
            last=self.last,
            rate=self.rate,
            prompt=self.l1 / self.d,
            sizes=self.one_prompt,
            cut=not self.whole,
        )

    def arrivals(self, durations: Floats) -> NDArray[np.complex128]:
        """Return transforms of the tokens that arrive meanwhile [k, frequencies]."""
        return np.exp(durations[:, None] * self.log_phi)

    def matrix(self) -> tuple[Floats, float]:
        """Return transition rows [top+1, top+1], a vacation in state 0, and the tail ratio."""
        top, m = self.top, self.m
        self.spectra = self.arrivals(np.append(self.nodes, self.f_full))
        laws = np.fft.irfft(self.spectra, n=self.size, axis=1)
        matrix = np.empty((top + 1, top + 1))
        ratio = 0.0
        self.laws = laws[:-1, : top + 1]
        if self.whole:
            self._take_at_random()
            arrived = self.blend @ self.laws
            matrix[: m + 1] = arrived[: m + 1]
        else:
            np.matmul(self.blend, laws[:-1, : top + 1], out=matrix[: m + 1])
        if top > m:
            down = math.floor(self.full + 1e-9)
            part = self.full - down
            walk = laws[-1]
            if part > 1e-9:
                # a step takes `down` or `down + 1` cells so that its mean is right
                walk = part * walk + (1 - part) * np.concatenate(([0.0], walk[:-1]))
                down += 1
            if self.whole:
                rows(matrix, self.taken, arrived, m)
            else:
                elimination.walk_rows(matrix, walk, m, down)
            if not self.whole and part > 1e-9 and down == m + 1:
                # a positive remainder below one cell still needs a step of its own
                matrix[m + 1, 0] = 0.0
                matrix[m + 1, 1:] = laws[-1, :top]
            ratio = float(elimination.tail_ratio(self.pmf, self.rate * self.f_full, self.full))
            if ratio > 0:
                geometric = (1 - ratio) * ratio ** np.arange(down + 1)
                matrix[top] = 0.0
                matrix[top, top - down :] = np.convolve(walk[: down + 1], geometric)[: down + 1]
        matrix[:, top] += np.maximum(1.0 - matrix.sum(axis=1), 0.0)
        return matrix, ratio

    def flow(self) -> Flow:
        """Solve for the visits to each state; everything else follows from them."""
        matrix, ratio = self.matrix()
        top, f = self.top, self.step_time
        ended = np.zeros(top + 1)
        server = self.server
        fresh = loops.found_idle(
            self.prompts.tokens / self.d,
            self.prompts.share,
            server.service,
            server.idle_budget / self.d,
            self.top if self.whole else self.m,
            self.cells(0.0),
            ended,
        )
        # state 0 is reached now and then whatever happens: else visits between could overflow
        factors = elimination.transient(matrix, RESTART, self.low)
        # visits to states 1 … top between prompt-free states: after a vacation, after an idle
        # time, and after the first prompt that ended one (when decoding starts again)
        after_idle = self.pmf[: top + 1].copy()
        after_idle[top] += max(1.0 - float(after_idle.sum()), 0.0)
        sources = {1: after_idle}
        # nothing follows a vacation of no time, nor restarts where nothing decodes
        if float(self.f[0]) > 0.0:
            sources[0] = matrix[0]
        if server.shared:
            sources[2] = ended @ matrix
        found = elimination.solve_rows(factors, self.low, np.stack([*sources.values()], 1)[1:])
        visits = np.zeros((top, 3))
        visits[:, [*sources]] = np.maximum(found, 0.0)
        # a request that decodes sees vacations and what follows them, but no idle time
        after = visits[:, 0]
        count = 1.0 + float(after.sum())
        cycle = server.vacation + float(after @ f[1:])
        busy = cycle - server.vacation
        # all time per step that has decodes, some of them after idle time and its first prompt
        stop = min(self.q / max(1 - self.q, 1e-9), 1.0) if server.shared else 0.0
        seen = (1 - stop) * after + stop * visits[:, 2]
        started = stop * (1 / self.rate + float(self.prompts.share @ server.service))
        spacing = (server.vacation + float(seen @ f[1:]) + started) / (1.0 + float(seen.sum()))
        if cycle == 0.0:
            # a pool without decodes: cycles begin with idle time and its first prompt
            busy = float(visits[:, 1] @ f[1:])
            cycle = 1 / self.rate + busy
        return Flow(
            matrix=matrix,
            factors=factors,
            visits=visits,
            law=np.concatenate(([1.0], after)) / count,
            ratio=ratio,
            fresh=fresh,
            ended=ended,
            pace=Pace(busy / max(cycle, 1e-300), cycle / count, spacing),
        )


def raised_cells(prompts: Prompts, d: float) -> Floats:
    """Return prompts in cells of d tokens, none below one and the mean kept [m].

    A prompt of less than a cell may leave the chain in the state without prompts, although its step
    holds decodes up as long as another. What raising it adds is taken from those of few cells, so
    that waits are better told without.
    """
    cells, share = prompts.tokens / d, prompts.share
    below = cells < 1.0
    added = float(share[below] @ (1.0 - cells[below]))
    if prompts.mean <= d:
        return cells
    for largest in FEW_CELLS:
        few = (cells > 1.0) & (cells <= largest)
        kept = 1.0 - added / max(float(share[few] @ (cells[few] - 1.0)), 1e-300)
        if kept >= LEAST_KEPT:
            break
    return np.where(below, 1.0, np.where(few, 1.0 + max(kept, 0.0) * (cells - 1.0), cells))


def hidden(prompts: Prompts, d: float) -> float:
    """Return the chance that a prompt is taken for none on a grid of d tokens [1]."""
    return float(prompts.share @ np.maximum(1.0 - prompts.tokens / d, 0.0))


def chebyshev(longest: float, rate: float) -> Floats:
    """Return durations in 0 … longest between which laws of CP(λ t) are interpolated [k, s].

    CP(λ t) is exp(λ t (φ − 1)): with a arrivals in the longest duration its expansion falls faster
    than geometrically beyond the a-th term.
    """
    count = 6 + math.ceil(1.8 * rate * longest)
    return longest / 2 * (1.0 - np.cos(np.pi * (np.arange(count) + 0.5) / count))


@njit(cache=True, error_model="numpy")
def blend(nodes: Floats, longest: float, durations: Floats) -> Floats:
    """Return barycentric weights [m, k] that interpolate from `chebyshev` nodes to `durations`.

    >>> nodes, at = chebyshev(0.05, 100.0), np.linspace(0.0, 0.05, 60)
    >>> bool(np.allclose(blend(nodes, 0.05, at) @ np.exp(-100 * nodes), np.exp(-100 * at)))
    True
    """
    count = nodes.size
    share = np.empty((durations.size, count))
    weight = np.empty(count)
    for k in range(count):
        weight[k] = math.sin(math.pi * (k + 0.5) / count) * (1.0 - 2.0 * (k % 2))
    for i in range(durations.size):
        total = 0.0
        for k in range(count):
            gap = durations[i] - nodes[k]
            share[i, k] = weight[k] / (gap if gap != 0.0 else 1e-12 * longest)
            total += share[i, k]
        for k in range(count):
            share[i, k] /= total
    return share


def _grid(server: BulkServer, rate: float, prompts: Prompts, points: int) -> tuple[float, int]:
    """Return cell width [tokens] and index of the last state."""
    l1, l2, large = prompts.mean, prompts.square, prompts.large
    # mean tokens of a step with no budget: x = λ E[l] f(x), by secants as f is nearly affine
    first, full = (float(t) for t in server.step(np.array([l1, server.packed])))
    x, at, share = l1, first, 0.0
    for _ in range(3):
        end = max(server.packed, x + 1.0)
        slope = (full - at) / (end - x) if server.packed > x else at / x
        share = min(rate * l1 * max(slope, 0.0), MOST_LOAD)
        x = min(max((rate * l1 * (at - slope * x)) / (1 - share), 1.0), server.packed)
        at = float(server.step(np.array([x]))[0])
    step = at if x > l1 else first
    spread = rate * max(step, server.vacation) * l2 / (1 - share**2)
    # near saturation the tail is closer to exponential than to normal
    high = x + (7.0 + 8.0 * share**2) * math.sqrt(spread) + large
    return _cells(server, prompts, high, rate * full * l2, rate * full * l1, points)


def _cells(
    server: BulkServer,
    prompts: Prompts,
    high: float,
    spread: float,
    work: float,
    points: int,
) -> tuple[float, int]:
    """Return cell width and last state for tokens up to `high` when the budget does not bind.

    work, spread : mean and variance of the tokens that arrive in a full step
    """
    large, fixed = prompts.large, prompts.tokens.size == 1
    bound = high > server.largest
    if bound:
        theta = 2 * (server.packed - work) / spread
        end = min(high + REACH_ALONE / theta, server.largest + large + REACH_LARGE / theta)
        high = max(server.largest * 1.5, end)
    # a prompt of several chunks is as well resolved by fewer cells a chunk
    coarser = min(CHUNKS * server.packed / prompts.mean, 1.0)
    cells = max(CELLS_PER_STEP * points / 128 * coarser, FEWEST_CELLS)
    d = min(high / points, server.packed / cells) if bound else high / points
    if fixed:
        # whole cells in a prompt, and as nearly in a step
        counts = np.arange(8 if bound else 1) + max(round(prompts.mean / d), 1)
        full = server.packed * counts / prompts.mean
        d = prompts.mean / float(counts[np.argmin(np.round(np.abs(full - np.round(full)), 2))])
    elif bound:
        d = server.packed / max(round(server.packed / d), 1)
    if bound and large > MOST_STATES * d:
        # prompts of many chunks: fewer cells a chunk, so that the chain stays solvable
        d = server.packed / max(math.floor(MOST_STATES * server.packed / large), 1)
    reach = REACH if server.cut else WHOLE_REACH
    top = min(math.ceil(high / d - 1e-6), math.ceil(reach * points))
    return d, max(top, math.ceil(large / d) + 1, 8)
