"""How far a goodput may be off, by cause: sampling, model, calibration, unknown acceptance.

All are relative half-widths of 90 % intervals, of independent causes: their squares add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from bestserve.answers.factors import ACCEPTANCE, BY_NAME, apply_factors, spreads_of, varied
from bestserve.answers.intervals import Z90
from bestserve.lowering import Lowered
from bestserve.models.attainment import margin
from bestserve.models.lane_arrivals import known_part
from bestserve.models.latencies import Latencies
from bestserve.models.latency import evaluator
from bestserve.models.status import LatencyStatus
from bestserve.models.system import Target
from bestserve.models.trust import TRUSTED, Trust
from bestserve.results.ranking import RankedStrategy
from bestserve.specs.strategy import Strategy

MODEL = 0.01
"""Of trusted formulas, and of the atoms that stand for lengths on both sides: the median goodput of
the agreement report is 0.7 % off, the 90th percentile 2 %."""

LOWER, BESIDE = "lower rate", 0.03

STRAIGHT = 0.02
"""Change of ln(goodput) beside that of the capacity up to which a line holds."""

STEEPEST = 1.5
"""Change of ln(goodput) by one constant at most: further away no slope holds."""

VAGUE = 0.7
"""Half-width from which an interval says too little for a high trust: a factor of two [ln]."""


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


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far constants move a goodput: the half-width of its 90 % interval [ln], and the largest.

    measure : what would tell the constant that moves it most
    acceptance : half-width that acceptance of drafts causes, where it is assumed; None where stated
    """

    error: float = 0.0
    measure: str = ""
    acceptance: float | None = None

    @property
    def parts(self) -> dict[str, float]:
        """The parts of an interval that these are, by name [ln]."""
        drafts = {} if self.acceptance is None else {"acceptance": self.acceptance}
        return {"calibration": self.error, **drafts}

    @property
    def trust(self) -> Trust:
        """Low where the constants leave hardly anything known."""
        if self.error <= VAGUE:
            return TRUSTED
        return Trust.of(
            f"constants leave the goodput open by a factor of {math.exp(self.error):.2g}: measure "
            f"{self.measure} and calibrate"
        )


def moved(
    lowered: Lowered, strategy: Strategy, rate: float, only: str | None = None
) -> dict[str, Latencies]:
    """Return latencies at a rate [req/s] with each constant one standard deviation slower.

    By name of the factor, or `only` that one; "" as they are, `LOWER` at a rate 3 % lower. Empty
    where nothing is known to be uncertain, as of own step times.
    """
    names = [f.name for f in varied(lowered, strategy.disaggregated) if only in (None, f.name)]
    if not names:
        return {}
    return {
        **{name: _slower(lowered, strategy, name)(rate) for name in ("", *names)},
        LOWER: _slower(lowered, strategy)(rate * math.exp(-BESIDE)),
    }


def _slower(lowered: Lowered, strategy: Strategy, name: str = "") -> Callable[[float], Latencies]:
    """Return rate → latencies with one constant a standard deviation slower, or none."""
    factors = {name: math.exp(spreads_of(lowered)[name])} if name else {}
    scaled = apply_factors(lowered, factors) if name else lowered
    return evaluator(known_part(scaled.system(strategy)))


def calibration(
    lowered: Lowered, strategy: Strategy, found: Mapping[str, Latencies], target: Target
) -> Calibration:
    """Return how far the constants' uncertainty moves a goodput, from latencies at that rate.

    The room of the nearest objective changes with a constant, and with the rate. Near saturation
    no line joins them; there a constant changes the goodput as it changes the capacity, and a line
    at that rate tells what is left.
    """
    if not found:
        return Calibration()
    base = found[""]
    room, lower = margin(base, target)[0], margin(found[LOWER], target)[0]
    per_rate = (lower - room) / BESIDE
    known = math.isfinite(per_rate) and per_rate > 0
    changes = {}
    for name, at in found.items():
        if name in ("", LOWER):
            continue
        capacity = math.log(at.stability_rate / base.stability_rate)
        change = capacity
        if known and at.status is LatencyStatus.OK:
            change = (margin(at, target)[0] - room) / per_rate
        if known and abs(change - capacity) > STRAIGHT:
            again = _slower(lowered, strategy, name)(base.rate * math.exp(capacity))
            left = margin(again, target)[0] - room
            change = capacity + left / per_rate if math.isfinite(left) else capacity
        changes[name] = max(min(change, STEEPEST), -STEEPEST)
    drafts = changes.pop(ACCEPTANCE.name, None)
    largest = max(changes, key=lambda name: abs(changes[name]), default=None)
    return Calibration(
        error=Z90 * math.hypot(*changes.values()),
        measure="" if largest is None else BY_NAME[largest].needs,
        acceptance=None if drafts is None else Z90 * abs(drafts),
    )
