"""Steps that hold decodes and prompts together: what chunked and mixed batching have in common.

TTFT from the bulk chain whose steps carry n̄ decodes and whose vacations are decode-only steps.
Decodes take part in every step, so a token costs the mean step time τ̄ = t_v/(1 − σ); the noise of
the step time carries the prompts as jumps.
"""

from __future__ import annotations

import numpy as np

from bestserve.models.queues.bulk import BulkServer, BulkWait, bulk_wait
from bestserve.models.queues.noise import Response, at_classes, variance_of_sum
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.packing import packed_tokens
from bestserve.models.queues.slots import with_wait
from bestserve.models.queues.stability import shared_limit
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.prefill_priority import slot_reason


def capacity(engine: Engine, split: bool) -> float:
    """Return the saturated rate of the lane [1/s]."""
    if engine.slots < 1:
        return 0.0
    r = engine.requests
    budget = engine.budget
    return shared_limit(
        budget,
        min(engine.slots, budget - 1),
        r.p1,
        r.d1,
        lambda room: _packed(engine, room, split),
        lambda tokens, decodes: float(
            engine.prompt_step(np.array([tokens]), decodes, split)[0]
            if tokens > 0
            else engine.decode(decodes)
        ),
    )


def _packed(engine: Engine, room: float, split: bool) -> float:
    r = engine.requests
    return max(room, 1.0) if split else packed_tokens(r.prompt, r.weight, max(room, 1.0))


def evaluate(engine: Engine, rate: float, split: bool) -> LaneLatency | None:
    """Return TTFT and TPOT under Poisson arrivals, or `None` when the lane is not stable.

    rate : λ > 0 [1/s]; split : whether prompts are cut to fit the budget (chunked) or not (mixed)
    """
    r = engine.requests
    limit = capacity(engine, split)
    if rate >= limit:
        return None
    load = rate / limit
    saturated_n = min(engine.budget * r.d1 / (r.p1 + r.d1), engine.slots)

    # start: each prompt adds its own cost to decode-only steps
    n, sigma = 1.0, 0.0
    for _ in range(3):
        sigma = min(rate * _increment(engine, max(n, 1.0), split), 0.9)
        n = occupancy(rate, r.d1, engine.decode_times / (1 - sigma)).mean
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    alone = engine.prompt_times(0.0, split, engine.budget)
    work = engine.work_tokens(_packed(engine, max(engine.budget - state.mean, 1.0), split))
    met: BulkWait | None = None
    decodes = max(state.mean, 1.0)
    for last in (False, True):
        idle = _idle_share(engine, rate, max(state.mean, rate * r.d1 * state.tpot), sigma, split)
        if met is None:
            decodes = max(state.mean / (1.0 - min(idle, 0.9)), 1.0)
        else:
            decodes = min(max(rate * r.d1 * met.spacing, 1.0), float(engine.slots))
        crowded = decodes + 0.6 * load**8 * max(saturated_n - decodes, 0.0)
        room = max(engine.budget - crowded, 1.0)
        packed = _packed(engine, room, split)
        served = BulkServer(
            budget=max(room, packed),
            packed=packed,
            step=lambda x, n=decodes: engine.prompt_step(x, n, split),  # type: ignore[misc]
            vacation=engine.decode(decodes),
            alone=alone,
            idle=idle,
        )
        met = bulk_wait(served, rate, work, r.weight, with_steps=last)
        if met is None:
            return None
        sigma = min(max(1.0 - served.vacation / met.tau, 1e-6), 0.98)
        times = _stretched(engine, sigma, decodes, split)
        state = occupancy(rate, r.d1, times)
        if state.load >= 1.0:
            return None
    assert met is not None
    return _assemble(engine, rate, limit, state, met, sigma, split, decodes, times)


def _idle_share(engine: Engine, rate: float, n: float, sigma: float, split: bool) -> float:
    """Return the share of prompt-free time in which nothing decodes either.

    Stalls behind prompts let requests join in clumps: the number decoding has variance z times its
    mean, z = 1 + 2σ/(1−σ) + λ²S2/(1−σ)², and is taken as negative binomial.
    """
    r = engine.requests
    cost = _increments(engine, max(n, 1.0), split)
    s1 = float(r.weight @ cost)
    s2 = float(r.weight @ cost**2) * (sigma / (rate * s1)) ** 2
    z = 1 + 2 * sigma / (1 - sigma) + rate**2 * s2 / (1 - sigma) ** 2
    return float(z ** (-n / (z - 1))) if z > 1 + 1e-6 else float(np.exp(-n))


def _stretched(engine: Engine, sigma: float, decodes: float, split: bool) -> np.ndarray:
    """Return the mean step time with n decodes, prompts included, for n = 1 … slots [s].

    The prompts' share σ(n) follows what a prompt adds to a step with n decodes, scaled to the
    chain's σ at `decodes`.
    """
    knots = np.unique(np.clip([1.0, decodes / 2, decodes, 1.5 * decodes, engine.slots], 1, None))
    cost = np.array([_increment(engine, n, split) for n in knots])
    here = float(np.interp(decodes, knots, cost))
    count = np.arange(1, engine.slots + 1)
    share = np.minimum(sigma * np.interp(count, knots, cost) / here, 0.99)
    return np.asarray(engine.decode_times / (1 - share))


def _size_bias(
    total: np.ndarray, slope: np.ndarray, r0: float, d: np.ndarray, tau: float
) -> np.ndarray:
    """Return what meeting steps in proportion to their length adds to the variance of a sum [s²].

    Var(S | weight d₀) − Var S = κ(S, S, d₀)/τ − (Cov(S, d₀)/τ)², with κ(S, S, d₀) a third of the
    growth of the third cumulant, 3V²/(Dτ) for clustered noise, and Cov(S, d₀) = (V' − R₀)/2.
    """
    third = 2 * total * slope / d - (total / d) ** 2
    return (third - ((slope - r0) / 2) ** 2) / tau**2


def _slope(times: np.ndarray, n: float, spread: float) -> float:
    """Return d times/dn as a secant over n ± spread [s/sequence]."""
    low, high = max(n - spread, 1.0), min(n + max(spread, 1.0), float(times.size))
    if high <= low:
        return 0.0
    count = np.arange(1, times.size + 1)
    ends = np.interp([low, high], count, times)
    return float((ends[1] - ends[0]) / (high - low))


def _increment(engine: Engine, decodes: float, split: bool) -> float:
    """Return what a prompt adds to decode-only steps on average [s]."""
    return float(engine.requests.weight @ _increments(engine, decodes, split))


def _increments(engine: Engine, decodes: float, split: bool) -> np.ndarray:
    room = max(engine.budget - decodes, 1.0)
    r = engine.requests
    chunks = np.maximum(np.ceil(r.prompt / room), 1.0) if split else 1.0
    cost = engine.prompt_times(decodes, split, room) - chunks * engine.decode(decodes)
    return np.maximum(cost, 1e-9)


def _assemble(
    engine: Engine,
    rate: float,
    limit: float,
    state: Occupancy,
    met: BulkWait,
    sigma: float,
    split: bool,
    decodes: float,
    times: np.ndarray,
) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the backlog at the first token."""
    r, d = engine.requests, engine.requests.classes
    assert met.steps is not None
    cost = _increments(engine, decodes, split)
    scale = sigma / (rate * float(r.weight @ cost))
    s1, s2, s3 = (float(r.weight @ cost**p) * scale**p for p in (1, 2, 3))
    mates = max(met.batch_tokens / r.p1 - 1.0, 0.0)
    spread = max(state.variance, 0.0) ** 0.5
    own = (1 - sigma) * _slope(times, state.mean, spread)
    k = engine.lane.step.k
    base = Response(max(own - k * r.context, 0.0), k)
    feedback = max(1.0 - rate * r.d1 * own / (1 - sigma), 0.05)
    join = mates * own * r.overlap / d / feedback + base.k * (r.class_prompt - r.kv1)
    tau = met.tau
    # prompts enter the noise with the long-run variance that the chain gives their steps
    fast = met.steps.long_run * (1 - sigma) ** 2 / (rate * tau)
    noise = variance_of_sum(r, Response(base.alpha, base.k, s1, fast), rate, tau)
    alone = variance_of_sum(r, Response(base.alpha / (1 - sigma), base.k / (1 - sigma)), rate, tau)
    total, slope = at_classes(r, noise)
    _, slope_alone = at_classes(r, alone)
    # long steps collect more arrivals, so requests meet more than the mean step: the part of it
    # that the occupancy (no prompts) and the chain (fixed decodes) do not have
    lag = (slope - noise[1] / r.width) - (slope_alone - alone[1] / r.width)
    mean = state.tpot + join / (1 - sigma) + met.steps.excess_of(d) / d
    mean = mean + np.maximum(lag, 0.0) / (2 * tau) / d
    chain = met.steps.variance_of(d)
    stationary = np.maximum(total + chain - d * met.steps.long_run, chain)
    variance = stationary + met.steps.start * (1 - met.steps.decay**d) ** 2
    chain_slope = met.steps.slope_of(d)
    slope = slope + chain_slope - met.steps.long_run
    variance = variance + _size_bias(stationary, slope, met.steps.r0, d, tau)
    variance = variance - _size_bias(chain, chain_slope, met.steps.r0, d, tau)
    variance = np.maximum(variance, 0.5 * chain)
    if state.wait > 1e-3:
        variance = variance * min(1.0, state.variance * feedback / max(state.mean, 1e-9))
    third = 3 * variance**2 / (d * tau)
    third = third + d * rate * tau * s3 * (fast / s2) ** 1.5 / (1 - sigma) ** 3
    variance, third = variance / d**2, third / d**3
    pause = engine.decode(decodes)
    calm = met.steps.calm * np.exp(-rate * pause * (d - 1))
    calm_total, _ = at_classes(
        r, variance_of_sum(r, engine.response(state.mean, spread), rate, pause)
    )
    low = engine.decode(1.0)
    high = float(
        engine.prompt_step(
            np.array([_packed(engine, engine.budget - decodes, split)]), decodes, split
        )[0]
    )
    mean = np.minimum(mean, 0.98 * high + 0.02 * low)
    ttft = met.ttft.shift(engine.front_end())
    wait_mean = 0.0
    if state.wait > 1e-4:
        d_scv = r.d2 / r.d1**2 - 1.0 if r.d1 > 0 else 0.0
        wait_mean = (1.0 + mates + max(d_scv, 0.0)) / 2 / (limit - rate)
        ttft = with_wait(ttft, state.wait, wait_mean)
    return LaneLatency(
        ttft=ttft,
        mean=mean,
        variance=variance,
        third=third,
        calm=calm,
        calm_mean=np.full_like(d, pause),
        calm_variance=calm_total / d**2,
        low=low,
        high=high,
        running=state.mean,
        busy=1.0 - state.idle * (1 - sigma),
        capacity=limit,
        wait=state.wait,
        stall=sigma,
        reasons=slot_reason(state.wait, wait_mean, met.ttft.mean),
    )
