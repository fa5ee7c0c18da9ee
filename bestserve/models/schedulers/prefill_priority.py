"""Prefill first: while prompts wait, steps take prompts only and decodes stand still.

TTFT from the bulk chain with decode steps as vacations; decodes see steps stretched by the share
of time σ that prompts take, plus the stalls behind prompt busy periods (Takács) that fall between
their own tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import (
    BulkServer,
    BulkWait,
    Prompts,
    Stalls,
    bulk_pace,
    bulk_wait,
)
from bestserve.models.queues.busy_period import busy_period
from bestserve.models.queues.gig1 import gig1_wait
from bestserve.models.queues.occupancy import Occupancy, occupancy
from bestserve.models.queues.slots import limited, mean_wait, queued, with_wait
from bestserve.models.queues.stability import any_ends, decode_limit, prefill_first_limit
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
from bestserve.models.schedulers.prefill_pool import ONE_AT_A_TIME

FIRST_GUESS = 0.9
"""Share of the time that prompts are first taken to need at most, near saturation; it only places
the decodes of the first chain, which tells the share."""

MOST_PROMPTS = 0.99
"""Share of the time that prompts may take at most: with more, none is left to decode in."""

TOGETHER = 1.5
"""Prompts that fit a step from which they share it; below it each is taken to have its own."""

NONE_FREE = 0.01
"""Slots, on average, up to which none is left for a prompt."""

UNHINDERED = 0.98
"""Share of the stalls that arrivals make and free slots allow, below which slots matter."""


@dataclass(frozen=True, slots=True)
class PrefillFirst:
    """What does not depend on the rate.

    capacity : saturated rate [1/s]; packed : prompt tokens of a full step [tokens]
    service : time of each prompt by itself [m, s] with moments s1, s2, s3
    work : prompts in tokens of mean cost; one_at_a_time : whether a step holds one prompt
    pauses : lengths of decode steps, from those of one sequence to those of a full lane [g, s]
    saturated_share : share of the time that prompts take at
    saturation, when as many wait as slots fall free
    """

    capacity: float
    packed: float
    service: Floats
    s1: float
    s2: float
    s3: float
    work: Prompts
    one_at_a_time: bool
    pauses: Floats
    saturated_share: float


@lru_cache(maxsize=512)
def tables(engine: Engine) -> PrefillFirst:
    """Return the rate-independent tables of an engine."""
    r = engine.requests
    packed = packed_tokens(r.prompt, r.weight, engine.budget)
    service = engine.prompt_times(0.0, False, engine.budget)
    s1, s2, s3 = (float(r.weight @ service**p) for p in (1, 2, 3))
    limit = _capacity(engine, packed, service)
    decode = decode_limit(engine.slots, r.d1, float(engine.decode_times[-1])) if limit else np.inf
    return PrefillFirst(
        capacity=limit,
        packed=packed,
        service=service,
        s1=s1,
        s2=s2,
        s3=s3,
        work=Prompts.of(engine.work_tokens(packed), r.weight),
        one_at_a_time=packed < ONE_AT_A_TIME * r.p1,
        pauses=np.geomspace(engine.decode(1.0), engine.decode(max(engine.slots, 1) + 1.0), 24),
        saturated_share=min(1.0 - limit / decode, MOST_PROMPTS),
    )


def capacity(engine: Engine) -> float:
    """Return the saturated rate of the lane [1/s]."""
    return tables(engine).capacity


def _capacity(engine: Engine, packed: float, service: Floats) -> float:
    r = engine.requests
    if r.d1 <= 0:
        return packed / (r.p1 * engine.prompt_step(packed, 0.0, False))
    if engine.slots < 1:
        return 0.0
    decode = decode_limit(engine.slots, r.d1, float(engine.decode_times[-1]))
    per = _per_prompt(engine, packed / r.p1, float(r.weight @ service))
    return prefill_first_limit(decode, per + engine.recomputing(engine.slots, False))


def _per_prompt(engine: Engine, most: float, alone: float) -> float:
    """Return the time of a prompt when all slots that a decode step frees are filled again [s].

    Some steps free none, as many as if ages were even. Answers of one token leave their slots to
    more prompts, in further steps, before decodes go on. Few slots and long answers never free two
    at a time: then it is that of a prompt by itself.
    most : prompts in a full step; alone : time of a prompt by itself [s]
    """
    if most < TOGETHER:
        return alone
    r = engine.requests
    decodes = 1.0 - r.no_decode
    free, chance = engine.slots * decodes / r.d1, any_ends(engine.slots, r.d1 / decodes)
    time = served = 0.0
    while free > NONE_FREE:
        together = max(min(free / chance, most), 1.0)
        time += chance * engine.prompt_step(together * r.p1, 0.0, False)
        served += chance * together
        free -= chance * together * decodes
        chance = -math.expm1(-free)
    return time / served if served > 0.0 else alone


def evaluate(engine: Engine, rate: float) -> LaneLatency | None:
    """Return TTFT and TPOT at `rate` λ > 0 [1/s], or `None` when the lane is not stable."""
    r, lane = engine.requests, tables(engine)
    if rate >= lane.capacity:
        return None
    guess = FIRST_GUESS * max(rate / lane.capacity, 0.5)
    sigma = min(rate * lane.s1, guess)
    state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
    if lane.one_at_a_time:
        wait = _one_at_a_time(engine, lane, rate, state)
    else:
        pace = bulk_pace(server_of(engine, state), rate, lane.work)
        if pace is None:
            return None
        sigma = min(pace.busy, lane.saturated_share)
        state = occupancy(rate, r.d1, engine.decode_times / (1 - sigma))
        wait = bulk_wait(server_of(engine, state), rate, lane.work, pauses=lane.pauses)
    if wait is None:
        return None
    times = _stretched(engine, lane, wait)
    state = occupancy(rate, r.d1, times)
    return _assemble(engine, rate, state, wait, times)


def _stretched(engine: Engine, lane: PrefillFirst, wait: BulkWait) -> Floats:
    """Return mean times from one decode step to the next, with n = 1 … slots decodes [s].

    A stall serves no more prompts than there are free slots, and those that a step frees.
    """
    assert wait.stalls is not None
    plain, d1 = engine.decode_times, max(engine.requests.d1, 1e-12)
    slots = plain.size
    n = np.arange(1.0, slots + 1)
    stall = np.interp(plain, lane.pauses, wait.stalls.means)
    per_prompt = max(1.0 / lane.capacity - d1 * float(plain[-1]) / slots, 0.0)
    return np.asarray(plain + np.minimum(stall, (slots - n + slots / d1) * per_prompt))


def _pause(engine: Engine, state: Occupancy) -> float:
    """Return the decode step that a prompt may have to sit out [s]."""
    return engine.decode(max(state.mean / max(1.0 - state.idle, 1e-9), 1.0))


def server_of(engine: Engine, state: Occupancy) -> BulkServer:
    """Return the bulk chain's server while as many decode as in `state`."""
    lane = tables(engine)
    return BulkServer(
        budget=engine.budget,
        packed=lane.packed,
        step=engine.prompt_steps(0.0, False),
        vacation=_pause(engine, state),
        service=lane.service,
        idle=state.idle,
        cut=engine.requests.fixed_prompt,
    )


def _stall_after(engine: Engine, wait: BulkWait, state: Occupancy) -> float:
    """Return the mean stall that arrivals would make if slots were never short [s]."""
    assert wait.stalls is not None
    plain = np.append(engine.decode_times, engine.decode_times[-1])
    stalls = np.interp(plain, tables(engine).pauses, wait.stalls.means)
    return max(float(state.probability @ stalls), 1e-300)


def _growth(pauses: Floats, means: Floats, pause: float) -> float:
    """Return how much longer the mean stall is after a longer step, per second of that [1]."""
    i = min(max(int(np.searchsorted(pauses, pause)), 2), pauses.size - 2)
    return float(max((means[i + 1] - means[i - 2]) / (pauses[i + 1] - pauses[i - 2]), 0.0))


def _one_at_a_time(
    engine: Engine, lane: PrefillFirst, rate: float, state: Occupancy
) -> BulkWait | None:
    """Return the same quantities when each step takes one prompt: M/G/1 with vacations.

    Stalls are busy periods (Takács), after a first token of those who wait then: by distributional
    Little's law they are as many as arrive during its TTFT.
    """
    service, share = lane.service, engine.requests.weight
    wait = gig1_wait(service, share, rate)
    if wait is None:
        return None
    pause = _pause(engine, state)
    ttft = wait.plus(service, share, pause, state.idle)
    busy = busy_period(rate, lane.s1, lane.s2, lane.s3)
    first, second, third = busy.first, busy.second, busy.third
    left, behind = rate * ttft.mean, rate**2 * ttft.variance * first**2
    arrived = rate * pause
    stalls = Stalls(
        between=(arrived * first, arrived * second, arrived * third),
        after=(left * first, left * second + behind, left * third + 2 * behind**1.5),
        unstalled=float(np.exp(-left)),
        means=rate * lane.pauses * first,
    )
    return BulkWait(
        ttft=ttft,
        busy=wait.load,
        tau=pause / (1 - wait.load),
        spacing=pause / (1 - wait.load),
        batch_tokens=engine.requests.p1,
        backlog=rate * (ttft.mean - lane.s1) * engine.requests.p1,
        load=wait.load,
        saturated=wait.load,
        stalls=stalls,
    )


def _assemble(
    engine: Engine, rate: float, state: Occupancy, wait: BulkWait, times: Floats
) -> LaneLatency:
    """Compose TPOT per class from the occupancy, the noise and the stalls."""
    assert wait.stalls is not None
    r, d, limit = engine.requests, engine.requests.classes, tables(engine).capacity
    seen = np.append(engine.decode_times, engine.decode_times[-1])
    pause, tau = float(state.probability @ seen), state.tpot
    sigma = min(max(1.0 - pause / tau, 1e-9), 1.0 - 1e-9)
    # where free slots limit the stalls, all of them are shorter
    scale = min((tau - pause) / _stall_after(engine, wait, state), 1.0)
    white, skew = wait.stalls.between[1] * scale**2, wait.stalls.between[2] * scale**3
    after = [value * scale**i for i, value in enumerate(wait.stalls.after, 1)]
    # a longer step brings more prompts, whose stall grows by `more` times that
    more = _growth(tables(engine).pauses, wait.stalls.means, pause) * scale
    s1 = more / (1 + more) / rate
    s2 = white * (1 - rate * s1) ** 2 / (rate * tau)
    # others that join at the end of the same stall, beyond those of a mean step
    batch_mates = 2 * more + rate * white / tau
    spread = max(state.variance, 0.0) ** 0.5
    base = engine.response(state.mean, spread)
    own = base.alpha + base.k * r.context
    returns = damping(rate * r.d1 * own * (1 + more))
    joined = batch_mates * own * overlap_steps(r, 1.0 - returns) / d + base.k * (
        r.class_prompt - r.kv1
    )
    td = pause + joined
    mean = td + ((d - 1) * (tau - pause + more * joined) + after[0]) / d
    noise = variance_of_sum(r, Response(base.alpha, base.k, s1, s2), rate, tau)
    total, slope = at_classes(r, noise)
    # requests meet long steps more often, but the stalls between their tokens begin anew
    slow, slow_slope = np.maximum(total - d * white, 0.0), np.maximum(slope - white, 0.0)
    start = max(noise[1] / r.width - white, 0.0)
    slow = slow + np.maximum(size_bias(slow, slow_slope, start, d, tau), 0.0)
    slow = limited(slow, state, returns)
    total = slow + (d - 1) * white
    third = 3 * total**2 / (d * tau) + (d - 1) * max(skew - 3 * white**2 / tau, 0.0)
    third = (third + after[2]) / d**3
    variance = (total + after[1]) / d**2
    unstalled_total, _ = at_classes(r, variance_of_sum(r, base, rate, pause))
    slot_wait = mean_wait(state, r, batch_mates, limit - rate)
    busy = 1.0 - state.idle * (1 - sigma)
    ttft = with_wait(wait.ttft.shift(engine.front_end()), state.wait, slot_wait)
    prompts = engine.prompt_step(wait.batch_tokens, 0.0, False)
    step = 1.0 / ((1.0 - sigma) / pause + sigma / prompts)
    ttft = behind_next_step(engine.lane, ttft, busy, step)
    hindered = "prompts hold decodes up until no slot is free"
    reasons = (
        *((hindered,) if scale < UNHINDERED else ()),
        *engine.kv_reasons(state.probability, rate / limit),
        *engine.longest_prompts(wait.cut_off),
    )
    return LaneLatency(
        ttft=ttft,
        mean=mean,
        variance=variance,
        third=third,
        unstalled=Unstalled(
            share=wait.stalls.unstalled * np.exp(-rate * (d - 1) * td),
            mean=td,
            variance=unstalled_total / d**2,
        ),
        low=engine.decode(1.0),
        high=np.inf,
        running=state.mean,
        busy=busy,
        capacity=limit,
        wait=state.wait,
        bend=bend(times, state, r, variance, own),
        queued=queued(state, slot_wait, wait.ttft.mean),
        stall_atoms=tables(engine).service,
        reasons=reasons,
    )
