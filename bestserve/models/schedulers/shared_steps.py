"""Steps that hold decodes and prompts together: what chunked and mixed batching have in common.

TTFT from the bulk chain whose steps carry n̄ decodes and whose vacations are decode-only steps.
Decodes take part in every step, so TPOT is a mean of consecutive steps:

* its mean is E_π[t(N + 1)] over the occupancy with t(n) = t_d(n)/(1 − σ(n)), plus what the chain
  says of the steps after a first token, plus what joins in clumps after long steps;
* its variance joins the noise of the decodes and that of the chain, as met by requests, which see
  long steps more often (`size_bias`);
* its third moment is that of clustered noise, 3V²/(Dτ), plus that of single prompts.

σ is the share of the time that prompts add to decode-only steps. Prompts come at λ, decodes at φλ:
φ = 1 on collocated lanes, more where answers come from other lanes, less where they leave.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.bulk.wait import (
    BulkServer,
    BulkWait,
    StepLaw,
    bulk_pace,
    bulk_wait,
)
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.slots import limited, mean_wait, queued, with_wait
from bestserve.models.queues.tpot.noise import (
    Response,
    at_classes,
    bend,
    damping,
    overlap_steps,
    size_bias,
    variance_of_sum,
)
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers.ahead import behind_next_step
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.shared_lane import SharedLane, shared_lane

FIRST_GUESS = 0.9
"""Bound of shares and slopes in first guesses, which only place the decodes of the next chain."""

LEAST_SHARE, MOST_SHARE = 1e-6, 0.98
"""Bounds of σ: with none, or nothing but prompts, σ/(1 − σ) tells nothing. In 928 chains of random
questions six had more; all of their answers were doubted."""

CHAIN_PART = 0.5
"""What of the chain's variance, met by requests, is left at least: size bias is of second order."""

HEADROOM = 0.02
"""Part of the range of TPOT that its mean keeps below the longest step, where a law needs room."""

TWO_MODES = 0.01
"""Share of a second mode of the running sequences from which it matters."""


def capacity(engine: Engine, split: bool) -> float:
    """Return the saturated rate of the lane's prompts [1/s]."""
    return shared_lane(engine, split).capacity if engine.slots >= 1 else 0.0


def evaluate(engine: Engine, rate: float, split: bool) -> LaneLatency | None:
    """Return TTFT and TPOT, or `None` when the lane is not stable.

    rate : λ > 0 of the prompts [1/s]; φλ requests decode, φ of the engine
    split : whether prompts are cut to fit the budget (chunked) or not (mixed)
    """
    lane, r = shared_lane(engine, split), engine.requests
    if rate >= lane.capacity:
        return None
    joins = engine.decodes_per_prompt * rate
    times = lane.stretched(rate)
    state = occupancy(joins, r.d1, times)
    n = state.mean
    sigma = min(rate * lane.cost(max(n, 1.0))[0], FIRST_GUESS)
    idle = _idle_share(lane, rate, n, sigma)
    decodes = min(max(n / (1.0 - min(idle, FIRST_GUESS)), 1.0), lane.saturated_decodes)
    served = server_beside(lane, rate, decodes, idle)
    pace = bulk_pace(served, rate, lane.work)
    if pace is None:
        return None
    sigma = _share(served, pace.tau)
    times = lane.stretched(rate, sigma, decodes)
    state = occupancy(joins, r.d1, times)
    idle = _idle_share(lane, rate, max(state.mean, joins * r.d1 * state.tpot), sigma)
    # decodes per step, by Little's law: one step of Newton's method
    growth = min(joins * r.d1 * slope_of(times, decodes, 1.0), FIRST_GUESS)
    decodes += (joins * r.d1 * pace.spacing - decodes) / (1.0 - growth)
    decodes = min(max(decodes, 1.0), lane.saturated_decodes)
    served = server_beside(lane, rate, decodes, idle)
    wait = bulk_wait(served, rate, lane.work, with_steps=True)
    if wait is None:
        return None
    sigma = _share(served, wait.tau)
    times = lane.stretched(rate, sigma, decodes)
    state = occupancy(joins, r.d1, times)
    if state.load >= 1.0:
        return None
    return _assemble(lane, rate, Settled(state, served, wait, sigma, decodes, times))


def server_beside(lane: SharedLane, rate: float, decodes: float, idle: float) -> BulkServer:
    """Return the chain's server beside `decodes` decodes, more of them in full steps.

    While prompts queue, (M − n)/E[l] requests join a step and n/E[D] leave, so n moves towards
    its saturated value n* as 1 − e^{−j/E[D]} over the j steps of the backlog; a backlog of 1/θ
    tokens, the mean excess over M, lasts 1/(θ M (1 − ρ)) steps.
    """
    engine, r = lane.engine, lane.engine.requests
    room = lane.room(decodes)[1]
    time = engine.prompt_step(room, decodes, lane.split)
    load = rate * r.p1 / room * time
    steps = load * r.p2 / (r.p1 * room * (1 - load) ** 2)
    decodes_when_full = decodes + max(lane.saturated_decodes - decodes, 0.0) * -np.expm1(
        -steps / max(r.d1, 1.0)
    )
    budget, packed = lane.room(decodes_when_full)
    return BulkServer(
        budget=budget,
        packed=packed,
        step=engine.prompt_steps(decodes, lane.split, decodes_when_full, packed * (1 - 1e-9)),
        vacation=engine.decode(decodes),
        service=lane.service,
        idle=idle,
        shared=True,
        cut=lane.split or r.fixed_prompt,
        idle_budget=engine.budget if lane.split else math.inf,
    )


def _share(server: BulkServer, tau: float) -> float:
    """Return σ, the share of the time that prompts add to decode-only steps."""
    return min(max(1.0 - server.vacation / tau, LEAST_SHARE), MOST_SHARE)


def _idle_share(lane: SharedLane, rate: float, n: float, sigma: float) -> float:
    """Return the share of prompt-free time in which nothing decodes either."""
    return none_running(n, index_of_dispersion(lane, rate, n, sigma))


def index_of_dispersion(lane: SharedLane, rate: float, n: float, sigma: float) -> float:
    """Return the variance over the mean of the number decoding, n on average [1].

    Stalls behind prompts let requests join in clumps: 1 + 2σ/(1−σ) + φλ²S2/(1−σ)².
    """
    s1, s2, _ = lane.cost(max(n, 1.0))
    s2 *= (sigma / (rate * s1)) ** 2
    clumps = lane.engine.decodes_per_prompt * rate**2 * s2
    return 1 + 2 * sigma / (1 - sigma) + clumps / (1 - sigma) ** 2


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


class Settled(NamedTuple):
    """Where a lane settles at one rate.

    sigma : share σ of prompts; decodes : per step with prompts; times : mean steps with 1 … slots
    decodes, prompts included [s]
    """

    state: Occupancy
    served: BulkServer
    wait: BulkWait
    sigma: float
    decodes: float
    times: Floats


def _assemble(lane: SharedLane, rate: float, settled: Settled) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the steps after a first token."""
    state, served, wait, sigma, decodes, times = settled
    assert wait.steps is not None
    engine, r = lane.engine, lane.engine.requests
    share = engine.decodes_per_prompt
    joins = share * rate
    d, tau, k, steps = r.classes, wait.tau, engine.context_time, wait.steps
    cost = lane.cost(decodes)
    scale = sigma / (rate * cost[0])
    s1, s2, s3 = cost[0] * scale, cost[1] * scale**2, cost[2] * scale**3
    batch_mates = max(wait.batch_tokens / r.p1 - 1.0, 0.0)
    spread = max(state.variance, 0.0) ** 0.5
    own = (1 - sigma) * slope_of(times, state.mean, spread)
    alpha = max(own - k * r.context, 0.0)
    returns = damping(joins * r.d1 * own / (1 - sigma))

    # prompts enter the noise with the long-run variance that the chain gives their steps
    fast = steps.long_run * (1 - sigma) ** 2 / (rate * tau)
    noise = variance_of_sum(r, Response(alpha, k, s1 / share, fast / share), joins, tau)
    total, slope = at_classes(r, noise)
    # who joins close to a request, beyond the even stream that the occupancy has: arrivals of steps
    # that are long together, and those of a prompt's own steps unless the budget holds them back
    joining = joins * steps.long_run / tau + 2 * (1 - wait.load) * sigma / (1 - sigma)
    join = joining * own * overlap_steps(r, 1.0 - returns) / d + k * (r.class_prompt - r.kv1)
    mean = state.tpot + join / (1 - sigma) + steps.excess_of(d) / d
    variance = variance_of_steps(steps, total, slope, d, tau)
    variance = limited(variance, state, returns)
    low, high = engine.decode(1.0), lane.longest(decodes)
    outside = bool(np.any((mean < low) | (mean > high)))
    mean = np.clip(mean, low, high - HEADROOM * (high - low))
    # no law within these bounds varies more
    variance = np.minimum(variance, np.maximum(mean - low, 0.0) * (high - mean) * d**2)
    third = 3 * variance**2 / (d * tau)
    third = third + d * rate * tau * s3 * (fast / s2) ** 1.5 / (1 - sigma) ** 3
    pause = served.vacation
    base = engine.response(state.mean, spread)
    unstalled_sum, _ = at_classes(r, variance_of_sum(r, base, joins, pause))

    slot_wait = mean_wait(state, r, batch_mates, share * (lane.capacity - rate))
    busy = 1.0 - state.idle * (1 - sigma)
    ttft = with_wait(wait.ttft.shift(engine.front_end()), state.wait, slot_wait)
    ttft = behind_next_step(engine.lane, ttft, busy, tau)
    waits = (
        *mode_reason(state),
        *(("mean TPOT leaves the range of the steps",) if outside else ()),
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
        busy=busy,
        capacity=lane.capacity,
        wait=state.wait,
        queued=queued(state, slot_wait, wait.ttft.mean),
        bend=bend(times, state, r, variance / d**2, own / (1 - sigma)),
        stall_atoms=lane.stall_atoms(decodes),
        reasons=waits,
    )


def mode_reason(state: Occupancy) -> tuple[str, ...]:
    """Return the warning for lanes that may settle at one of two numbers of sequences."""
    if state.second > TWO_MODES:
        return ("running sequences may settle at either of two numbers",)
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
    return np.asarray(np.maximum(variance, CHAIN_PART * chain))
