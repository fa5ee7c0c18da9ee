"""What the formulas know of a system: policies that have one, a Poisson stream at each lane.

A policy says itself whether it has a formula. Poisson arrivals split at random are Poisson at every
lane, and so are those of a single lane, however they are routed. Everything else (turns, routers
that look at the lanes, bursts, phases, recorded times, clients that wait for their answers) is
simulated: `validation/wing.md` has the comparison that its formulas lost.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from bestserve.errors import InputError
from bestserve.models.policies import nearest_with_formula
from bestserve.models.system import Arrivals, Collocated, Hybrid, Lane, Lengths, System, Target


def uncovered(system: System) -> str:
    """Return what of a system no formula knows; empty where formulas answer.

    >>> from bestserve.models.system import Arrivals
    >>> _of(Arrivals(burstiness=0.25), "random", 1)
    'gaps of burstiness 0.25'
    """
    kinds: tuple[Lane, ...]
    if isinstance(system, Collocated):
        lanes, kinds = system.replicas, (system.lane,)
    else:
        lanes = max(system.prefill_replicas, system.decode_replicas)
        kinds = (system.prefill, system.decode)
    for lane in kinds:
        if not lane.scheduling.has_formula:
            return f"policy {lane.policy!r}"
    if system.lengths.prioritised:
        return "priorities"
    if isinstance(system, Hybrid) and (unknown := _of_hybrid(system)):
        return unknown
    if system.caching is not None and system.caching.tiers and not system.caching.routed:
        return "tiers of KV blocks"
    return _of(system.arrivals, system.routing, lanes)


def _of_hybrid(system: Hybrid) -> str:
    both = (
        (system.decode, system.local_prefill_share > 0 or system.longest_local > 0),
        (system.prefill, system.local_decode_share > 0),
    )
    for lane, mixed in both:
        if mixed and not lane.scheduling.rides:
            return f"a hybrid's policy {lane.policy!r}"
    if system.prefill_queue > 0:
        return "prompts that are local while a queue is long"
    if system.flow is not None:
        return "decodes that change lanes"
    if system.routing == "least_ttft":
        return "routing 'least_ttft'"
    return ""


def _of(arrivals: Arrivals, routing: str, lanes: int) -> str:
    if arrivals.kind == "closed":
        return "a closed loop"
    if arrivals.kind == "trace":
        return "recorded arrival times"
    if arrivals.kind == "mmpp":
        return "a rate that changes in phases"
    if arrivals.burstiness != 1.0:
        return f"gaps of burstiness {arrivals.burstiness:g}"
    if arrivals.cap:
        return "a cap on requests in flight"
    if routing != "random" and lanes > 1:
        return f"routing {routing!r}"
    return ""


def refuse_uncovered(system: System) -> None:
    """Raise InputError, in one sentence, for a system that no formula knows."""
    what = uncovered(system)
    if what:
        raise InputError(
            f"no formula knows {what}, only Poisson arrivals that are routed at random, under "
            "policies that have one: simulate, or leave method at auto"
        )


def refuse_untold(target: Target) -> None:
    """Raise InputError, in one sentence, for objectives that no formula tells."""
    if target.without_formula:
        raise InputError(
            f"no formula tells {' and '.join(target.without_formula)}: that takes the time of "
            "every token; simulate, or leave method at auto"
        )


def known_part(system: System) -> System:
    """Return a system as formulas know it: Poisson, routed at random, nearest policies."""
    if isinstance(system, Collocated):
        known: System = replace(system, lane=_with_formula(system.lane))
    else:
        known = replace(
            system, prefill=_with_formula(system.prefill), decode=_with_formula(system.decode)
        )
        if isinstance(known, Hybrid):
            known = replace(
                known,
                prefill=_riding(known.prefill),
                decode=_riding(known.decode),
                prefill_queue=0,
                flow=None,
            )
    if system.lengths.prioritised:
        known = replace(known, lengths=_alike(system.lengths))
    caching = system.caching
    if caching is not None:
        # without a tree of requests there is nothing that a formula could count hits of
        caching = replace(caching, routed=system.routing) if caching.sharing else None
    return replace(known, arrivals=Arrivals(), routing="random", caching=caching)


@lru_cache(maxsize=64)
def _alike(lengths: Lengths) -> Lengths:
    return replace(lengths, priorities=())


def _with_formula(lane: Lane) -> Lane:
    policy = lane.scheduling
    return lane if policy.has_formula else replace(lane, policy=nearest_with_formula(policy).name)


def _riding(lane: Lane) -> Lane:
    return lane if lane.scheduling.rides else replace(lane, policy="chunked")
