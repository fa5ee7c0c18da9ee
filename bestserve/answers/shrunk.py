"""Smaller systems whose requests fare like those of a large fleet."""

from __future__ import annotations

import math
from dataclasses import replace

from bestserve.models.system import Arrivals, Collocated, System

ALIKE = 4
"""Lanes a pool keeps where splitting at random is only nearly exact (`shrunk`)."""

TURNS = 2
"""Lanes a pool keeps where they take turns: prefill lanes keep their gaps exactly."""

SURPLUS = 0.01
"""Share of a pool that a smaller system may leave out to keep the pools in proportion."""

POOLED, POOLED_APART = 16, 8
"""Lanes a pool keeps where a router looks at them: P90 TTFT 10 % lower, P90 TPOT 10 % higher than
with 64 of them at worst, in a dozen settings."""


def shrunk(system: System) -> tuple[System, float]:
    """Return a system with fewer replicas whose requests fare alike, and how many times smaller.

    A run of a large fleet gives each replica too few requests to fill it. Routing at random
    splits a Poisson stream into Poisson streams, so one replica stands for all of them; bursty
    gaps, thinned at random, keep (scv − 1)/replicas. Taking turns gives a replica every k-th
    request, whose gaps are gamma with k times the shape: one replica stands for all of them again.
    A prefill and a decode pool shrink alike, which leaves out up to `SURPLUS` of one of them.
    Everything else is returned as it is, with 1: routing by KV too, which sends more requests to
    one replica before their KV shows there the more replicas there are; and prefix caches, whose
    number decides what each of them sees again.
    """
    arrivals = system.arrivals
    whole = system.routing in ("least_kv", "reported_kv") or system.caching is not None
    if arrivals.kind != "gamma" or arrivals.cap or whole:
        return system, 1.0
    apart = POOLED if isinstance(system, Collocated) else POOLED_APART
    keep = {"random": ALIKE, "round_robin": TURNS}.get(system.routing, apart)
    if isinstance(system, Collocated):
        exact = system.routing == "round_robin" or (
            system.routing == "random" and arrivals.burstiness == 1
        )
        keep = 1 if exact else min(keep, system.replicas)
        factor = system.replicas / keep
        smaller: System = replace(system, replicas=keep)
    else:
        x, y = system.prefill_replicas, system.decode_replicas
        a, b = (x, y) if system.transfer.shared else _in_proportion(x, y, keep)
        factor = min(x / a, y / b)
        smaller = replace(system, prefill_replicas=a, decode_replicas=b)
    if system.routing == "round_robin":
        arrivals = replace(arrivals, burstiness=arrivals.burstiness * factor)
    elif system.routing == "random":
        arrivals = _thinned(arrivals, factor)
    return replace(smaller, arrivals=arrivals), factor


def _in_proportion(x: int, y: int, keep: int) -> tuple[int, int]:
    """Return the fewest replicas, `keep` or more a pool, in the proportion x : y to `SURPLUS`.

    >>> _in_proportion(24, 40, 4), _in_proportion(23, 41, 4), _in_proportion(3, 1, 4)
    ((6, 10), (5, 9), (3, 1))
    """
    for a in range(min(x, keep), x):
        for b in (a * y // x, -(-a * y // x)):
            apart = abs(math.log(max(a * y, 1) / max(b * x, 1)))
            if min(y, keep) <= b <= y and apart <= math.log1p(SURPLUS):
                return a, b
    return x, y


def _thinned(arrivals: Arrivals, factor: float) -> Arrivals:
    """Return a share of 1/`factor` of the arrivals, picked at random."""
    return replace(arrivals, burstiness=1 / (1 + (arrivals.scv - 1) / factor))
