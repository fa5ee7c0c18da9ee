"""Exact wait in a single-server queue with independent gaps and services (GI/G/1).

Lindley's recursion W' = max(0, W + S − A) by Spitzer's identity on a grid: with the transform of
S − A tilted by e^{rx} so that it stays inside the unit circle, c = IFFT log(1 − φ), the positive
quefrencies alone give the wait, w = IFFT exp(−FFT c₊), tilted back and normalised (Ackroyd 1980
cepstrum; Wiener-Hopf). With Poisson arrivals it is the compound geometric law
Ŵ = (1 − ρ)/(1 − ρ R̂), R the equilibrium residual of S (Pollaczek-Khinchine transform).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.distribution import Distribution
from bestserve.models.queues.lattice import split

CELLS_PER_SERVICE = 32
MAX_CELLS = 1 << 15


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait before service on a grid: P(W in cell i) at i·h.

    h : cell [s]; pmf : [m]; mean : E[W] [s]; load : ρ
    """

    h: float
    pmf: Floats
    mean: float
    load: float

    def plus(
        self, service: Floats, weight: Floats, vacation: float = 0.0, idle: float = 1.0
    ) -> Distribution:
        """Return the law of W + S (+ U(0, vacation) with probability 1 − idle).

        service [s], weight : atoms of S [m]; vacation : step that an arrival may have to sit out,
        independent of W by Fuhrmann-Cooper decomposition [s]
        """
        reach = int((service.max() + vacation) / self.h) + 4
        size = 1 << (self.pmf.size + reach).bit_length()
        s = split(service / self.h, weight, size)
        spectrum = np.fft.rfft(self.pmf, size) * np.fft.rfft(s)
        mean = self.mean + float(weight @ service)
        if vacation > 0 and idle < 1:
            pause = _uniform(vacation / self.h, size) * (1 - idle)
            pause[0] += idle
            spectrum = spectrum * np.fft.rfft(pause)
            mean += (1 - idle) * vacation / 2
        law = np.maximum(np.fft.irfft(spectrum, size), 0.0)
        last = int(np.searchsorted(np.cumsum(law), 1.0 - 1e-9)) + 2
        law = law[:last]
        # a cell's mass spreads over ± half a cell
        x = np.maximum((np.arange(law.size + 1) - 0.5) * self.h, 0.0)
        F = np.concatenate(([0.0], np.cumsum(law)))
        if weight.size == 1 and vacation == 0:
            # the whole service is an atom that every request has in common
            at_once = float(self.pmf[0])
            F = np.concatenate(([0.0], np.cumsum(self.pmf)))
            x = (np.arange(F.size) - 0.5) * self.h + float(service[0])
            x[0] = float(service[0]) - 1e-12
            x = np.insert(x, 1, float(service[0]))
            F = np.insert(F, 1, at_once)
            x[2:] = np.maximum.accumulate(np.maximum(x[2:], x[1] + 1e-12 * np.arange(x.size - 2)))
        return Distribution.from_cdf(x, F, mean)


def gig1_wait(service: Floats, weight: Floats, rate: float, scv: float = 1.0) -> Wait | None:
    """Return the stationary wait, or `None` when the load is 1 or more.

    service, weight : atoms of the service time [m, s] and shares; rate : λ [1/s];
    scv : squared CV of the gamma-distributed gaps (1: Poisson; 1/k: every k-th of a Poisson
    stream, which is what round robin over k servers gives each)

    >>> w = gig1_wait(np.array([1.0]), np.array([1.0]), 0.5)      # M/D/1: ρ/(2(1−ρ))
    >>> round(w.mean, 4)
    0.5
    """
    s1, s2 = float(weight @ service), float(weight @ service**2)
    load = rate * s1
    if load >= 1.0 or rate <= 0:
        return None
    h = s1 / CELLS_PER_SERVICE
    # Daley's bound of the mean wait; P-K's for Poisson arrivals
    spread = s2 if scv == 1.0 else s2 - s1**2 + s1 * scv * (2 - load) / rate
    guess = rate * spread / (2 * (1 - load))
    need = 1.5 * (16 * (guess + s1) + 8 * s1 + service.max()) / h
    size = 1 << int(np.ceil(np.log2(min(need, MAX_CELLS))))
    h = max(h, need * h / size)
    s = split(service / h, weight, size)
    if scv == 1.0:
        pmf = _poisson_wait(s, load)
        return Wait(h, pmf, rate * s2 / (2 * (1 - load)), load)
    law = _gamma_gaps(rate, scv, h, size)
    r = min(_tilt(s, law), 300.0 / size)
    x = np.arange(size)
    growth = np.exp(r * x)
    phi = np.fft.fft(s * growth) * np.conj(np.fft.fft(law / growth))
    c = np.fft.ifft(np.log(1.0 - phi))
    c[size // 2 :] = 0.0
    c[0] = 0.0
    pmf = np.fft.ifft(np.exp(-np.fft.fft(c))).real / growth
    pmf = np.maximum(pmf[: size // 2], 0.0)
    pmf /= pmf.sum()
    return Wait(h, pmf, float(pmf @ np.arange(pmf.size)) * h, load)


def _poisson_wait(s: Floats, load: float) -> Floats:
    """Return the compound geometric wait of M/G/1 from the service masses [size]."""
    tail = np.maximum(1.0 - np.cumsum(s), 0.0)
    # equilibrium residual, kept at its mean by centring each cell between its edges
    residual = np.zeros_like(s)
    residual += tail / 2
    residual[1:] += tail[:-1] / 2
    residual /= residual.sum()
    wait = np.fft.irfft((1 - load) / (1 - load * np.fft.rfft(residual)), s.size)
    wait = np.maximum(wait, 0.0)
    return np.asarray(wait / wait.sum())


def _tilt(s: Floats, gaps: Floats) -> float:
    """Return r that minimises log E e^{r(S − A)} (in grid units)."""
    x = np.arange(s.size, dtype=np.float64)
    live_s, live_a = np.flatnonzero(s > 0), np.flatnonzero(gaps > 0)
    xs, ps, xa, pa = x[live_s], s[live_s], x[live_a], gaps[live_a]
    drift = float(ps @ xs - pa @ xa)
    spread = float(ps @ xs**2 - (ps @ xs) ** 2 + pa @ xa**2 - (pa @ xa) ** 2)
    r = min(-drift / max(spread, 1e-12), 500.0 / xs[-1])
    for _ in range(12):
        ws, wa = ps * np.exp(r * xs), pa * np.exp(-r * xa)
        ws /= ws.sum()
        wa /= wa.sum()
        m_s, m_a = float(ws @ xs), float(wa @ xa)
        v = float(ws @ xs**2) - m_s**2 + float(wa @ xa**2) - m_a**2
        move = (m_s - m_a) / max(v, 1e-12)
        r = max(r - move, 0.0)
        if abs(move) < 1e-6 * max(r, 1e-12):
            break
    return r


def _gamma_gaps(rate: float, scv: float, h: float, size: int) -> Floats:
    """Return masses of gamma gaps on the grid, mean kept: second differences of ∫F [size].

    The last one stands for all longer gaps: nothing waits behind those.
    """
    from scipy.special import gammainc

    shape = 1.0 / scv
    scale = scv / rate
    x = h * np.arange(size + 1) / scale
    integral = x * gammainc(shape, x) - shape * gammainc(shape + 1, x)
    integral = np.concatenate(([0.0], integral)) * scale / h
    masses = np.maximum(np.diff(integral, 2), 0.0)
    masses[-1] += max(1.0 - float(masses.sum()), 0.0)
    return masses


def _uniform(width: float, size: int) -> Floats:
    """Return masses of U(0, width) on the integer grid, mean kept [size]."""
    x = np.clip(np.arange(-1, size + 1, dtype=np.float64), 0.0, None)
    integral = np.where(x < width, x**2 / (2 * width), x - width / 2)
    return np.maximum(np.diff(integral, 2), 0.0)
