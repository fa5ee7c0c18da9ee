"""What a system must be for the simulator to run it."""

from __future__ import annotations

import math

from bestserve.errors import InputError
from bestserve.models.policies import find_policy
from bestserve.models.system import Collocated, Hybrid, Lane, System
from bestserve.simulator import routing as routes


def lanes_of(system: System) -> tuple[tuple[Lane, int], ...]:
    """Return the lane of each pool and how many it has."""
    if isinstance(system, Collocated):
        return ((system.lane, system.replicas),)
    return (
        (system.prefill, system.prefill_replicas),
        (system.decode, system.decode_replicas),
    )


def check(system: System) -> None:
    """Raise InputError for what the simulator cannot run, naming the field."""
    for lane, count in lanes_of(system):
        if count < 1:
            raise InputError(f"replicas = {count} must be ≥ 1")
        find_policy(lane.policy)
        for name in ("max_num_seqs", "max_num_batched_tokens", "kv_block", "stream_interval"):
            if getattr(lane, name) < 1:
                raise InputError(f"{name} = {getattr(lane, name)} must be ≥ 1")
        if not 0.0 <= lane.kv_reserve <= 1.0:
            raise InputError(f"kv_reserve = {lane.kv_reserve} must be in 0 … 1")
        if not lane.kv_capacity_tokens > 0:
            raise InputError(f"kv_capacity_tokens = {lane.kv_capacity_tokens} must be > 0")
        if not (lane.t_req >= 0 and lane.t_req_token >= 0):
            raise InputError("t_req and t_req_token must be ≥ 0 s")
        width = lane.speculation.drafts_beside(1) + 1
        if width > lane.max_num_batched_tokens:
            raise InputError(
                f"max_num_batched_tokens = {lane.max_num_batched_tokens} must hold a decode and "
                f"its drafts, {width} tokens"
            )
        if lane.speculation.most and isinstance(system, Hybrid):
            raise InputError("hybrids know no speculative decoding: leave speculative_config out")
    caching = system.caching
    if caching is None and system.routing in routes.OF_PREFIXES:
        raise InputError(
            f"routing {system.routing!r} goes by what requests share: give prefixes, a "
            "conversation or a trace with hashes or sessions, or take another routing"
        )
    if caching is not None and not caching.lag >= 0:
        raise InputError(f"router lag = {caching.lag} must be ≥ 0 s")
    for tier in () if caching is None else caching.tiers:
        room = tier.capacity_tokens > 0 or tier.peers
        if not (room and tier.seconds_per_token >= 0 and tier.latency >= 0):
            raise InputError(f"tier {tier.name}: capacity > 0, latency and time per token ≥ 0")
    if system.routing not in routes.CODES:
        raise InputError(f"routing {system.routing!r}: known are {', '.join(routes.CODES)}")
    arrivals = system.arrivals
    if arrivals.kind == "closed" and (arrivals.concurrency < 1 or arrivals.num_prompts < 1):
        raise InputError("closed-loop arrivals need concurrency ≥ 1 and num_prompts ≥ 1")
    if arrivals.cap < 0 or not arrivals.think >= 0:
        raise InputError("arrivals: cap and think must be ≥ 0")
    if not isinstance(system, Collocated):
        t = system.transfer
        if not (t.latency >= 0 and t.seconds_per_token >= 0 and 0 <= t.overlap <= 1):
            raise InputError("transfer: latency and seconds_per_token ≥ 0, overlap in 0 … 1")
    if system.lengths.prioritised and any(lane.async_scheduling for lane, _ in lanes_of(system)):
        raise InputError("priorities with asynchronous scheduling are not modelled: leave one out")
    if isinstance(system, Hybrid):
        _check_hybrid(system)


def _check_hybrid(system: Hybrid) -> None:
    """Raise InputError for what no hybrid can be, naming the field."""
    for name in ("local_prefill_share", "local_decode_share"):
        if not 0.0 <= getattr(system, name) <= 1.0:
            raise InputError(f"{name} = {getattr(system, name)} must be in 0 … 1")
    if system.longest_local < 0 or system.prefill_queue < 0:
        raise InputError("longest_local and prefill_queue must be ≥ 0")
    if system.caching is not None:
        raise InputError("hybrids know no prefix caches: leave out what prompts share")
    if system.flow is None:
        return
    if not (0.0 < system.flow.watermark < 1.0 and system.flow.tpot > 0.0):
        raise InputError("flow: watermark in 0 … 1, tpot > 0 s")
    for lane in (system.prefill, system.decode):
        if not math.isfinite(lane.kv_capacity_tokens) or lane.stream_interval > 1:
            raise InputError("flow: decodes move between finite KV caches, streaming every token")
