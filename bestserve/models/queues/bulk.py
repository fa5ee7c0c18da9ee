"""Token-budget bulk service with vacations: waiting and service of prompts.

A server that starts a step with V prompt tokens waiting takes x(V) = V of them if V ≤ M and
M_E ≤ M otherwise (M the token budget; M_E what whole prompts fill of it on average, M itself when
prompts are split), in time f(x). With V = 0 it runs a decode-only step (a vacation) or stands
idle. Poisson arrivals make V at step starts a Markov chain,

    V' = V − x(V) + CP(λ f(x(V))),

CP a compound Poisson number of tokens, whose rows are FFTs of exp(λ f (φ − 1)), φ the transform of
the prompt length. Beyond M the chain is a random walk, so its far end is closed by the geometric
tail of that walk. A tagged arrival meets a step with probability in proportion to π(V) f(V); it
and all that arrive in that step wait at the next boundary (Y tokens), independently of how much
of the step has elapsed.

While something decodes, every step is also a token of each decode. The steps that follow a first
token start from the law of V that this request leaves, not from the stationary one; the solution
h of Poisson's equation (I − P) h = f − f̄ gives what that adds to their sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.queues.lattice import (
    Ramps,
    Transform,
    fft_size,
    group,
    split,
    thinned,
    weighted_quantile,
)

Floats = NDArray[np.float64]

POINTS = 128
"""States kept; doubling them moves P90 of TTFT by 0.3 % at the median."""

U_BINS = 4
GROUPS = 28
ONE_PROMPT = 3
"""Equally likely sizes that stand for one prompt behind a tagged one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkServer:
    """One server.

    budget : M, tokens taken at most [tokens]; packed : M_E, taken when more wait [tokens]
    step : f, time of a step with x prompt tokens, x [m] > 0 → [m, s]
    vacation : time of a step without prompts [s]; alone : time that each prompt takes when nothing
    else runs [m, s]; idle : share of the prompt-free time in which the server stands idle [1]
    shared : whether decodes take part in steps with prompts
    per_step : mean arrivals per step with decodes, whatever its length: what the clients of a
    closed loop send when their requests end (None: Poisson in time); others : share of them that
    a tagged arrival sees ((C − 1)/C for C clients); spread : whether arrivals fall anywhere in a
    step, not only at its end
    """

    budget: float
    packed: float
    step: Callable[[Floats], Floats]
    vacation: float
    alone: Floats
    idle: float
    shared: bool = False
    per_step: float | None = None
    others: float = 1.0
    spread: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """Step durations that follow a first token, as a sequence; all while something decodes.

    mean : stationary mean [s]; r0, r1 : autocovariance at lags 0 and 1, then falling by `decay`
    per step, so that its sum over all lags is r0 + 2 r1/(1 − decay) [s²]
    calm : probability that the step after a first token has no prompt
    excess : Σ (E[step after a first token] − mean) over all later steps [s]
    start : variance that the state at the first token adds to the sum, less the stationary [s²]
    """

    mean: float
    r0: float
    r1: float
    decay: float
    calm: float
    excess: float
    start: float

    @property
    def long_run(self) -> float:
        """Variance of the sum of many steps, per step [s²]."""
        return self.r0 + 2 * self.r1 / (1 - self.decay)

    def excess_of(self, steps: Floats) -> Floats:
        """Return the part of `excess` that falls into the first steps [c, s]."""
        return self.excess * (1 - self.decay**steps)

    def variance_of(self, steps: Floats) -> Floats:
        """Return the stationary variance of the sum of `steps` steps [c, s²]."""
        r = self.decay
        tail = (steps - 1 - r * (1 - r ** (steps - 1)) / (1 - r)) / (1 - r)
        return np.asarray(steps * self.r0 + 2 * self.r1 * np.maximum(tail, 0.0))

    def slope_of(self, steps: Floats) -> Floats:
        """Return the growth of `variance_of` with one more step [c, s²]."""
        return np.asarray(self.variance_of(steps + 1) - self.variance_of(steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWait:
    """What a Poisson arrival meets.

    ttft : arrival to the end of the step that takes its last token; busy : share of the time in
    steps with prompts, tau : mean step time [s] and backlog : mean V at step starts [tokens], all
    three while something decodes; spacing : all time per such step [s]; batch_tokens : mean
    prompt tokens of a step that ends a prompt; load : λ E[l] f(M_E)/M_E; saturated : share of
    arrivals that wait more than one step;
    steps : the step durations that follow a first token (if asked for)
    """

    ttft: Distribution
    busy: float
    tau: float
    spacing: float
    batch_tokens: float
    backlog: float
    load: float
    saturated: float
    steps: StepLaw | None = None


def bulk_load(server: BulkServer, rate: float, tokens: float) -> float:
    """Return λ E[l] f(M_E)/M_E, the share of time that full steps would need [1]."""
    full = float(server.step(np.array([server.packed]))[0])
    if server.per_step is not None:
        return server.per_step * tokens / server.packed if server.shared else 0.0
    return rate * tokens * full / server.packed


def bulk_wait(
    server: BulkServer,
    rate: float,
    prompt: Floats,
    weight: Floats,
    points: int = POINTS,
    with_steps: bool = False,
) -> BulkWait | None:
    """Return the wait under Poisson arrivals, or `None` when the load is 1 or more.

    rate : λ > 0 [1/s]; prompt, weight : prompt tokens and their shares [m];
    with_steps : also analyse the steps that follow a first token
    """
    load = bulk_load(server, rate, float(weight @ prompt))
    if load >= 1.0:
        return None
    return _Chain(server, rate, prompt, weight, points).solve(load, with_steps)


def bulk_pace(
    server: BulkServer, rate: float, prompt: Floats, weight: Floats, points: int = 72
) -> Pace | None:
    """Return only how steps follow each other, on a coarser grid; `None` when not stable."""
    if bulk_load(server, rate, float(weight @ prompt)) >= 1.0:
        return None
    return _Chain(server, rate, prompt, weight, points).flow().pace


@dataclass(frozen=True, slots=True)
class Pace:
    """Steps while something decodes; fields as in `BulkWait`."""

    busy: float
    tau: float
    spacing: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flow:
    """The solved chain.

    matrix : transition rows as decodes see them; system : I − matrix without state 0;
    visits : to states 1 … top after a vacation, an idle time, a restart [top, 3]; law : of the
    state at steps that decodes see; fresh, ended : as from `_idle_cycles`
    """

    matrix: Floats
    system: Floats
    visits: Floats
    law: Floats
    ratio: float
    fresh: tuple[Floats, Floats]
    ended: Floats
    pace: Pace


class _Chain:
    """One evaluation: grid, transition rows, stationary law, wait, steps after the first token."""

    def __init__(
        self, server: BulkServer, rate: float, prompt: Floats, weight: Floats, points: int
    ) -> None:
        self.server, self.rate, self.prompt, self.weight = server, rate, prompt, weight
        self.l1 = float(weight @ prompt)
        self.d, self.top = _grid(server, rate, prompt, weight, points)
        self.full = server.packed / self.d
        self.m = min(math.floor(server.budget / self.d + 1e-9), self.top)
        self.size = fft_size(2 * self.top + 2)
        self.pmf = split(prompt / self.d, weight, self.size)
        self.phi = np.fft.rfft(self.pmf)
        self.one_prompt = thinned(prompt / self.d, weight, ONE_PROMPT)
        idle, pause = server.idle, server.vacation
        # share of prompt-free states that are idle ones, by their mean durations
        self.q = idle * pause / ((1 - idle) / rate + idle * pause) if idle < 1 else 1.0
        self.f_full = float(server.step(np.array([server.packed]))[0])
        f = server.step(self.d * np.arange(1, self.m + 1, dtype=np.float64))
        # last steps of a request, between grid points
        inside = np.arange(1, min(self.m, math.ceil(self.full) - 1) + 1, dtype=np.float64)
        small = float(server.step(np.array([0.1 * self.d]))[0])
        self.knots = np.concatenate(([0.1], inside, [self.full]))
        self.last = np.concatenate(([small], f[: inside.size], [self.f_full]))
        self.f = np.concatenate(([pause], f, np.full(self.top - self.m, self.f_full)))
        # in a closed loop every step brings as many arrivals: as if all were equally long
        self.collects, self.collects_full = self.f, self.f_full
        if server.per_step is not None:
            each = server.per_step / rate
            self.collects = np.full(self.f.size, each if server.shared else 0.0)
            self.collects[0] = each
            self.collects_full = float(self.collects[-1]) if server.shared else 0.0

    def _matrix(self) -> tuple[Floats, float]:
        """Return transition rows [top+1, top+1], a vacation in state 0, and the tail ratio."""
        top, m = self.top, self.m
        durations = np.concatenate((self.collects[: m + 1], [self.collects_full]))
        self.spectra = np.exp(self.rate * durations[:, None] * (self.phi - 1.0))
        rows = np.fft.irfft(self.spectra, n=self.size, axis=1)
        matrix = np.empty((top + 1, top + 1))
        matrix[: m + 1] = rows[:-1, : top + 1]
        ratio = 0.0
        if top > m:
            whole = math.floor(self.full + 1e-9)
            part = self.full - whole
            walk = rows[-1]
            if part > 1e-9:
                # a step takes `whole` or `whole + 1` cells so that its mean is right
                walk = part * walk + (1 - part) * np.concatenate(([0.0], walk[:-1]))
                whole += 1
            padded = np.concatenate((np.zeros(top + 1), walk[: 2 * top + 2]))
            view = np.lib.stride_tricks.sliding_window_view(padded, top + 1)
            matrix[m + 1 :] = view[whole + np.arange(top - m, 0, -1)]
            if part > 1e-9 and whole == m + 1:
                # a positive remainder below one cell still needs a step of its own
                matrix[m + 1, 0] = 0.0
                matrix[m + 1, 1:] = rows[-1, :top]
            ratio = self._tail_ratio()
            if ratio > 0:
                geometric = (1 - ratio) * ratio ** np.arange(whole + 1)
                matrix[top] = 0.0
                matrix[top, top - whole :] = np.convolve(walk[: whole + 1], geometric)[: whole + 1]
        matrix[:, top] += np.maximum(1.0 - matrix.sum(axis=1), 0.0)
        return matrix, ratio

    def _tail_ratio(self) -> float:
        """Return η with π(i) ∝ η^i far out: η^M_E exp(λ f (φ(1/η) − 1)) = 1."""
        support = np.flatnonzero(self.pmf > 0)
        cells, mass = support.astype(np.float64), self.pmf[support]
        jumps = self.rate * self.collects_full
        if jumps <= 0:
            return 0.0
        drift = self.full - jumps * float(mass @ cells)
        s = 2.5 * drift / (jumps * float(mass @ cells**2))
        s = min(s, 300.0 / cells[-1])
        for _ in range(30):
            growth = mass * np.exp(s * cells)
            value = jumps * (growth.sum() - 1.0) - self.full * s
            slope = jumps * float(growth @ cells) - self.full
            if slope <= 0:
                s *= 1.5
                continue
            step = value / slope
            s -= step
            if abs(step) < 1e-9 * s:
                break
        return float(np.exp(-s)) if s > 0 else 0.0

    def flow(self) -> _Flow:
        """Solve for the visits to each state; everything else follows from them."""
        matrix, ratio = self._matrix()
        top, f = self.top, self.f
        fresh, ended = self._idle_cycles()
        # visits to states 1 … top between prompt-free states: after a vacation, after an idle
        # time, and after the first prompt that ended one (when decoding starts again)
        sources = np.stack((matrix[0], self.pmf[: top + 1], ended @ matrix), axis=1)
        sources[top, 1] += max(1.0 - float(sources[:, 1].sum()), 0.0)
        system = np.eye(top) - matrix[1:, 1:]
        visits = np.maximum(np.linalg.solve(system.T, sources[1:]), 0.0)
        # decodes only see steps while they run: a vacation that idle time may follow, and the
        # steps after either (what follows idle time before the first decode step is no stall)
        stop = min(self.q / max(1 - self.q, 1e-9), 1.0) if self.server.shared else 0.0
        after = (1 - stop) * visits[:, 0] + stop * visits[:, 2]
        matrix[0] = (1 - stop) * sources[:, 0] + stop * sources[:, 2]
        count = 1.0 + float(after.sum())
        busy = float(after @ f[1:])
        cycle = self.server.vacation + busy
        if cycle == 0.0:
            # a pool without decodes: cycles begin with idle time and its first prompt
            busy = float(visits[:, 1] @ f[1:])
            cycle = 1 / self.rate + busy
        apart = stop * (1 / self.rate + float(self.weight @ self.server.alone))
        return _Flow(
            matrix=matrix,
            system=system,
            visits=visits,
            law=np.concatenate(([1.0], after)) / count,
            ratio=ratio,
            fresh=fresh,
            ended=ended,
            pace=Pace(busy / max(cycle, 1e-300), cycle / count, (cycle + apart) / count),
        )

    def solve(self, load: float, with_steps: bool) -> BulkWait:
        flow = self.flow()
        ratio, d = flow.ratio, self.d
        pi = (1 - self.q) * flow.visits[:, 0] + self.q * flow.visits[:, 1]
        pi = np.concatenate(([1.0], pi))
        time = pi * self.collects
        time[0] *= 1 - self.q
        idle_time = self.q / self.rate
        total = float(time.sum()) + idle_time
        p_idle = idle_time / total
        hist = Ramps(self._horizon(pi, ratio))
        final = p_idle * flow.ended
        hist.add(p_idle * flow.fresh[0], flow.fresh[1], 0.0)
        tokens, queued = self._met_step(hist, final, time / total, pi, ratio)
        far = flow.law[-1] * ratio / (1 - ratio) if ratio > 0 else 0.0
        return BulkWait(
            ttft=hist.distribution(),
            busy=flow.pace.busy,
            tau=flow.pace.tau,
            spacing=flow.pace.spacing,
            batch_tokens=p_idle * self.l1 + (1 - p_idle) * tokens,
            backlog=(float(flow.law @ np.arange(self.top + 1)) + far) * d,
            load=load,
            saturated=queued,
            steps=self._steps(flow, final) if with_steps else None,
        )

    def _idle_cycles(self) -> tuple[tuple[Floats, Floats], Floats]:
        """Return what prompts that find the server idle meet.

        First, masses and times to the end of the last step [2·m; 1, s]: a long prompt's last step
        is filled by arrivals behind it; second, the law of the state in which that step starts.
        """
        cells, alone, mass = self.prompt / self.d, self.server.alone, self.weight
        rounds = np.maximum(np.ceil(cells / self.full - 1e-9) - 1.0, 0.0)
        if self.server.budget > self.server.packed:
            rounds = np.where(cells <= self.server.budget / self.d, 0.0, rounds)
        ended = np.zeros(self.top + 1)
        if not rounds.any():
            self._finish(ended, cells, mass)
            return (mass, alone), ended
        remain = cells - rounds * self.full
        several = rounds > 0
        masses, times = [mass * ~several], [alone]
        self._finish(ended, remain, masses[0])
        before = alone - self._last(remain)
        for chance, extra in self._behind(rounds * self.f_full):
            masses.append(mass * several * chance)
            times.append(before + self._last(remain + extra))
            self._finish(ended, remain + extra, masses[-1])
        return (np.concatenate(masses), np.concatenate(times)), ended

    def _met_step(
        self, hist: Ramps, final: Floats, share: Floats, pi: Floats, ratio: float
    ) -> tuple[float, float]:
        """Add arrivals that meet a step; return mean tokens of their last step and who queues."""
        m, d = self.m, self.d
        cells = np.arange(m + 1)
        f_done = np.concatenate(([self.f[min(1, self.top)]], self.f[1 : m + 1]))
        rows: Transform = np.power(self.spectra[: m + 1], self.server.others)
        weights, lengths, spectra = group(share[: m + 1], self.f[: m + 1], rows, GROUPS)
        in_full = float(share[m + 1 :].sum())
        rest = np.zeros(1)
        waiting = np.fft.irfft(spectra * self.phi, n=self.size, axis=1)
        if in_full > 0:
            rest = self._left_behind(pi, ratio)
            spectrum = np.fft.rfft(rest, n=self.size) * self.spectra[-1] * self.phi
            waiting = np.concatenate((waiting, np.fft.irfft(spectrum, n=self.size)[None]))
            weights = np.append(weights, in_full)
            lengths = np.append(lengths, self.f_full)
        waiting = np.maximum(waiting, 0.0)
        fits = waiting[:, : m + 1]
        if m == self.top:
            # the budget never binds: what the grid does not reach stays in its last state
            fits[:, m] += np.maximum(1.0 - fits.sum(axis=1), 0.0)
        mass = fits * weights[:, None]
        hist.add(mass, f_done[None, :], lengths[:, None] * self.server.spread)
        by_size = mass.sum(axis=0)
        final[: m + 1] += by_size
        inside = np.minimum(fits.sum(axis=1), 1.0)
        over = (1.0 - inside) * weights
        queued = float(over.sum())
        if queued > 1e-9:
            beyond = weights @ waiting[:, m + 1 : self.top + 1]
            open_rows = over > 1e-9
            plain = open_rows.copy()
            if in_full > 0:
                plain[-1] = False
                self._queued(hist, final, beyond, weights[-1:], lengths[-1:], inside[-1:], rest)
            if plain.any():
                self._queued(
                    hist, final, beyond, weights[plain], lengths[plain], inside[plain], np.ones(1)
                )
        met = float(by_size.sum()) + queued
        tokens = float(by_size @ cells) * d + queued * self.server.packed
        return tokens / max(met, 1e-300), queued

    def _left_behind(self, pi: Floats, ratio: float) -> Floats:
        """Return the law of V − M_E in a full step, tail unrolled [size]."""
        beyond = pi[self.m + 1 :].copy()
        if ratio > 0:
            extra = min(self.size, int(12.0 / -math.log(ratio)) + 1)
            tail = pi[-1] * (1 - ratio) * ratio ** np.arange(extra)
            beyond = np.concatenate((beyond[:-1], tail))
        position = np.maximum(np.arange(beyond.size) + (self.m + 1) - self.full, 0.0)
        return split(position, beyond / beyond.sum(), beyond.size + 2)

    def _queued(
        self,
        hist: Ramps,
        final: Floats,
        beyond: Floats,
        weights: Floats,
        lengths: Floats,
        inside: Floats,
        rest: Floats,
    ) -> None:
        """Add arrivals that do not all fit the next step: those ahead decide, those behind fill.

        The elapsed share u of the met step is cut into `U_BINS`; tokens up to the tagged request
        are then rest + l + CP(λ u T).
        """
        if weights.size > 4:
            order = np.array_split(np.arange(weights.size), 4)
            mass = np.array([weights[o].sum() for o in order])
            lengths = np.array([weights[o] @ lengths[o] for o in order]) / mass
            inside = np.array([weights[o] @ inside[o] for o in order]) / mass
            weights = mass
        f_full, full = self.f_full, self.full
        u = (np.arange(U_BINS) + 0.5) / U_BINS
        elapsed = (lengths[:, None] * u).ravel()
        collected = elapsed
        if self.server.per_step is not None:
            collected = np.tile(u, lengths.size) * self.collects_full * self.server.others
        size = fft_size(max(self.size, rest.size + 2 * self.top))
        phi = self.phi if size == self.size else np.fft.rfft(self.pmf, n=size)
        spectrum = np.exp(self.rate * collected[:, None] * (phi - 1.0)) * phi
        spectrum = spectrum * np.fft.rfft(rest, n=size)
        ahead = np.maximum(np.fft.irfft(spectrum, n=size, axis=1), 0.0)
        portion = np.repeat(weights, U_BINS) / U_BINS
        width = np.repeat(lengths, U_BINS) / U_BINS
        left = np.repeat(lengths, U_BINS) - elapsed - width / 2
        if not self.server.spread:
            left, width = np.zeros_like(left), np.zeros_like(width)

        next_step = ahead[:, : self.m + 1].sum(axis=1) - np.repeat(inside, U_BINS)
        next_step = portion * np.maximum(next_step, 0.0)
        hist.add(next_step, left + f_full, width)
        if beyond.size and beyond.sum() > 0:
            final[self.m + 1 : self.top + 1] += beyond * (next_step.sum() / beyond.sum())

        mass = ahead[:, self.m + 1 :] * portion[:, None]
        keep = np.flatnonzero(mass.sum(axis=0) > 1e-8)
        mass, cells = mass[:, keep], keep + self.m + 1
        rounds = np.ceil(cells / full - 1e-9) - 1.0
        remain = cells - rounds * full
        start = left[:, None] + rounds * f_full
        for chance, extra in self._behind(start + width[:, None] / 2):
            part = mass * chance
            hist.add(part, start + self._last(remain + extra), width[:, None])
            self._finish(final, remain + extra, part)

    def _behind(self, wait: Floats) -> list[tuple[Floats, float | Floats]]:
        """Return chances and cells of what arrives in `wait`: nothing, one prompt, several."""
        arrivals = self.rate * wait
        none = np.exp(-arrivals)
        one = arrivals * none
        several = np.maximum(1.0 - none - one, 0.0)
        mean = (arrivals - one) * (self.l1 / self.d) / np.maximum(several, 1e-12)
        sizes = self.one_prompt
        return [(none, 0.0), *((one / sizes.size, float(x)) for x in sizes), (several, mean)]

    def _last(self, cells: Floats) -> Floats:
        """Return the time of a last step with that much waiting [s]."""
        return np.interp(np.minimum(cells, self.full), self.knots, self.last)

    def _finish(self, final: Floats, cells: Floats, mass: Floats) -> None:
        """Note the state, at least 1, in which a request's last step starts."""
        cells, mass = np.broadcast_arrays(np.clip(cells, 1.0, self.top), mass)
        final += split(cells.ravel(), mass.ravel(), final.size + 2)[: final.size]

    def _steps(self, flow: _Flow, final: Floats) -> StepLaw:
        """Return the moments of step sums after a first token, from Poisson's equation."""
        matrix, law, mean = flow.matrix, flow.law, flow.pace.tau
        noise = self.f - mean
        h = np.concatenate(([0.0], np.linalg.solve(flow.system, noise[1:])))
        h -= law @ h
        later = h - noise  # P h
        final = final / final.sum()
        excess = float(final @ later)
        r0 = float(law @ noise**2)
        beyond = float(law @ (noise * later))  # covariances at lags 1, 2, …
        r1 = float((law * noise) @ (matrix @ noise))
        decay = min(max(1.0 - r1 / beyond, 0.0), 0.98) if beyond > 1e-12 * r0 else 0.0
        spread = float(final @ (matrix @ h**2)) - excess**2
        return StepLaw(
            mean=mean,
            r0=r0,
            r1=beyond * (1 - decay),
            decay=decay,
            calm=float(final @ matrix[:, 0]),
            excess=excess,
            start=spread - float(law @ h**2),
        )

    def _horizon(self, pi: Floats, ratio: float) -> float:
        """Return a time that hardly any wait exceeds [s]."""
        cells = float(self.top)
        if ratio > 0:
            cells += 6.0 / -math.log(ratio)
        else:
            cells = float(np.flatnonzero(np.cumsum(pi[::-1])[::-1] > 1e-7)[-1]) + 1.0
        rounds = math.ceil((cells + 6 * self.l1 / self.d) / self.full)
        return 1.02 * ((rounds + 1) * float(self.f.max()) + float(self.server.alone.max()))


def _grid(
    server: BulkServer, rate: float, prompt: Floats, weight: Floats, points: int
) -> tuple[float, int]:
    """Return cell width [tokens] and index of the last state."""
    l1, l2 = float(weight @ prompt), float(weight @ prompt**2)
    large = weighted_quantile(prompt, weight, 0.999)
    if server.per_step is not None:
        arrivals = server.per_step
        high = l1 * arrivals + 6.0 * math.sqrt(arrivals * l2) + large
        return _cells(server, prompt, high, large, l2 * arrivals, l1 * arrivals, points)
    full = float(server.step(np.array([server.packed]))[0])
    # mean tokens of a step with no budget: x = λ E[l] f(x), by secants as f is nearly affine
    ends = server.step(np.array([l1, server.packed]))
    x, share = l1, 0.0
    for _ in range(3):
        at = float(server.step(np.array([max(x, 1.0)]))[0])
        far = max(server.packed, x + 1.0)
        slope = (float(ends[1]) - at) / (far - x) if server.packed > x else at / x
        share = min(rate * l1 * max(slope, 0.0), 0.98)
        x = min(max((rate * l1 * (at - slope * x)) / (1 - share), 1.0), server.packed)
    step = float(server.step(np.array([max(x, l1)]))[0])
    spread = rate * max(step, server.vacation) * l2 / (1 - share**2)
    # near saturation the tail is closer to exponential than to normal
    high = x + (7.0 + 8.0 * share**2) * math.sqrt(spread) + large
    return _cells(server, prompt, high, large, rate * full * l2, rate * full * l1, points)


def _cells(
    server: BulkServer,
    prompt: Floats,
    high: float,
    large: float,
    spread: float,
    work: float,
    points: int,
) -> tuple[float, int]:
    """Return cell width and last state for tokens up to `high` when the budget does not bind.

    work, spread : mean and variance of the tokens that arrive in a full step
    """
    bound = high > server.budget
    if bound:
        theta = 2 * (server.packed - work) / spread
        far = min(high + 2.5 / theta, server.budget + large + 7.0 / theta)
        high = max(server.budget * 1.5, far)
    d = min(high / points, server.packed / 20.0) if bound else high / points
    if prompt.size == 1:
        d = float(prompt[0]) / max(round(float(prompt[0]) / d), 1)
    elif bound:
        d = server.packed / max(round(server.packed / d), 1)
    top = min(math.ceil(high / d), 2 * points)
    return d, max(top, math.ceil(large / d) + 1, 8)
