"""Highest request rate at which a latency target holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from bestserve.models.attainment import (
    OBJECTIVES,
    attainment,
    deciders,
    margin,
    marginal_attainment,
)
from bestserve.models.binding import Binding
from bestserve.models.latencies import unstable
from bestserve.models.latency import (
    FULL,
    Latencies,
    by_batch,
    decode_alone,
    evaluator,
    lane_engine,
    prefill_alone,
    stability_rate,
)
from bestserve.models.refused import Refused, refused, refused_by
from bestserve.models.schedulers import decode_pool, prefill_pool
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Lane, Lengths, System, Target, Transfer
from bestserve.models.trust import TRUSTED, Sight, Trust, doubt

NEARLY_SATURATED = 0.995
"""Share of the stability limit up to which rates are looked at."""

SLO_SLACK = 0.02
"""Relative error of a percentile for which the interval `low … high` accounts [1]."""

NARROW_MISS = 0.1
"""Logarithm of percentile over threshold up to which a lone request misses it by a hair."""

TAIL_SLACK = 0.05
"""Relative error of the share beyond a percentile, likewise; it counts where the law is flat."""

NEXT_TO = 0.4
"""Part of the tolerance below the crossing, as a secant has it, at which a search ends: secants
over wide brackets are off by up to twice."""

INSIDE = 0.02
"""Part of the bracket that a secant step keeps from both of its ends."""

FALLING = 0.02
"""Rise of the margin between two rates from which latency is said to fall again."""

NO_TRANSFER = Transfer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Goodput of one system.

    rate : highest rate at which the target holds [1/s]; low, high : the rates at which it would
    hold with thresholds 2 % tighter and looser [1/s]: wide when latency hardly depends on the rate
    binding : what stops a higher rate; at : the latencies there (of the lightest load when
    infeasible); detail : the arithmetic when infeasible, else empty
    """

    rate: float
    low: float
    high: float
    binding: Binding
    at: Latencies
    trust: Trust
    status: LatencyStatus
    detail: str = ""


def goodput(
    system: System, target: Target, *, tolerance: float = 1e-3, floor: float = 0.0
) -> Goodput:
    """Return the highest rate at which `target` holds, within `tolerance` of it.

    A target that a lone request misses gives status `INFEASIBLE`, rate 0 and the arithmetic in
    `detail`; a KV cache that cannot hold more than one request in 10,000 `SOME_REFUSED`
    likewise: turning long requests away is no way to a higher goodput. One that holds up to the
    stability limit gives `Binding.STABILITY`. Where the target does not hold at `floor` [1/s], the
    search ends there with rate 0: less is not asked for.

    Raises InputError for arrivals that are not Poisson at every lane.
    """
    turned_away, limit = refused(system), stability_rate(system)
    if turned_away.too_many and limit > 0:
        return _refusing(turned_away, limit)
    return _search(evaluator(system), limit, target, tolerance, floor)


def prefill_goodput(
    lane: Lane,
    lengths: Lengths,
    target: Target,
    *,
    floor: float = 0.0,
) -> Goodput:
    """Return the goodput of one prefill lane: the TTFT objective of `target` alone.

    A joint target's TTFT threshold counts at its attainment, which the whole system cannot beat.
    `floor` as in `goodput`.
    """
    engine = lane_engine(lane, lengths)
    turned_away = refused_by({"p": lane}, lengths)
    if turned_away.too_many:
        return _refusing(turned_away, prefill_pool.capacity(engine))
    return _search(
        lambda rate: prefill_alone(engine, rate),
        prefill_pool.capacity(engine),
        _first_tokens(target),
        floor=floor,
    )


def _first_tokens(target: Target) -> Target:
    """Return what a target asks of first tokens: TTFT, or else the first of the token deadlines."""
    tokens = target.tokens
    if target.ttft is None and tokens is not None and tokens.slack is not None:
        due = (tokens.first or 0.0) + tokens.slack
        return Target(ttft=due, ttft_percentile=target.required("deadline"))
    return Target(ttft=target.ttft, ttft_percentile=target.required("ttft"))


def decode_goodput(
    lane: Lane,
    lengths: Lengths,
    target: Target,
    transfer: Transfer = NO_TRANSFER,
    *,
    floor: float = 0.0,
) -> Goodput:
    """Return the goodput of one decode lane: the TPOT objective alone; `floor` as in `goodput`."""
    engine = lane_engine(lane, lengths, FULL)
    turned_away, limit = refused_by({"d": lane}, lengths), decode_pool.capacity(engine)
    if turned_away.too_many and limit > 0:
        return _refusing(turned_away, limit)
    percentile = target.attainment if target.joint else target.tpot_percentile
    return _search(
        lambda rate: by_batch(
            lane, lambda decodes: decode_alone(lane_engine(lane, lengths, decodes), rate, transfer)
        ),
        limit,
        Target(tpot=target.tpot, tpot_percentile=percentile),
        floor=floor,
    )


def _refusing(turned_away: Refused, limit: float) -> Goodput:
    """Return the verdict that a system does not serve the workload, with the arithmetic."""
    return Goodput(
        rate=0.0,
        low=0.0,
        high=0.0,
        binding=Binding.INFEASIBLE,
        at=unstable(limit, limit, LatencyStatus.SOME_REFUSED),
        trust=Trust(True),
        status=LatencyStatus.SOME_REFUSED,
        detail=turned_away.reason,
    )


def _search(
    evaluate: Callable[[float], Latencies],
    limit: float,
    target: Target,
    tolerance: float = 1e-3,
    floor: float = 0.0,
) -> Goodput:
    """Bracket and close in on the share of `limit` where the margin changes sign."""
    if not limit > 0:
        at = evaluate(1.0)
        return Goodput(
            rate=0.0,
            low=0.0,
            high=0.0,
            binding=Binding.INFEASIBLE,
            at=at,
            trust=Trust(True),
            status=at.status,
            detail=str(at.status),
        )
    tried: dict[float, tuple[float, Binding, Latencies]] = {}

    def look(share: float) -> float:
        found = evaluate(share * limit)
        tried[share] = (*margin(found, target), found)
        return tried[share][0]

    low, high = 0.0, NEARLY_SATURATED
    g_low, g_high = math.inf, -math.inf
    share, stayed = 0.6, ""
    if floor > 0:
        low, g_low = floor / limit, look(floor / limit)
        if g_low < 0 or low >= NEARLY_SATURATED:
            return _below(tried[low][2], floor)
        share = _next(low, high, g_low, g_high, tolerance, False)
    while True:
        g = look(share)
        # the end that stays twice counts half (Illinois), or secants creep up on one side
        if g >= 0:
            g_high = g_high / 2 if stayed == "high" else g_high
            low, g_low, stayed = share, g, "high"
        else:
            g_low = g_low / 2 if stayed == "low" else g_low
            high, g_high, stayed = share, g, "low"
        if low >= NEARLY_SATURATED or high - low <= tolerance * high:
            break
        if low > 0.0 and high in tried and _met_just(tried, low, high, NEXT_TO * tolerance):
            break
        if high <= 2e-3 and low == 0.0:
            return _infeasible(tried[high][2], target)
        share = _next(low, high, g_low, g_high, tolerance, high in tried)
    if low == 0.0:
        return _infeasible(tried[high][2], target)
    _, binding, found = tried[low]
    if low < NEARLY_SATURATED:
        binding = tried[high][1] if high in tried else binding
    else:
        binding = Binding.STABILITY
    above = tried.get(high)
    down, up = _interval(tried, low, _slack(found, target, binding))
    trust = _verdict(found, target, binding, math.log(up / down))
    if above is not None and above[2].status is LatencyStatus.NO_LAW:
        trust = trust & above[2].trust
    if _better_above(tried, low):
        trust = trust & Trust.of(
            "latency falls again at higher rates, where decodes fill all slots"
        )
    return Goodput(
        rate=low * limit,
        low=down * limit,
        high=min(up, 1.0) * limit,
        binding=binding,
        at=found,
        trust=trust,
        status=found.status,
    )


def _better_above(tried: dict[float, tuple[float, Binding, Latencies]], share: float) -> bool:
    """Return whether the target is nearer at a higher rate than at a lower one, both beyond it."""
    beyond = [tried[s][0] for s in sorted(tried) if s >= share]
    return any(later > now + FALLING for now, later in pairwise(beyond))


def _below(found: Latencies, floor: float) -> Goodput:
    """Return the verdict that the target does not hold at the rate that had to be beaten."""
    return Goodput(
        rate=0.0,
        low=0.0,
        high=floor,
        binding=Binding.INFEASIBLE,
        at=found,
        trust=found.trust,
        status=found.status,
        detail=f"does not hold at {floor:.4g} requests/s, the least asked for",
    )


def _verdict(found: Latencies, target: Target, binding: Binding, width: float) -> Trust:
    """Return whether the rate itself may be trusted.

    width : as of `Sight`
    """
    if found.situation is None:
        return found.structural & found.trust
    if binding is Binding.STABILITY:
        return found.structural
    p = target.required(binding.key)
    both = found.reading.discrepancy(p) if found.reading is not None else 0.0
    sight = Sight(width=width, discrepancy=both)
    doubts = [doubt(n, found.situation, sight) for n in deciders(found, target, binding)]
    if target.tokens is not None:
        doubts.append(target.tokens.doubt)
    return found.structural & Trust.of(*doubts)


def _met_just(
    tried: dict[float, tuple[float, Binding, Latencies]], low: float, high: float, close: float
) -> bool:
    """Return whether the secant between two looks crosses 0 this close to the lower one."""
    g_low, g_high = tried[low][0], tried[high][0]
    return (
        math.isfinite(g_high) and _secant(low, high, g_low / (g_low - g_high)) - low <= close * low
    )


def _secant(low: float, high: float, part: float) -> float:
    """Return the share `part` of the way from low to high, in log(1/share − 1)."""
    z_low, z_high = math.log(1 / low - 1), math.log(1 / high - 1)
    return 1 / (1 + math.exp(z_low + (z_high - z_low) * part))


def _next(
    low: float, high: float, g_low: float, g_high: float, tolerance: float, missed: bool
) -> float:
    """Return the next share to look at: secant in log(1/share − 1), kept inside the bracket.

    missed : whether `high` has been looked at, and not only assumed
    """
    if low == 0.0:
        return high / 4 if high > 0.02 else high / 10
    if not math.isfinite(g_high):
        if missed:
            return (low + high) / 2
        if high >= NEARLY_SATURATED and low >= 0.95:
            return NEARLY_SATURATED
        return 1.0 - (1.0 - low) / 2.5 if high >= NEARLY_SATURATED else (low + high) / 2
    part = g_low / (g_low - g_high)
    guess = _secant(low, high, min(max(part, INSIDE), 1.0 - INSIDE))
    edge = 0.45 * tolerance * high
    # rather below the crossing than above it: a look there may be the last one
    return min(max(guess * (1 - NEXT_TO / 2 * tolerance), low + edge), high - edge)


def _slack(found: Latencies, target: Target, binding: Binding) -> float:
    """Return the error of the margin that the models are taken to have."""
    if _by_share(target, binding):
        tighter, looser = (
            _met(found, _scaled(target, math.exp(sign * SLO_SLACK)), binding) for sign in (-1, 1)
        )
        return max(TAIL_SLACK * (1 - target.required(binding.key)), (looser - tighter) / 2)
    if binding.key not in OBJECTIVES:
        return SLO_SLACK
    p = getattr(target, f"{binding.key}_percentile")
    return max(SLO_SLACK, _spread(found, binding.key, p, TAIL_SLACK) / 2)


def _by_share(target: Target, binding: Binding) -> bool:
    """Whether the margin of what binds is a share of requests."""
    return target.joint or (binding.key in target.asked and target.counted(binding.key))


def _met(found: Latencies, target: Target, binding: Binding) -> float:
    """Return the share of requests that meet what binds [1]."""
    if target.joint:
        return attainment(found, target)
    return marginal_attainment(found, target)[binding.key]


def _scaled(target: Target, factor: float) -> Target:
    """Return the target with all its thresholds times a factor."""
    thresholds = {
        name: factor * getattr(target, name) for name in target.asked if name in OBJECTIVES
    }
    return replace(
        target,
        **thresholds,
        e2el_per_token=factor * target.e2el_per_token,
        tokens=None if target.tokens is None else target.tokens.scaled(factor),
    )


def _spread(found: Latencies, name: str, p: float, share: float) -> float:
    """Return the log of the percentiles a `share` of the tail beyond p above and below it."""
    off = share * (1 - p)
    ends = (found.percentile(name, p + off), found.percentile(name, p - off))
    return math.log(max(ends[0], 1e-300) / max(ends[1], 1e-300))


def _interval(
    tried: dict[float, tuple[float, Binding, Latencies]], share: float, slack: float
) -> tuple[float, float]:
    """Return the shares at which the margin would be ± `slack`, from the looks taken."""
    finite = sorted((s, t[0]) for s, t in tried.items() if math.isfinite(t[0]))
    x = np.log([s for s, _ in finite])
    g = np.minimum.accumulate(np.array([m for _, m in finite]))
    if g.size < 2:
        return share, share
    order = slice(None, None, -1)
    down = math.exp(float(np.interp(slack, g[order], x[order])))
    up = math.exp(float(np.interp(-slack, g[order], x[order])))
    return min(down, share), max(up, share)


def _infeasible(light: Latencies, target: Target) -> Goodput:
    """Return the verdict that even a request alone misses the target, with the arithmetic."""
    if light.status is not LatencyStatus.OK:
        return replace(_below(light, 0.0), detail=light.status.value)
    binding = margin(light, target)[1]
    if _by_share(target, binding):
        what = "all thresholds" if target.joint else f"its {binding.value}"
        detail = (
            f"a request alone meets {what} with probability {_met(light, target, binding):.3f}, "
            f"below the attainment of {target.required(binding.key):.3f}"
        )
    else:
        name = binding.key
        p = getattr(target, f"{name}_percentile")
        detail = (
            f"{name} of a request alone: P{100 * p:g} = {light.percentile(name, p) * 1e3:.4g} ms, "
            f"above the threshold of {getattr(target, name) * 1e3:.4g} ms"
        )
    return Goodput(
        rate=0.0,
        low=0.0,
        high=0.0,
        binding=Binding.INFEASIBLE,
        at=light,
        trust=light.structural & _narrow_miss(light, target),
        status=LatencyStatus.INFEASIBLE,
        detail=detail,
    )


def _narrow_miss(light: Latencies, target: Target) -> Trust:
    """Return low trust where a request alone misses the target by no more than formulas err."""
    room, binding = margin(light, target)
    slack = 1.0 - target.required(binding.key) if _by_share(target, binding) else NARROW_MISS
    if room < -slack:
        return TRUSTED
    return Trust.of("a request alone misses the objectives by a hair")
