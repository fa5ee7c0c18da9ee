"""A prefill-only lane: prompts in batches up to the token budget, nothing else runs."""

from __future__ import annotations

import numpy as np

from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk import BulkServer, bulk_load, bulk_wait
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.packing import packed_tokens
from bestserve.models.schedulers.engine import Engine

SINGLE = 1.3
"""Mean prompts in a saturated whole-prompt step below which prompts go one at a time."""


def server(engine: Engine) -> BulkServer:
    """Return the bulk server of a lane without decodes; chunked lanes split prompts."""
    split = engine.lane.policy == "chunked"
    r, budget = engine.requests, engine.budget
    packed = budget if split else packed_tokens(r.prompt, r.weight, budget)
    return BulkServer(
        budget=max(budget, packed),
        packed=packed,
        step=lambda x: engine.prompt_step(x, 0.0, split),
        vacation=0.0,
        alone=engine.prompt_times(0.0, split, budget),
        idle=1.0,
    )


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return 1.0 / bulk_load(server(engine), 1.0, engine.requests.p1)


def evaluate(engine: Engine, rate: float, scv: float = 1.0) -> tuple[Distribution, float] | None:
    """Return (TTFT, busy share) of the lane, or `None` when it is not stable.

    rate : λ > 0 [1/s]; scv : squared CV of the gaps. Exact GI/G/1 when prompts go one at a time;
    else the Poisson bulk chain, its excess over a lone prompt scaled by the ratio of GI/G/1 to
    M/G/1 waits at the same load when gaps are not exponential.
    """
    r = engine.requests
    bulk = server(engine)
    alone = engine.prompt_times(0.0, engine.lane.policy == "chunked", engine.budget)
    single = engine.lane.policy != "chunked" and bulk.packed < SINGLE * r.p1
    if single:
        wait = gig1_wait(alone, r.weight, rate, scv)
        return None if wait is None else (wait.plus(alone, r.weight), wait.load)
    met = bulk_wait(bulk, rate, engine.work_tokens(bulk.packed), r.weight)
    if met is None:
        return None
    ttft = met.ttft
    if scv != 1.0:
        ttft = rescale_excess(ttft, float(r.weight @ alone), met.load, scv)
    return ttft, min(met.load, 1.0)


def rescale_excess(ttft: Distribution, floor: float, load: float, scv: float) -> Distribution:
    """Return `ttft` with what exceeds `floor` [s] scaled by E W(GI/G/1) / E W(M/G/1) at `load`."""
    one = np.array([1.0])
    poisson, bursty = gig1_wait(one, one, load), gig1_wait(one, one, load, scv)
    if poisson is None or bursty is None:
        return ttft
    factor = bursty.mean / max(poisson.mean, 1e-12)
    x = np.where(ttft.x > floor, floor + (ttft.x - floor) * factor, ttft.x)
    return Distribution(x, ttft.F, floor + (ttft.mean - floor) * factor)
