"""Latency of a hybrid under random routing: lanes of one kind, prompts at λ and decodes at φλ.

With a share x of the prompts on decode lanes and a share y of the other answers kept on prefill
lanes, of k_P and k_D lanes,

    prefill lane:  prompts (1−x) λ/k_P,  φ = y
    decode lane:   prompts x λ/k_D,      φ = 1 + (1−x)(1−y)/x

so that φ = 1 is a collocated lane, φ = 0 a prefill lane, and no prompts at all a decode lane. A
request takes one of three paths: both on a decode lane (x), both on a prefill lane ((1−x)y), or its
KV moves from one to the other. Latencies are mixtures over the paths.

Where the pool goes by length, prompts on decode lanes have the short prompts' law and decodes there
that of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from bestserve.arrays import Bools, Floats
from bestserve.models.distribution import Distribution
from bestserve.models.latencies import Latencies, compose, unstable
from bestserve.models.queues.requests import Requests, decoupled, prepare
from bestserve.models.queues.tpot.pearson import Unstalled
from bestserve.models.schedulers import decode_pool, prefill_pool, shared_steps, tandem
from bestserve.models.schedulers.engine import Engine, LaneLatency, engine_of
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Hybrid, Lane, Lengths
from bestserve.models.trust import Trust

ALONE = 1e-6
"""Share of the stability limit below which next to no request meets another one."""

ROUNDS = 4
"""Rounds in which a balanced share and the decodes in full steps settle."""


def local_share(system: Hybrid) -> float:
    """Return the share x of the prompts that decode lanes process [1]."""
    if system.longest_local == 0:
        return system.local_prefill_share
    return float(system.lengths.input_weights @ _short(system))


def balanced_share(system: Hybrid) -> float:
    """Return the share of the prompts on decode lanes that loads both pools alike [1].

    With full steps of R tokens a second, and q = E[l] + y E[D] tokens of a request that stays where
    its prompt was processed, the loads (1 − x) q/(k_P R_P) and ((1 − y) E[D] + x q)/(k_D R_D) are
    equal at

        x = (q a − (1 − y) E[D] b)/(q (a + b)),  a = 1/(k_P R_P), b = 1/(k_D R_D)

    Where the pool goes by length, x is given: `local_share`.
    """
    if system.longest_local > 0:
        return local_share(system)
    r, stay = prepare(system.lengths), system.local_decode_share
    own, away = r.p1 + stay * r.d1, (1.0 - stay) * r.d1
    a = 1.0 / (system.prefill_replicas * full_pace(system.prefill, r, stay * r.d1 / own))
    share = 0.5
    for _ in range(ROUNDS):
        decodes = (away + share * stay * r.d1) / (away + share * own)
        b = 1.0 / (system.decode_replicas * full_pace(system.decode, r, min(decodes, 1.0)))
        share = min(max((own * a - away * b) / (own * (a + b)), 0.0), 1.0)
    return share


def full_pace(lane: Lane, requests: Requests, decodes: float) -> float:
    """Return the tokens per second of full steps, of which a share are decodes [tokens/s]."""
    return lane.max_num_batched_tokens / full_step(lane, requests, decodes)


def full_step(lane: Lane, requests: Requests, decodes: float | None = None) -> float:
    """Return the time of a full step, of which a share are decodes [s]; None: as requests bring."""
    engine = engine_of(lane, requests)
    share = requests.d1 / (requests.p1 + requests.d1) if decodes is None else decodes
    n = share * engine.budget
    return engine.prompt_step(max(engine.budget - n, 1.0), n, True)


def fluid_bound(system: Hybrid) -> float:
    """Return the rate that full steps without a pause would carry, prompts shared out best [1/s].

    min((k_P R_P + k_D R_D)/(E[l] + E[D]), k_D R_D/((1 − y) E[D])), with R of decodes in proportion;
    without the second where decodes flow to prefill lanes.
    """
    r, stay = prepare(system.lengths), system.local_decode_share
    share = r.d1 / (r.p1 + r.d1)
    front = system.prefill_replicas * full_pace(system.prefill, r, stay * share)
    back = system.decode_replicas * full_pace(system.decode, r, share)
    away = (1.0 - stay) * r.d1 if system.flow is None else 0.0
    whole = (front + back) / (r.p1 + r.d1)
    return min(whole, back / away) if away > 0.0 else whole


def stability_rate(system: Hybrid) -> float:
    """Return the saturated rate of the whole system [1/s].

    Of routers that share out prompts by load, and of decodes that flow, which no formula knows, the
    bound of the best ones.
    """
    by_load = system.routing == "least_ttft" or system.prefill_queue > 0
    if by_load or system.flow is not None:
        return fluid_bound(system)
    return _Shares.of(system).limit(system)


def evaluator(system: Hybrid) -> Callable[[float], Latencies]:
    """Return the function rate [1/s] → `Latencies`, everything else prepared."""
    shares = _Shares.of(system)
    limit = shares.limit(system)
    return lambda rate: _latencies(system, shares, rate, limit)


@dataclass(frozen=True, slots=True)
class _Shares:
    """What each pool does.

    local, moved, kept : shares of the requests by their path [1]
    front, back : a lane of each pool with its requests; None where a pool has nothing to do
    """

    local: float
    moved: float
    kept: float
    front: Engine | None
    back: Engine | None

    @classmethod
    def of(cls, system: Hybrid) -> _Shares:
        local, stay = local_share(system), system.local_decode_share
        kept, moved = (1.0 - local) * stay, (1.0 - local) * (1.0 - stay)
        short, long, decodes = _requests(system)
        front = engine_of(system.prefill, long, stay) if local < 1.0 else None
        back = None
        if local > 0.0:
            work = _lane_requests(short, decodes)
            back = engine_of(system.decode, work, (local + moved) / local)
        elif moved > 0.0:
            back = engine_of(system.decode, decodes)
        return cls(local, moved, kept, front, back)

    def limit(self, system: Hybrid) -> float:
        """Return the rate of the system that one of the pools, or the links, cannot pass [1/s]."""
        limits = []
        if self.front is not None:
            each = _capacity(self.front) if self.kept > 0.0 else prefill_pool.capacity(self.front)
            limits.append(system.prefill_replicas * each / (self.kept + self.moved))
        if self.back is not None and self.local > 0.0:
            limits.append(system.decode_replicas * _capacity(self.back) / self.local)
        elif self.back is not None:
            limits.append(system.decode_replicas * decode_pool.capacity(self.back) / self.moved)
        if self.moved > 0.0:
            assert self.front is not None
            link = tandem.link_limit(system.transfer, self.front.requests)
            limits.append(system.prefill_replicas * link / self.moved)
        return min(limits)


def _capacity(engine: Engine) -> float:
    return shared_steps.capacity(engine, engine.lane.scheduling.splits)


def _short(system: Hybrid) -> Bools:
    """Return which prompts are short enough to be processed on decode lanes [m]."""
    law = system.lengths
    found = law.cached if law.cached.size else 0.0
    short: Bools = law.inputs - found <= system.longest_local
    return short


def _requests(system: Hybrid) -> tuple[Requests, Requests, Requests]:
    """Return the requests of prompts on decode and on prefill lanes, and of decodes moved or local.

    They differ where the pool goes by length.
    """
    law = system.lengths
    if system.longest_local == 0:
        return prepare(law), prepare(law), prepare(law)
    return _by_length(law, system.longest_local, system.local_decode_share)


@lru_cache(maxsize=64)
def _by_length(law: Lengths, longest: int, stay: float) -> tuple[Requests, Requests, Requests]:
    found = law.cached if law.cached.size else np.zeros_like(law.inputs)
    short = law.inputs - found <= longest
    parts = (short.astype(float), (~short).astype(float), np.where(short, 1.0, 1.0 - stay))
    short_ones, long_ones, decodes = (_weighed(law, part) for part in parts)
    return short_ones, long_ones, decodes


def _weighed(law: Lengths, part: Floats) -> Requests:
    """Return the requests of which some take part, by prompt length; of none, all."""
    total = float(law.input_weights @ part)
    if total <= 0.0 or bool(np.all(part == 1.0)):
        return prepare(law)
    keep = part > 0.0
    weights = (law.input_weights * part)[keep] / total
    chosen = replace(
        law,
        inputs=law.inputs[keep],
        input_weights=weights,
        outputs=law.outputs[keep] if law.joint else law.outputs,
        output_weights=weights if law.joint else law.output_weights,
        cached=law.cached[keep] if law.cached.size else law.cached,
    )
    return prepare(chosen)


@lru_cache(maxsize=64)
def _lane_requests(prompts: Requests, decodes: Requests) -> Requests:
    return decodes if prompts is decodes else decoupled(prompts, decodes)


def _latencies(system: Hybrid, shares: _Shares, rate: float, limit: float) -> Latencies:
    for engine in (shares.front if shares.kept > 0.0 else None, shares.back):
        if engine is not None and engine.slots < 1:
            return unstable(rate, 0.0, LatencyStatus.NO_SLOT)
    if rate >= limit:
        return unstable(rate, limit)
    effective = max(rate, ALONE * limit) if math.isfinite(limit) else rate
    front = _front(system, shares, effective)
    back = _back(system, shares, effective)
    if (front is None and shares.front is not None) or (back is None and shares.back is not None):
        return unstable(rate, limit)
    busy = max(found.busy for found in (front, back) if found is not None)
    reasons = [*(back.reasons if back else ()), *(front.reasons if front else ())]

    def path(engine: Engine, lane: Lane, ttft: Distribution, decoding: LaneLatency) -> Latencies:
        prompts = shares.back if shares.local == 1.0 else shares.front
        assert prompts is not None
        return compose(
            engine.requests,
            lane,
            ttft,
            decoding,
            rate=rate,
            limit=limit,
            utilisation=busy,
            structural=Trust.of(*reasons),
            situation=prompts.situation(
                rate / limit, decoding, shared=shares.local > 0.0 or shares.kept > 0.0
            ),
        )

    paths: list[tuple[float, Latencies]] = []
    if shares.local > 0.0:
        assert shares.back is not None
        assert back is not None
        paths.append((shares.local, path(shares.back, system.decode, back.ttft, back)))
    if shares.kept > 0.0:
        assert shares.front is not None
        assert front is not None
        paths.append((shares.kept, path(shares.front, system.prefill, front.ttft, front)))
    if shares.moved > 0.0:
        assert shares.back is not None
        assert front is not None
        assert back is not None
        if shares.local > 0.0:
            sent = shares.moved * effective / system.prefill_replicas
            joins = (shares.local + shares.moved) * effective / system.decode_replicas
            back = _joining(system, shares, back, joins, sent)
        paths.append((shares.moved, path(shares.back, system.decode, front.ttft, back)))
    return _mixed(paths)


def _front(system: Hybrid, shares: _Shares, rate: float) -> LaneLatency | None:
    """Return what a prefill lane does to the requests it takes."""
    engine = shares.front
    if engine is None:
        return None
    own = (shares.kept + shares.moved) * rate / system.prefill_replicas
    if shares.kept > 0.0:
        return shared_steps.evaluate(engine, own, engine.lane.scheduling.splits)
    first = prefill_pool.evaluate(engine, own)
    if first is None:
        return None
    none = np.zeros(0)
    return LaneLatency(
        ttft=first.ttft.shift(engine.front_end()),
        mean=none,
        variance=none,
        third=none,
        unstalled=Unstalled(none, none, none),
        low=0.0,
        high=0.0,
        running=0.0,
        busy=first.busy,
        capacity=prefill_pool.capacity(engine),
        wait=0.0,
        reasons=first.reasons,
    )


def _back(system: Hybrid, shares: _Shares, rate: float) -> LaneLatency | None:
    """Return what a decode lane does to its requests; to those that move, without prompts."""
    engine = shares.back
    if engine is None:
        return None
    if shares.local > 0.0:
        own = shares.local * rate / system.decode_replicas
        return shared_steps.evaluate(engine, own, engine.lane.scheduling.splits)
    sent = shares.moved * rate / system.prefill_replicas
    moved = tandem.transfer_moments(system.transfer, _sent(shares), sent)
    if not np.isfinite(moved[0]):
        return None
    return decode_pool.evaluate(engine, shares.moved * rate / system.decode_replicas, moved)


def _sent(shares: _Shares) -> Requests:
    """Return the requests whose KV moves."""
    assert shares.front is not None
    return shares.front.requests


def _joining(
    system: Hybrid, shares: _Shares, found: LaneLatency, joins: float, sent: float
) -> LaneLatency:
    """Return what decodes meet that join a lane with prompts, KV transfer included.

    They wait for the end of the step under way, which counts before their second token.
    joins, sent : rates at which requests decode on a lane, and leave a prefill lane [1/s]
    """
    assert shares.back is not None
    r = shares.back.requests
    d = r.classes
    moved = tandem.transfer_moments(system.transfer, _sent(shares), sent)
    step = found.running / (joins * r.d1) if r.d1 > 0 else 0.0
    delay = found.busy * step / 2 + moved[0]
    variance = found.busy * step**2 / 3 - (found.busy * step / 2) ** 2 + moved[1]
    if system.decode.async_scheduling:  # the next step is formed already
        delay += found.busy * step
        variance += found.busy * (1 - found.busy) * step**2
    alone = found.unstalled
    return replace(
        found,
        mean=found.mean + delay / d,
        variance=found.variance + variance / d**2,
        unstalled=Unstalled(alone.share, alone.mean + delay / d, alone.variance + variance / d**2),
        low=found.low + float(moved[0] / d.max(initial=1.0)),
        high=math.inf,
    )


def _mixed(paths: list[tuple[float, Latencies]]) -> Latencies:
    """Return the latencies of requests that take different paths."""
    main = max(paths, key=lambda path: path[0])[1]
    if len(paths) == 1 or main.status is not LatencyStatus.OK:
        return main
    weights = [weight for weight, _ in paths]
    structural = main.structural
    for _, found in paths:
        structural = structural & found.structural
    return replace(
        main,
        ttft=Distribution.mixture([found.ttft for _, found in paths], weights),
        tpot=Distribution.mixture([found.tpot for _, found in paths], weights),
        mean_batch=max(found.mean_batch for _, found in paths),
        structural=structural,
        trust=structural,
        paths=tuple(paths),
    )
