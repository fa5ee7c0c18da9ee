"""What a tagged arrival meets at the bulk chain, and what follows its first token."""

from __future__ import annotations

import math

import numpy as np

from bestserve.models.queues import bulk_loops as loops
from bestserve.models.queues.bulk_chain import Chain, Flow, blend
from bestserve.models.queues.bulk_server import BulkWait, Floats, StepLaw
from bestserve.models.queues.lattice import Ramps, fft_size, split

U_BINS = 4
GROUPS = 28
MET_GROUPS = 4


class Tagged:
    """A tagged arrival at a solved chain: its wait, and the steps after its first token."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain

    def solve(self, load: float, with_steps: bool) -> BulkWait:
        """Return the wait; `load` is passed on, `with_steps` asks for `StepLaw` too."""
        flow = self.chain.flow()
        ratio, d = flow.ratio, self.chain.d
        pi = (1 - self.chain.q) * flow.visits[:, 0] + self.chain.q * flow.visits[:, 1]
        pi = np.concatenate(([1.0], pi))
        time = pi * self.chain.collects
        time[0] *= 1 - self.chain.q
        idle_time = self.chain.q / self.chain.rate
        total = float(time.sum()) + idle_time
        p_idle = idle_time / total
        hist = Ramps(self._horizon(pi, ratio))
        final = p_idle * flow.ended
        hist.add(p_idle * flow.fresh[0][None, :], flow.fresh[1], np.zeros(1))
        tokens, queued = self._met_step(hist, final, time / total, pi, ratio)
        far = flow.law[-1] * ratio / (1 - ratio) if ratio > 0 else 0.0
        return BulkWait(
            ttft=hist.distribution(),
            busy=flow.pace.busy,
            tau=flow.pace.tau,
            spacing=flow.pace.spacing,
            batch_tokens=p_idle * self.chain.l1 + (1 - p_idle) * tokens,
            backlog=(float(flow.law @ np.arange(self.chain.top + 1)) + far) * d,
            load=load,
            saturated=queued,
            steps=self._steps(flow, final) if with_steps else None,
        )

    def _met_step(
        self, hist: Ramps, final: Floats, share: Floats, pi: Floats, ratio: float
    ) -> tuple[float, float]:
        """Add arrivals that meet a step; return mean tokens of their last step and who queues."""
        chain = self.chain
        m, top, others = chain.m, chain.top, chain.server.others
        f_done = chain.f[: m + 1].copy()
        f_done[0] = chain.f[min(1, top)]
        spectra = chain.spectra
        if others != 1.0:
            spectra = chain.arrivals(others * np.append(chain.nodes, chain.collects_full))
        weights, lengths, merged = loops.grouped(
            share[: m + 1], chain.f[: m + 1], chain.blend, GROUPS
        )
        in_full = float(share[m + 1 :].sum())
        rest = np.zeros(1)
        spectra = spectra * chain.phi
        if in_full > 0:
            rest = self._left_behind(pi, ratio)
            spectra[-1] *= np.fft.rfft(rest, n=chain.size)
            weights = np.append(weights, in_full)
            lengths = np.append(lengths, chain.f_full)
        laws = np.fft.irfft(spectra, n=chain.size, axis=1)
        waiting = np.empty((weights.size, top + 1))
        np.matmul(merged, laws[:-1, : top + 1], out=waiting[: merged.shape[0]])
        if in_full > 0:
            waiting[-1] = laws[-1, : top + 1]
        np.maximum(waiting, 0.0, out=waiting)
        fits = waiting[:, : m + 1]
        inside = fits.sum(axis=1)
        if m == top:
            # the budget never binds: what the grid does not reach stays in its last state
            fits[:, m] += np.maximum(1.0 - inside, 0.0)
            inside = np.maximum(inside, 1.0)
        mass = fits * weights[:, None]
        hist.add(mass, f_done, lengths * chain.server.spread)
        by_size = mass.sum(axis=0)
        final[: m + 1] += by_size
        over = (1.0 - np.minimum(inside, 1.0)) * weights
        queued = float(over.sum())
        if queued > 1e-9:
            beyond = weights @ waiting[:, m + 1 :]
            plain = over > 1e-9
            arrived = laws[:-1]
            if in_full > 0:
                plain[-1] = False
                met = weights[-1:], lengths[-1:], inside[-1:]
                self._queued(hist, final, beyond, *met, rest, arrived)
            if plain.any():
                met = weights[plain], lengths[plain], inside[plain]
                self._queued(hist, final, beyond, *met, np.ones(1), arrived)
        count = float(by_size.sum()) + queued
        tokens = float(by_size @ np.arange(m + 1)) * chain.d + queued * chain.server.packed
        return tokens / max(count, 1e-300), queued

    def _left_behind(self, pi: Floats, ratio: float) -> Floats:
        """Return the law of V − M_E in a full step, tail unrolled [size]."""
        beyond = pi[self.chain.m + 1 :].copy()
        if ratio > 0:
            extra = min(self.chain.size, int(12.0 / -math.log(ratio)) + 1)
            tail = pi[-1] * (1 - ratio) * ratio ** np.arange(extra)
            beyond = np.concatenate((beyond[:-1], tail))
        position = np.maximum(np.arange(beyond.size) + (self.chain.m + 1) - self.chain.full, 0.0)
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
        laws: Floats,
    ) -> None:
        """Add arrivals that do not all fit the next step: those ahead decide, those behind fill.

        The elapsed share u of the met step is cut into `U_BINS`; tokens up to the tagged request
        are then rest + l + CP(λ u T). rest : its law [cells]; laws : of l + CP(λ t) at the chain's
        nodes [k, cells].
        """
        if weights.size > MET_GROUPS:
            order = np.array_split(np.arange(weights.size), MET_GROUPS)
            mass = np.array([weights[o].sum() for o in order])
            lengths = np.array([weights[o] @ lengths[o] for o in order]) / mass
            inside = np.array([weights[o] @ inside[o] for o in order]) / mass
            weights = mass
        chain = self.chain
        u = (np.arange(U_BINS) + 0.5) / U_BINS
        elapsed = (lengths[:, None] * u).ravel()
        collected = elapsed
        if chain.server.per_step is not None:
            collected = np.tile(u, lengths.size) * chain.collects_full * chain.server.others
        ahead = blend(chain.nodes, chain.longest, collected / chain.server.others) @ laws
        if rest.size > 1:
            size = fft_size(max(chain.size, rest.size + 2 * chain.top))
            spectrum = np.fft.rfft(ahead, n=size, axis=1) * np.fft.rfft(rest, n=size)
            ahead = np.fft.irfft(spectrum, n=size, axis=1)
        hist.note(
            *loops.queued(
                hist.slope,
                hist.h,
                final,
                beyond,
                ahead,
                weights,
                lengths,
                inside,
                U_BINS,
                chain.server.spread,
                chain.m,
                chain.server.ends / chain.d,
                chain.full,
                chain.f_full,
                chain.rate,
                chain.l1 / chain.d,
                chain.one_prompt,
                chain.last,
            )
        )

    def _steps(self, flow: Flow, final: Floats) -> StepLaw:
        """Return the moments of step sums after a first token, from Poisson's equation."""
        matrix, law, mean = flow.matrix, flow.law, flow.pace.tau
        noise = self.chain.f - mean
        h = np.concatenate(([0.0], loops.solve_columns(flow.factors, self.chain.m + 1, noise[1:])))
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
        cells = float(self.chain.top)
        if ratio > 0:
            cells += 6.0 / -math.log(ratio)
        else:
            cells = float(np.flatnonzero(np.cumsum(pi[::-1])[::-1] > 1e-7)[-1]) + 1.0
        rounds = math.ceil((cells + 6 * self.chain.l1 / self.chain.d) / self.chain.full)
        return 1.02 * (
            (rounds + 1) * float(self.chain.f.max()) + float(self.chain.server.alone.max())
        )
