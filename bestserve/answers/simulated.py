"""Runs of one system that see the same requests at any rate.

`Simulated` is to the simulator what `models.latency.evaluator` is to the formulas, a function
rate → latencies, smooth enough to search along: every rate sees the same requests, gaps and routing
draws. `crossing` searches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestserve.answers.referee import PREDICTED, as_latencies, saturation
from bestserve.answers.shrunk import shrunk
from bestserve.models.binding import Binding
from bestserve.models.latencies import Latencies, unstable
from bestserve.models.latency import stability_rate
from bestserve.models.refused import REFUSABLE, refused
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Collocated, System, Target
from bestserve.models.token_times import Reader, Readers
from bestserve.simulator import Requests, SimulationResult
from bestserve.simulator.prepared import Prepared, prepare
from bestserve.simulator.run import run_prepared, usual_trim
from bestserve.simulator.run_length import run_length

TELLING = 5e-3
"""Part of a run's duration that a threshold may be for a run to show a growing queue; with longer
thresholds, or none, the saturated rate is looked up."""

GROWTH = 0.01
"""Share of the arriving requests that pile up, from which a queue is taken to grow [1]."""

EVICTING = 1e-3
"""Evictions per request from which a cache counts as full."""

CYCLES, LONGEST = 100, 1_000_000
"""Rounds of phases in a run at least, as far as so many requests go: backlogs differ by round."""


@dataclass(frozen=True)
class Look:
    """What one run says: log of threshold over percentile (joint: attainment less target).

    result : the run; None where the rate is beyond saturation, which needs none
    """

    rate: float
    room: float
    binding: Binding
    result: SimulationResult | None

    @property
    def evicts(self) -> bool:
        """Whether a full cache costs the run more than a few evictions."""
        return self.result is not None and evicts(self.result)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Runs of one system that share their random numbers, of whatever rate.

    share : of the requests that meet the strictest objective, as in `run_length`
    times : as many requests as those; running : requests that a replica serves at a time, as far as
    known, likewise
    given : the requests to run instead of sampling the workload
    drawn : that many requests of the workload, drawn before: drawing takes a third of a run
    reader : whose deadlines are watched
    saturated : the saturated rate as far as known [req/s], where a run of its own is not worth it
    """

    system: System
    share: float = PREDICTED
    times: float = 1
    running: float = 0.0
    seed: int = 0
    given: Requests | None = None
    drawn: Requests | None = None
    reader: Reader | Readers | None = None
    saturated: float = math.nan

    @cached_property
    def smaller(self) -> tuple[System, float]:
        """A smaller system whose requests fare alike, and how many times smaller it is."""
        return (self.system, 1.0) if self.given is not None else shrunk(self.system)

    @cached_property
    def size(self) -> int:
        """Requests of a run; where rates change in phases, enough for `CYCLES` rounds of them."""
        if self.given is not None:
            return len(self.given)
        usual = round(self.times * run_length(self.smaller[0], self.share, self.running))
        arrivals = self.system.arrivals
        if arrivals.kind != "mmpp":
            return usual
        cycle = self.limit / self.smaller[1] * float(arrivals.stays.sum())
        return round(min(max(usual, CYCLES * cycle), LONGEST))

    @cached_property
    def prepared(self) -> Prepared:
        """What all runs share."""
        return prepare(self.smaller[0], self.size, self.seed, self.given or self.drawn)

    @cached_property
    def refused(self) -> float:
        """Share of the requests that no cache can hold: of those given, else by their law."""
        if self.given is None:
            return refused(self.system).share
        return float(self.prepared.refused.mean())

    @property
    def refuses(self) -> bool:
        """Whether more requests are refused than a system may that serves the workload."""
        return self.refused > REFUSABLE

    @cached_property
    def limit(self) -> float:
        """The saturated rate that a run shows [req/s]."""
        if math.isfinite(self.saturated):
            return self.saturated
        return saturation(self.system, self.given)

    def run(self, rate: float) -> SimulationResult:
        """Run at a rate of the whole system [req/s]; a closed loop sets its own."""
        closed = self.system.arrivals.kind == "closed"
        asked = math.nan if closed else rate / self.smaller[1]
        return run_prepared(self.prepared, asked, usual_trim(self.system), reader=self.reader)

    def __call__(self, rate: float) -> Latencies:
        """Return the latencies at a rate of the whole system [req/s].

        Infinite from the formulas' saturated rate on, which knows of neither gaps nor routing.
        """
        if self.system.arrivals.kind == "closed":
            return as_latencies(self.run(rate), rate, math.nan)
        limit = stability_rate(self.system)
        if rate >= limit:
            return unstable(rate, limit, LatencyStatus.UNSTABLE)
        return as_latencies(self.run(rate), rate, limit)

    def look(self, rate: float, target: Target) -> Look:
        """Return how far a target is met at a rate [req/s]; not at all beyond saturation."""
        if not self.telling(rate, target) and rate > self.limit:
            return Look(rate, -math.inf, Binding.STABILITY, None)
        result = self.run(rate)
        if evicts(result) and growth(result) > GROWTH:
            return Look(rate, -math.inf, Binding.STABILITY, result)
        room, binding = _room(result, target)
        return Look(rate, room, binding, result)

    def telling(self, rate: float, target: Target) -> bool:
        """Whether a queue that grows at a rate [req/s] makes a run miss the target by itself.

        Of prefill and decode pools, TTFT shows only the first.
        """
        if not isinstance(self.system, Collocated) and not {*target.asked} - {"ttft"}:
            return False
        limits = [t for t in (target.ttft, target.e2el) if t is not None]
        if target.tokens is not None and target.tokens.slack is not None:
            limits.append((target.tokens.first or 0.0) + target.tokens.slack)
        duration = self.size * self.smaller[1] / rate
        return bool(limits) and min(limits) < TELLING * duration


def growth(result: SimulationResult) -> float:
    """Return which share of the arriving requests piles up in the second half of a run [1]."""
    served = ~result.refused
    arrival, last = result.arrival[served], np.sort(result.last_token[served])
    present = np.arange(arrival.size) - np.searchsorted(last, arrival)
    quarters = [float(part.mean()) for part in np.array_split(present, 4)]
    return (quarters[3] - quarters[1]) / (arrival.size / 2) if arrival.size >= 4 else 0.0


def evicts(result: SimulationResult) -> bool:
    """Whether a full cache costs a run more than a few evictions."""
    return float(result.preemptions.sum()) > EVICTING * len(result)


def _room(result: SimulationResult, target: Target) -> tuple[float, Binding]:
    """Return the least log of threshold over percentile, and which one it is.

    Refused requests meet nothing; an answer of one token meets any TPOT. Joint targets, and
    objectives that no percentile stands for: attainment less what is asked for.
    """
    counted = slice(*result.window)
    best: tuple[float, Binding] = (math.inf, Binding.STABILITY)
    met = result.meeting(target) if any(map(target.counted, target.requirements)) else {}
    for name in target.requirements:
        if target.counted(name):
            best = min(best, (met[name] - target.required(name), Binding.of(name)))
            continue
        threshold = getattr(target, name)
        values = np.nan_to_num(getattr(result, name)[counted], nan=0.0)
        values[result.refused[counted]] = math.inf
        last = math.ceil(getattr(target, f"{name}_percentile") * values.size) - 1
        value = float(np.partition(values, last)[last])
        room = math.log(threshold / value) if value > 0 else math.inf
        if room < best[0]:
            best = room, Binding.of(name)
    return best
