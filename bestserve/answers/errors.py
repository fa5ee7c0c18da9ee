"""How far a goodput may be off, by cause: sampling, model, calibration.

All are relative half-widths of 90 % intervals, of independent causes: their squares add up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from bestserve.answers.factors import apply_factors, spreads_of, varied
from bestserve.answers.intervals import Z90
from bestserve.lowering import Lowered
from bestserve.models.attainment import margin
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latencies import Latencies
from bestserve.models.latency import evaluator
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target
from bestserve.results.ranking import RankedStrategy
from bestserve.specs.strategy import Strategy

MODEL = 0.01
"""Of trusted formulas, and of the atoms that stand for lengths on both sides: the median goodput of
the agreement report is 0.7 % off, the 90th percentile 2 %."""

LOWER, BESIDE = "lower rate", 0.03

STEEPEST = 1.5
"""Change of ln(goodput) by one constant at most: further away no slope holds."""


def with_errors(row: RankedStrategy, errors: Mapping[str, float]) -> RankedStrategy:
    """Return the row with its interval, which these parts make: relative half-widths by cause."""
    whole = math.exp(math.hypot(*errors.values()))
    return replace(row, low=row.goodput / whole, high=row.goodput * whole, errors=dict(errors))


def own_errors(row: RankedStrategy) -> dict[str, float]:
    """Return what a row's formula, or its runs, leave open: the parts that are not calibration."""
    if row.errors:
        return {"sampling": row.errors["sampling"], "model": row.errors["model"]}
    spread = math.log(row.high / row.low) / 2 if 0 < row.low <= row.high < math.inf else 0.0
    if row.method == "simulated":
        return {"sampling": spread, "model": MODEL}
    return {"sampling": 0.0, "model": max(spread, MODEL)}


def moved(lowered: Lowered, strategy: Strategy, rate: float) -> dict[str, Latencies]:
    """Return latencies at a rate [req/s] with each constant one standard deviation slower.

    By name of the factor; "" as they are, `LOWER` at a rate 3 % lower. Empty for own step
    times, whose uncertainty is not known.
    """
    if lowered.problem.step_time is not None:
        return {}
    sizes = spreads_of(lowered)
    names = [f.name for f in varied(lowered, strategy.disaggregated)]
    scaled = {"": {}, **{n: {n: math.exp(sizes[n])} for n in names}}
    found = {
        name: evaluator(known_part(apply_factors(lowered, factors).system(strategy)))(rate)
        for name, factors in scaled.items()
    }
    return {
        **found,
        LOWER: evaluator(known_part(lowered.system(strategy)))(rate * math.exp(-BESIDE)),
    }


def calibration_error(found: Mapping[str, Latencies], target: Target) -> float:
    """Return how far the constants' uncertainty moves a goodput, from latencies at that rate.

    The room of the nearest objective changes with a constant, and with the rate; where the rate
    cannot be sustained any more, capacity says how far it falls.
    """
    if not found:
        return 0.0
    base = found[""]
    room, lower = margin(base, target)[0], margin(found[LOWER], target)[0]
    per_rate = (lower - room) / BESIDE
    known = math.isfinite(per_rate) and per_rate > 0
    changes = []
    for name, at in found.items():
        if name in ("", LOWER):
            continue
        change = math.log(at.stability_rate / base.stability_rate)
        if at.status is LatencyStatus.OK and known:
            change = (margin(at, target)[0] - room) / per_rate
        changes.append(max(min(change, STEEPEST), -STEEPEST))
    return Z90 * math.hypot(*changes)
