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
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution

Floats = NDArray[np.float64]
StepOf = Callable[[Floats], Floats]

POINTS = 144
"""States kept; doubling them moves P90 of TTFT by 0.3 % at the median."""

TIME_POINTS = 640
U_BINS = 4
GROUPS = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkServer:
    """One server.

    budget : M, tokens taken at most [tokens]; packed : M_E, taken when more wait [tokens]
    step : f, time of a step with x prompt tokens, x [m] > 0 → [m, s]
    vacation : time of a step without prompts [s]; alone : time that each prompt takes when nothing
    else runs [m, s]; idle : share of the prompt-free time in which the server stands idle [1]
    """

    budget: float
    packed: float
    step: StepOf
    vacation: float
    alone: Floats
    idle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWait:
    """What a Poisson arrival meets.

    ttft : arrival to the end of the step that takes its last token; busy : share of the time in
    steps with prompts, tau : mean step time [s] and backlog : mean V at step starts [tokens], all
    three while something decodes; batch_tokens : mean prompt tokens of a step that ends a prompt;
    load : λ E[l] f(M_E)/M_E; saturated : share of arrivals that wait more than one step
    """

    ttft: Distribution
    busy: float
    tau: float
    batch_tokens: float
    backlog: float
    load: float
    saturated: float


def bulk_load(server: BulkServer, rate: float, tokens: float) -> float:
    """Return λ E[l] f(M_E)/M_E, the share of time that full steps would need [1]."""
    full = float(server.step(np.array([server.packed]))[0])
    return rate * tokens * full / server.packed


def bulk_wait(
    server: BulkServer, rate: float, prompt: Floats, weight: Floats, points: int = POINTS
) -> BulkWait | None:
    """Return the wait under Poisson arrivals, or `None` when the load is 1 or more.

    rate : λ > 0 [1/s]; prompt, weight : prompt tokens and their shares [m]
    """
    l1, l2 = float(weight @ prompt), float(weight @ prompt**2)
    load = bulk_load(server, rate, l1)
    if load >= 1.0:
        return None
    chain = _Chain(server, rate, prompt, weight, l1, l2, points)
    return chain.solve(load)


class _Chain:
    """One evaluation: grid, transition rows, stationary law, wait."""

    def __init__(
        self,
        server: BulkServer,
        rate: float,
        prompt: Floats,
        weight: Floats,
        l1: float,
        l2: float,
        points: int,
    ) -> None:
        self.server, self.rate, self.l1, self.weight = server, rate, l1, weight
        self.d, self.top = _grid(server, rate, prompt, weight, l1, l2, points)
        d = self.d
        self.full = server.packed / d
        self.m = min(math.floor(server.budget / d + 1e-9), self.top)
        self.size = _fft_size(2 * self.top + 2)
        self.pmf = _split(prompt / d, weight, self.size)
        self.phi = np.fft.rfft(self.pmf)
        self.f = np.empty(self.m + 1)
        self.f[1:] = server.step(d * np.arange(1, self.m + 1))
        idle, pause = server.idle, server.vacation
        self.q = idle * pause / ((1 - idle) / rate + idle * pause) if idle < 1 else 1.0
        self.f[0] = (1 - self.q) * pause + self.q / rate
        self.f_full = float(server.step(np.array([server.packed]))[0])

    def _arrivals(self, durations: Floats) -> NDArray[np.complex128]:
        """Return transforms of the tokens that arrive in each duration [r, size/2+1]."""
        return np.exp(self.rate * durations[:, None] * (self.phi - 1.0))

    def _visits(self) -> tuple[Floats, float]:
        """Return expected visits to states 1 … top between prompt-free states, and the tail ratio.

        Row 0: after a vacation, row 1: after an idle time that a prompt ended [2, top]. The last
        state stands for the geometric tail beyond it.
        """
        top, m = self.top, self.m
        durations = np.concatenate(([self.server.vacation], self.f[1:], [self.f_full]))
        self.spectra = self._arrivals(durations)
        rows = np.fft.irfft(self.spectra, n=self.size, axis=1)
        matrix = np.zeros((top + 1, top + 1))
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
                matrix[m + 1] = 0.0
                matrix[m + 1, 1:] = rows[-1, :top]
            ratio = self._tail_ratio()
            if ratio > 0:
                geometric = (1 - ratio) * ratio ** np.arange(top + 1)
                tail = np.convolve(walk[: whole + 1], geometric)[: whole + 1]
                matrix[top] = 0.0
                matrix[top, top - whole :] = tail
        sources = np.stack((matrix[0], self.pmf[: top + 1]))
        for block in (matrix, sources):
            block[:, top] += np.maximum(1.0 - block.sum(axis=1), 0.0)
        system = np.eye(top) - matrix[1:, 1:].T
        return np.maximum(np.linalg.solve(system, sources[:, 1:].T).T, 0.0), ratio

    def _tail_ratio(self) -> float:
        """Return η with π(i) ∝ η^i far out: η^M_E exp(λ f (φ(1/η) − 1)) = 1."""
        support = np.flatnonzero(self.pmf > 0)
        cells, mass = support.astype(np.float64), self.pmf[support]
        jumps = self.rate * self.f_full
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

    def solve(self, load: float) -> BulkWait:
        visits, ratio = self._visits()
        m, top, d = self.m, self.top, self.d
        durations = np.concatenate((self.f, np.full(top - m, self.f_full)))
        after_pause, after_idle = visits
        pi = np.concatenate(([1.0], (1 - self.q) * after_pause + self.q * after_idle))
        time = pi * durations
        share = time / time.sum()
        p_idle = share[0] * (self.q / self.rate) / durations[0]
        in_step = share[: m + 1].copy()
        in_step[0] -= p_idle
        in_full = float(share[m + 1 :].sum())

        hist = _Ramps(self._horizon(pi, ratio))
        cells = np.arange(top + 1)
        f_done = np.concatenate(([self.f[min(1, m)]], self.f[1:]))

        # found idle: served at once
        hist.add(p_idle * self.weight, self.server.alone, 0.0)

        # met a step that leaves nothing behind
        f0 = durations[: m + 1].copy()
        f0[0] = self.server.vacation
        weights, lengths, spectra = _group(in_step, f0, self.spectra[: m + 1])
        waiting = np.fft.irfft(spectra * self.phi, n=self.size, axis=1)
        fits = np.minimum(np.maximum(waiting[:, : m + 1], 0.0), 1.0)
        hist.add(
            fits * weights[:, None] if weights.size else fits,
            f_done[None, :],
            lengths[:, None],
        )
        inside = fits.sum(axis=1)
        mass_fit = float(weights @ inside)
        tokens_fit = float(weights @ (fits @ (cells[: m + 1] * d)))
        over = np.maximum(1.0 - inside, 0.0) * weights
        if over.sum() > 1e-7:
            self._queued(hist, over > 1e-9, weights, lengths, inside, np.array([1.0]))

        # met a full step
        rest = np.zeros(1)
        if in_full > 0:
            rest = self._left_behind(pi, ratio)
            spectrum = np.fft.rfft(rest, n=self.size) * self.spectra[-1] * self.phi
            waiting = np.maximum(np.fft.irfft(spectrum, n=self.size), 0.0)[: m + 1]
            hist.add(in_full * waiting, f_done, self.f_full)
            inside_full = float(waiting.sum())
            mass_fit += in_full * inside_full
            tokens_fit += in_full * float(waiting @ cells[: m + 1]) * d
            self._queued(
                hist,
                np.array([True]),
                np.array([in_full]),
                np.array([self.f_full]),
                np.array([inside_full]),
                rest,
            )
        beyond = max(1.0 - p_idle - mass_fit, 0.0)
        tokens = p_idle * self.l1 + tokens_fit + beyond * self.server.packed
        pause = self.server.vacation
        # decodes only see cycles that start with a decode step
        cycle = pause + float(after_pause @ durations[1:])
        steps = 1.0 + float(after_pause.sum())
        tail_mean = after_pause[-1] * d * ratio / (1 - ratio) if ratio > 0 else 0.0
        return BulkWait(
            ttft=hist.distribution(),
            busy=1.0 - pause / cycle,
            tau=cycle / steps,
            batch_tokens=tokens,
            backlog=(float(after_pause @ cells[1:]) * d + tail_mean) / steps,
            load=load,
            saturated=beyond,
        )

    def _left_behind(self, pi: Floats, ratio: float) -> Floats:
        """Return the law of V − M_E in a full step, tail unrolled [size]."""
        beyond = pi[self.m + 1 :].copy()
        if ratio > 0:
            extra = min(self.size, int(12.0 / -math.log(ratio)) + 1)
            tail = pi[-1] * (1 - ratio) * ratio ** np.arange(extra)
            beyond = np.concatenate((beyond[:-1], tail))
        position = np.maximum(np.arange(beyond.size) + (self.m + 1) - self.full, 0.0)
        law = _split(position, beyond / beyond.sum(), max(self.size, beyond.size + self.top))
        return law[: np.flatnonzero(law > 0)[-1] + 1] if law.any() else law[:1]

    def _queued(
        self,
        hist: _Ramps,
        chosen: NDArray[np.bool_],
        weights: Floats,
        lengths: Floats,
        inside: Floats,
        rest: Floats,
    ) -> None:
        """Add arrivals that do not all fit the next step: those ahead decide, those behind fill.

        The elapsed share u of the met step is cut into `U_BINS`; tokens up to the tagged request
        are then rest + l + CP(λ u T).
        """
        weights, lengths, inside = weights[chosen], lengths[chosen], inside[chosen]
        if weights.size > 8:
            order = np.array_split(np.arange(weights.size), 8)
            mass = np.array([weights[o].sum() for o in order])
            lengths = np.array([weights[o] @ lengths[o] for o in order]) / mass
            inside = np.array([weights[o] @ inside[o] for o in order]) / mass
            weights = mass
        d, f_full, full = self.d, self.f_full, self.full
        u = (np.arange(U_BINS) + 0.5) / U_BINS
        elapsed = (lengths[:, None] * u).ravel()
        size = _fft_size(max(self.size, rest.size + 2 * self.top))
        phi = self.phi if size == self.size else np.fft.rfft(self.pmf, n=size)
        spectrum = np.exp(self.rate * elapsed[:, None] * (phi - 1.0)) * phi
        spectrum = spectrum * np.fft.rfft(rest, n=size)
        ahead = np.maximum(np.fft.irfft(spectrum, n=size, axis=1), 0.0)
        portion = np.repeat(weights, U_BINS) / U_BINS
        width = np.repeat(lengths, U_BINS) / U_BINS
        left = np.repeat(lengths, U_BINS) - elapsed - width / 2

        next_step = np.maximum(ahead[:, : self.m + 1].sum(axis=1) - np.repeat(inside, U_BINS), 0.0)
        hist.add(portion * next_step, left + f_full, width)

        cells = np.arange(self.m + 1, size)
        rounds = np.ceil(cells / full - 1e-9) - 1.0
        remain = (cells - rounds * full) * d
        behind = self.rate * (left[:, None] + width[:, None] / 2 + rounds * f_full)
        none = np.exp(-behind)
        extra = behind * self.l1 / np.maximum(1.0 - none, 1e-12)
        top = self.server.packed
        last_none = self.server.step(np.minimum(remain, top))
        last_some = self.server.step(np.minimum(remain + extra, top))
        last = none * last_none + (1 - none) * last_some
        mass = ahead[:, self.m + 1 :] * portion[:, None]
        keep = mass.sum(axis=0) > 1e-9
        hist.add(
            mass[:, keep],
            left[:, None] + rounds[keep] * f_full + last[:, keep],
            width[:, None],
        )

    def _horizon(self, pi: Floats, ratio: float) -> float:
        """Return a time that hardly any wait exceeds [s]."""
        longest = float(max(self.f_full, self.f.max(initial=0.0), self.server.vacation))
        cells = float(self.top)
        if ratio > 0:
            cells += 6.0 / -math.log(ratio)
        else:
            cells = float(np.flatnonzero(np.cumsum(pi[::-1])[::-1] > 1e-7)[-1]) + 1.0
        rounds = math.ceil((cells + 6 * self.l1 / self.d) / self.full)
        alone = float(self.server.alone.max())
        return 1.02 * ((rounds + 1) * longest + alone)


class _Ramps:
    """Histogram of sums of a constant and a uniform, kept as its second difference."""

    def __init__(self, horizon: float) -> None:
        self.h = horizon / (TIME_POINTS - 3)
        self.slope = np.zeros(TIME_POINTS + 1)
        self.total = 0.0
        self.moment = 0.0

    def add(self, mass: Floats, start: Floats, width: Floats | float) -> None:
        """Add `mass` spread evenly over [start, start + width] (arguments broadcast)."""
        h = self.h
        mass, start, width = np.broadcast_arrays(mass, start, width)
        mass, start, width = mass.ravel(), start.ravel(), width.ravel()
        self.total += float(mass.sum())
        self.moment += float(mass @ (start + width / 2))
        spread = np.maximum(width, h)
        start = start - np.where(width < h, (h - width) / 2, 0.0)
        rate = mass / spread
        self._impulse(start / h, rate)
        self._impulse((start + spread) / h, -rate)

    def _impulse(self, at: Floats, value: Floats) -> None:
        at = np.clip(at, 0.0, TIME_POINTS - 1.0)
        low = at.astype(np.int64)
        part = at - low
        n = self.slope.size
        self.slope += np.bincount(low, value * (1 - part), n)
        self.slope += np.bincount(low + 1, value * part, n)

    def distribution(self) -> Distribution:
        density = np.cumsum(self.slope)[:-1] * self.h
        F = np.concatenate(([0.0], np.cumsum(density)))[:-1] / self.total
        # a slope impulse at cell i acts on the cdf from i on
        return Distribution.from_cdf(self.h * np.arange(F.size), F, self.moment / self.total)


def _grid(
    server: BulkServer,
    rate: float,
    prompt: Floats,
    weight: Floats,
    l1: float,
    l2: float,
    points: int,
) -> tuple[float, int]:
    """Return cell width [tokens] and index of the last state."""
    full = float(server.step(np.array([server.packed]))[0])
    x = l1
    for _ in range(4):
        x = min(rate * l1 * float(server.step(np.array([max(x, 1.0)]))[0]), server.packed)
    step = float(server.step(np.array([max(x, l1)]))[0])
    large = _quantile(prompt, weight, 0.999)
    light = x + 6.0 * math.sqrt(rate * max(step, server.vacation) * l2) + large
    high = light
    if light > server.budget:
        theta = 2 * (server.packed - rate * full * l1) / (rate * full * l2)
        far = min(light + 2.5 / theta, server.budget + large + 7.0 / theta)
        high = max(server.budget * 1.5, far)
    d = min(high / points, server.packed / 20.0) if high > server.budget else high / points
    if prompt.size == 1:
        d = prompt[0] / max(round(prompt[0] / d), 1)
    elif high > server.budget:
        d = server.packed / max(round(server.packed / d), 1)
    top = min(math.ceil(high / d), 2 * points)
    return d, max(top, math.ceil(large / d) + 1, 8)


def _quantile(values: Floats, weight: Floats, p: float) -> float:
    order = np.argsort(values)
    at = int(np.searchsorted(np.cumsum(weight[order]), p))
    return float(values[order[min(at, values.size - 1)]])


def _split(position: Floats, weight: Floats, size: int) -> Floats:
    """Return masses at real positions on the integer grid, means kept [size]."""
    position = np.minimum(position, size - 2)
    low = np.floor(position + 1e-9).astype(np.int64)
    part = np.maximum(position - low, 0.0)
    return np.bincount(low, weight * (1 - part), size) + np.bincount(low + 1, weight * part, size)


def _group(
    weight: Floats, length: Floats, spectra: NDArray[np.complex128]
) -> tuple[Floats, Floats, NDArray[np.complex128]]:
    """Return at most `GROUPS` groups of neighbouring steps: weight, mean length, mean spectrum."""
    count = weight.size
    if count <= GROUPS:
        return weight, length, spectra
    # the first state (the vacation) stays alone
    edges = np.unique(np.round(np.concatenate(([0], np.linspace(1, count, GROUPS)))).astype(int))
    starts = edges[:-1]
    mass = np.add.reduceat(weight, starts)
    safe = np.maximum(mass, 1e-300)
    grouped = np.add.reduceat(weight[:, None] * spectra, starts, axis=0) / safe[:, None]
    return mass, np.add.reduceat(weight * length, starts) / safe, grouped


def _fft_size(n: int) -> int:
    """Return a size ≥ n whose FFT is fast: 2^a or 3·2^a."""
    power = 1 << (n - 1).bit_length()
    return 3 * power // 4 if 3 * power // 4 >= n else power
