"""The answer to a fleet question, as users see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bestserve.results.document import Document, plain
from bestserve.results.economics import Economics
from bestserve.specs.fleet import Fleet

UNITS = {
    "max_goodput": "req/s",
    "min_cost": "$/h",
    "max_headroom": "times the rates",
}
"""What the objective counts; weighted requests where classes have values."""


@dataclass(frozen=True, slots=True)
class PlannedPool:
    """One pool of the plan.

    strategy : instances, role and options as strategies are written; rate : requests through it,
    goodput : the most it can carry of this mix [req/s]; classes : rate of each class [req/s]
    exact_mix : the router must keep the classes in these proportions
    """

    gpu: str
    model: str
    role: str
    strategy: str
    instances: int
    gpus: int
    rate: float
    goodput: float
    load: float
    classes: dict[str, float]
    exact_mix: bool


@dataclass(frozen=True, slots=True)
class PlannedFlow:
    """Requests of a class that are prefilled on one GPU type and decoded on another (or the same).

    rate [req/s]; bandwidth : of the KV cache that moves [B/s]
    """

    source: str
    target: str
    request_class: str
    rate: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class ServedClass:
    """What the plan carries of a class, and what was asked [req/s] (the share, for a mix)."""

    request_class: str
    rate: float
    asked: float


@dataclass(frozen=True, slots=True)
class Verified:
    """One class on one objective in the simulation of the plan.

    share : of the requests that met the objective; required : share asked [1]
    error : standard error of `share`, from batches of the run [1]
    tolerance : by how much `share` may fall short, because formulas are off by so much [1]
    ok : short by no more than that
    """

    pool: str
    request_class: str
    metric: str
    share: float
    required: float
    error: float
    tolerance: float
    ok: bool


@dataclass(frozen=True, slots=True)
class MarginalValue:
    """What a change brings by solving again.

    noise : by how much the two gaps could account for the difference
    """

    change: str
    objective: float
    difference: float
    noise: float
    significant: bool


@dataclass(frozen=True, slots=True)
class UniformPlan:
    """The best uniform strategy for comparison: its objective (None: infeasible) and its GPUs."""

    layout: str
    objective: float | None
    gpus: int
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation(Document):
    """A plan for a fleet with its certificate.

    objective : of the plan, on the exact tables; bound : no plan on these tables is better
    gap : relative to the larger of the two; certified_by : the step that gave the bound
    status : how the search ended; corrections : how often a simulation forced tighter tables
    economics : tokens and money of what it serves, at the fleet's prices or public ones
    binding : limits reached; shadow_prices : of the relaxation, indicative only
    """

    fleet: Fleet
    status: str
    objective: float
    unit: str
    bound: float
    gap: float
    certified_by: str
    pools: tuple[PlannedPool, ...]
    flows: tuple[PlannedFlow, ...]
    served: tuple[ServedClass, ...]
    gpus_used: dict[str, int]
    cost: float | None
    power: float | None
    binding: tuple[str, ...]
    shadow_prices: dict[str, float]
    marginals: tuple[MarginalValue, ...] = ()
    uniform: tuple[UniformPlan, ...] = ()
    verification: tuple[Verified, ...] = ()
    corrections: int = 0
    seconds: float = 0.0
    table_seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())
    economics: Economics | None = None

    @property
    def verified(self) -> bool:
        """Whether the plan was simulated and every class met its objectives within tolerance."""
        return bool(self.verification) and all(v.ok for v in self.verification)

    def content(self) -> dict[str, Any]:
        """Return the answer as plain data, the fleet that was asked about included."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}

    def records(self) -> list[dict[str, Any]]:
        """Return one row per pool."""
        return [
            {
                "gpu": p.gpu,
                "model": p.model,
                "strategy": p.strategy,
                "gpus": p.gpus,
                "rate": p.rate,
                "goodput": p.goodput,
                "load": p.load,
                "classes": ", ".join(f"{name} {rate:.4g}" for name, rate in p.classes.items()),
            }
            for p in self.pools
        ]

    def explain(self) -> str:
        """Return the plan's worth, its certificate, what binds, and how far to trust it."""
        used = ", ".join(f"{n} {name}" for name, n in self.gpus_used.items() if n)
        lines = [
            f"{self.objective:.5g} {self.unit} on {used or 'no GPUs'}",
            f"  no plan beats {self.bound:.5g}: gap {self.gap:.2%} ({self.status}; "
            f"{self.certified_by}; {self.seconds:.1f} s, tables {self.table_seconds:.1f} s)",
        ]
        if self.cost is not None:
            lines.append(f"  costs {self.cost:.5g} $/h")
        if self.economics is not None:
            lines.append(f"  {self.economics.explain()}")
        if self.binding:
            lines.append("  binding: " + "; ".join(self.binding))
        lines += [
            f"  {m.change}: {m.difference:+.4g} {self.unit}"
            + ("" if m.significant else f" (within the gaps, ± {m.noise:.2g})")
            for m in self.marginals
        ]
        for u in self.uniform:
            worth = "infeasible" if u.objective is None else f"{u.objective:.5g} {self.unit}"
            lines.append(f"  best uniform {u.layout}: {worth}")
        lines += self._trust()
        return "\n".join(lines)

    def _trust(self) -> list[str]:
        """Return the lines on verification and routing."""
        lines = []
        if self.verification:
            worst = min(self.verification, key=lambda v: v.share - v.required)
            verdict = "holds" if self.verified else "does not hold"
            lines.append(
                f"  simulated: {verdict}; tightest {worst.request_class} {worst.metric.upper()} in "
                f"{worst.pool}: {worst.share:.1%} ± {worst.error:.1%} of {worst.required:.1%} "
                f"required, may fall short by {worst.tolerance:.1%}"
            )
        if self.corrections:
            times = "once" if self.corrections == 1 else f"{self.corrections} times"
            lines.append(f"  tables were tightened {times} after simulations fell short")
        if any(p.exact_mix for p in self.pools):
            lines.append("  pools with several classes need a router that keeps their proportions")
        return lines + [f"  {note}" for note in self.notes]
