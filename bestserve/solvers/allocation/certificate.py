"""What binds, and what one more unit of anything would bring, by solving again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bestserve.solvers.allocation.found import Found
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.plan import Plan
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import Requirements, Tables

FULL = 0.999
"""Share of a budget or of a pool's goodput above which it is called full."""


@dataclass(frozen=True, slots=True)
class Change:
    """A changed problem to solve again: what changed, in words, and the problem."""

    name: str
    tables: Tables
    requirements: Requirements


@dataclass(frozen=True, slots=True)
class Marginal:
    """What a change brings.

    difference : of the objectives [its units]; noise : by how much the two gaps could account
    for it; significant : whether the difference is beyond that
    """

    name: str
    objective: float
    difference: float
    noise: float

    @property
    def significant(self) -> bool:
        """Whether the difference is larger than what the two gaps leave open."""
        return abs(self.difference) > self.noise


def binding(tables: Tables, requirements: Requirements, plan: Plan) -> tuple[str, ...]:
    """Return in words which limits the plan has reached."""
    found = []
    used, supply = plan.gpus(tables), tables.supply
    for g, name in enumerate(supply.names):
        sizes = tables.pools.size[(tables.pools.gpu == g) & (tables.pools.goodput[:, 1] > 0)]
        left = int(supply.gpus[g] - used[g])
        if used[g] and sizes.size and left < sizes.min():
            found.append(f"{name}: {used[g]} of {supply.gpus[g]} GPUs")
    budgets = (
        ("GPU budget", float(used.sum()), requirements.max_gpus, "GPUs"),
        ("cost budget", plan.cost(tables, requirements), requirements.max_cost, "$/h"),
        ("power budget", plan.watts(tables), requirements.max_watts, "W"),
        (
            "configurations",
            float(np.unique(tables.pools.key[plan.pool]).size),
            requirements.max_configurations,
            "",
        ),
        (
            "GPUs that may start",
            plan.started_gpus(tables, requirements),
            requirements.max_started_gpus,
            "",
        ),
    )
    for name, amount, limit, unit in budgets:
        if limit is not None and amount >= FULL * limit:
            found.append(f"{name}: {amount:.6g} of {limit:.6g} {unit}".rstrip())
    return tuple(found)


def standard_changes(tables: Tables, requirements: Requirements) -> list[Change]:
    """Return one GPU and one node more of each type, and one unit more of each budget."""
    supply, changes = tables.supply, []
    for g, name in enumerate(supply.names):
        for more, label in ((1, "GPU"), (int(supply.node_size[g]), "node")):
            gpus = supply.gpus.copy()
            gpus[g] += more
            grown = tables.with_supply(gpus=gpus)
            sizes = tables.pools.size[tables.pools.gpu == g]
            if sizes.size == 0 or (label == "node" and more == 1):
                continue
            grown = grown.extended(int(gpus[g] // sizes.min()))
            # A supply that grows under a GPU budget brings nothing: let the budget grow too.
            most = requirements.max_gpus
            allowed = replace(requirements, max_gpus=None if most is None else most + more)
            changes.append(Change(f"+1 {label} {name}", grown, allowed))
    if requirements.max_cost is not None:
        richer = replace(requirements, max_cost=requirements.max_cost + 1)
        changes.append(Change("+1 $/h", tables, richer))
    if requirements.max_watts is not None:
        stronger = replace(requirements, max_watts=requirements.max_watts + 1000)
        changes.append(Change("+1 kW", tables, stronger))
    if requirements.max_configurations is not None:
        freer = replace(requirements, max_configurations=requirements.max_configurations + 1)
        changes.append(Change("+1 configuration", tables, freer))
    return changes


def marginals(
    found: Found, changes: Sequence[Change], options: Options | None = None
) -> tuple[Marginal, ...]:
    """Solve the changed problems in parallel, starting from the plan found.

    An interrupt from the keyboard keeps those solved before. Runs through joblib, so the backend
    is that of the caller's `joblib.parallel_config`.
    """
    from joblib import Parallel, delayed

    base = found.plan
    if base is None:
        return ()
    options = options or Options(gap=1e-3, seconds=20.0)
    solved = Parallel(return_as="generator")(delayed(_again)(c, base, options) for c in changes)
    rows: list[Marginal] = []
    for change in changes:
        try:
            again = next(solved)
        except KeyboardInterrupt:
            break
        if again.interrupted:
            break
        if again.plan is None:
            continue
        noise = found.gap * abs(base.objective) + again.gap * abs(again.plan.objective)
        difference = again.plan.objective - base.objective
        rows.append(Marginal(change.name, again.plan.objective, difference, noise))
    return tuple(rows)


def _again(change: Change, start: Plan, options: Options) -> Found:
    """Solve a changed problem; the module-level function is what other processes can be sent."""
    return search(change.tables, change.requirements, options, start=start)
