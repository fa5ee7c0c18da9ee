"""A decode-only lane: prompts arrive with their KV cache and join at step boundaries.

Mean TPOT from the occupancy (insensitive), its spread from the linear noise of the step time, and
from what a request waits before it joins: the rest of the running step, a slot, the transfer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.queues.occupancy import occupancy
from bestserve.models.queues.slots import limited
from bestserve.models.queues.stability import decode_limit, prefill_first_limit
from bestserve.models.queues.tpot.noise import bend, damping, variance_of_mean
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers.engine import Engine, LaneLatency

ANY_WAIT = 1e-6
"""Share of requests that wait for a slot from which their wait is added."""


@lru_cache(maxsize=512)
def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    if engine.slots < 1:
        return 0.0
    limit = decode_limit(engine.slots, engine.requests.d1, float(engine.decode_times[-1]))
    again = engine.recomputing(engine.slots, engine.lane.scheduling.splits)
    return prefill_first_limit(limit, again) if again > 0.0 else limit


def evaluate(
    engine: Engine, rate: float, transfer: tuple[float, float] = (0.0, 0.0)
) -> LaneLatency | None:
    """Return TPOT of the lane (`ttft` is the constant 0), or `None` when it is not stable.

    rate : λ > 0 [1/s]; transfer : mean and variance of the KV transfer, counted between first and
    second token [s, s²]
    """
    r = engine.requests
    limit = capacity(engine)
    if rate >= limit:
        return None
    state = occupancy(rate, r.d1, engine.decode_times)
    spread = max(state.variance, 0.0) ** 0.5
    response = engine.response(state.mean, spread)
    own = response.alpha + response.k * r.context
    d, tau = r.classes, state.tpot
    returns = damping(rate * r.d1 * own)
    variance = limited(variance_of_mean(r, response, rate, tau), state, returns)
    # the join waits for the end of a running step, unless the lane is idle
    joins = 1.0 - state.idle
    delay = joins * tau / 2 + transfer[0]
    delay_variance = joins * tau**2 / 3 - (joins * tau / 2) ** 2 + transfer[1]
    delay_third = waiting = 0.0
    if engine.lane.async_scheduling:  # the next step is formed already
        delay += joins * tau
        delay_variance += joins * (1 - joins) * tau**2
    if state.wait > ANY_WAIT:
        wait = r.d2 / r.d1**2 / 2 / (limit - rate)
        p = state.wait
        waiting = p * wait
        delay += waiting
        delay_variance += (2 * p - p * p) * wait**2
        delay_third = p * (6 - 6 * p + 2 * p * p) * wait**3
    mean = tau + response.k * (r.class_prompt - r.kv1) + delay / d
    variance = variance + delay_variance / d**2
    reasons = engine.kv_reasons(state.probability, rate / limit)
    return LaneLatency(
        ttft=Distribution.point(0.0),
        mean=mean,
        variance=variance,
        third=delay_third / d**3,
        unstalled=Unstalled(np.zeros_like(d), mean, variance),
        low=engine.decode(1.0) + float(transfer[0] / d.max(initial=1.0)),
        high=np.inf,
        running=state.mean,
        busy=1.0 - state.idle,
        capacity=limit,
        wait=state.wait,
        bend=bend(engine.decode_times, state, r, variance, own),
        queued=waiting / float(r.class_weight @ (d * mean)) if d.size else 0.0,
        reasons=reasons,
    )
