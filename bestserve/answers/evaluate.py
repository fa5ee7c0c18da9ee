"""Which answer: a formula where one knows the arrivals, else runs on common random numbers.

Whoever looks at systems over rates or figures (sweeps, elasticities, uncertainty) asks here.
"""

from __future__ import annotations

from collections.abc import Callable

from bestserve.models import goodput as analytic
from bestserve.models import latency
from bestserve.models.lane_arrivals import known_part, uncovered
from bestserve.models.latencies import Latencies
from bestserve.models.system import System, Target

ROUGH = 0.9
"""The strictest percentile that the shorter runs are to tell: a sixth of what P99 needs."""


def evaluator(system: System, share: float = ROUGH) -> Callable[[float], Latencies]:
    """Return the function rate [req/s] → latencies of a system.

    share : the strictest percentile that is to be told, where it takes runs
    """
    if not uncovered(system):
        return latency.evaluator(system)
    from bestserve.answers.simulated import Simulated

    return Simulated(system=system, share=share)


def goodput(system: System, target: Target) -> float:
    """Return the highest rate at which a target holds [req/s], 0 if none, as quickly as it goes.

    Where it takes runs they have the usual length, whatever their error.
    """
    known = analytic.goodput(known_part(system), target.for_formulas).rate
    if not (uncovered(system) or target.without_formula):
        return known
    from bestserve.answers.crossing import highest
    from bestserve.answers.simulated import Simulated

    runs = Simulated(system=system, share=target.strictest, reader=target.reader)
    ends = highest(runs, target, known or None)
    return 0.0 if ends is None else ends.rate
