"""Runs whose offered rate is itself a measurement: the most that met the objectives.

An MLPerf Server result is the highest rate at which LoadGen's limits held, so the system ran just
below its knee, where a few per cent of capacity change latencies severalfold. The rate therefore
tells the capacity better than any model: the step time is scaled by one factor κ so that the
objectives bind at this rate. The factor is reported with the row; 1 means that the model had the
capacity right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Collocated, Disaggregated, Lane, System
from bestserve.readers.tidy import TidyRow

SLOWEST, FASTEST = 3.0, 1 / 3.0
"""Range of κ; a row that needs more is predicted with κ = 1."""

TTFT_MARGIN = 0.5
"""Share of the TTFT limit at which a submission stops: where the cache fills, TTFT grows from half
a second to seconds within a per cent of rate, and nobody tunes a ten-minute run to that edge. The
runs' P99 TTFT is between 0.2 and 0.95 of the limit."""

STEPS = 9

_OBJECTIVE = re.compile(r"SLO TTFT p99<=(\d+)ms TPOT p99<=(\d+)ms")


def objectives_of(row: TidyRow) -> tuple[float, float] | None:
    """Return the P99 limits of TTFT and TPOT that a row's notes state [ms], or None."""
    for note in row.notes:
        match = _OBJECTIVE.search(note)
        if match:
            return float(match[1]), float(match[2])
    return None


def scaled(system: System, factor: float) -> System:
    """Return the system with every step `factor` times as long."""

    def lane(own: Lane) -> Lane:
        step = own.step
        times = {n: getattr(step, n) * factor for n in ("w", "c", "e", "a", "k", "a_step", "a_seq")}
        longer = StepTime(**times, phi=step.phi, moe=tuple(m * factor for m in step.moe))
        return replace(own, step=longer)

    if isinstance(system, Disaggregated):
        return replace(system, prefill=lane(system.prefill), decode=lane(system.decode))
    assert isinstance(system, Collocated)
    return replace(system, lane=lane(system.lane))


def at_objectives(
    system: System,
    objectives: tuple[float, float],
    run: Callable[[System], dict[str, float]],
) -> tuple[dict[str, float], float]:
    """Return the figures at the κ where the objectives bind, and κ; κ = 1 if none does.

    run : predicts the figures of a system under the row's protocol

    TTFT binds at `TTFT_MARGIN` of its limit.
    """

    def excess(figures: dict[str, float]) -> float:
        limit_ttft, limit_tpot = objectives
        return max(
            figures.get("ttft_p99_ms", 0.0) / (TTFT_MARGIN * limit_ttft),
            figures.get("tpot_p99_ms", 0.0) / limit_tpot,
        )

    low, high = math.log(FASTEST), math.log(SLOWEST)
    if excess(run(scaled(system, SLOWEST))) < 1.0 or excess(run(scaled(system, FASTEST))) > 1.0:
        return run(system), 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if excess(run(scaled(system, math.exp(middle)))) < 1.0:
            low = middle
        else:
            high = middle
    factor = math.exp(low)
    return run(scaled(system, factor)), factor
