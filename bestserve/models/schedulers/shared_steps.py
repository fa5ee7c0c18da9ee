"""Steps that hold decodes and prompts together: what chunked and mixed batching have in common.

TTFT from the bulk chain whose steps carry n̄ decodes and whose vacations are decode-only steps.
Decodes take part in every step, so TPOT is a mean of consecutive steps:

* its mean is E_π[t(N + 1)] over the occupancy with t(n) = t_d(n)/(1 − σ(n)), plus what the chain
  says of the steps after a first token, plus what joins in clumps after long steps;
* its variance joins the noise of the decodes and that of the chain, as met by requests, which see
  long steps more often (`size_bias`);
* its third moment is that of clustered noise, 3V²/(Dτ), plus that of single prompts.

σ is the share of the time that prompts add to decode-only steps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import (
    BulkServer,
    BulkWait,
    Prompts,
    StepLaw,
    bulk_pace,
    bulk_wait,
)
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.slots import with_wait
from bestserve.models.queues.stability import shared_limit
from bestserve.models.queues.tpot.noise import (
    Response,
    at_classes,
    overlap_steps,
    size_bias,
    variance_of_sum,
)
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.prefill_priority import slot_reason

CORRELATED = 0.12
"""Share of a decode in what the chain says of the steps after a first token, from which decodes
and prompts move together: mean TPOT is then 4 % low or more (at 0.17, 6 %; at 0.24, 15 %)."""

TWO_MODES = 0.01
"""Share of a second mode of the running sequences from which it matters."""


@dataclass(frozen=True, slots=True)
class SharedLane:
    """What does not depend on the rate.

    split : whether prompts are cut to fit the budget; capacity : saturated rate [1/s];
    saturated_decodes : decodes beside prompts then, on average; knots : logs of numbers of decodes
    [g] at which `table` has the moments of what a prompt adds to decode-only steps and the prompt
    tokens of a full step [4, g; s, s², s³, tokens]; service : time of each prompt by itself
    [m, s]; work : prompts in tokens of mean cost
    """

    engine: Engine
    split: bool
    capacity: float
    saturated_decodes: float
    knots: tuple[float, ...]
    table: Floats
    service: Floats
    work: Prompts

    def cost(self, n: float) -> tuple[float, float, float]:
        """Return the three moments of a prompt's cost beside n decodes [s, s², s³]."""
        s1, s2, s3, _ = self._beside(n)
        return s1, s2, s3

    def _beside(self, n: float) -> list[float]:
        """Return the column of `table` for n decodes."""
        x, knots = math.log(n), self.knots
        i = min(max(bisect_right(knots, x), 1), len(knots) - 1)
        if i == 0:
            return list(map(float, self.table[:, 0]))
        part = min(max((x - knots[i - 1]) / (knots[i] - knots[i - 1]), 0.0), 1.0)
        column = (1.0 - part) * self.table[:, i - 1] + part * self.table[:, i]
        return list(map(float, column))

    def stall_atoms(self, n: float) -> Floats:
        """Return what a mean decode meets of each prompt beside n decodes [m, s].

        Of a prompt of C chunks a decode of D steps meets C D/(C + D − 1) on average, at any offset.
        """
        engine, room = self.engine, max(self.engine.budget - n, 1.0)
        chunks = np.maximum(np.ceil(engine.requests.prompt / room), 1.0) if self.split else 1.0
        added = engine.prompt_times(n, self.split, room) - chunks * engine.decode(n)
        steps = max(engine.requests.d1, 1.0)
        return np.asarray(np.maximum(added, 1e-9) * steps / (chunks + steps - 1.0))

    def room(self, n: float) -> tuple[float, float]:
        """Return the prompt tokens that fit beside n decodes and those that fill a full step."""
        room = max(self.engine.budget - n, 1.0)
        return room, room if self.split else self._beside(n)[3]

    def stretched(self, rate: float, sigma: float | None = None, decodes: float = 1.0) -> Floats:
        """Return mean step times with n decodes, prompts included, for n = 1 … slots [s].

        What prompts add follows `mean_steps`, scaled to the chain's share `sigma` at `decodes` if
        that is known.
        """
        plain = self.engine.decode_times
        counts = np.exp(np.append(self.knots, math.log(decodes)))
        added = self.engine.mean_steps(rate, counts, self.rooms(counts), self.split)
        added = added / self.engine.decodes(counts) - 1.0
        scale = 1.0 if sigma is None else sigma / (1.0 - sigma) / max(added[-1], 1e-300)
        n = np.arange(1, plain.size + 1)
        times = plain * (1.0 + scale * np.interp(np.log(n), self.knots, added[:-1]))
        # the full lane's step is known from capacity
        full = plain.size / (self.capacity * max(self.engine.requests.d1, 1e-12))
        if times[-1] > full:
            part = np.clip((n - decodes) / max(plain.size - decodes, 1.0), 0.0, 1.0)
            part[-1] = 1.0
            times = times * (1.0 - part * (1.0 - full / times[-1]))
        return np.asarray(times)

    def longest(self, n: float) -> float:
        """Return the time of the longest steps beside n decodes [s]: no TPOT is above it.

        Full ones or, where prompts are whole, those of one prompt beyond the budget.
        """
        budget, fill = self.room(n)
        full = float(self.engine.prompt_step(np.array([fill]), n, self.split)[0])
        if self.split or self.engine.requests.prompt.max() <= budget:
            return full
        return max(full, float(self.engine.prompt_times(n, False, budget).max()))

    def rooms(self, counts: Floats) -> Floats:
        """Return the prompt tokens of a full step beside numbers of decodes [g, tokens]."""
        room = np.maximum(self.engine.budget - counts, 1.0)
        return room if self.split else np.array([self.room(float(n))[1] for n in counts])


@lru_cache(maxsize=512)
def shared_lane(engine: Engine, split: bool) -> SharedLane:
    """Return the rate-independent tables of an engine."""
    r, budget = engine.requests, engine.budget
    slots = max(min(float(engine.slots), budget - 1.0), 1.0)
    knots = np.unique(np.geomspace(1.0, slots, 10))
    cost, packed = [], []
    for n in knots:
        room = max(budget - n, 1.0)
        packed.append(room if split else packed_tokens(r.prompt, r.weight, room))
        chunks = np.maximum(np.ceil(r.prompt / room), 1.0) if split else 1.0
        added = engine.prompt_times(n, split, room) - chunks * engine.decode(n)
        added = np.maximum(added, 1e-9)
        cost.append([float(r.weight @ added**p) for p in (1, 2, 3)])

    def packed_in(room: float) -> float:
        return float(room if split else np.interp(budget - room, knots, packed))

    def step(tokens: float, decodes: float) -> float:
        if tokens <= 0:
            return engine.decode(decodes)
        return float(engine.prompt_step(np.array([tokens]), decodes, split)[0])

    table, logs = np.column_stack((cost, packed)).T, np.log(knots)
    limit, saturated_decodes = shared_limit(budget, slots, r.p1, r.d1, packed_in, step)
    evictions = engine.evictions(saturated_decodes)
    if evictions > 0.0:
        limit, saturated_decodes = shared_limit(
            budget, slots, r.p1 * (1 + evictions), r.d1, packed_in, step
        )
    return SharedLane(
        engine=engine,
        split=split,
        capacity=limit,
        saturated_decodes=max(saturated_decodes, 1.0),
        knots=tuple(logs),
        table=table,
        service=engine.prompt_times(0.0, split, budget),
        work=Prompts.of(engine.work_tokens(packed[0]), r.weight),
    )


def capacity(engine: Engine, split: bool) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return shared_lane(engine, split).capacity if engine.slots >= 1 else 0.0


def evaluate(engine: Engine, rate: float, split: bool) -> LaneLatency | None:
    """Return TTFT and TPOT, or `None` when the lane is not stable.

    rate : λ > 0 [1/s]; split : whether prompts are cut to fit the budget (chunked) or not (mixed)
    """
    lane, r = shared_lane(engine, split), engine.requests
    if rate >= lane.capacity:
        return None
    times = lane.stretched(rate)
    state = occupancy(rate, r.d1, times)
    n = state.mean
    sigma = min(rate * lane.cost(max(n, 1.0))[0], 0.9)
    idle = _idle_share(lane, rate, n, sigma)
    decodes = min(max(n / (1.0 - min(idle, 0.9)), 1.0), lane.saturated_decodes)
    served = server_beside(lane, rate, decodes, idle)
    pace = bulk_pace(served, rate, lane.work)
    if pace is None:
        return None
    sigma = _share(served, pace.tau)
    times = lane.stretched(rate, sigma, decodes)
    state = occupancy(rate, r.d1, times)
    idle = _idle_share(lane, rate, max(state.mean, rate * r.d1 * state.tpot), sigma)
    # decodes per step, by Little's law: one step of Newton's method
    growth = min(rate * r.d1 * slope_of(times, decodes, 1.0), 0.9)
    decodes += (rate * r.d1 * pace.spacing - decodes) / (1.0 - growth)
    decodes = min(max(decodes, 1.0), lane.saturated_decodes)
    served = server_beside(lane, rate, decodes, idle)
    wait = bulk_wait(served, rate, lane.work, with_steps=True)
    if wait is None:
        return None
    sigma = _share(served, wait.tau)
    times = lane.stretched(rate, sigma, decodes)
    state = occupancy(rate, r.d1, times)
    if state.load >= 1.0:
        return None
    return _assemble(lane, rate, state, served, wait, sigma, decodes, times)


def server_beside(lane: SharedLane, rate: float, decodes: float, idle: float) -> BulkServer:
    """Return the chain's server beside `decodes` decodes, more of them in full steps.

    While prompts queue, (M − n)/E[l] requests join a step and n/E[D] leave, so n moves towards
    its saturated value n* as 1 − e^{−j/E[D]} over the j steps of the backlog; a backlog of 1/θ
    tokens, the mean excess over M, lasts 1/(θ M (1 − ρ)) steps.
    """
    engine, r = lane.engine, lane.engine.requests
    room = lane.room(decodes)[1]
    time = float(engine.prompt_step(np.array([room]), decodes, lane.split)[0])
    load = min(rate * r.p1 / room * time, 0.999)
    steps = load * r.p2 / (r.p1 * room * (1 - load) ** 2)
    decodes_when_full = decodes + max(lane.saturated_decodes - decodes, 0.0) * -np.expm1(
        -steps / max(r.d1, 1.0)
    )
    budget, packed = lane.room(decodes_when_full)

    def step(x: Floats) -> Floats:
        beside = np.where(x >= packed * (1 - 1e-9), decodes_when_full, decodes)
        return engine.prompt_step(x, beside, lane.split)

    return BulkServer(
        budget=budget,
        packed=packed,
        step=step,
        vacation=engine.decode(decodes),
        service=lane.service,
        idle=idle,
        shared=True,
        cut=lane.split or r.fixed_prompt,
        idle_budget=engine.budget if lane.split else math.inf,
    )


def _share(server: BulkServer, tau: float) -> float:
    """Return σ, the share of the time that prompts add to decode-only steps."""
    return min(max(1.0 - server.vacation / tau, 1e-6), 0.98)


def _idle_share(lane: SharedLane, rate: float, n: float, sigma: float) -> float:
    """Return the share of prompt-free time in which nothing decodes either."""
    return none_running(n, index_of_dispersion(lane, rate, n, sigma))


def index_of_dispersion(lane: SharedLane, rate: float, n: float, sigma: float) -> float:
    """Return the variance over the mean of the number decoding, n on average [1].

    Stalls behind prompts let requests join in clumps: 1 + 2σ/(1−σ) + λ²S2/(1−σ)².
    """
    s1, s2, _ = lane.cost(max(n, 1.0))
    s2 *= (sigma / (rate * s1)) ** 2
    return 1 + 2 * sigma / (1 - sigma) + rate**2 * s2 / (1 - sigma) ** 2


def none_running(n: float, z: float) -> float:
    """Return P(0) of a number with mean n and variance z·n, taken as (negative) binomial."""
    return float(z ** (-n / (z - 1))) if abs(z - 1) > 1e-6 else float(np.exp(-n))


def slope_of(times: Floats, n: float, spread: float) -> float:
    """Return d times/dn as a secant over n ± spread [s/sequence]."""
    low, high = max(n - spread, 1.0), min(n + max(spread, 1.0), float(times.size))
    if high <= low:
        return 0.0
    ends = np.interp([low, high], np.arange(1, times.size + 1), times)
    return float((ends[1] - ends[0]) / (high - low))


def _assemble(
    lane: SharedLane,
    rate: float,
    state: Occupancy,
    served: BulkServer,
    wait: BulkWait,
    sigma: float,
    decodes: float,
    times: Floats,
) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the steps after a first token."""
    assert wait.steps is not None
    engine, r = lane.engine, lane.engine.requests
    d, tau, k, steps = r.classes, wait.tau, lane.engine.lane.step.k, wait.steps
    cost = lane.cost(decodes)
    scale = sigma / (rate * cost[0])
    s1, s2, s3 = cost[0] * scale, cost[1] * scale**2, cost[2] * scale**3
    batch_mates = max(wait.batch_tokens / r.p1 - 1.0, 0.0)
    spread = max(state.variance, 0.0) ** 0.5
    own = (1 - sigma) * slope_of(times, state.mean, spread)
    alpha = max(own - k * r.context, 0.0)
    feedback = max(1.0 - rate * r.d1 * own / (1 - sigma), 0.05)

    # prompts enter the noise with the long-run variance that the chain gives their steps
    fast = steps.long_run * (1 - sigma) ** 2 / (rate * tau)
    noise = variance_of_sum(r, Response(alpha, k, s1, fast), rate, tau)
    total, slope = at_classes(r, noise)
    # who joins close to a request, beyond the even stream that the occupancy has: arrivals of steps
    # that are long together, and those of a prompt's own steps unless the budget holds them back
    joining = rate * steps.long_run / tau + 2 * (1 - wait.load) * sigma / (1 - sigma)
    join = joining * own * overlap_steps(r, 1.0 - feedback) / d + k * (r.class_prompt - r.kv1)
    mean = state.tpot + join / (1 - sigma) + steps.excess_of(d) / d
    variance = variance_of_steps(steps, total, slope, d, tau)
    if state.wait > 1e-3:
        variance = variance * min(1.0, state.variance * feedback / max(state.mean, 1e-9))
    low, high = engine.decode(1.0), lane.longest(decodes)
    mean = np.clip(mean, low, 0.98 * high + 0.02 * low)
    # no law within these bounds varies more
    variance = np.minimum(variance, np.maximum(mean - low, 0.0) * (high - mean) * d**2)
    third = 3 * variance**2 / (d * tau)
    third = third + d * rate * tau * s3 * (fast / s2) ** 1.5 / (1 - sigma) ** 3
    pause = served.vacation
    base = engine.response(state.mean, spread)
    unstalled_sum, _ = at_classes(r, variance_of_sum(r, base, rate, pause))

    ttft = wait.ttft.shift(engine.front_end())
    wait_mean = 0.0
    if state.wait > 1e-4:
        d_scv = r.d2 / r.d1**2 - 1.0 if r.d1 > 0 else 0.0
        wait_mean = (1.0 + batch_mates + max(d_scv, 0.0)) / 2 / (lane.capacity - rate)
        ttft = with_wait(ttft, state.wait, wait_mean)
    behind = float(r.class_weight @ steps.excess_of(d)) / float(r.class_weight @ d * tau or 1.0)
    waits = (
        *slot_reason(state.wait, wait_mean, wait.ttft.mean),
        *mode_reason(state),
        *correlation_reason(behind),
        *engine.kv_reasons(state.probability, rate / lane.capacity),
        *engine.longest_prompts(wait.cut_off),
    )
    return LaneLatency(
        ttft=ttft,
        mean=mean,
        variance=variance / d**2,
        third=third / d**3,
        unstalled=Unstalled(
            share=steps.unstalled * np.exp(-rate * pause * (d - 1)),
            mean=np.full_like(d, pause),
            variance=unstalled_sum / d**2,
        ),
        low=low,
        high=high,
        running=state.mean,
        busy=1.0 - state.idle * (1 - sigma),
        capacity=lane.capacity,
        wait=state.wait,
        stall_atoms=lane.stall_atoms(decodes),
        reasons=waits,
    )


def mode_reason(state: Occupancy) -> tuple[str, ...]:
    """Return the warning for lanes that may settle at one of two numbers of sequences."""
    if state.second > TWO_MODES:
        return ("running sequences may settle at either of two numbers",)
    return ()


def correlation_reason(behind: float) -> tuple[str, ...]:
    """Return the warning for answers that begin, and end, while prompts queue.

    behind : share of a decode in steps longer than the mean because of when it began [1]
    """
    if behind > CORRELATED:
        return ("answers begin and end while prompts queue: both move together",)
    return ()


def variance_of_steps(
    steps: StepLaw, total: Floats, slope: Floats, d: Floats, tau: float
) -> Floats:
    """Return the variance of the sum of the D steps that a request meets [c, s²].

    total, slope : of the noise with prompts as white jumps, and its growth per step [c, s²]
    """
    chain, chain_slope = steps.variance_of(d), steps.slope_of(d)
    stationary = np.maximum(total + chain - d * steps.long_run, chain)
    slope = slope + chain_slope - steps.long_run
    variance = stationary + steps.start * (1 - steps.decay**d) ** 2
    variance = variance + size_bias(stationary, slope, steps.r0, d, tau)
    # the chain's own size bias is in its start already
    variance = variance - size_bias(chain, chain_slope, steps.r0, d, tau)
    return np.asarray(np.maximum(variance, 0.5 * chain))
