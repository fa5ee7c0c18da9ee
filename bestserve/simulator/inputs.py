"""Random inputs of a simulation, drawn once and used at every rate.

Gaps have mean 1 and are scaled by the rate, so that two rates see the same requests (common
random numbers) and metrics change almost monotonically with the rate. Uniforms are stratified,
u = (permutation + uniform)/n, which takes 40 % off the standard deviation of the metrics
(measured on P90 TTFT and TPOT over 24 seeds).

Streams are PCG64 with seeds (seed, stream), one a purpose: the lengths of seed 7 are the same
whatever the arrivals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bestserve.arrays import Floats, Ints, Ints32
from bestserve.errors import InputError
from bestserve.models.acceptance import chance_of, request_classes
from bestserve.models.prefix_tree import PrefixTree
from bestserve.models.speculation import Speculation
from bestserve.models.system import Arrivals, Lengths

GAPS, INPUTS, OUTPUTS, ROUNDING, ROUTES, BACK_ROUTES, PHASES, PREFIXES, POOLS, DRAFTING = range(10)
STARTING = 10

ACCEPTANCES = 64
"""Equally likely classes of requests that differ in how many of their drafts are accepted."""


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Return the generator of one purpose; the same numbers on every machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose])))


def stratified(rng: np.random.Generator, n: int) -> Floats:
    """Return n uniforms, one in each of n equal strata, in random order."""
    u: Floats = (rng.permutation(n) + rng.random(n)) / n
    return u


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Given requests, in order of arrival: replaces sampling.

    input_len, output_len, cached : int[n] [tokens]; `cached` prompt tokens skip prefill compute
    (default 0); tree : what they share, for systems with a prefix cache, instead of `cached`
    tokens_per_step : float64[n], what each gains in a step of speculative decoding on average, as
        recorded [tokens]; default: drawn
    kinds : place in `kind_names` of each [n]; None: all of one kind
    """

    input_len: NDArray[np.integer]
    output_len: NDArray[np.integer]
    cached: NDArray[np.integer] | None = None
    tree: PrefixTree | None = None
    tokens_per_step: Floats | None = None
    kinds: Ints | None = None
    kind_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        arrays = [self.input_len, self.output_len]
        if self.cached is not None:
            arrays.append(self.cached)
        if len({np.shape(a) for a in arrays}) != 1 or np.ndim(self.input_len) != 1:
            raise InputError("requests: input_len, output_len and cached need one length")
        if len(self.input_len) == 0:
            raise InputError("requests: none given")
        for name, low, values in (
            ("input_len", 1, self.input_len),
            ("output_len", 1, self.output_len),
            ("cached", 0, self.cached),
        ):
            if values is None:
                continue
            whole = np.asarray(values)
            if not np.all(np.isfinite(whole)) or whole.min() < low or whole.max() >= 1 << 31:
                raise InputError(f"requests: {name} must be in {low} … 2³¹ − 1 tokens")
        each = self.tokens_per_step
        if each is not None and not (len(each) == len(self.input_len) and np.min(each) >= 1):
            raise InputError("requests: tokens_per_step must be ≥ 1, one number a request")
        tree = self.tree
        if tree is None:
            return
        if len(tree.tip) != len(self.input_len) or self.cached is not None:
            raise InputError("requests: a tree is of all requests and stands for `cached`")
        sharing = tree.tip >= 0
        if np.any(tree.end[tree.tip[sharing]] > np.asarray(self.input_len)[sharing]):
            raise InputError("requests: a prompt is shorter than what it shares")

    def __len__(self) -> int:
        return len(self.input_len)


def _pick(values: Floats, weights: Floats, u: Floats) -> NDArray[np.intp]:
    if len(values) == 1:
        return np.zeros(len(u), dtype=np.intp)
    edges = np.cumsum(weights)
    found: NDArray[np.intp] = np.searchsorted(edges / edges[-1], u, side="right")
    return np.minimum(found, len(values) - 1)


def _whole(values: Floats, rng: np.random.Generator) -> Ints32:
    """Round up or down at random so that the mean stays; at least 1 token."""
    floor: Floats = np.floor(values)
    part = values - floor
    if part.any():
        floor = floor + (rng.random(len(values)) < part)
    return np.maximum(floor, 1.0).astype(np.int32)


@lru_cache(maxsize=8)
def sample_lengths(lengths: Lengths, n: int, seed: int) -> Requests:
    """Draw n requests from weighted atoms; atoms between integers are rounded at random.

    The last ones drawn are kept, for systems under one workload: their arrays cannot be written.
    """
    rows = _pick(lengths.inputs, lengths.input_weights, stratified(stream(seed, INPUTS), n))
    columns = (
        rows
        if lengths.joint
        else _pick(lengths.outputs, lengths.output_weights, stratified(stream(seed, OUTPUTS), n))
    )
    rng = stream(seed, ROUNDING)
    prompt = _whole(lengths.inputs[rows], rng)
    output = _whole(lengths.outputs[columns], rng)
    cached = None
    if lengths.cached.size:
        cached = np.clip(np.rint(lengths.cached[rows]), 0, prompt - 1).astype(np.int32)
        cached.flags.writeable = False
    prompt.flags.writeable = output.flags.writeable = False
    return Requests(
        input_len=prompt,
        output_len=output,
        cached=cached,
        kinds=lengths.kinds[rows] if lengths.kinds.size else None,
        kind_names=lengths.kind_names,
    )


def draw_acceptance(
    drafting: Speculation, n: int, seed: int, tokens_per_step: Floats | None
) -> tuple[Ints32, Floats]:
    """Return what draws start from and the class of n requests [n, 2], and `Pool.accept`.

    tokens_per_step : of each request, as recorded, at most drafts; then each is its own class
    """
    rng = stream(seed, DRAFTING)
    starts = rng.integers(1 << 31, size=n)
    if tokens_per_step is not None:
        chance = chance_of(tokens_per_step, drafting.most)
        accept = np.repeat(chance[:, None], drafting.most, axis=1)
        classes = np.arange(n)
    else:
        accept, shares = request_classes(*drafting.law(1.0)[:3], ACCEPTANCES)
        classes = (stratified(rng, n) * len(shares)).astype(np.int64)
    facts = np.stack((starts, classes), axis=1).astype(np.int32)
    return facts, np.ascontiguousarray(np.cumprod(accept, axis=1))


def unit_gaps(burstiness: float, n: int, seed: int) -> Floats:
    """Return n gamma gaps with mean 1 and squared CV 1/burstiness."""
    u = stratified(stream(seed, GAPS), n)
    if burstiness == 1.0:
        return np.asarray(-np.log1p(-u), dtype=np.float64)
    from scipy.special import gammaincinv

    return np.asarray(gammaincinv(burstiness, u) / burstiness, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ArrivalStream:
    """Arrivals of one seed, drawn once; `at(rate)` gives their times at a rate.

    unit : for gamma gaps and modulated Poisson, arrival times at rate 1
    """

    arrivals: Arrivals
    n: int
    seed: int
    unit: Floats

    def at(self, rate: float) -> Floats:
        """Return n arrival times, ascending [s], at `rate` [req/s] (NaN: a trace's own)."""
        kind = self.arrivals.kind
        if kind == "closed":
            return np.zeros(self.n)
        if kind == "trace":
            return _replay(self.arrivals.times, rate, self.n)
        if not (np.isfinite(rate) and rate > 0):
            raise InputError(f"request rate = {rate} must be finite and > 0 req/s")
        if kind == "gamma":
            return self.unit / rate
        return _modulated(self.arrivals.rates, self.arrivals.stays, rate, self.unit, self.seed)


def arrival_stream(arrivals: Arrivals, n: int, seed: int) -> ArrivalStream:
    """Draw what the arrivals need, once for all rates."""
    if arrivals.kind not in ("gamma", "mmpp"):
        return ArrivalStream(arrivals, n, seed, np.zeros(0))
    if arrivals.kind == "gamma" and not (
        np.isfinite(arrivals.burstiness) and arrivals.burstiness > 0
    ):
        raise InputError(f"burstiness = {arrivals.burstiness} must be finite and > 0")
    burstiness = arrivals.burstiness if arrivals.kind == "gamma" else 1.0
    return ArrivalStream(arrivals, n, seed, np.cumsum(unit_gaps(burstiness, n, seed)))


def _replay(times: Floats, rate: float, n: int) -> Floats:
    """Repeat the trace as often as needed; `rate` NaN keeps its own speed."""
    t = np.sort(np.asarray(times, dtype=np.float64))
    if len(t) == 0 or not np.all(np.isfinite(t)):
        raise InputError("trace arrivals need finite times, at least one")
    t = t - t[0]
    own_speed = bool(np.isnan(rate))
    if own_speed and n <= len(t):
        return t[:n]
    if t[-1] <= 0:
        raise InputError("trace arrivals at one instant can neither be repeated nor rescaled")
    # One mean gap closes the circle, so that repeating keeps the rate.
    period = t[-1] * len(t) / (len(t) - 1)
    laps = -(-n // len(t))
    all_times: Floats = (np.arange(laps)[:, None] * period + t[None, :]).ravel()[:n]
    if own_speed:
        return all_times
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"request rate = {rate} must be > 0 req/s")
    return all_times * (len(t) / period / rate)


def _modulated(rates: Floats, stays: Floats, rate: float, unit: Floats, seed: int) -> Floats:
    """Markov-modulated Poisson arrivals: unit-rate arrivals, mapped through the integrated rate.

    Phases follow in cyclic order and last exponential times; the path is the same at every rate.
    """
    if len(rates) == 0 or len(rates) != len(stays):
        raise InputError("mmpp arrivals need as many rates as stays, at least one")
    mean = float(np.dot(rates, stays) / np.sum(stays))
    if not mean > 0 or np.any(rates < 0) or np.any(stays <= 0):
        raise InputError("mmpp arrivals need rates ≥ 0, not all 0, and stays > 0 s")
    scale = rate / mean
    rng = stream(seed, PHASES)
    clock, work = np.zeros(1), np.zeros(1)
    while work[-1] < unit[-1]:
        spans = (rng.standard_exponential((64, len(stays))) * stays).ravel()
        amounts = spans * np.tile(rates, 64) * scale
        clock = np.concatenate([clock, clock[-1] + np.cumsum(spans)])
        work = np.concatenate([work, work[-1] + np.cumsum(amounts)])
    times: Floats = np.interp(unit, work, clock)
    return times
