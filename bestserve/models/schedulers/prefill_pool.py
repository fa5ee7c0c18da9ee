"""A prefill-only lane: prompts in batches up to the token budget, nothing else runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import BulkServer, Prompts, bulk_load, bulk_wait
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.schedulers.engine import Engine

ONE_AT_A_TIME = 1.3
"""Mean prompts in a saturated whole-prompt step below which prompts go one at a time."""

MANY_STEPS = 8.0
"""Budgets in a mean prompt from which split prompts go one after the other: they share few steps
(means 1 % low for it), and the bulk chain, which has few cells a budget then, is 4 to 6 % low."""

LONG_SHARE = 0.99
"""Share of the prompts that are no longer than the one a full step has begun."""


@dataclass(frozen=True, slots=True)
class PrefillTables:
    """What does not depend on the rate.

    server : the bulk server of a lane without decodes; service : time of each prompt by itself
    [m, s], busy : what it takes of a lane where others wait [m, s]; work : prompts in tokens of
    mean cost; one_at_a_time : whether steps hold hardly more than one prompt; capacity : saturated
    rate of the lane [1/s]; kv : the warning that the cache keeps steps short
    """

    server: BulkServer
    service: Floats
    busy: Floats
    work: Prompts
    one_at_a_time: bool
    capacity: float
    kv: tuple[str, ...]


@lru_cache(maxsize=512)
def tables(engine: Engine) -> PrefillTables:
    """Return the rate-independent tables of an engine; chunked lanes split prompts."""
    policy, r = engine.lane.scheduling, engine.requests
    split, budget = policy.splits, float(policy.room(engine.lane.max_num_batched_tokens))
    # prompts hold their blocks, cached ones too, from the step that begins them on
    holds = max(engine.held.capacity * r.p1 / r.asked, 1.0)
    begun = float(np.interp(LONG_SHARE, np.cumsum(r.weight), r.prompt)) if split else 0.0
    kv = ("prompts wait for KV memory",) if holds < budget + begun else ()
    if engine.lane.async_scheduling:
        kv = (*kv, "steps of prompts are formed ahead: who arrives meanwhile misses one")
    budget = min(budget, holds)
    packed = budget if split else packed_tokens(r.prompt, r.weight, budget)
    service = engine.prompt_times(0.0, split, budget)
    server = BulkServer(
        budget=budget,
        packed=packed,
        step=engine.prompt_steps(0.0, split),
        vacation=0.0,
        service=service,
        idle=1.0,
        cut=split or r.fixed_prompt,
        idle_budget=budget if split else np.inf,
    )
    work = Prompts.of(engine.work_tokens(packed), r.weight)
    alone = not split and packed < ONE_AT_A_TIME * r.p1
    per_token = bulk_load(server, 1.0, 1.0)
    busy = service if alone else work.tokens * per_token
    return PrefillTables(
        server=server,
        service=service,
        busy=busy,
        work=work,
        one_at_a_time=alone or (split and r.p1 >= MANY_STEPS * budget),
        capacity=1.0 / float(r.weight @ busy),
        kv=kv,
    )


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return tables(engine).capacity


@dataclass(frozen=True, slots=True)
class PrefillLatency:
    """TTFT of a lane [s].

    busy : share of the time that steps run; reasons : why no law is known to hold
    """

    ttft: Distribution
    busy: float
    reasons: tuple[str, ...]


def evaluate(engine: Engine, rate: float) -> PrefillLatency | None:
    """Return TTFT of a lane at its rate λ > 0 [1/s], or `None` when it is not stable.

    M/G/1 when prompts go one at a time, exact where they are not split; else the bulk chain.
    """
    r, lane = engine.requests, tables(engine)
    if lane.one_at_a_time:
        wait = gig1_wait(lane.busy, r.weight, rate)
        if wait is None:
            return None
        return PrefillLatency(wait.plus(lane.service, r.weight), wait.load, lane.kv)
    found = bulk_wait(lane.server, rate, lane.work)
    if found is None:
        return None
    reasons = (*lane.kv, *engine.longest_prompts(found.cut_off))
    return PrefillLatency(found.ttft, min(found.load, 1.0), reasons)
