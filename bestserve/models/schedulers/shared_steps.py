"""Steps that hold decodes and prompts together: what chunked and mixed batching have in common.

TTFT from the bulk chain whose steps carry n̄ decodes and whose vacations are decode-only steps.
Decodes take part in every step, so a token costs the mean step time τ̄ = t_v/(1 − σ); the noise of
the step time carries the prompts as jumps.
"""

from __future__ import annotations

import numpy as np

from bestserve.models.queues.bulk import BulkServer, BulkWait, bulk_wait
from bestserve.models.queues.noise import Response, variance_of_mean
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.packing import packed_tokens
from bestserve.models.queues.slots import with_wait
from bestserve.models.queues.stability import shared_limit
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.schedulers.prefill_priority import slot_reason

ITERATIONS = 2


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
    n = 1.0
    sigma = 0.0
    for _ in range(3):
        work = _increment(engine, max(n, 1.0), split)
        sigma = min(rate * work, 0.9)
        n = occupancy(rate, r.d1, engine.decode_times / (1 - sigma)).mean
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    alone = engine.prompt_times(0.0, split, engine.budget)
    work = engine.work_tokens(_packed(engine, engine.budget - state.mean, split))
    met: BulkWait | None = None
    decodes = 1.0
    for _ in range(ITERATIONS):
        decodes = max(state.mean / max(1.0 - state.idle, 1e-9), 1.0)
        crowded = decodes + 0.6 * load**8 * max(saturated_n - decodes, 0.0)
        room = max(engine.budget - crowded, 1.0)
        packed = _packed(engine, room, split)
        served = BulkServer(
            budget=max(room, packed),
            packed=packed,
            step=lambda x, n=decodes: engine.prompt_step(x, n, split),  # type: ignore[misc]
            vacation=engine.decode(decodes),
            alone=alone,
            idle=state.idle,
        )
        met = bulk_wait(served, rate, work, r.weight)
        if met is None:
            return None
        sigma = min(max(1.0 - served.vacation / met.tau, 1e-6), 0.98)
        state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
        if state.load >= 1.0:
            return None
    assert met is not None
    return _assemble(engine, rate, limit, state, met, sigma, split, decodes)


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
) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the backlog at the first token."""
    r, d = engine.requests, engine.requests.classes
    cost = _increments(engine, decodes, split)
    scale = sigma / (rate * float(r.weight @ cost))
    s1, s2, s3 = (float(r.weight @ cost**p) * scale**p for p in (1, 2, 3))
    generations = np.log(max(sigma, 1e-12)) * d
    gamma = (1.0 - np.exp(generations)) / (1 - sigma)
    mates = max(met.batch_tokens / r.p1 - 1.0, 0.0)
    spread = max(state.variance, 0.0) ** 0.5
    base = engine.response(state.mean, spread)
    own = base.alpha + base.k * r.context
    feedback = max(1.0 - rate * r.d1 * own / (1 - sigma), 0.05)
    td = (1 - sigma) * state.tpot + mates * own * r.overlap / d / feedback
    td = td + base.k * (r.class_prompt - r.kv1)
    left = max(rate * met.ttft.mean - (met.batch_tokens / r.p1 - 1) / 2, 0.0)
    excess = (left - met.backlog / r.p1) * s1 * gamma
    mean = (d * td / (1 - sigma) + excess) / d
    response = Response(base.alpha, base.k, s1, s2)
    variance = variance_of_mean(r, response, rate, state.tpot)
    if state.wait > 1e-3:
        variance = variance * min(1.0, state.variance * feedback / max(state.mean, 1e-9))
    first, second = s1 * gamma, s2 * gamma**3
    behind = rate**2 * met.ttft.variance * first**2
    variance = variance + (left * second + behind) / d**2
    third_bp = s3 * gamma**4 + 3 * rate * s2**2 * gamma**5
    third = rate * td * third_bp / d**2 + (left * third_bp + 2 * behind**1.5) / d**3
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
        low=low,
        high=high,
        running=state.mean,
        busy=1.0 - state.idle * (1 - sigma),
        capacity=limit,
        wait=state.wait,
        stall=sigma,
        reasons=slot_reason(state.wait, wait_mean, met.ttft.mean),
    )
