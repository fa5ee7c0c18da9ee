"""Lanes whose arrivals are not Poisson: what that changes of the answer for Poisson arrivals.

The bulk chain with phases is solved twice on a coarse grid, for the lane's stream and for Poisson
arrivals. TTFT is that of the stream, its quantiles corrected by what the coarse grid gets wrong of
Poisson arrivals; TPOT follows the difference of both means and the ratio of both variances.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.non_poisson.join_shortest_queue import Level
from bestserve.models.non_poisson.map_process import Stream, gamma_gaps, poisson
from bestserve.models.non_poisson.map_wait import phase_wait
from bestserve.models.queues.bulk.wait import bulk_load
from bestserve.models.queues.occupancy import occupancy
from bestserve.models.queues.tpot.coloured_noise import coloured_sum, frequencies
from bestserve.models.queues.tpot.noise import Response, at_classes
from bestserve.models.schedulers import prefill_pool, prefill_priority
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.shared_steps import (
    SharedLane,
    clumping,
    none_running,
    server_beside,
    shared_lane,
    slope_of,
    variance_of_steps,
)

Floats = NDArray[np.float64]

LEVELS = np.array([0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995])
"""Probabilities at which quantiles are compared: a smooth ratio leaves atoms where they are."""

ALIKE = 0.05
"""Squared CV of outputs below which lanes kept level hand clumps of requests on: those that start
together end together and are made up for together. It undoes half of the evening out (ad hoc)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """How a router passes on arrivals of squared CV `scv` to one of `lanes`.

    dealt : in turn; level : to the lane with the fewest requests; neither: at random
    """

    scv: float
    lanes: int
    dealt: bool = False
    level: bool = False

    @property
    def at_lane(self) -> float:
        """Squared CV of a lane's gaps: thinning keeps (c² − 1)/k, taking turns c²/k."""
        if self.dealt or self.level:
            return self.scv / self.lanes
        return 1.0 + (self.scv - 1.0) / self.lanes

    @property
    def poisson(self) -> bool:
        """Whether a lane's arrivals are Poisson."""
        return self.at_lane == 1.0 and not self.level

    def stream(self, arrivals: float, running: float = 0.0) -> Stream:
        """Return the arrivals of one lane.

        arrivals : mean number at the lane in the time that matters; running : mean running requests

        Of lanes kept level, n requests each, departures count k − 1 times and all arrivals once:
        dispersion 1 + (c² − 1)/k in the short run. That numbers are whole lowers it when there are
        few (by (1 − 1/k)/2/(1 + n/3), fitted to M/M/∞ lanes with k = 2 … 16, n = 0.3 … 100).
        """
        if self.level:
            spread = 1.0 + (self.scv - 1.0) / self.lanes
            whole = (1.0 - 1.0 / self.lanes) / 2.0 / (1.0 + running / 3.0)
            return gamma_gaps(1.0 / (spread * (1.0 - whole)), arrivals)
        if self.dealt:
            return gamma_gaps(self.lanes / self.scv, arrivals)
        return gamma_gaps(1.0 / self.scv, arrivals * self.lanes).thinned(self.lanes)


def prefill_ttft(engine: Engine, ttft: Distribution, rate: float, gaps: Gaps) -> Distribution:
    """Return TTFT of a prefill lane at `rate` [1/s] that is `ttft` under Poisson arrivals."""
    lane = prefill_pool.tables(engine)
    alone = float(engine.requests.weight @ lane.alone)
    plain = phase_wait(lane.server, rate, lane.work, poisson())
    other = phase_wait(lane.server, rate, lane.work, gaps.stream(rate * alone))
    return _corrected(other.ttft, ttft, plain.ttft)


def priority_latency(
    engine: Engine, met: LaneLatency, rate: float, gaps: Gaps
) -> LaneLatency | None:
    """Return `met`, of a lane where prompts go first, with TTFT for `gaps`.

    `None` where steps hold one prompt, or the chain is not stable.
    """
    lane = prefill_priority.tables(engine)
    state = occupancy(rate, engine.requests.d1, engine.decode_times / (1.0 - met.stall))
    server = prefill_priority.server_of(engine, state)
    if lane.single or state.load >= 1.0 or bulk_load(server, rate, lane.work.mean) >= 1.0:
        return None
    stream = gaps.stream(rate * lane.s1, met.running)
    plain = phase_wait(server, rate, lane.work, poisson())
    other = phase_wait(server, rate, lane.work, stream)
    return replace(met, ttft=_corrected(other.ttft, met.ttft, plain.ttft))


def shared_latency(
    engine: Engine, met: LaneLatency, rate: float, gaps: Gaps, split: bool
) -> LaneLatency:
    """Return `met`, the latencies of a lane at `rate` [1/s] under Poisson arrivals, for `gaps`."""
    lane = shared_lane(engine, split)
    plain = _Side.of(lane, met, rate, poisson())
    if plain is None:
        return met
    stream = gaps.stream(rate * float(engine.requests.weight @ lane.alone), plain.running)
    other = _Side.of(lane, met, rate, stream, gaps, plain)
    if other is None:
        return met
    ratio = other.variance / np.maximum(plain.variance, 1e-300)
    return replace(
        met,
        ttft=_corrected(other.ttft, met.ttft, plain.ttft),
        mean=np.maximum(met.mean + other.mean - plain.mean, met.low),
        variance=met.variance * ratio,
        third=met.third * ratio**2,
        calm=np.minimum(met.calm * other.calm / np.maximum(plain.calm, 1e-300), 1.0),
    )


def _corrected(law: Distribution, fine: Distribution, coarse: Distribution) -> Distribution:
    """Return `law` with its quantiles scaled as those of `fine` are to those of `coarse`."""
    a, b = (np.interp(LEVELS, known.F, known.x) for known in (fine, coarse))
    ratio = np.interp(law.F, LEVELS, a / np.maximum(b, 1e-300))
    return Distribution.from_cdf(np.maximum.accumulate(law.x * ratio), law.F)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """TTFT and the parts of TPOT that depend on the stream, per class.

    mean, variance : of TPOT and of the sum of its steps, up to a common constant and factor
    [c; s, s²]; calm : chance to meet no prompt [c]; running : mean running requests; times, share :
    steps of the chain and their law
    """

    ttft: Distribution
    mean: Floats
    variance: Floats
    calm: Floats
    running: float
    times: Floats
    share: Floats

    @classmethod
    def of(
        cls,
        lane: SharedLane,
        met: LaneLatency,
        rate: float,
        stream: Stream,
        gaps: Gaps | None = None,
        plain: _Side | None = None,
    ) -> _Side | None:
        """Return one side, None if its chain is not stable.

        gaps, plain : where `stream` comes from, and the side of Poisson arrivals
        """
        r, sigma, k = lane.engine.requests, met.stall, lane.engine.lane.step.k
        d, long = r.classes, stream.long_run
        n = max(met.running, rate * r.d1 * float(r.class_weight @ met.mean))
        # lanes kept level share what all of them run, with the variance of 1/k of it
        level, held = None, 1.0
        if gaps is not None and gaps.level and plain is not None:
            level, held = _level(gaps, plain, lane, rate, sigma), gaps.scv / gaps.lanes
        z = clumping(lane, rate, n, sigma)
        overlap = float(r.overlap @ r.class_weight) / max(r.d1, 1e-12)
        z = z * held if level is not None else max(z + long * overlap, 0.2)
        idle = none_running(n, z)
        decodes = max(n / (1.0 - min(idle, 0.9)), 1.0)
        server = server_beside(lane, rate, decodes, idle)
        if bulk_load(server, rate, lane.work.mean) >= 1.0:
            return None
        wait = phase_wait(server, rate, lane.work, stream, level)

        steps, tau = wait.steps, wait.steps.mean
        times = lane.stretched(rate, sigma, decodes)
        own = (1 - sigma) * slope_of(times, met.running, max(met.running, 1.0) ** 0.5)
        alpha = max(own - k * r.context, 0.0)
        feedback = max(1.0 - rate * r.d1 * own / (1 - sigma), 0.05)
        fast = steps.long_run * (1 - sigma) ** 2 / (rate * tau)
        at = frequencies(r, rate, tau)
        excess = stream.excess_dispersion(at)
        if level is not None:
            long, excess = held - 1.0, np.full(at.size, held - 1.0)
        noise = coloured_sum(r, Response(alpha, k, sigma / rate, fast), rate, tau, excess)
        bare = Response(alpha / (1 - sigma), k / (1 - sigma))
        alone = coloured_sum(r, bare, rate, tau, np.zeros(at.size))
        total, slope = at_classes(r, noise)
        _, slope_alone = at_classes(r, alone)
        lag = (slope - noise[1] / r.width) - (slope_alone - alone[1] / r.width)
        mean = tau / feedback + wait.excess_of(d) / d + np.maximum(lag, 0.0) / (2 * tau) / d
        # what came with a request, or before it in the same burst, runs beside it
        mean = mean + long * own * r.overlap / d / feedback / (1 - sigma)
        return cls(
            ttft=wait.ttft,
            mean=mean,
            variance=variance_of_steps(steps, total, slope, d, tau),
            calm=_quiet(stream, wait.calm, rate * server.vacation * (d - 1)),
            running=n,
            times=wait.times,
            share=wait.share,
        )


def _level(gaps: Gaps, plain: _Side, lane: SharedLane, rate: float, sigma: float) -> Level:
    """Return how a router keeps lanes level whose steps are those of `plain`."""
    r = lane.engine.requests
    level = Level.of(gaps.lanes, rate, plain.times, plain.share, sigma)
    if r.d2 < (1.0 + ALIKE) * r.d1**2:
        level = replace(level, part=(1.0 + level.part) / 2)
    return level


def _quiet(stream: Stream, phase: Floats, gaps: Floats) -> Floats:
    """Return the chance of no arrival during `gaps` mean gaps, from masses of phases [c]."""
    from scipy.linalg import expm

    if gaps.size == 0:
        return gaps
    return np.asarray(phase @ expm(gaps[:, None, None] * stream.silent).sum(axis=2).T)
