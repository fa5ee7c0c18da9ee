"""Closed loop: C clients, each sending its next request when its last one ends.

*Steady*: a decode step ends each running request with probability 1/E[D], so it brings
κ = n/E[D] prompts at its end, however long it took; TTFT comes from the bulk chain with that
clock, and n follows from Little's law, n = C − X (TTFT + think) with X = κ/τ.

*Benchmark*: all C prompts come at once and N are served in all. The first C meet the burst
(prompt i has its first token when the steps that carry i prompts are done), the others are steady;
while the last requests drain, steps get shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bestserve.models.distribution import Distribution
from bestserve.models.queues.bulk.packing import packed_tokens
from bestserve.models.queues.bulk.wait import BulkServer, Prompts, bulk_wait
from bestserve.models.schedulers.engine import Engine

Floats = NDArray[np.float64]

POINTS = 72
"""Grid of the bulk chain here: half the usual, as every step of the fixed point needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLatency:
    """Latencies of one lane, or of a tandem, in a closed loop.

    ttft : [s]; mean, variance, third : TPOT per output class [c; s, s², s³]; running : mean
    sequences; rate : completed requests per second [1/s]; reasons : what makes it approximate
    """

    ttft: Distribution
    mean: Floats
    variance: Floats
    third: Floats
    running: float
    rate: float
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Steady:
    """tau : mean time per token of a request [s]; variance : of its sum over D steps [c, s²]."""

    ttft: Distribution
    tau: float
    variance: Floats
    running: float
    rate: float
    waits: bool


def closed_lane(engine: Engine, clients: float, prompts: float, think: float) -> ClosedLatency:
    """Return the latencies of one collocated lane with `clients` ≥ 1 clients.

    prompts : requests per lane in all; 0 gives the steady flavour; think : pause of a client
    before its next request [s]. The engine must hold at least one request.
    """
    d = engine.requests.classes
    steady = _steady(engine, clients, think)
    ttft, mean = steady.ttft, np.full_like(d, steady.tau)
    variance = steady.variance / d**2
    if prompts > 0:
        first = min(clients / prompts, 1.0)
        burst, later = _burst(engine, clients, steady)
        ttft = Distribution.mixture([burst, ttft], [first, 1.0 - first])
        # first requests decode beside the rest of the burst, last ones on a draining lane
        count = np.maximum(steady.running * np.linspace(0.025, 0.975, 20), 1.0)
        drained = float(engine.decodes(count).mean())
        mean = mean + first * later / d
        mean = mean - 0.5 * first * max(steady.tau - drained, 0.0)
        variance = variance + first * (1 - first / 4) * (later / d) ** 2
    reasons = []
    if d.size == 1:
        reasons.append("equal output lengths keep the clients of a closed loop in step")
    if steady.waits:
        reasons.append("more clients than slots: requests wait for one")
    return ClosedLatency(
        ttft=ttft.shift(engine.front_end()),
        mean=mean,
        variance=variance,
        third=2 * variance**1.5,
        running=steady.running,
        rate=steady.rate,
        reasons=tuple(reasons),
    )


def _steady(engine: Engine, clients: float, think: float) -> _Steady:
    """Return the stationary closed loop: fixed point in the number of running sequences."""
    r, policy = engine.requests, engine.lane.scheduling
    split, shared = policy.splits, policy.rides
    pause = think + engine.front_end()
    steps = max(r.d1, 1e-9)
    slots = min(float(engine.slots), engine.budget - 1 if shared else np.inf)
    most = min(clients, slots)
    if shared:
        # decodes leave room for no more prompts than end: n/E[D]·E[l] ≤ M − n
        most = min(most, 0.98 * engine.budget * steps / (r.p1 + steps))
    work = Prompts.of(engine.work_tokens(engine.budget), r.weight)
    n = most
    tau = engine.decode(max(n, 1.0))
    for _ in range(8):
        n = max(n, min(1.0, most))
        beside = n if shared else 0.0
        room = max(engine.budget - beside, 1.0)
        packed = room if split else packed_tokens(r.prompt, r.weight, room)
        ends = min(n / steps, 0.98 * packed / r.p1) if shared else n / steps
        server = BulkServer(
            budget=room,
            packed=packed,
            step=lambda x, b=beside: engine.prompt_step(x, b, split),  # type: ignore[misc]
            vacation=engine.decode(max(n, 1.0)),
            alone=engine.prompt_times(beside, split, room),
            idle=0.0,
            shared=shared,
            per_step=ends,
            others=max(clients - 1.0, 0.0) / clients,
            cut=split or r.fixed_prompt,
            spread=pause > 0,
        )
        found = bulk_wait(server, ends / tau, work, POINTS, with_steps=True)
        if found is None:
            raise ArithmeticError("a closed loop cannot saturate its lane")
        met = found
        tau = met.tau if shared else server.vacation / (1 - met.busy)
        rate = n / (steps * tau)
        target = min(max(clients - rate * (met.ttft.mean + pause), 0.02 * most), most)
        if abs(target - n) < 1e-3 * n:
            break
        n = (n + target) / 2
    cycle = clients / rate
    wait = cycle - pause - met.ttft.mean - steps * tau
    waits = wait > 0.02 * cycle and clients > 1.02 * most
    ttft = met.ttft.shift(wait) if waits else met.ttft
    if shared and met.steps is not None:
        variance = met.steps.variance_of(r.classes)
    else:
        stall = engine.prompt_times(0.0, False, engine.budget)
        variance = r.classes * ends * float(r.weight @ stall**2)
    return _Steady(ttft, tau, variance, n, rate, waits)


def _burst(engine: Engine, clients: float, steady: _Steady) -> tuple[Distribution, float]:
    """Return TTFT of requests that all come at once, and what is left of the burst after one.

    The second is the mean time that the burst's steps take beyond steady ones after a first token,
    which this request's own tokens then wait for [s].
    """
    r, policy = engine.requests, engine.lane.scheduling
    split, shared = policy.splits, policy.rides
    admitted = min(clients, float(engine.slots))
    fill = engine.budget if split else packed_tokens(r.prompt, r.weight, engine.budget)
    count = int(min(np.ceil(admitted * r.p1 / fill * 1.5) + 4, 20_000))
    decodes = (
        np.minimum(np.arange(count) * fill / r.p1, admitted - 1) if shared else np.zeros(count)
    )
    tokens = np.minimum(np.full(count, fill), np.maximum(engine.budget - decodes, 1.0))
    before = np.concatenate(([0.0], np.cumsum(tokens)))[:-1]
    tokens = np.clip(admitted * r.p1 - before, 0.0, tokens)
    tokens, decodes = tokens[tokens > 0], decodes[tokens > 0]
    times = np.array(
        [
            float(engine.prompt_step(np.array([x]), b, split)[0])
            for x, b in zip(tokens, decodes, strict=True)
        ]
    )
    end = np.cumsum(times)
    share = tokens / tokens.sum()
    part = admitted / clients
    F = np.concatenate(([0.0], np.cumsum(share)))
    x = np.concatenate(([max(end[0] * (1 - 1e-9), 0.0)], end))
    law = Distribution.from_cdf(x, F, float(share @ end))
    after = end[-1] - end
    normal = steady.tau * np.arange(end.size - 1, -1, -1) if shared else 0.0
    later = float(share @ np.maximum(after - normal, 0.0))
    if part < 1.0:
        wait = (clients - admitted) / steady.rate
        start = float(end[-1]) + steady.tau * r.d1 * 0.5
        late = Distribution(np.array([start, start + wait]), np.array([0.0, 1.0]), start + wait / 2)
        law = Distribution.mixture([law, late], [part, 1.0 - part])
    return law, later


def closed_tandem(
    decode: Engine,
    prefill: Callable[[float], Distribution | None],
    limit: float,
    clients: float,
    lanes: int,
    transfer: float,
    think: float,
) -> ClosedLatency:
    """Return the latencies of a disaggregated closed loop, steady.

    prefill : rate of the whole system → TTFT, None when not stable; limit : rate that prefill can
    carry [1/s]; lanes : decode lanes; transfer : mean KV transfer [s]. The rate X balances
    C = X (TTFT + transfer + E[D]·TPOT + think) by bisection.
    """
    r = decode.requests
    low, high = 0.0, min(limit, lanes * decode.slots / max(r.d1 * decode.decode(1.0), 1e-12))
    found: tuple[Distribution, float, float] | None = None
    for _ in range(30):
        rate = (low + high) / 2
        ttft = prefill(rate)
        share = rate / lanes
        n = share * r.d1 * decode.decode(1.0)
        for _ in range(30):
            n = min(share * r.d1 * decode.decode(max(n, 1.0)), 4.0 * decode.slots)
        used = np.inf
        if ttft is not None and n <= decode.slots:
            tpot = decode.decode(max(n, 1.0))
            used = rate * (ttft.mean + transfer + r.d1 * tpot + think)
            found = (ttft, tpot, n) if used <= clients or found is None else found
        if used > clients:
            high = rate
        else:
            low = rate
        if high - low < 1e-4 * high:
            break
    assert found is not None
    ttft, tpot, n = found
    d = r.classes
    mean = np.full_like(d, tpot) + transfer / d
    variance = (0.05 * mean) ** 2
    return ClosedLatency(
        ttft=ttft,
        mean=mean,
        variance=variance,
        third=2 * variance**1.5,
        running=n,
        rate=low,
        reasons=("closed loops over prefill and decode lanes are balanced in the mean only",),
    )
