"""What a tagged arrival meets at the bulk chain, and what follows its first token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.bulk import elimination, loops
from bestserve.models.queues.bulk.chain import Chain, Flow, blend
from bestserve.models.queues.bulk.loops import U_BINS, LaterSteps, StepsInProgress
from bestserve.models.queues.bulk.server import BulkWait, Stalls, StepLaw
from bestserve.models.queues.bulk.whole_prompts import covered, full_steps, riding, steps_to
from bestserve.models.queues.lattice import Ramps, fft_size, split, weighted_quantile

GROUPS = 28
"""Steps in progress, by their length, that all fit the next one."""

PROGRESS_GROUPS, FULL_GROUPS = 4, 5
"""Those after which some wait longer, and full ones among them, by what they leave behind."""

MOST_DECAY = 0.98
"""Decay of the correlation of steps at most, so that it dies out within some hundred of them. In
464 chains of random questions 52 had more; all of their answers were doubted."""

LONGEST = 1e-4
"""Share of prompts that may be longer than the histogram of times is laid out for."""


@dataclass(frozen=True, slots=True)
class FullSteps:
    """Full steps that arrivals meet, in groups.

    weights : share of the arrivals, lengths : time of the step [s], left : law of the tokens left
    behind [g, cells]
    """

    weights: Floats
    lengths: Floats
    left: Floats


def _merged(weights: Floats, lengths: Floats, inside: Floats) -> tuple[Floats, Floats, Floats]:
    """Return at most `PROGRESS_GROUPS` groups of neighbours: weights, mean lengths and chances."""
    if weights.size <= PROGRESS_GROUPS:
        return weights, lengths, inside
    edges = np.linspace(0, weights.size, PROGRESS_GROUPS, endpoint=False).astype(np.intp)
    mass = np.add.reduceat(weights, edges)
    lengths = np.add.reduceat(weights * lengths, edges) / mass
    return mass, lengths, np.add.reduceat(weights * inside, edges) / mass


def _cumulants(moments: Floats) -> tuple[float, float, float]:
    """Return mean, variance and third cumulant of raw moments [3]."""
    m1, m2, m3 = map(float, moments)
    variance = max(m2 - m1**2, 0.0)
    return m1, variance, max(m3 - 3 * m1 * variance - m1**3, 0.0)


class Tagged:
    """A tagged arrival at a solved chain: its wait, and the steps after its first token."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def solve(self, load: float, with_steps: bool, pauses: Floats | None) -> BulkWait:
        """Return the wait; `load` is passed on, the others ask for `StepLaw` and `Stalls` too."""
        flow = self.chain.flow()
        ratio, d = flow.ratio, self.chain.d
        pi = (1 - self.chain.q) * flow.visits[:, 0] + self.chain.q * flow.visits[:, 1]
        pi = np.concatenate(([1.0], pi))
        time = pi * self.chain.step_time
        time[0] *= 1 - self.chain.q
        idle_time = self.chain.q / self.chain.rate
        total = float(time.sum()) + idle_time
        p_idle = idle_time / total
        hist = Ramps(self._horizon(pi, ratio))
        final = p_idle * flow.ended
        hist.add(p_idle * flow.fresh[0][None, :], flow.fresh[1], np.zeros(1))
        tokens, queued = self._step_in_progress(hist, final, time / total, pi, ratio)
        beyond_grid = flow.law[-1] * ratio / (1 - ratio) if ratio > 0 else 0.0
        return BulkWait(
            ttft=hist.distribution(),
            busy=flow.pace.busy,
            tau=flow.pace.tau,
            spacing=flow.pace.spacing,
            batch_tokens=p_idle * self.chain.l1 + (1 - p_idle) * tokens,
            backlog=(float(flow.law @ np.arange(self.chain.top + 1)) + beyond_grid) * d,
            load=load,
            saturated=queued,
            cut_off=self.chain.cut_off,
            steps=self._steps(flow, final) if with_steps else None,
            stalls=None if pauses is None else self._stalls(flow, final, pauses),
        )

    def _step_in_progress(
        self, hist: Ramps, final: Floats, share: Floats, pi: Floats, ratio: float
    ) -> tuple[float, float]:
        """Add arrivals that meet a step; return mean tokens of their last step and who queues."""
        chain = self.chain
        m, top = chain.m, chain.top
        f_done = chain.f[: m + 1].copy()
        f_done[0] = chain.f[min(1, top)]
        spectra = chain.spectra[:-1]
        laws = np.fft.irfft(spectra * chain.phi, n=chain.size, axis=1)
        weights, lengths, merged = loops.grouped(
            share[: m + 1], chain.f[: m + 1], chain.blend[: m + 1], GROUPS
        )
        waiting = merged @ laws[:, : top + 1]
        full = self._full_steps(share[m + 1 :], pi, ratio)
        if full.weights.size:
            spectra = chain.arrivals(full.lengths) * chain.phi
            spectra *= np.fft.rfft(full.left, n=chain.size, axis=1)
            behind = np.fft.irfft(spectra, n=chain.size, axis=1)[:, : top + 1]
            waiting = np.concatenate((waiting, behind))
            weights = np.concatenate((weights, full.weights))
            lengths = np.concatenate((lengths, full.lengths))
        # where the budget never binds, what the grid does not reach stays in its last state
        by_size, inside, *added = loops.fitting(
            hist.slope, hist.h, waiting, weights, f_done, lengths, m == top
        )
        hist.note(*added)
        final[: m + 1] += by_size
        over = (1.0 - np.minimum(inside, 1.0)) * weights
        queued = float(over.sum())
        if queued > 1e-9:
            beyond = weights @ np.maximum(waiting[:, m + 1 :], 0.0)
            plain = over[: merged.shape[0]] > 1e-9
            groups = _merged(*(a[: plain.size][plain] for a in (weights, lengths, inside)))
            full_ones = (a[plain.size :] for a in (weights, lengths, inside))
            progress = StepsInProgress(
                *(np.concatenate(p) for p in zip(groups, full_ones, strict=True))
            )
            self._queued(hist, final, beyond, progress, full.left, laws)
        count = float(by_size.sum()) + queued
        tokens = float(by_size @ np.arange(m + 1)) * chain.d + queued * chain.server.packed
        return tokens / max(count, 1e-300), queued

    def _full_steps(self, share: Floats, pi: Floats, ratio: float) -> FullSteps:
        """Return the full steps that arrivals meet, of the share that each state has of the time.

        The state at the grid's end stands for all beyond it.
        """
        chain, total = self.chain, float(share.sum())
        if total <= 0:
            return FullSteps(np.empty(0), np.empty(0), np.empty((0, 1)))
        tail: Floats = np.ones(1)
        if ratio > 0:
            extra = min(chain.size, int(12.0 / -math.log(ratio)) + 1)
            tail = (1 - ratio) * ratio ** np.arange(extra, dtype=np.float64)
        if chain.whole:
            waiting = pi[chain.m + 1 :]
            mass, lengths, left = full_steps(
                chain.taken, waiting, chain.f, chain.m, tail, FULL_GROUPS
            )
            some = mass > 0.0
            share = mass[some] * (total / mass.sum())
            return FullSteps(share, lengths[some], left[some])
        beyond = np.concatenate((pi[chain.m + 1 : -1], pi[-1] * tail))
        position = np.maximum(np.arange(beyond.size) + (chain.m + 1) - chain.full, 0.0)
        left = split(position, beyond / beyond.sum(), beyond.size + 2)
        lengths = np.array([chain.f_full])
        return FullSteps(np.array([total]), lengths, left[None, :])

    def _queued(
        self,
        hist: Ramps,
        final: Floats,
        beyond: Floats,
        progress: StepsInProgress,
        left: Floats,
        laws: Floats,
    ) -> None:
        """Add arrivals that do not all fit the next step: those ahead decide, those behind fill.

        The elapsed share u of the step in progress is cut into `U_BINS`; tokens up to the tagged
        request are then l + CP(λ u T), and what a full step leaves behind. progress : full steps
        last; left : law of what those leave [g, cells] laws : of l + CP(λ t) at the chain's nodes
        [k, cells]
        """
        lengths = progress.lengths
        chain = self.chain
        u = (np.arange(U_BINS) + 0.5) / U_BINS
        collected = (lengths[:, None] * u).ravel()
        ahead = blend(chain.nodes, chain.longest, collected) @ laws
        if left.size:
            size = fft_size(max(chain.size, left.shape[1] + 2 * chain.top))
            full = left.shape[0] * U_BINS
            spectra = np.fft.rfft(ahead[-full:], n=size, axis=1)
            spectra *= np.repeat(np.fft.rfft(left, n=size, axis=1), U_BINS, axis=0)
            longer = np.zeros((ahead.shape[0], size))
            longer[:-full, : chain.size] = ahead[:-full]
            longer[-full:] = np.fft.irfft(spectra, n=size, axis=1)
            ahead = longer
        hist.note(
            *loops.queued(
                hist.slope,
                final,
                beyond,
                ahead,
                progress,
                self._later(ahead.shape[1]),
                chain.cells(hist.h),
            )
        )

    def _later(self, size: int) -> LaterSteps:
        """Return what follows the step in progress, by 0 … size − 1 cells up to a request's end."""
        chain, cells = self.chain, np.arange(size, dtype=np.float64)
        if not chain.whole:
            rounds = np.maximum(np.ceil(cells / chain.full - 1e-9) - 1.0, 1.0)
            remain = np.maximum(cells - rounds * chain.full, 0.0)
            at_once = np.ones(chain.m + 1), np.full(chain.m + 1, chain.f_full)
            return LaterSteps(*at_once, rounds * chain.f_full, remain, np.zeros(size))
        m, top = chain.m, chain.top
        steps, remain, single = steps_to(chain.taken, m)
        f = chain.f
        # steps are nearly affine: up to the budget or, where that is a cell or less, beyond it
        low = max((m + 1) // 2, 1)
        high = m if m > low else top
        per_cell = (f[high] - f[low]) / (high - low)
        whole = per_cell * np.arange(top + 1) + steps * (f[high] - per_cell * high)
        inside = np.concatenate((f[1:2], f[1 : m + 1]))
        before = whole - np.interp(remain, np.arange(m + 1), inside)
        beyond = np.maximum(cells - top, 0.0)
        at = np.minimum(np.arange(size), top)
        before = before[at] + beyond * chain.f_full / chain.full
        overruns, reach = riding(chain.pmf, chain.growth, m)
        joined = np.interp(reach, np.arange(m + 1), inside)
        return LaterSteps(overruns, joined, before, remain[at], single[at])

    def _steps(self, flow: Flow, final: Floats) -> StepLaw:
        """Return the moments of step sums after a first token, from Poisson's equation."""
        matrix, law, mean = flow.matrix, flow.law, flow.pace.tau
        noise = self.chain.step_time - mean
        h = np.concatenate(
            ([0.0], elimination.solve_columns(flow.factors, self.chain.low, noise[1:]))
        )
        h -= law @ h
        later = h - noise  # P h
        final = final / final.sum()
        excess = float(final @ later)
        r0 = float(law @ noise**2)
        beyond = float(law @ (noise * later))  # covariances at lags 1, 2, …
        r1 = float((law * noise) @ (matrix @ noise))
        if self.chain.whole:
            # the random size of full steps adds to their variance and covariances
            chain = self.chain
            deviation = chain.f - chain.step_time[chain.m + 1 :, None]
            weight = law[chain.m + 1 :]
            r0 += float(weight @ (chain.taken * deviation**2).sum(axis=1))
            one, all_later = covered(
                chain.taken, weight, chain.blend, chain.laws, chain.m, deviation, noise, h
            )
            r1, beyond = r1 + one, beyond + all_later
        decay = min(max(1.0 - r1 / beyond, 0.0), MOST_DECAY) if beyond > 1e-12 * r0 else 0.0
        spread = float(final @ (matrix @ h**2)) - excess**2
        return StepLaw(
            mean=mean,
            r0=r0,
            r1=beyond * (1 - decay),
            decay=decay,
            unstalled=float(final @ matrix[:, 0]),
            excess=excess,
            start=spread - float(law @ h**2),
        )

    def _stalls(self, flow: Flow, final: Floats, pauses: Floats) -> Stalls:
        """Return the moments of the time until state 0: h₁ = f + P h₁, and so on."""
        chain = self.chain
        f = chain.step_time
        f2, f3 = f**2, f**3
        if chain.whole:
            f2[chain.m + 1 :] = chain.taken @ chain.f**2
            f3[chain.m + 1 :] = chain.taken @ chain.f**3

        def solve(now: Floats) -> tuple[Floats, Floats]:
            found = elimination.solve_columns(flow.factors, chain.low, now[1:])
            h = np.concatenate(([0.0], found))
            return h, np.maximum(h - now, 0.0)

        h1, later1 = solve(f)
        h2, later2 = solve(f2 + 2 * f * later1)
        h3, later3 = solve(f3 + 3 * f2 * later1 + 3 * f * later2)
        final = final / final.sum()
        after = final @ np.column_stack((later1, later2, later3))
        moments = np.column_stack((h1, h2, h3))
        between = flow.matrix[0] @ moments
        by_node = chain.laws @ h1 + np.maximum(1.0 - chain.laws.sum(axis=1), 0.0) * h1[-1]
        inside = np.minimum(pauses, chain.longest)
        return Stalls(
            between=_cumulants(between),
            after=_cumulants(after),
            unstalled=float(final @ flow.matrix[:, 0]),
            means=blend(chain.nodes, chain.longest, inside) @ by_node * (pauses / inside),
        )

    def _horizon(self, pi: Floats, ratio: float) -> float:
        """Return a time that hardly any wait exceeds [s]."""
        cells = float(self.chain.top)
        if ratio > 0:
            cells += 6.0 / -math.log(ratio)
        else:
            cells = float(np.flatnonzero(np.cumsum(pi[::-1])[::-1] > 1e-7)[-1]) + 1.0
        chain = self.chain
        rounds = math.ceil((cells + 6 * chain.l1 / chain.d) / chain.full)
        longest = float(chain.f[: chain.m + 1].max())
        in_progress = float(chain.f[min(math.ceil(cells), chain.top)])
        # the longest may be so long that a grid up to them would tell nothing of the others
        longest_service = weighted_quantile(
            chain.server.service, chain.prompts.share, 1.0 - LONGEST
        )
        return 1.02 * (rounds * max(longest, chain.f_full) + in_progress + longest_service)
