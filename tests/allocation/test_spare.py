"""Plans hold no GPU that their objective does not need: cost is the second objective."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from bestserve.solvers.allocation.check import violations
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.plan import Plan, assign
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import Tables

EXACT = Options(gap=0.0)


def easy(oracle: ModuleType, seed: int, side: str = "") -> tuple[Tables, object]:
    """A problem whose demand is a third of what its GPUs carry, as far as they carry any."""
    tables, required = oracle.random_problem(seed, "max_goodput", noisy=seed % 2 == 1, side=side)
    most = search(tables, replace(required, objective="max_headroom"), EXACT)
    factor = most.plan.objective / 3 if most.plan is not None else 1.0
    demand = replace(tables.demand, rate=tables.demand.rate * factor)
    return replace(tables, demand=demand), required


@pytest.mark.parametrize("side", ["", "network"])
def test_the_most_goodput_comes_at_the_least_cost(oracle: ModuleType, side: str) -> None:
    compared = 0
    for seed in range(24):
        tables, required = easy(oracle, seed, side)
        cheapest = search(tables, replace(required, objective="min_cost"), EXACT)
        found = search(tables, required, EXACT)
        if cheapest.plan is None or found.plan is None:
            continue
        served = found.plan.served
        if not np.allclose(served, tables.demand.rate, rtol=1e-6):
            continue
        compared += 1
        assert violations(tables, required, found.plan) == []
        cost = float(found.plan.gpus(tables) @ tables.supply.price)
        assert cost <= cheapest.plan.objective * (1 + 1e-6)
    assert compared >= 10


def fewer(plan: Plan) -> list[tuple[np.ndarray, np.ndarray]]:
    """Every plan with one instance less."""
    out = []
    for i in range(plan.pool.size):
        count = plan.count.copy()
        count[i] -= 1
        keep = count > 0
        out.append((plan.pool[keep], count[keep]))
    return out


@pytest.mark.parametrize("objective", ["max_goodput", "max_headroom"])
def test_no_instance_can_go(oracle: ModuleType, objective: str) -> None:
    for seed in range(20):
        tables, required = oracle.random_problem(seed, objective, side="network" * (seed % 2))
        plan = search(tables, required, EXACT).plan
        if plan is None:
            continue
        # an instance may be there for its network card alone
        assert seed % 2 or np.all(plan.rates.sum(axis=1) > 0)
        for pool, count in fewer(plan):
            if np.any(count < required.fewest(tables)[pool]) or pool.size == 0:
                continue
            less = assign(tables, required, pool, count, trim=False)
            assert less is None or less.objective < plan.objective * (1 - 1e-7)
