"""What reaches one lane: how routing passes arrivals on, and why that is doubted."""

from __future__ import annotations

import numpy as np

from bestserve.models.non_poisson.correction import Gaps
from bestserve.models.system import Arrivals, Routing

LEVELLING = ("least_outstanding", "power_of_two", "least_kv")
"""Routing that looks at the lanes."""


LEAST_SCV = 1e-3
"""Gaps of a trace that are all equal: as regular as Workload.burstiness can state."""


def lane_scv(arrivals: Arrivals, routing: Routing, replicas: int) -> float:
    """Return the squared CV of the gaps at one of `replicas` lanes [1]."""
    return prefill_gaps(arrivals, routing, replicas).at_lane


def decoding_gaps(arrivals: Arrivals, routing: Routing, lanes: int) -> Gaps:
    """Return how `routing` passes arrivals on to lanes that decode."""
    level = routing in LEVELLING and lanes > 1
    dealt = routing == "round_robin"
    return Gaps(scv=_spread(arrivals), lanes=lanes, dealt=dealt, level=level)


def prefill_gaps(arrivals: Arrivals, routing: Routing, lanes: int) -> Gaps:
    """Return how `routing` passes arrivals on to lanes that only prefill.

    They have few requests each: kept level, lanes get them nearly in turn.
    """
    return Gaps(scv=_spread(arrivals), lanes=lanes, dealt=routing != "random")


def _spread(arrivals: Arrivals) -> float:
    """Return the squared CV of the gaps of all arrivals [1]."""
    if arrivals.kind == "trace" and arrivals.times.size > 2:
        gaps = np.diff(arrivals.times)
        return max(float(gaps.var() / max(gaps.mean() ** 2, 1e-300)), LEAST_SCV)
    return arrivals.scv


def arrival_reasons(arrivals: Arrivals, routing: Routing, scv: float) -> tuple[str, ...]:
    """Return why arrivals at lanes are doubted; scv : squared CV of their gaps at a lane."""
    reasons = []
    if arrivals.kind == "trace":
        reasons.append("arrivals of kind 'trace' are reduced to the spread of their gaps")
    if arrivals.kind == "mmpp":
        reasons.append("arrivals of kind 'mmpp' are reduced to a fluid, or to their mean rate")
    if arrivals.cap:
        reasons.append("the cap on requests in flight is left out")
    if routing in LEVELLING:
        reasons.append(f"routing {routing!r} depends on the state of the lanes")
    return (*reasons, *gap_reasons(scv))


def gap_reasons(scv: float) -> tuple[str, ...]:
    """Return the warning for gaps that are not exponential."""
    if abs(scv - 1.0) > 0.05:
        return ("gaps between arrivals at a lane are far from exponential",)
    return ()
