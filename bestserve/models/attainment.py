"""How far latencies meet a target: shares of requests, and the margin of the nearest objective."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np

from bestserve.arrays import Floats
from bestserve.models.binding import Binding
from bestserve.models.latencies import Latencies, OutputClasses
from bestserve.models.special import normal_cdf
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target
from bestserve.models.token_target import TokenTarget

Objective = Literal["ttft", "tpot", "e2el", "deadline", "stall", "fluidity", "itl"]

PART = 0.2
"""Share from which an objective decides beside another (`deciders`)."""

Decider = Literal["ttft", "tpot"]

OBJECTIVES: tuple[Objective, ...] = ("ttft", "tpot", "e2el")
"""Those whose percentile has a threshold."""

KNOWN: tuple[Objective, ...] = (*OBJECTIVES, "deadline")
"""Those that formulas know; of others they take it that they are met."""

FOREVER = 1e12
"""A threshold that every latency meets [s]."""

_TTFT_ATOMS = 48

FAR = 25.0
"""Standard deviations at which the tail of a normal law is taken to have ended."""


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
    names = [name for name in asked(target) if name in KNOWN]
    shares = [_share(latencies, target, name) for name in names]
    by_chance = math.prod(shares)
    if len(shares) == 1 or not {"e2el", "deadline"} & set(names):
        return by_chance
    marginal = [_within(latencies, _only(target, name)) for name in names]
    # how much more often requests meet all of them than if each were met by chance
    linked = _within(latencies, target) / max(math.prod(marginal), 1e-300)
    return min(linked * by_chance, *shares)


def _within(latencies: Latencies, target: Target) -> float:
    """Return the share of requests within all thresholds, from the law of each output class [1]."""
    if latencies.paths:
        return sum(weight * _within(found, target) for weight, found in latencies.paths)
    ttft, tpot, e2el = (getattr(target, n) or FOREVER for n in OBJECTIVES)
    due, pace = _deadlines(target.tokens)
    first = float(latencies.ttft.cdf(min(ttft, e2el, due)))
    c = latencies.classes
    if c is None or first == 0.0:
        return first
    atoms = _TTFT_ATOMS if due == FOREVER else 2 * _TTFT_ATOMS
    p = first * (np.arange(atoms) + 0.5) / atoms
    at = np.interp(p, latencies.ttft.F, latencies.ttft.x)
    steps = c.steps[:, None]
    limit = np.minimum(tpot, (e2el - at)[None, :] / steps + target.e2el_per_token)
    if due == FOREVER:
        met = c.cdf(limit)
    else:
        slack = (due - at)[None, :]
        met = c.cdf(np.minimum(limit, slack / steps + pace)) - _late_before_the_end(c, slack, pace)
    late = first * float(c.weight @ np.maximum(met, 0.0).mean(axis=1))
    return (1 - c.no_decode) * late + c.no_decode * first


def _deadlines(tokens: TokenTarget | None) -> tuple[float, float]:
    """Return until when a first token is in time, slack included, and the pace of others [s]."""
    if tokens is None or tokens.slack is None:
        return FOREVER, 0.0
    return (tokens.first or 0.0) + tokens.slack, tokens.pace


def _late_before_the_end(c: OutputClasses, slack: Floats, pace: float) -> Floats:
    """Return P(a token is late, and the last one is not) per class and slack [c, g].

    How far a reader is ahead is taken as Brownian motion with the drift and, at its end, the
    variance of the class's decode time: it passes the slack s and is back with exp(2 μ s/σ²) ·
    Φ̄((s + μ D)/(σ √D)), the second term of the law of its maximum (reflection; Harrison 1985,
    Brownian Motion and Stochastic Flow Systems, chapter 1). Single long stalls are not Gaussian:
    where a prompt takes several paces, the share on time comes out high.
    """
    spread = np.maximum(np.sqrt(c.variance) * c.steps, 1e-12)[:, None]
    drift = ((c.mean - pace) * c.steps)[:, None] / spread
    barrier = slack / spread
    z = barrier + drift
    # exp(2 b d) Φ̄(b + d) = exp(−(b − d)²/2) m(b + d), without the overflow of its first factor
    high = np.clip(z, 0.0, FAR)
    mills = np.exp(high**2 / 2) * _beyond(high)
    low = np.exp(np.minimum(2.0 * barrier * drift, 0.0)) * _beyond(z)
    return np.where(z > 0.0, np.exp(-((barrier - drift) ** 2) / 2) * mills, low)


def _beyond(z: Floats) -> Floats:
    """Return 1 − Φ(z)."""
    return np.asarray(normal_cdf(-z.ravel())).reshape(z.shape)


def marginal_attainment(latencies: Latencies, target: Target) -> dict[str, float]:
    """Return the share of requests that meet each threshold of `target` by itself [1].

    Answers of one token have no TPOT: they meet any threshold of it.
    """
    return {n: _share_of_all(latencies, target, n) for n in asked(target)}


def _share_of_all(latencies: Latencies, target: Target, name: Objective) -> float:
    """Return the share of all requests that meet one objective of `target` [1]."""
    observed = latencies.observed
    if observed is not None and observed.seen is not None and name == "itl" and not target.joint:
        return float(observed.seen.gaps_within().mean())
    if observed is not None:
        return observed.meeting(_only(target, name))
    return (1.0 - latencies.refused) * _share(latencies, target, name)


def _share(latencies: Latencies, target: Target, name: Objective) -> float:
    """Return the share of the requests served that meet one threshold of `target` [1]."""
    if name not in KNOWN:
        return 1.0
    if target.counted(name):
        return _within(latencies, _only(target, name))
    within = float(getattr(latencies, name).cdf(getattr(target, name)))
    at_once = latencies.no_decode if name == "tpot" else 0.0
    return within + (1.0 - within) * at_once


def asked(target: Target) -> list[Objective]:
    """Return the objectives that a target has thresholds for."""
    found: tuple[Objective, ...] = target.asked  # type: ignore[assignment]
    return list(found)


def deciders(latencies: Latencies, target: Target, binding: Binding) -> tuple[Decider, ...]:
    """Return which of TTFT and TPOT decide a goodput that `binding` limits, from its latencies.

    Of a joint attainment those objectives that are missed about as often as the one missed most; of
    an E2EL objective what makes up a part of E2EL.
    """
    if binding in (Binding.TPOT, Binding.STALL, Binding.FLUIDITY, Binding.ITL):
        return ("tpot",)
    if binding is Binding.TTFT or latencies.classes is None:
        return ("ttft",)
    if binding is Binding.DEADLINE:
        return ("ttft", "tpot")
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
        tokens=None if target.tokens is None else target.tokens.only(name),
    )


def margin(latencies: Latencies, target: Target) -> tuple[float, Binding]:
    """Return how far the target is met (≥ 0: met) and which objective is nearest.

    Marginal targets: the least log(threshold / percentile); joint ones, and objectives that no
    percentile stands for: attainment less what is asked for.
    """
    if latencies.status is not LatencyStatus.OK:
        return -math.inf, Binding.STABILITY
    if target.joint:
        return attainment(latencies, target) - target.attainment, Binding.JOINT
    best: tuple[float, Binding] = (math.inf, Binding.STABILITY)
    for name in asked(target):
        if target.counted(name):
            room = _share_of_all(latencies, target, name) - target.required(name)
            best = min(best, (room, Binding.of(name)), key=lambda found: found[0])
            continue
        value = latencies.percentile(name, getattr(target, f"{name}_percentile"))
        room = math.inf if value == 0.0 else getattr(target, name) / value
        log_room = math.log(room) if room > 0.0 else -math.inf
        if log_room < best[0]:
            best = log_room, Binding.of(name)
    return best
