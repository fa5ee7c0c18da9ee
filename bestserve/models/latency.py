"""Latency of a serving system at a request rate, from the queueing models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from bestserve.models import hybrid
from bestserve.models.distribution import Distribution
from bestserve.models.lane_arrivals import refuse_uncovered
from bestserve.models.latencies import Latencies, OutputClasses, compose, judged, unstable
from bestserve.models.queues.requests import prepare
from bestserve.models.refused import refused
from bestserve.models.schedulers import (
    decode_pool,
    prefill_pool,
    prefill_priority,
    shared_steps,
    tandem,
)
from bestserve.models.schedulers.engine import Engine, engine_of
from bestserve.models.schedulers.tokens import per_token
from bestserve.models.status import LatencyStatus
from bestserve.models.system import (
    Collocated,
    Disaggregated,
    Hybrid,
    Lane,
    Lengths,
    System,
    Transfer,
)
from bestserve.models.trust import Trust

__all__ = [
    "Latencies",
    "OutputClasses",
    "decode_alone",
    "engine_of",
    "evaluator",
    "latency",
    "latency_curve",
    "prefill_alone",
    "stability_rate",
]


MOST_GAIN, CLOSE = 1024.0, 0.003
"""Of prefix caches: how many times the saturated rate may grow, and how exactly it is found."""

FULL = 1e9
"""Decodes of a lane that is full, however many those are."""

ALONE = 1e-6
"""Share of the stability limit below which next to no request meets another one."""


def latency(system: System, rate: float) -> Latencies:
    """Return the stationary latencies of `system` at `rate` requests per second.

    A rate at or above the stability limit gives `LatencyStatus.UNSTABLE` and infinite laws; where
    the formulas have none below it, it is `LatencyStatus.NO_LAW`.

    Raises InputError for arrivals that are not Poisson at every lane.
    """
    if not rate > 0:
        raise ValueError(f"rate = {rate} must be positive [1/s]")
    return judged(evaluator(system)(rate))


def latency_curve(system: System, rates: Iterable[float]) -> list[Latencies]:
    """Return `latency` at each of `rates` [1/s]; lanes and workload are prepared once."""
    evaluate = evaluator(system)
    return [judged(evaluate(float(rate))) for rate in rates]


def stability_rate(system: System) -> float:
    """Return the saturated rate of the whole system [1/s]."""
    if system.caching is not None and system.caching.sharing is not None:
        return _stable_with_hits(system)
    if isinstance(system, Hybrid):
        return hybrid.stability_rate(system)
    if isinstance(system, Collocated):
        engine = lane_engine(system.lane, system.lengths, FULL)
        return system.replicas * capacity(engine)
    prefill = lane_engine(system.prefill, system.lengths, FULL)
    decode = lane_engine(system.decode, system.lengths, FULL)
    return min(
        system.prefill_replicas * prefill_pool.capacity(prefill),
        system.decode_replicas * decode_pool.capacity(decode),
        system.prefill_replicas * tandem.link_limit(system.transfer, prefill.requests),
    )


def _stable_with_hits(system: System) -> float:
    """Return the rate that is the saturated one of what its prefix caches find at it [1/s]."""
    from bestserve.models.prefix_hits import with_hits  # loads SciPy's optimisers

    low, high = stability_rate(replace(system, caching=None)), 0.0
    if low <= 0:
        return low
    high = 2 * low
    while high < MOST_GAIN * low and stability_rate(with_hits(system, high)) > high:
        low, high = high, 2 * high
    while high > low * (1 + CLOSE):
        middle = math.sqrt(low * high)
        if stability_rate(with_hits(system, middle)) > middle:
            low = middle
        else:
            high = middle
    return low


def capacity(engine: Engine) -> float:
    """Return the saturated rate of one lane that processes prompts and decodes [1/s]."""
    policy = engine.lane.scheduling
    if policy.rides:
        return shared_steps.capacity(engine, policy.splits)
    return prefill_priority.capacity(engine)


def evaluator(system: System) -> Callable[[float], Latencies]:
    """Return the function rate [1/s] → `Latencies`, everything else prepared.

    Raises as `latency`.
    """
    refuse_uncovered(system)
    evaluate, turned_away = _evaluator(system), refused(system)
    if turned_away.share == 0.0:
        return evaluate
    doubt = Trust.of(turned_away.reason if turned_away.too_many else None)

    def of_the_others(rate: float) -> Latencies:
        found = evaluate(rate)
        return replace(found, refused=turned_away.share, trust=found.trust & doubt)

    return of_the_others


def _evaluator(system: System) -> Callable[[float], Latencies]:
    """Return `evaluator` of a system that serves every request."""
    if system.caching is not None and system.caching.sharing is not None:
        known = stability_rate(system)
        return lambda rate: _found_at(system, rate, known)
    if isinstance(system, Hybrid):
        return hybrid.evaluator(system)
    if isinstance(system, Collocated):
        return lambda rate: by_batch(
            system.lane, lambda decodes: _collocated(system, decodes, rate)
        )
    limit = stability_rate(system)
    return lambda rate: by_batch(
        system.decode, lambda decodes: _disaggregated(system, decodes, rate, limit)
    )


def by_batch(lane: Lane, found_at: Callable[[float], Latencies]) -> Latencies:
    """Return the latencies at which a lane drafts what it does with as many decodes as it has.

    found_at : decodes for which requests are counted in steps → latencies
    """
    drafting, decodes = lane.speculation, 1.0
    found = found_at(decodes)
    for _ in range(len(drafting.schedule)):
        if found.status is not LatencyStatus.OK:
            break
        last, decodes = decodes, max(found.mean_batch, 1.0)
        if drafting.drafts_beside(last) == drafting.drafts_beside(decodes):
            break
        found = found_at(decodes)
    return found


def _found_at(system: System, rate: float, limit: float) -> Latencies:
    """Return the latencies with what the prefix caches find at a rate; limit : the stable one."""
    from bestserve.models.prefix_hits import with_hits

    if rate >= limit:
        return unstable(rate, limit)
    found = evaluator(with_hits(system, rate))(rate)
    return replace(found, stability_rate=limit)


def lane_engine(lane: Lane, lengths: Lengths, decodes: float = 1.0) -> Engine:
    """Return the engine of a lane whose steps yield what they do with so many decodes."""
    return engine_of(lane, prepare(lengths, lane.speculation.law(decodes)))


def _collocated(system: Collocated, decodes: float, rate: float) -> Latencies:
    engine = lane_engine(system.lane, system.lengths, decodes)
    if engine.slots < 1:
        return unstable(rate, 0.0, LatencyStatus.NO_SLOT)
    share = rate / system.replicas
    limit = capacity(engine) * system.replicas
    policy, effective = system.lane.scheduling, _effective(share, limit / system.replicas)
    if policy.rides:
        decoding = shared_steps.evaluate(engine, effective, policy.splits)
    else:
        decoding = prefill_priority.evaluate(engine, effective)
    if decoding is None:
        return unstable(rate, limit)
    return compose(
        engine.requests,
        system.lane,
        decoding.ttft,
        per_token(decoding, engine.requests),
        rate=rate,
        limit=decoding.capacity * system.replicas,
        utilisation=decoding.busy,
        structural=Trust.of(*decoding.reasons),
        situation=engine.situation(rate / limit, decoding, shared=True),
    )


def _effective(rate: float, limit: float) -> float:
    """Return the rate, or what is as good as none of a stability limit where it is less [1/s]."""
    return max(rate, ALONE * limit) if np.isfinite(limit) else rate


def _disaggregated(system: Disaggregated, decodes: float, rate: float, limit: float) -> Latencies:
    prefill = lane_engine(system.prefill, system.lengths)
    decode = lane_engine(system.decode, system.lengths, decodes)
    if decode.slots < 1:
        return unstable(rate, 0.0, LatencyStatus.NO_SLOT)
    k_p, k_d = system.prefill_replicas, system.decode_replicas
    effective = _effective(rate, limit)
    moved = tandem.transfer_moments(system.transfer, prefill.requests, effective / k_p)
    first = prefill_pool.evaluate(prefill, effective / k_p)
    rest = decode_pool.evaluate(decode, effective / k_d, moved) if np.isfinite(moved[0]) else None
    if first is None or rest is None:
        return unstable(rate, limit)
    return compose(
        decode.requests,
        system.decode,
        first.ttft.shift(prefill.front_end()),
        per_token(rest, decode.requests),
        rate=rate,
        limit=limit,
        utilisation=max(first.busy, rest.busy),
        structural=Trust.of(*rest.reasons, *first.reasons),
        situation=prefill.situation(rate / limit, rest),
    )


def prefill_alone(engine: Engine, rate: float) -> Latencies:
    """Return the latencies of one prefill lane by itself: TTFT only, TPOT 0."""
    limit = prefill_pool.capacity(engine)
    found = prefill_pool.evaluate(engine, _effective(rate, limit))
    if found is None:
        return unstable(rate, limit)
    ttft = found.ttft.shift(engine.front_end())
    structural = Trust.of(*found.reasons)
    return Latencies(
        ttft=ttft,
        tpot=Distribution.point(0.0),
        rate=rate,
        utilisation=found.busy,
        stability_rate=limit,
        mean_batch=0.0,
        trust=structural,
        structural=structural,
        situation=engine.situation(rate / limit),
        status=LatencyStatus.OK,
    )


def decode_alone(engine: Engine, rate: float, transfer: Transfer) -> Latencies:
    """Return the latencies of one decode lane by itself: TPOT, TTFT 0."""
    if engine.slots < 1:
        return unstable(rate, 0.0, LatencyStatus.NO_SLOT)
    moved = tandem.transfer_moments(transfer, engine.requests, rate)
    limit = decode_pool.capacity(engine)
    found = decode_pool.evaluate(engine, _effective(rate, limit), moved)
    if found is None:
        return unstable(rate, limit)
    return compose(
        engine.requests,
        engine.lane,
        found.ttft,
        per_token(found, engine.requests),
        rate=rate,
        limit=limit,
        utilisation=found.busy,
        structural=Trust.of(*found.reasons),
        situation=engine.situation(rate / limit, found),
    )
