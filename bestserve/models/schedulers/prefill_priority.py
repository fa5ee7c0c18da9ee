"""Prefill first: while prompts wait, steps take prompts only and decodes stand still.

TTFT from the bulk chain with decode steps as vacations; decodes see steps stretched by the share
of time σ that prompts take, plus the stalls behind prompt busy periods (Takács) that fall between
their own tokens.
"""

from __future__ import annotations

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk import BulkServer, BulkWait, bulk_load, bulk_wait
from bestserve.models.queues.busy_period import busy_period
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.noise import Response, at_classes, variance_of_mean, variance_of_sum
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.packing import packed_tokens
from bestserve.models.queues.slots import with_wait
from bestserve.models.queues.stability import decode_limit, prefill_first_limit
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.prefill_pool import SINGLE

ITERATIONS = 2


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    r = engine.requests
    packed = packed_tokens(r.prompt, r.weight, engine.budget)
    if r.d1 <= 0:
        return packed / (r.p1 * float(engine.prompt_step(np.array([packed]), 0.0, False)[0]))
    if engine.slots < 1:
        return 0.0
    decode = decode_limit(engine.slots, r.d1, float(engine.decode_times[-1]))
    group = min(engine.slots / r.d1, packed / r.p1)
    if group > 1.5:
        per = float(engine.prompt_step(np.array([group * r.p1]), 0.0, False)[0]) / group
    else:
        per = float(r.weight @ engine.prompt_times(0.0, False, engine.budget))
    return prefill_first_limit(decode, per)


def evaluate(engine: Engine, rate: float) -> LaneLatency | None:
    """Return TTFT and TPOT under Poisson arrivals, or `None` when the lane is not stable.

    rate : λ > 0 [1/s]
    """
    r = engine.requests
    limit = capacity(engine)
    if rate >= limit:
        return None
    lone = engine.prompt_times(0.0, False, engine.budget)
    s = [float(r.weight @ lone**p) for p in (1, 2, 3)]
    packed = packed_tokens(r.prompt, r.weight, engine.budget)
    single = packed < SINGLE * r.p1
    work = engine.work_tokens(packed)

    def prompts(state: Occupancy) -> BulkWait | None:
        n = max(state.mean / max(1.0 - state.idle, 1e-9), 1.0)
        pause = engine.decode(n)
        if single:
            return _one_at_a_time(lone, r.weight, rate, pause, state.idle, r.p1)
        served = BulkServer(
            budget=max(engine.budget, packed),
            packed=packed,
            step=lambda x: engine.prompt_step(x, 0.0, False),
            vacation=pause,
            alone=lone,
            idle=state.idle,
        )
        return bulk_wait(served, rate, work, r.weight)

    sigma = min(rate * s[0], 0.9 * max(rate / limit, 0.5))
    met: BulkWait | None = None
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    for _ in range(ITERATIONS):
        met = prompts(state)
        if met is None:
            return None
        sigma = min(met.busy, 0.99)
        state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
        if state.load >= 1.0:
            return None
    assert met is not None
    return _assemble(engine, rate, limit, state, met, sigma, s)


def _one_at_a_time(
    lone: np.ndarray, weight: np.ndarray, rate: float, pause: float, idle: float, p1: float
) -> BulkWait | None:
    """Return the same quantities when each step takes one prompt: M/G/1 with vacations."""
    wait = gig1_wait(lone, weight, rate)
    if wait is None:
        return None
    ttft = wait.plus(lone, weight, pause, idle)
    mean = float(weight @ lone)
    return BulkWait(
        ttft=ttft,
        busy=wait.load,
        tau=pause / (1 - wait.load),
        spacing=pause / (1 - wait.load),
        batch_tokens=p1,
        backlog=rate * (ttft.mean - mean) * p1,
        load=wait.load,
        saturated=wait.load,
    )


def _assemble(
    engine: Engine,
    rate: float,
    limit: float,
    state: Occupancy,
    met: BulkWait,
    sigma: float,
    s: list[float],
) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the stalls."""
    r, d = engine.requests, engine.requests.classes
    scale = sigma / (rate * s[0])
    s1, s2, s3 = s[0] * scale, s[1] * scale**2, s[2] * scale**3
    bp = busy_period(rate, s1, s2, s3)
    spread = max(state.variance, 0.0) ** 0.5
    base = engine.response(state.mean, spread)
    own = base.alpha + base.k * r.context
    feedback = max(1.0 - rate * r.d1 * own / (1 - sigma), 0.05)
    td = (1 - sigma) * state.tpot + bp.mates * own * r.overlap / d / feedback
    td = td + base.k * (r.class_prompt - r.kv1)
    left = max(rate * met.ttft.mean - (met.batch_tokens / r.p1 - 1) / 2, 0.0)
    mean = (d * td + (d - 1) * td * sigma / (1 - sigma) + left * bp.first) / d
    response = Response(base.alpha, base.k, s1, s2)
    tau = state.tpot
    variance = variance_of_mean(r, response, rate, tau)
    if state.wait > 1e-3:
        variance = variance * min(1.0, state.variance * feedback / max(state.mean, 1e-9))
    ttft_var = met.ttft.variance
    behind = rate**2 * ttft_var * bp.first**2
    variance = variance + (left * bp.second + behind) / d**2
    third = rate * td * bp.third / d**2 + (left * bp.third + 2 * behind**1.5) / d**3
    calm_total, _ = at_classes(r, variance_of_sum(r, base, rate, (1 - sigma) * tau))
    ttft = met.ttft.shift(engine.front_end())
    wait_mean = 0.0
    if state.wait > 1e-4:
        d_scv = r.d2 / r.d1**2 - 1.0
        wait_mean = (1.0 + bp.mates + max(d_scv, 0.0)) / 2 / (limit - rate)
        ttft = with_wait(ttft, state.wait, wait_mean)
    reasons = slot_reason(state.wait, wait_mean, met.ttft.mean)
    return LaneLatency(
        ttft=ttft,
        mean=mean,
        variance=variance,
        third=third,
        calm=np.exp(-rate * (d - 1) * td - left),
        calm_mean=td,
        calm_variance=calm_total / d**2,
        low=engine.decode(1.0),
        high=np.inf,
        running=state.mean,
        busy=1.0 - state.idle * (1 - sigma),
        capacity=limit,
        wait=state.wait,
        stall=sigma,
        reasons=reasons,
    )


def slot_reason(wait: float, mean: float, ttft: float) -> tuple[str, ...]:
    """Return the warning for waits for a slot that matter."""
    if wait > 0.02 or wait * mean > 0.05 * ttft:
        return ("requests wait for a slot or for KV memory",)
    return ()


__all__ = ["Distribution", "bulk_load", "capacity", "evaluate", "slot_reason"]
