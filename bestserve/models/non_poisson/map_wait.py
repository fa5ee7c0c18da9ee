"""What an arrival of a stream with memory meets at the bulk chain, and what follows it.

An arrival at time u of a step of length T, of transform e^{Q u} D1 φ e^{Q (T − u)}, leaves Y tokens
waiting at its end. If they fit the next step, its first token comes T − u + f(Y) after it; else the
tokens up to its own decide, and what arrives behind it fills its last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.non_poisson.join_shortest_queue import Level
from bestserve.models.non_poisson.map_chain import PhaseChain, PhaseFlow
from bestserve.models.non_poisson.map_process import Stream
from bestserve.models.queues.bulk.server import BulkServer, Floats, Prompts, StepLaw
from bestserve.models.queues.lattice import Ramps, split

POINTS = 48
"""States kept per phase; answers are used as ratios, in which most of the grid's error cancels."""

BINS = 4
"""Parts of a step by which arrivals are told apart."""

GROUPS, MET_GROUPS = 20, 4
"""Groups of steps by their length, and of those whose arrivals do not all fit the next step."""

Complex = NDArray[np.complex128]

AHEAD = 512
"""Points at which the chance of no arrival is tabulated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseWait:
    """What arrivals with memory meet.

    ttft : arrival to the end of the step that takes its last token; steps : that follow a first
    token; calm : chance that the step after a first token has no prompt, by the phase in which it
    starts [p]; times, share : steps of the chain and their law [m; s, 1]
    moves, away, pull : of the phase, in steps: generator [p, p], where it is after a first token
    summed over later steps [p], and step time by phase less its mean [p, s]
    """

    ttft: Distribution
    steps: StepLaw
    calm: Floats
    times: Floats
    share: Floats
    moves: Floats
    away: Floats
    pull: Floats

    def excess_of(self, steps: Floats) -> Floats:
        """Return by how much the first steps after a first token exceed the mean step [c, s].

        Phases that last long are followed over the steps of a request; the rest, which the
        waiting tokens forget soon, falls as in `StepLaw`.
        """
        from scipy.linalg import expm

        if steps.size == 0:
            return steps
        later = expm(steps[:, None, None] * self.moves) @ self.pull
        fast = self.steps.excess - float(self.away @ self.pull)
        fall = 1.0 - self.steps.decay**steps
        return np.asarray(fast * fall + self.away @ self.pull - later @ self.away)


def phase_wait(
    server: BulkServer,
    rate: float,
    prompts: Prompts,
    stream: Stream,
    level: Level | None = None,
    points: int = POINTS,
) -> PhaseWait:
    """Return the wait; the load must be below 1 (`bulk.bulk_load`).

    rate : λ > 0 [1/s]; level : arrivals by step where a router keeps lanes level
    """
    chain = PhaseChain(server, rate, prompts, stream, points, level)
    return _Tagged(chain, chain.flow()).solve()


def _two_times(first: Complex, second: Complex, times: Floats) -> Complex:
    """Return ∫₀^t e^{a s} e^{b (t − s)} ds, a of `first` [f, p] and b of `second` [f, q].

    times : t [g, s]; result [g, f, p, q]
    """
    difference = first[:, :, None] - second[:, None, :]
    near = np.abs(difference) * float(times.max()) < 1e-6
    one, other = (np.exp(times[:, None, None] * values) for values in (first, second))
    found = one[..., :, None] - other[..., None, :]
    found /= np.where(near, 1.0, difference)
    equal = times[:, None, None, None] * one[..., :, None]
    return np.asarray(np.where(near, equal, found))


class _Tagged:
    """A tagged arrival at a solved chain."""

    def __init__(self, chain: PhaseChain, flow: PhaseFlow) -> None:
        self.chain, self.flow = chain, flow
        self.final = np.zeros((chain.top + 1, chain.p))
        cells = chain.top + 6.0 * chain.prompts.mean / chain.d
        if flow.ratio > 0:
            cells += 6.0 / -math.log(flow.ratio)
        rounds = math.ceil(cells / chain.full) + 2
        longest = rounds * float(chain.f.max()) + float(chain.server.alone.max())
        self.hist = Ramps(1.02 * longest)
        self.step = longest / AHEAD
        self.knots = np.concatenate(([0.1], np.arange(1.0, chain.last.size - 1), [chain.full]))
        self.none, self.count = self._ahead()

    def _ahead(self) -> tuple[Floats, Floats]:
        """Return chance of no arrival and mean arrivals in 0, 1, … steps of time [AHEAD + 1, p]."""
        from scipy.linalg import expm

        chain = self.chain
        total = chain.silent + chain.arriving
        # mean arrivals: λ t and what the phase adds to it, by (1π − D)⁻¹
        excess = chain.arriving.sum(axis=1) - chain.rate
        core = chain.rate * np.outer(np.ones(chain.p), chain.stream.phases) - total
        gain = np.linalg.solve(core, excess)
        none, drift = np.ones((1, chain.p)), gain[None, :]
        quiet, moves = expm(chain.silent * self.step), expm(total * self.step)
        while none.shape[0] <= AHEAD:
            none = np.concatenate((none, none @ quiet.T))
            drift = np.concatenate((drift, drift @ moves.T))
            quiet, moves = quiet @ quiet, moves @ moves
        time = self.step * np.arange(none.shape[0])[:, None]
        return none, np.asarray(chain.rate * time + gain - drift)

    def solve(self) -> PhaseWait:
        """Return the wait and the steps after a first token."""
        chain = self.chain
        self._idle()
        starts, lengths = self._groups()
        spectra = np.einsum("gi,fia->gfa", starts, chain.right, optimize=True)
        if chain.top > chain.m:
            full = np.einsum("if,fia->fa", self._left(), chain.right, optimize=True)
            spectra = np.concatenate((spectra, full[None]))
            lengths = np.append(lengths, chain.f_full)
        self._steps_met(spectra, lengths)
        return PhaseWait(
            ttft=self.hist.distribution(),
            steps=self._step_law(),
            calm=self.final.ravel() @ self.flow.matrix[:, : chain.p] / self.final.sum(),
            times=chain.f,
            share=self.flow.law.sum(axis=1),
            **self._phase_law(),
        )

    def _idle(self) -> None:
        """Add arrivals that find the server idle."""
        chain = self.chain
        mass = float(self.flow.idle.sum())
        if mass <= 0:
            return
        phase = self.flow.idle @ np.linalg.solve(-chain.silent, chain.arriving)
        share = chain.prompts.share
        self.hist.add(mass * share[None, :], chain.server.alone, np.zeros(1))
        cells = chain.prompts.tokens / chain.d
        rounds = np.maximum(np.ceil(cells / chain.full - 1e-9) - 1.0, 0.0)
        self._finish(cells - np.where(cells > chain.m, rounds, 0.0) * chain.full, share, phase)

    def _finish(self, cells: Floats, mass: Floats, phase: Floats) -> None:
        """Note states, at least 1, and phases in which last steps of requests start."""
        top = self.chain.top
        states = split(np.clip(cells, 1.0, top), mass, top + 3)
        self.final += states[: top + 1, None] * phase

    def _groups(self) -> tuple[Floats, Floats]:
        """Return mass by phase [g, p] and mean length [s] of groups of steps up to M.

        The vacation stays alone, the others go by their length.
        """
        chain = self.chain
        f = chain.f[: chain.m + 1]
        order = np.argsort(f[1:], kind="stable") + 1
        parts = [np.zeros(1, dtype=np.intp), *np.array_split(order, min(GROUPS, order.size))]
        starts = np.array([self.flow.met[part].sum(axis=0) for part in parts])
        weight = self.flow.met[: chain.m + 1].sum(axis=1) + 1e-300
        lengths = np.array([weight[part] @ f[part] / weight[part].sum() for part in parts])
        return starts, lengths

    def _left(self) -> Complex:
        """Return transforms of the law of V − M_E in full steps, by phase [p, f]."""
        chain, flow = self.chain, self.flow
        beyond = flow.met[chain.m + 1 :]
        if flow.ratio > 0:
            extra = min(chain.size, int(12.0 / -math.log(flow.ratio)) + 1)
            tail = (1 - flow.ratio) * flow.ratio ** np.arange(extra)
            beyond = np.concatenate((beyond[:-1], beyond[-1] * tail[:, None]))
        at = np.maximum(np.arange(beyond.shape[0]) + chain.m + 1 - chain.full, 0.0)
        laws = [split(at, beyond[:, i], chain.size) for i in range(chain.p)]
        return np.fft.rfft(np.array(laws), axis=1)

    def _steps_met(self, spectra: Complex, lengths: Floats) -> None:
        """Add arrivals that meet a step, by its length [g, s] and the part of it elapsed.

        spectra : of the tokens left behind at its start, by eigenvector [g, f, p]
        """
        chain = self.chain
        m, binds = chain.m, chain.top > chain.m
        to_one = chain.left.sum(axis=2)
        f_done = chain.f[: m + 1].copy()
        f_done[0] = chain.f[1]
        collects, edges = lengths, lengths[:, None] * np.linspace(0.0, 1.0, BINS + 1)
        if chain.level is not None:
            collects = chain.level.collected(lengths)
            edges = chain.level.edges(lengths, BINS)
        least = 1e-9 * float(self.flow.met.sum())
        finals = np.zeros((*chain.phi.shape, chain.p), dtype=np.complex128)
        bins = collects / BINS
        arrival = (chain.left @ chain.arriving) * chain.phi[:, None, None]
        both = (arrival @ chain.right) * _two_times(chain.values, chain.values, bins)
        one = _two_times(chain.values, np.zeros_like(chain.values[:, :1]), bins)[..., 0]
        part = np.exp(bins[:, None, None] * chain.values)
        for b in range(BINS):
            before = spectra * part**b
            tagged = np.einsum("gfa,faj->gfj", before * one, arrival, optimize=True)
            after = np.einsum("gfa,gfab->gfb", before, both) * part ** (BINS - 1 - b)
            finals += np.einsum("gfa,faj->fj", after, chain.left, optimize=True)
            waiting = np.fft.irfft((after * to_one).sum(axis=2), n=chain.size, axis=1)
            total = (after[:, 0] * to_one[0]).sum(axis=1).real
            fits = np.maximum(waiting[:, : m + 1], 0.0)
            if not binds:
                fits[:, m] += np.maximum(total - fits.sum(axis=1), 0.0)
            left, width = lengths - edges[:, b + 1], edges[:, b + 1] - edges[:, b]
            for g in range(lengths.size):
                self.hist.add(fits[g : g + 1], left[g] + f_done, width[g : g + 1])
            inside = fits.sum(axis=1)
            over = np.flatnonzero(total - inside > least)
            if binds and over.size:
                # full steps, the last row, stay alone
                cut = over[:-1] if over[-1] == lengths.size - 1 else over
                groups = [g for g in np.array_split(cut, MET_GROUPS) if g.size]
                groups += [over[cut.size :]] if cut.size < over.size else []
                for rows in groups:
                    share = total[rows] / total[rows].sum()
                    ahead = np.fft.irfft(tagged[rows].sum(axis=0), n=chain.size, axis=0)
                    self._queued(
                        np.maximum(ahead, 0.0),
                        np.maximum(waiting[rows, m + 1 : chain.top + 1].sum(axis=0), 0.0),
                        float(inside[rows].sum()),
                        float(share @ left[rows]),
                        np.array([share @ width[rows]]),
                    )
        law = np.fft.irfft(finals, n=chain.size, axis=0)[: m + 1]
        self.final[: m + 1] += np.maximum(law, 0.0)

    def _queued(
        self, ahead: Floats, beyond: Floats, inside: float, left: float, width: Floats
    ) -> None:
        """Add arrivals that do not all fit the next step.

        ahead : cells up to a tagged one's own, by phase [cells, p]; beyond : all cells that wait,
        beyond M; inside : mass of those that do fit; left, width : rest of the met step and how far
        it varies [s]
        """
        chain = self.chain
        m, full, law = chain.m, chain.full, self.flow.law.sum(axis=0)
        # those ahead and the tagged one fit the next step, though not all behind them
        near = max(float(ahead[: m + 1].sum()) - inside, 0.0)
        self.hist.add(np.array([[near]]), np.array([left + chain.f_full]), width)
        share = beyond * (near / max(float(beyond.sum()), 1e-300))
        self._finish(np.arange(m + 1.0, chain.top + 1.0), share, law)
        mass = ahead[m + 1 :]
        cells = np.arange(m + 1, ahead.shape[0])
        rounds = np.maximum(np.ceil((cells - chain.ends) / full - 1e-9) - 1.0, 1.0)
        remain = np.maximum(cells - rounds * full, 0.0)
        start = left + rounds * chain.f_full
        at = np.minimum((start + width[0] / 2) / self.step, AHEAD)
        low = at.astype(np.int64)
        part = (at - low)[:, None]
        none = self.none[low] * (1 - part) + self.none[low + 1] * part
        count = self.count[low] * (1 - part) + self.count[low + 1] * part
        alone = (mass * none).sum(axis=1)
        others = np.maximum(mass.sum(axis=1) - alone, 0.0)
        behind = (mass * count).sum(axis=1) / np.maximum(others, 1e-300)
        filled = remain + behind * chain.prompts.mean / chain.d
        for fill, share in ((remain, alone), (filled, others)):
            done = np.interp(np.minimum(fill, full), self.knots, chain.last)
            self.hist.add(share[None, :], start + done, width)
            self._finish(fill, share, law)

    def _phase_law(self) -> dict[str, Floats]:
        """Return how the phase moves by step, is away after a first token, and pulls steps."""
        from scipy.linalg import expm

        chain, law = self.chain, self.flow.law
        still = chain.stream.phases
        moves = (chain.silent + chain.arriving) * self.flow.tau
        pull = chain.f @ law / np.maximum(law.sum(axis=0), 1e-300)
        step = expm(moves)
        start = self.final.sum(axis=0) / self.final.sum() - still
        core = np.eye(chain.p) - step + np.outer(np.ones(chain.p), still)
        away = np.linalg.solve(core.T, start @ step)
        return {"moves": moves, "away": away, "pull": pull - float(still @ pull)}

    def _step_law(self) -> StepLaw:
        """Return the moments of step sums after a first token, from Poisson's equation."""
        chain, flow = self.chain, self.flow
        h, law, tau = flow.values, flow.law.ravel(), flow.tau
        noise = np.repeat(chain.f, chain.p) - tau
        later = h - noise  # P h
        final = self.final.ravel() / self.final.sum()
        excess = float(final @ later)
        r0 = float(law @ noise**2)
        beyond = float(law @ (noise * later))
        r1 = float((law * noise) @ (flow.matrix @ noise))
        decay = min(max(1.0 - r1 / beyond, 0.0), 0.98) if beyond > 1e-12 * r0 else 0.0
        spread = float(final @ (flow.matrix @ h**2)) - excess**2
        return StepLaw(
            mean=tau,
            r0=r0,
            r1=beyond * (1 - decay),
            decay=decay,
            calm=float(final @ flow.matrix[:, : chain.p].sum(axis=1)),
            excess=excess,
            start=spread - float(law @ h**2),
        )
