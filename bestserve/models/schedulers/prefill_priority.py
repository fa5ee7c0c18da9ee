"""Prefill first: while prompts wait, steps take prompts only and decodes stand still.

TTFT from the bulk chain with decode steps as vacations; decodes see steps stretched by the share
of time σ that prompts take, plus the stalls behind prompt busy periods (Takács) that fall between
their own tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import BulkServer, BulkWait, Prompts, bulk_pace, bulk_wait
from bestserve.models.queues.busy_period import busy_period
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.slots import with_wait
from bestserve.models.queues.stability import decode_limit, prefill_first_limit
from bestserve.models.queues.tpot.noise import Response, at_classes, size_bias, variance_of_sum
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.prefill_pool import SINGLE

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PrefillFirst:
    """What does not depend on the rate.

    capacity : saturated rate [1/s]; packed : prompt tokens of a full step [tokens]; lone : time of
    each prompt by itself [m, s] with moments s1, s2, s3; work : prompts in tokens of mean cost
    single : whether a step holds one prompt; most : share of the time that prompts take at
    saturation, when as many wait as slots fall free
    """

    capacity: float
    packed: float
    lone: Floats
    s1: float
    s2: float
    s3: float
    work: Prompts
    single: bool
    most: float


@lru_cache(maxsize=512)
def tables(engine: Engine) -> PrefillFirst:
    """Return the rate-independent tables of an engine."""
    r = engine.requests
    packed = packed_tokens(r.prompt, r.weight, engine.budget)
    lone = engine.prompt_times(0.0, False, engine.budget)
    s1, s2, s3 = (float(r.weight @ lone**p) for p in (1, 2, 3))
    limit = _capacity(engine, packed, lone)
    decode = decode_limit(engine.slots, r.d1, float(engine.decode_times[-1])) if limit else np.inf
    return PrefillFirst(
        capacity=limit,
        packed=packed,
        lone=lone,
        s1=s1,
        s2=s2,
        s3=s3,
        work=Prompts.of(engine.work_tokens(packed), r.weight),
        single=packed < SINGLE * r.p1,
        most=min(1.0 - limit / decode, 0.99),
    )


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return tables(engine).capacity


def _capacity(engine: Engine, packed: float, lone: Floats) -> float:
    r = engine.requests
    if r.d1 <= 0:
        return packed / (r.p1 * float(engine.prompt_step(np.array([packed]), 0.0, False)[0]))
    if engine.slots < 1:
        return 0.0
    decode = decode_limit(engine.slots, r.d1, float(engine.decode_times[-1]))
    group = min(engine.slots / r.d1, packed / r.p1)
    if group > 1.5:
        per = float(engine.prompt_step(np.array([group * r.p1]), 0.0, False)[0]) / group
    else:
        per = float(r.weight @ lone)
    return prefill_first_limit(decode, per + engine.recomputing(engine.slots, False))


def evaluate(engine: Engine, rate: float) -> LaneLatency | None:
    """Return TTFT and TPOT at `rate` λ > 0 [1/s], or `None` when the lane is not stable."""
    r, lane = engine.requests, tables(engine)
    if rate >= lane.capacity:
        return None
    sigma = min(rate * lane.s1, 0.9 * max(rate / lane.capacity, 0.5))
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    pace = None if lane.single else bulk_pace(server_of(engine, state), rate, lane.work)
    if not lane.single:
        if pace is None:
            return None
        sigma = min(pace.busy, lane.most)
        state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    if lane.single:
        met = _one_at_a_time(engine, lane.lone, rate, state)
    else:
        met = bulk_wait(server_of(engine, state), rate, lane.work)
    if met is None:
        return None
    sigma = min(met.busy, lane.most)
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    moments = [lane.s1, lane.s2, lane.s3]
    return _assemble(engine, rate, lane.capacity, state, met, sigma, moments)


def _pause(engine: Engine, state: Occupancy) -> float:
    """Return the decode step that a prompt may have to sit out [s]."""
    return engine.decode(max(state.mean / max(1.0 - state.idle, 1e-9), 1.0))


def server_of(engine: Engine, state: Occupancy) -> BulkServer:
    """Return the bulk chain's server while as many decode as in `state`."""
    lane = tables(engine)
    return BulkServer(
        budget=engine.budget,
        packed=lane.packed,
        step=lambda x: engine.prompt_step(x, 0.0, False),
        vacation=_pause(engine, state),
        alone=lane.lone,
        idle=state.idle,
        cut=engine.requests.fixed_prompt,
    )


def _one_at_a_time(engine: Engine, lone: Floats, rate: float, state: Occupancy) -> BulkWait | None:
    """Return the same quantities when each step takes one prompt: M/G/1 with vacations."""
    r = engine.requests
    wait = gig1_wait(lone, r.weight, rate)
    if wait is None:
        return None
    pause = _pause(engine, state)
    ttft = wait.plus(lone, r.weight, pause, state.idle)
    return BulkWait(
        ttft=ttft,
        busy=wait.load,
        tau=pause / (1 - wait.load),
        spacing=pause / (1 - wait.load),
        batch_tokens=r.p1,
        backlog=rate * (ttft.mean - float(r.weight @ lone)) * r.p1,
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
    tau = state.tpot
    noise = variance_of_sum(r, Response(base.alpha, base.k, s1, s2), rate, tau)
    total, slope = at_classes(r, noise)
    # requests meet long steps more often; the busy periods' own share of that is in `left`
    white = rate * tau * s2 / (1 - sigma) ** 2
    total = total + np.maximum(size_bias(total, slope, noise[1] / r.width, d, tau), 0.0)
    total = total - (white / tau) ** 2 * (d > 1)
    if state.wait > 1e-3:
        total = total * min(1.0, state.variance * feedback / max(state.mean, 1e-9))
    ttft_var = met.ttft.variance
    behind = rate**2 * ttft_var * bp.first**2
    third = 3 * total**2 / (d * tau) + d * rate * (1 - sigma) * tau * s3 / (1 - sigma) ** 4
    third = (third + left * bp.third + 2 * behind**1.5) / d**3
    variance = (total + left * bp.second + behind) / d**2
    calm_total, _ = at_classes(r, variance_of_sum(r, base, rate, (1 - sigma) * tau))
    ttft = met.ttft.shift(engine.front_end())
    wait_mean = 0.0
    if state.wait > 1e-4:
        d_scv = r.d2 / r.d1**2 - 1.0
        wait_mean = (1.0 + bp.mates + max(d_scv, 0.0)) / 2 / (limit - rate)
        ttft = with_wait(ttft, state.wait, wait_mean)
    waits = slot_reason(state.wait, wait_mean, met.ttft.mean)
    reasons = (*waits, *engine.kv_reasons(state.probability, rate / limit))
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
        single=tables(engine).lone,
        reasons=reasons,
        firm=reasons,
    )


def slot_reason(wait: float, mean: float, ttft: float) -> tuple[str, ...]:
    """Return the warning for waits for a slot that matter."""
    if wait > 0.02 or wait * mean > 0.05 * ttft:
        return ("requests wait for a slot or for KV memory",)
    return ()
