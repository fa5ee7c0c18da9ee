"""A system for which no formula is: the same requests run at any rate.

`Simulated` is to the simulator what `models.latency.evaluator` is to the formulas, a function
rate → latencies, smooth enough to search along: every rate sees the same requests, gaps and routing
draws. `goodput` searches on a few of them, from a guess that others get for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bestserve.answers.referee import PREDICTED, as_latencies, coverage, saturation, shrunk
from bestserve.errors import InputError
from bestserve.models.attainment import OBJECTIVES
from bestserve.models.binding import Binding
from bestserve.models.goodput import NEARLY_SATURATED, Goodput
from bestserve.models.latencies import Latencies, unstable
from bestserve.models.latency import stability_rate
from bestserve.models.refused import REFUSABLE
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Disaggregated, System, Target
from bestserve.models.trust import Trust
from bestserve.simulator import Limit, Requests, SimulationResult
from bestserve.simulator.prepared import Prepared, prepare
from bestserve.simulator.replicate import estimate, replication_seeds
from bestserve.simulator.run import OPEN_COOLDOWN, OPEN_WARMUP, run_prepared
from bestserve.simulator.run_length import REPLICATIONS, run_length

TELLING = 5e-3
"""Part of a run's duration that a threshold may be for a run to show a growing queue; with longer
thresholds, or none, the saturated rate is looked up."""

GROWTH = 0.01
"""Share of the arriving requests that pile up, from which a queue is taken to grow [1]."""

EVICTING = 1e-3
"""Evictions per request from which a cache counts as full."""

LEAST = 1e-3
"""Share of saturation that stands for no load: objectives missed there are infeasible."""

CLOSE = 0.015
"""Width of a bracket at which the crossing is interpolated: runs are less exact [ln]."""

OUTWARD = (math.log(1.03), 0.12, 0.35, 1.0, 2.0, 4.0, 8.0)
"""Steps from a guess until the crossing is passed [ln]."""

CYCLES, LONGEST = 100, 1_000_000
"""Rounds of phases in a run at least, as far as so many requests go: backlogs differ by round."""

LOOKS = 20
"""Runs inside a bracket at most."""

LOWER = (0.85, 0.6, 0.35)
"""Shares of a goodput at which objectives are looked at again: they may hold beyond a gap."""

GAP = 0.01
"""By how much an objective must be missed there, which runs may do by chance [ln]."""


@dataclass(frozen=True)
class Look:
    """What one run says: log of threshold over percentile (joint: attainment less target)."""

    rate: float
    room: float
    binding: Binding
    result: SimulationResult | None


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Runs of one system that share their random numbers, of whatever rate.

    share : of the requests that meet the strictest objective, as in `run_length`
    times : as many requests as those; running : requests that a replica serves at a time, as far as
    known, likewise
    given : the requests to run instead of sampling the workload
    drawn : that many requests of the workload, drawn before: drawing takes a third of a run
    """

    system: System
    share: float = PREDICTED
    times: int = 1
    running: float = 0.0
    seed: int = 0
    given: Requests | None = None
    drawn: Requests | None = None

    @cached_property
    def smaller(self) -> tuple[System, float]:
        """A smaller system whose requests fare alike, and how many times smaller it is."""
        return (self.system, 1.0) if self.given is not None else shrunk(self.system)

    @cached_property
    def size(self) -> int:
        """Requests of a run; where rates change in phases, enough for `CYCLES` rounds of them."""
        if self.given is not None:
            return len(self.given)
        usual = self.times * run_length(self.smaller[0], self.share, self.running)
        arrivals = self.system.arrivals
        if arrivals.kind != "mmpp":
            return usual
        cycle = self.limit / self.smaller[1] * float(arrivals.stays.sum())
        return round(min(max(usual, CYCLES * cycle), LONGEST))

    @cached_property
    def prepared(self) -> Prepared:
        """What all runs share."""
        return prepare(self.smaller[0], self.size, self.seed, self.given or self.drawn)

    @property
    def refuses(self) -> bool:
        """Whether more requests are refused than a system may that serves the workload."""
        return bool(self.prepared.refused.mean() > REFUSABLE)

    @cached_property
    def limit(self) -> float:
        """The saturated rate that a run shows [req/s]."""
        return saturation(self.system, self.given)

    def run(self, rate: float) -> SimulationResult:
        """Run at a rate of the whole system [req/s]; a closed loop sets its own."""
        closed = self.system.arrivals.kind == "closed"
        trim = (0.0, 0.0) if closed else (OPEN_WARMUP, OPEN_COOLDOWN)
        asked = math.nan if closed else rate / self.smaller[1]
        return run_prepared(self.prepared, asked, trim)

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
        if isinstance(self.system, Disaggregated) and target.tpot is None and target.e2el is None:
            return False
        limits = [t for t in (target.ttft, target.e2el) if t is not None]
        duration = self.size * self.smaller[1] / rate
        return bool(limits) and min(limits) < TELLING * duration

    def highest(self, target: Target, near: float | None = None) -> tuple[Look, Look] | None:
        """Return the runs just below and above the rate up to which a target holds; None: never.

        near : a guess [req/s]. Above may be beyond saturation.
        """
        if self.refuses or not self.limit > 0:
            return None
        top = NEARLY_SATURATED * self.limit
        start = min(near or 0.6 * self.limit, top)
        found = bracket(lambda rate: self.look(rate, target), start, top)
        return None if found is None else closed_in(lambda r: self.look(r, target), *found)


def goodput(
    system: System,
    target: Target,
    *,
    near: float | None = None,
    given: Requests | None = None,
    replications: int = REPLICATIONS,
) -> Goodput:
    """Return the highest rate up to which a target holds, from runs on common random numbers.

    near : a guess [req/s], which saves runs. The interval is over replications. Where objectives
    are met again beyond rates that miss them, the lower rate counts, and the reasons say so.

    Raises InputError for closed loops, which set their own rate.
    """
    if system.arrivals.kind == "closed":
        raise InputError("a closed loop sets its own rate: goodput needs open arrivals")
    runs = [
        Simulated(system=system, share=target.strictest, seed=s, given=given)
        for s in replication_seeds(0, replications)
    ]
    first = runs[0]
    found = first.highest(target, near)
    if found is None:
        return _none(first, target)
    found, gap = lowest(first, target, found)
    rates = [crossing(*found)]
    for other in runs[1:]:
        also = other.highest(target, rates[0])
        rates.append(0.0 if also is None else crossing(*also))
    measured = estimate(rates)
    rate = measured.value
    return Goodput(
        rate=rate,
        low=max(measured.low, 0.0) if len(rates) > 1 else rate,
        high=measured.high if len(rates) > 1 else rate,
        binding=found[1].binding,
        at=first(rate),
        trust=coverage(system, given, target.strictest) & Trust.of(gap),
        status=LatencyStatus.OK,
    )


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

    Refused requests meet nothing; an answer of one token meets any TPOT. Joint targets: attainment
    less what is asked for.
    """
    if target.joint:
        return result.attainment(target) - target.attainment, Binding.JOINT
    counted = slice(*result.window)
    best: tuple[float, Binding] = (math.inf, Binding.STABILITY)
    for name in OBJECTIVES:
        threshold = getattr(target, name)
        if threshold is None:
            continue
        values = np.nan_to_num(getattr(result, name)[counted], nan=0.0)
        values[result.refused[counted]] = math.inf
        last = math.ceil(getattr(target, f"{name}_percentile") * values.size) - 1
        value = float(np.partition(values, last)[last])
        room = math.log(threshold / value) if value > 0 else math.inf
        if room < best[0]:
            best = room, Binding.of(name)
    return best


def bracket(look: Callable[[float], Look], start: float, top: float) -> tuple[Look, Look] | None:
    """Return looks below and above the crossing, in growing steps from a guess; None: none below.

    A target that holds at `top` is bounded by saturation.
    """
    last = look(start)
    met = last.room >= 0
    for step in OUTWARD:
        if met and last.rate >= top:
            return last, Look(last.rate, -math.inf, Binding.STABILITY, None)
        rate = min(start * math.exp(step), top) if met else start * math.exp(-step)
        found = look(rate)
        if (found.room >= 0) != met:
            return (last, found) if met else (found, last)
        last = found
    return None


def crossing(below: Look, above: Look) -> float:
    """Return where the room is zero between two looks, linear in ln(rate) [req/s]."""
    if not math.isfinite(above.room - below.room):
        return below.rate
    part = below.room / max(below.room - above.room, 1e-12)
    return below.rate * (above.rate / below.rate) ** part


def closed_in(
    look: Callable[[float], Look], below: Look, above: Look, close: float = CLOSE
) -> tuple[Look, Look]:
    """Return the bracket made `close`: secants, kept inside it, halves where one end stays."""
    stayed = 0
    for _ in range(LOOKS):
        width = math.log(above.rate / below.rate)
        if width <= close:
            break
        finite = math.isfinite(above.room - below.room)
        part = below.room / max(below.room - above.room, 1e-12) if finite and stayed < 2 else 0.5
        margin = 0.4 * close / width
        found = look(below.rate * math.exp(width * min(max(part, margin), 1 - margin)))
        if found.room >= 0:
            below, stayed = found, max(stayed, 0) + 1
        else:
            above, stayed = found, min(stayed, 0) - 1
        stayed = stayed if abs(stayed) < 3 else 0
    return below, above


def lowest(
    runs: Simulated, target: Target, found: tuple[Look, Look]
) -> tuple[tuple[Look, Look], str | None]:
    """Return the bracket of the lowest crossing seen, and what to say where it is not the only one.

    Fewer requests may fare worse: prompts that wait for each other share steps.
    """
    highest = found[0].rate
    seen = [runs.look(share * highest, target) for share in LOWER]
    missed = [look for look in seen if look.room < -GAP]
    if not missed:
        return found, None
    above = min(missed, key=lambda look: look.rate)
    lower = [look for look in seen if look.rate < above.rate and look.room >= 0]
    below = lower[0] if lower else runs.look(LEAST * highest, target)
    if below.room < 0:
        return found, f"the objectives are missed at {above.rate:.4g} requests/s and less"
    low = closed_in(lambda rate: runs.look(rate, target), below, above)
    return low, f"the objectives hold again at {highest:.4g} requests/s"


def _none(runs: Simulated, target: Target) -> Goodput:
    """Return the verdict that the target is missed at any load, or that requests do not fit."""
    light = runs(LEAST * runs.limit if runs.limit > 0 else 1.0)
    status = LatencyStatus.INFEASIBLE if runs.limit > 0 else LatencyStatus.NO_SLOT
    if runs.refuses and runs.limit > 0:
        status = LatencyStatus.SOME_REFUSED
    return Goodput(
        rate=0.0,
        low=0.0,
        high=0.0,
        binding=Binding.INFEASIBLE,
        at=light,
        trust=Trust(True),
        status=status,
        detail=(Limit.INFEASIBLE if status is LatencyStatus.INFEASIBLE else Limit.REFUSED).value,
    )
