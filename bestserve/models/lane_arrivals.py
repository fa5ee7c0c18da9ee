"""What the formulas know of arrivals: each lane takes a Poisson stream.

Poisson arrivals split at random are Poisson at every lane, and so are those of a single lane,
however they are routed. Everything else (turns, routers that look at the lanes, bursts, phases,
recorded times, clients that wait for their answers) is simulated: `validation/wing.md` has the
comparison that its formulas lost.
"""

from __future__ import annotations

from dataclasses import replace

from bestserve.errors import InputError
from bestserve.models.system import Arrivals, Collocated, System


def uncovered(system: System) -> str:
    """Return what of a system's arrivals no formula knows; empty where formulas answer.

    >>> from bestserve.models.system import Arrivals
    >>> _of(Arrivals(burstiness=0.25), "random", 1)
    'gaps of burstiness 0.25'
    """
    if isinstance(system, Collocated):
        lanes = system.replicas
    else:
        lanes = max(system.prefill_replicas, system.decode_replicas)
    return _of(system.arrivals, system.routing, lanes)


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
            f"no formula knows {what}, only Poisson arrivals that are routed at random: simulate, "
            "or leave method at auto"
        )


def poisson(system: System) -> System:
    """Return the system with Poisson arrivals, routed at random: what formulas know of it."""
    return replace(system, arrivals=Arrivals(), routing="random")
