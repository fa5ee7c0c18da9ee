"""Latency of a serving system at a request rate, from the queueing models."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.lane_arrivals import (
    arrival_reasons,
    decoding_gaps,
    gap_reasons,
    lane_scv,
    prefill_gaps,
)
from bestserve.models.latencies import Latencies, OutputClasses, compose, unstable
from bestserve.models.non_poisson import closed_loop
from bestserve.models.non_poisson import correction as uneven
from bestserve.models.non_poisson import mmpp as slow_rates
from bestserve.models.queues.requests import Requests, prepare
from bestserve.models.refused import refused
from bestserve.models.schedulers import (
    decode_pool,
    prefill_pool,
    prefill_priority,
    shared_steps,
    tandem,
)
from bestserve.models.schedulers.engine import Engine, LaneLatency
from bestserve.models.status import Status
from bestserve.models.system import (
    Collocated,
    Disaggregated,
    Lane,
    System,
    Transfer,
)
from bestserve.models.trust import Situation, Trust

__all__ = [
    "Latencies",
    "OutputClasses",
    "decode_alone",
    "engine_of",
    "evaluator",
    "lane_scv",
    "latency",
    "latency_curve",
    "prefill_alone",
    "stability_rate",
]

Floats = NDArray[np.float64]

ALONE = 1e-6
"""Share of the stability limit below which next to no request meets another one."""

LONG_PROMPT = 0.5
"""Prefill time of a mean prompt, in decode times of a mean answer, from which TPOT is doubted."""


def latency(system: System, rate: float) -> Latencies:
    """Return the stationary latencies of `system` at `rate` requests per second.

    A rate at or above the stability limit gives `Status.UNSTABLE` and infinite laws; where the
    formulas have none below it, it is `Status.NO_LAW`.
    """
    if not rate > 0:
        raise ValueError(f"rate = {rate} must be positive [1/s]")
    return evaluator(system)(rate)


def latency_curve(system: System, rates: Iterable[float]) -> list[Latencies]:
    """Return `latency` at each of `rates` [1/s]; lanes and workload are prepared once."""
    evaluate = evaluator(system)
    return [evaluate(float(rate)) for rate in rates]


def stability_rate(system: System) -> float:
    """Return the saturated rate of the whole system [1/s]."""
    requests = prepare(system.lengths)
    if isinstance(system, Collocated):
        engine = engine_of(system.lane, requests)
        return system.replicas * capacity(engine)
    return min(
        system.prefill_replicas * prefill_pool.capacity(engine_of(system.prefill, requests)),
        system.decode_replicas * decode_pool.capacity(engine_of(system.decode, requests)),
        system.prefill_replicas * tandem.link_limit(system.transfer, requests),
    )


def capacity(engine: Engine) -> float:
    """Return the saturated rate of one lane that processes prompts and decodes [1/s]."""
    policy = engine.lane.scheduling
    if policy.rides:
        return shared_steps.capacity(engine, policy.splits)
    return prefill_priority.capacity(engine)


def evaluator(system: System) -> Callable[[float], Latencies]:
    """Return the function rate [1/s] → `Latencies`, everything else prepared."""
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
    requests = prepare(system.lengths)
    if system.arrivals.kind == "closed":
        return lambda _: _closed(system, requests)
    if isinstance(system, Collocated):
        return lambda rate: _collocated(system, requests, rate)
    limit = stability_rate(system)
    return lambda rate: _disaggregated(system, requests, rate, limit)


@lru_cache(maxsize=512)
def engine_of(lane: Lane, requests: Requests) -> Engine:
    """Return the engine of a lane for a workload; recent ones are kept."""
    return Engine.of(lane, requests)


def _collocated(system: Collocated, requests: Requests, rate: float) -> Latencies:
    engine = engine_of(system.lane, requests)
    if engine.slots < 1:
        return unstable(rate, 0.0, Status.NO_SLOT)
    share = rate / system.replicas
    scv = lane_scv(system.arrivals, system.routing, system.replicas)
    limit = capacity(engine) * system.replicas
    met = _lane(system, engine, _felt(share, limit / system.replicas), scv)
    if met is None:
        return unstable(rate, limit)
    doubts = (_prompt_reason(engine, met), *policy_doubts(system))
    arrivals = Trust.of(*arrival_reasons(system.arrivals, system.routing, scv))
    return compose(
        requests,
        system.lane,
        met.ttft,
        met,
        rate=rate,
        limit=met.capacity * system.replicas,
        utilisation=met.busy,
        trust=Trust.of(*met.reasons, *doubts) & arrivals,
        firm=Trust.of(*met.firm, *doubts),
        arrivals=arrivals,
        situation=Situation(
            decodes_apart=False,
            met=share * requests.d1 * float(requests.class_weight @ met.mean),
            scv=_prompts_alone(engine)[1],
        ),
    )


def _felt(rate: float, limit: float) -> float:
    """Return the rate, or what is as good as none of a stability limit where it is less [1/s]."""
    return max(rate, ALONE * limit) if np.isfinite(limit) else rate


def _lane(system: Collocated, engine: Engine, rate: float, scv: float) -> LaneLatency | None:
    """Return the latencies of one lane at its `rate` [1/s], or `None` when it is not stable.

    scv : squared CV of its gaps
    """
    policy, arrivals = system.lane.scheduling, system.arrivals
    if not policy.rides:
        met = prefill_priority.evaluate(engine, rate, scv)
        if met is None or scv == 1.0:
            return met
        gaps = decoding_gaps(arrivals, system.routing, system.replicas)
        found = uneven.priority_latency(engine, met, rate, gaps)
        return met if found is None else found
    split = policy.splits
    if arrivals.kind == "mmpp":
        phases = slow_rates.Phases(arrivals.rates, arrivals.stays)
        limit = capacity(engine)
        return slow_rates.slow_latency(
            engine, rate, phases, limit, split, lambda at: shared_steps.evaluate(engine, at, split)
        )
    met = shared_steps.evaluate(engine, rate, split)
    gaps = decoding_gaps(arrivals, system.routing, system.replicas)
    if met is None or gaps.poisson:
        return met
    return uneven.shared_latency(engine, met, rate, gaps, split)


def policy_doubts(system: System) -> tuple[str, ...]:
    """Return why the formulas only come near the policies of a system; empty where they hold."""
    if isinstance(system, Collocated):
        names = [system.lane.scheduling.no_formula]
    else:
        names = [system.prefill.scheduling.no_formula, system.decode.scheduling.no_formula]
    return tuple(dict.fromkeys(name for name in names if name))


def _prompt_reason(engine: Engine, met: LaneLatency) -> str | None:
    """Doubt prompts so long against the answers that few of them decide an answer's TPOT."""
    answer = engine.requests.d1 * engine.decode(max(met.running, 1.0))
    if _prompts_alone(engine)[0] <= LONG_PROMPT * answer:
        return None
    return "a prompt takes as long as most of an answer: few prompts decide TPOT"


@lru_cache(maxsize=512)
def _prompts_alone(engine: Engine) -> tuple[float, float]:
    """Return the mean time of split prompts by themselves and their squared CV as served [s, 1]."""
    alone = engine.prompt_times(0.0, True, engine.budget)
    return float(engine.requests.weight @ alone), engine.prompt_scv()


def _closed(system: System, requests: Requests) -> Latencies:
    """Return the latencies of a closed loop; `num_prompts` 0 gives the steady flavour."""
    a = system.arrivals
    if a.concurrency < 1:
        raise ValueError("closed-loop arrivals need concurrency ≥ 1")
    if isinstance(system, Collocated):
        lane, k = engine_of(system.lane, requests), system.replicas
        if lane.slots < 1:
            return unstable(0.0, 0.0, Status.NO_SLOT)
        found = closed_loop.closed_lane(
            lane, max(a.concurrency / k, 1.0), a.num_prompts / k, a.think
        )
        reasons = found.reasons
        if k > 1:
            reasons += ("clients of a closed loop are taken as evenly spread over replicas",)
        rate, busy = found.rate * k, 1.0
    else:
        lane, k = engine_of(system.decode, requests), system.prefill_replicas
        prefill = engine_of(system.prefill, requests)
        if lane.slots < 1:
            return unstable(0.0, 0.0, Status.NO_SLOT)
        moved = tandem.transfer_moments(system.transfer, requests, 1e-9)[0]

        def first(x: float) -> Distribution | None:
            met = prefill_pool.evaluate(prefill, x / k)
            return None if met is None else met.ttft.shift(prefill.front_end())

        limit = stability_rate(system)
        found = closed_loop.closed_tandem(
            lane, first, limit, a.concurrency, system.decode_replicas, moved, a.think
        )
        reasons, rate, busy = found.reasons, found.rate, found.rate / limit
    doubts = policy_doubts(system)
    met = LaneLatency(
        ttft=found.ttft,
        mean=found.mean,
        variance=found.variance,
        third=found.third,
        calm=np.zeros_like(found.mean),
        calm_mean=found.mean,
        calm_variance=found.variance,
        low=lane.decode(1.0),
        high=np.inf,
        running=found.running,
        busy=busy,
        capacity=rate,
        wait=0.0,
        stall=0.0,
        reasons=reasons,
    )
    return compose(
        requests,
        lane.lane,
        found.ttft,
        met,
        rate=rate,
        limit=stability_rate(system),
        utilisation=busy,
        trust=Trust.of(*reasons, *doubts),
    )


def _disaggregated(
    system: Disaggregated, requests: Requests, rate: float, limit: float
) -> Latencies:
    prefill = engine_of(system.prefill, requests)
    decode = engine_of(system.decode, requests)
    if decode.slots < 1:
        return unstable(rate, 0.0, Status.NO_SLOT)
    k_p, k_d = system.prefill_replicas, system.decode_replicas
    lone = _felt(rate, limit)
    gaps = prefill_gaps(system.arrivals, system.routing, k_p)
    scv_d = lane_scv(system.arrivals, system.routing, k_d)
    moved = tandem.transfer_moments(system.transfer, requests, lone / k_p)
    balanced = system.routing == "least_outstanding" and system.arrivals.scv == 1.0
    first = _prefill(prefill, lone / k_p, gaps, k_p if balanced else 1)
    rest = decode_pool.evaluate(decode, lone / k_d, scv_d, moved) if np.isfinite(moved[0]) else None
    if first is None or rest is None:
        return unstable(rate, limit)
    arrivals = Trust.of(*arrival_reasons(system.arrivals, system.routing, gaps.at_lane))
    doubts = policy_doubts(system)
    return compose(
        requests,
        system.decode,
        first.ttft.shift(prefill.front_end()),
        rest,
        rate=rate,
        limit=limit,
        utilisation=max(first.busy, rest.busy),
        trust=Trust.of(*rest.reasons, *first.reasons, *doubts) & arrivals,
        firm=Trust.of(*rest.reasons, *doubts),
        arrivals=arrivals,
        situation=Situation(decodes_apart=True),
    )


def _prefill(
    engine: Engine,
    rate: float,
    gaps: uneven.Gaps,
    servers: int = 1,
) -> prefill_pool.PrefillLatency | None:
    """Return TTFT of one prefill lane at its `rate` [1/s], or `None` when it is not stable.

    servers : lanes with one queue, as in `prefill_pool.evaluate`
    """
    if gaps.poisson or prefill_pool.tables(engine).single:
        return prefill_pool.evaluate(engine, rate, gaps.at_lane, servers)
    found = prefill_pool.evaluate(engine, rate)
    if found is None:
        return None
    return replace(found, ttft=uneven.prefill_ttft(engine, found.ttft, rate, gaps))


def prefill_alone(engine: Engine, rate: float, scv: float) -> Latencies:
    """Return the latencies of one prefill lane by itself: TTFT only, TPOT 0."""
    limit = prefill_pool.capacity(engine)
    found = _prefill(engine, _felt(rate, limit), uneven.Gaps(scv=scv, lanes=1))
    if found is None:
        return unstable(rate, limit)
    ttft = found.ttft.shift(engine.front_end())
    return Latencies(
        ttft=ttft,
        tpot=Distribution.point(0.0),
        rate=rate,
        utilisation=found.busy,
        stability_rate=limit,
        mean_batch=0.0,
        trust=Trust.of(*found.reasons, engine.lane.scheduling.no_formula, *gap_reasons(scv)),
        arrivals=Trust.of(*gap_reasons(scv)),
        situation=Situation(decodes_apart=True),
        status=Status.OK,
    )


def decode_alone(engine: Engine, rate: float, scv: float, transfer: Transfer) -> Latencies:
    """Return the latencies of one decode lane by itself: TPOT, TTFT 0."""
    if engine.slots < 1:
        return unstable(rate, 0.0, Status.NO_SLOT)
    moved = tandem.transfer_moments(transfer, engine.requests, rate)
    limit = decode_pool.capacity(engine)
    found = decode_pool.evaluate(engine, _felt(rate, limit), scv, moved)
    if found is None:
        return unstable(rate, limit)
    return compose(
        engine.requests,
        engine.lane,
        found.ttft,
        found,
        rate=rate,
        limit=limit,
        utilisation=found.busy,
        trust=Trust.of(*found.reasons, *gap_reasons(scv)),
        firm=Trust.of(*found.reasons),
        arrivals=Trust.of(*gap_reasons(scv)),
        situation=Situation(decodes_apart=True),
    )
