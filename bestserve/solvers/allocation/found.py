"""What a search gives, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from bestserve.solvers.allocation.plan import Plan


class PlanStatus(Enum):
    """How a search ended; the value is what the user reads."""

    WITHIN_GAP = "proven to be within the gap asked for"
    STOPPED = "stopped early; the best plan so far, with the bound known by then"
    NO_PLAN = "stopped before any plan was found; a plan may still exist"
    INFEASIBLE = "no plan satisfies the requirements"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Told while searching: stage, seconds, best objective so far and bound (nan: none yet)."""

    stage: str
    seconds: float
    objective: float
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search gave.

    bound : no plan is better than this, in the objective's units; gap : relative to the larger
    of objective and bound; step : what gave the bound; pools, columns : sizes after reduction
    interrupted : whether an interrupt from the keyboard ended it
    """

    status: PlanStatus
    plan: Plan | None
    bound: float
    gap: float
    step: str
    seconds: float
    cpu_seconds: float
    nodes: int
    pools: tuple[int, int]
    columns: int
    binding: tuple[str, ...] = ()
    shadow_prices: tuple[tuple[str, str, float], ...] = ()
    interrupted: bool = False


Listener = Callable[[Progress], None]
