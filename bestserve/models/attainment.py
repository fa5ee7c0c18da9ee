"""How far latencies meet a target: shares of requests, and the margin of the nearest objective."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from bestserve.models.binding import Binding
from bestserve.models.latencies import Latencies
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target

Objective = Literal["ttft", "tpot", "e2el"]

PART = 0.2
"""Share from which an objective decides beside another (`deciders`)."""

Decider = Literal["ttft", "tpot"]

OBJECTIVES: tuple[Objective, ...] = ("ttft", "tpot", "e2el")

FOREVER = 1e12
"""A threshold that every latency meets [s]."""

_TTFT_ATOMS = 48


def attainment(latencies: Latencies, target: Target) -> float:
    """Return the share of requests that meet all thresholds of `target` together [1].

    Counted where requests were observed; else TTFT and the decode phase are taken as independent
    given the output length, and refused requests meet nothing. It is built on
    `marginal_attainment`: one objective's is that share, that of several is above none of theirs.
    """
    if latencies.status is not LatencyStatus.OK:
        return 0.0
    if latencies.observed is not None:
        return latencies.observed.meeting(target)
    return (1.0 - latencies.refused) * _of_served(latencies, target)


def _of_served(latencies: Latencies, target: Target) -> float:
    """Return the share of the requests served that meet all thresholds of `target` [1]."""
    if latencies.paths:
        return sum(weight * _of_served(found, target) for weight, found in latencies.paths)
    shares = [_share(latencies, target, name) for name in asked(target)]
    by_chance = math.prod(shares)
    if target.e2el is None or len(shares) == 1:
        return by_chance
    marginal = [_within(latencies, _only(target, name)) for name in asked(target)]
    # how much more often requests meet all of them than if each were met by chance
    linked = _within(latencies, target) / max(math.prod(marginal), 1e-300)
    return min(linked * by_chance, *shares)


def _within(latencies: Latencies, target: Target) -> float:
    """Return the share of requests within all thresholds, from the law of each output class [1]."""
    ttft, tpot, e2el = (getattr(target, n) or FOREVER for n in OBJECTIVES)
    first = float(latencies.ttft.cdf(min(ttft, e2el)))
    c = latencies.classes
    if c is None or first == 0.0:
        return first
    p = first * (np.arange(_TTFT_ATOMS) + 0.5) / _TTFT_ATOMS
    at = np.interp(p, latencies.ttft.F, latencies.ttft.x)
    limit = np.minimum(tpot, (e2el - at)[None, :] / c.steps[:, None])
    late = first * float(c.weight @ c.cdf(limit).mean(axis=1))
    return (1 - c.no_decode) * late + c.no_decode * first


def marginal_attainment(latencies: Latencies, target: Target) -> dict[str, float]:
    """Return the share of requests that meet each threshold of `target` by itself [1].

    Answers of one token have no TPOT: they meet any threshold of it.
    """
    if latencies.observed is not None:
        return {n: latencies.observed.meeting(_only(target, n)) for n in asked(target)}
    served = 1.0 - latencies.refused
    return {n: served * _share(latencies, target, n) for n in asked(target)}


def _share(latencies: Latencies, target: Target, name: Objective) -> float:
    """Return the share of the requests served that meet one threshold of `target` [1]."""
    within = float(getattr(latencies, name).cdf(getattr(target, name)))
    at_once = latencies.no_decode if name == "tpot" else 0.0
    return within + (1.0 - within) * at_once


def asked(target: Target) -> list[Objective]:
    """Return the objectives that a target has thresholds for."""
    return [name for name in OBJECTIVES if getattr(target, name) is not None]


def deciders(latencies: Latencies, target: Target, binding: Binding) -> tuple[Decider, ...]:
    """Return which of TTFT and TPOT decide a goodput that `binding` limits, from its latencies.

    Of a joint attainment those objectives that are missed about as often as the one missed most; of
    an E2EL objective what makes up a part of E2EL.
    """
    if binding in (Binding.TTFT, Binding.TPOT) or latencies.classes is None:
        return ("tpot",) if binding is Binding.TPOT else ("ttft",)
    if binding is Binding.JOINT:
        missed = {n: 1.0 - share for n, share in marginal_attainment(latencies, target).items()}
        named = {n for n, share in missed.items() if share >= PART * max(missed.values())}
    else:
        named = {"e2el"} if binding is Binding.E2EL else set()
    if "e2el" in named:
        before = latencies.ttft.mean / latencies.e2el.mean
        named |= {n for n, part in (("ttft", before), ("tpot", 1.0 - before)) if part >= PART}
    deciding: tuple[Decider, ...] = ("ttft", "tpot")
    return tuple(n for n in deciding if n in named)


def _only(target: Target, name: Objective) -> Target:
    """Return the target without its other thresholds."""
    return replace(
        target,
        ttft=target.ttft if name == "ttft" else None,
        tpot=target.tpot if name == "tpot" else None,
        e2el=target.e2el if name == "e2el" else None,
    )


def margin(latencies: Latencies, target: Target) -> tuple[float, Binding]:
    """Return how far the target is met (≥ 0: met) and which objective is nearest.

    Marginal targets: the least log(threshold / percentile); joint ones: attainment less target.
    """
    if latencies.status is not LatencyStatus.OK:
        return -math.inf, Binding.STABILITY
    if target.joint:
        return attainment(latencies, target) - target.attainment, Binding.JOINT
    best: tuple[float, Binding] = (math.inf, Binding.STABILITY)
    for name in asked(target):
        value = latencies.percentile(name, getattr(target, f"{name}_percentile"))
        room = math.inf if value == 0.0 else getattr(target, name) / value
        log_room = math.log(room) if room > 0.0 else -math.inf
        if log_room < best[0]:
            best = log_room, Binding.of(name)
    return best
