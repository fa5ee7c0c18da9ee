"""Fluctuation of the step time that a request sees, by its number of decode steps.

Each arrival adds h(j) = α + k(l + j) to the next D steps (and a jump S at j = 0 when prompts share
the server), while longer steps collect more arrivals: a linear Hawkes process in step time, with

    S_t(ω) = λτ E|ĥ|² / |1 − λ E ĥ(ω)|²

for mean step τ. The mean of D consecutive steps then has variance
v(D) = (2/D) ∫_0^D (1 − u/D) R(u) du, R the inverse transform of S_t. Derived in
`models/derive_noise.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bestserve.arrays import Floats
from bestserve.host.compiled import njit
from bestserve.models.queues.occupancy import Occupancy
from bestserve.models.queues.requests import Requests

LEAST_DAMPING = 0.05
"""1 − λ E[D] dt/dn at least: nearer to 0, or below, linear noise has no bound. In 880 laws of
random questions, nine had less; all of them were doubted."""


def damping(gain: float) -> float:
    """Return 1 − gain, within bounds: how a number of running sequences returns to its mean.

    gain : λ E[D] dt/dn, the further requests that one more brings by making steps longer
    """
    return max(1.0 - gain, LEAST_DAMPING)


@dataclass(frozen=True, slots=True)
class Response:
    """Linear response of the step time to one more request.

    alpha : per running sequence, context aside [s]; k : per context token [s/token]
    jump1, jump2 : first two moments of the prompt's own work, 0 on decode-only servers [s, s²]
    """

    alpha: float
    k: float
    jump1: float = 0.0
    jump2: float = 0.0


def variance_of_sum(requests: Requests, response: Response, rate: float, tau: float) -> Floats:
    """Return the variance of the sum of D consecutive step times, by bins of D [bins+1, s²].

    Entry i belongs to D = i · `requests.width`. rate : λ [1/s]; tau : mean step time, stalls
    included [s]
    """
    spectrum = _spectrum(
        requests.response,
        requests.power,
        response.alpha,
        response.k,
        response.jump1,
        response.jump2,
        rate,
        tau,
        requests.width,
    )
    return _sums(np.fft.irfft(spectrum), requests.survival.size + 2)


def at_classes(requests: Requests, sums: Floats) -> tuple[Floats, Floats]:
    """Return `variance_of_sum` and its slope per step at the output classes [c, s²]."""
    value, slope = _line(sums, requests.classes / requests.width)
    return value, slope / requests.width


def overlap_steps(requests: Requests, growth: float) -> Floats:
    """Return steps that a request spends beside one that joined with it, and those it brings [c].

    One more sequence makes steps longer, so that more requests join, `growth` = λ E[D] dt/dn for
    each that stays as long as a mean one: x(j) = P(D > j) + growth/E[D] Σ_{u<j} P(D ≥ j − u) x(u),
    summed over a request's own steps. Without growth it is E[min(D', D)], `Requests.overlap`.
    """
    r = requests
    # 128 bins tell it to 1 %
    some = int(np.count_nonzero(r.survival > 0.0))
    merged = max(math.ceil(some / 128), 1)
    survival = r.survival[: r.survival.size // merged * merged].reshape(-1, merged).mean(axis=1)
    width = r.width * merged
    total = _overlap(survival, growth / max(r.d1, 1e-12) * width) * width
    return _line(total, r.classes / width)[0]


def size_bias(total: Floats, slope: Floats, r0: float, d: Floats, tau: float) -> Floats:
    """Return what meeting steps in proportion to their length adds to the variance of a sum [s²].

    Var(S | weight d₀) − Var S = κ(S, S, d₀)/τ − (Cov(S, d₀)/τ)², with κ(S, S, d₀) a third of the
    growth of the third cumulant, 3V²/(Dτ) for clustered noise, and Cov(S, d₀) = (V' − R₀)/2.
    Derived in `models/derive_size_bias.py`.
    """
    third = 2 * total * slope / d - (total / d) ** 2
    return np.asarray((third - ((slope - r0) / 2) ** 2) / tau**2)


def variance_of_mean(requests: Requests, response: Response, rate: float, tau: float) -> Floats:
    """Return the variance of the mean of D consecutive step times [c, s²] for each class."""
    value, _ = at_classes(requests, variance_of_sum(requests, response, rate, tau))
    return value / requests.classes**2


@njit(cache=True, error_model="numpy")
def _spectrum(
    response: Floats,
    power: Floats,
    alpha: float,
    k: float,
    jump1: float,
    jump2: float,
    rate: float,
    tau: float,
    width: float,
) -> Floats:
    """Return the spectrum of the step time per bin of `width` steps [s²].

    response, power : of `Requests`; alpha, k, jump1, jump2 : of `Response`. The jump counts once
    per bin, amplitudes `width` times. Without checks of each division the loop is vectorised.
    """
    spectrum = np.empty(power.shape[1])
    for i in range(power.shape[1]):
        mean = alpha * response[0, i] + k * response[2, i]
        real, imag = mean + jump1, alpha * response[1, i] + k * response[3, i]
        amplitudes = alpha**2 * power[0, i] + alpha * k * power[1, i] + k**2 * power[2, i]
        density = amplitudes * width + jump2 + 2 * jump1 * mean
        gain = (1.0 - rate * real) ** 2 + (rate * imag) ** 2
        spectrum[i] = rate * tau * width * density / gain
    return spectrum


@njit(cache=True)
def _sums(covariance: Floats, size: int) -> Floats:
    """Return m R₀ + 2 Σ_{u<m} (m − u) R_u, the variance of a sum of m bins, m < size [size, s²]."""
    sums = np.zeros(size)
    slope = covariance[0]
    for m in range(1, size):
        sums[m] = sums[m - 1] + slope
        slope += 2.0 * covariance[m]
    for m in range(size):
        sums[m] = max(sums[m], 0.0)
    return sums


@njit(cache=True)
def _overlap(survival: Floats, growth: float) -> Floats:
    """Return Σ_{i<m} x(i) for m = 0, 1, … of x(i) = S(i) + growth Σ_{u<i} S(i − 1 − u) x(u)."""
    size = survival.size
    last = size
    while last > 1 and survival[last - 1] == 0.0:
        last -= 1
    x = np.zeros(size)
    total = np.zeros(size + 1)
    for i in range(size):
        value = 0.0
        for u in range(max(i - last, 0), i):
            value += survival[i - 1 - u] * x[u]
        x[i] = survival[i] + growth * value if i < last else 0.0
        total[i + 1] = total[i] + x[i]
    return total


@njit(cache=True)
def _line(values: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Return `values`, known at 0, 1, …, and their slopes at real positions [c]."""
    value, slope = np.empty(at.size), np.empty(at.size)
    for c in range(at.size):
        i = min(int(at[c]), values.size - 2)
        slope[c] = values[i + 1] - values[i]
        value[c] = values[i] + slope[c] * (at[c] - i)
    return value, slope


def bend(
    times: Floats, state: Occupancy, requests: Requests, variance: Floats, slope: float
) -> float:
    """Return how far steps are from a line over the numbers of sequences that decodes meet [1].

    times : with 1 … B sequences [B, s]; variance : of TPOT [c, s²]; slope : of steps [s/sequence]
    """
    spread = max(state.variance, 0.0) ** 0.5
    if slope > 0:
        tpot = float(requests.class_weight @ np.sqrt(np.maximum(variance, 0.0)))
        spread = min(spread, tpot / slope)
    at = state.mean + 1.0 + 2 * spread * np.array([-1.0, 0.0, 1.0])
    low, middle, high = np.interp(at, np.arange(1, times.size + 1), times)
    return float(abs(low + high - 2 * middle) / (2 * middle))
