"""Infeasible problems: the relaxation that is named makes them feasible."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from bestserve.solvers.allocation.elastic import Relaxation, explain
from bestserve.solvers.allocation.found import PlanStatus
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import Requirements, Tables

EXACT = Options(gap=0.0)


def applied(
    tables: Tables, required: Requirements, changes: tuple[Relaxation, ...]
) -> tuple[Tables, Requirements]:
    """The problem with the relaxations carried out."""
    for change in changes:
        if change.kind == "gpus":
            gpus = tables.supply.gpus.copy()
            gpus[change.index] += round(change.amount)
            tables = tables.with_supply(gpus=gpus).extended(int(gpus.max()))
        elif change.kind == "rate":
            rate = tables.demand.rate.copy()
            rate[change.index] -= change.amount
            tables = replace(tables, demand=replace(tables.demand, rate=rate))
        elif change.kind == "min_replicas":
            fewest = required.min_replicas.copy()
            fewest[change.index] = 1
            required = replace(required, min_replicas=fewest)
        else:
            limit = getattr(required, change.kind) + change.amount
            required = replace(required, **{change.kind: limit})
    return tables, required


def infeasible(oracle: ModuleType, side: str, seeds: range) -> list[tuple[Tables, Requirements]]:
    found = []
    for seed in seeds:
        tables, required = oracle.random_problem(seed, "min_cost", side=side)
        rate = tables.demand.rate * (2.0 if side in ("", "packing") else 1.0)
        tables = replace(tables, demand=replace(tables.demand, rate=rate))
        if np.isnan(oracle.optimum(tables, required)):
            found.append((tables, required))
    return found


@pytest.mark.parametrize("side", ["", "configurations", "budget", "replicas", "packing"])
def test_the_explanation_makes_it_feasible(oracle: ModuleType, side: str) -> None:
    problems = infeasible(oracle, side, range(24))[:4]
    assert problems
    explained = 0
    for tables, required in problems:
        assert search(tables, required, EXACT).status is PlanStatus.INFEASIBLE
        reasons = explain(tables, required)
        if reasons.unreachable:
            assert "no configuration" in str(reasons)
            continue
        options = [(x,) for x in reasons.alone] or [reasons.together]
        assert options[0]
        for changes in options:
            found = search(*applied(tables, required, changes), EXACT)
            assert found.plan is not None, changes
            explained += 1
    assert explained


def test_amounts_are_least(oracle: ModuleType) -> None:
    """One GPU less than the explanation asks for is not enough."""
    checked = 0
    for tables, required in infeasible(oracle, "", range(24))[:6]:
        for change in explain(tables, required, Options(gap=0.0, seconds=30)).alone:
            if change.kind == "gpus" and change.amount > 1:
                less = replace(change, amount=change.amount - 1)
                found = search(*applied(tables, required, (less,)), EXACT)
                assert found.status is PlanStatus.INFEASIBLE
                checked += 1
    assert checked


def test_a_class_nothing_serves_is_named(oracle: ModuleType) -> None:
    tables, required = oracle.random_problem(0, "min_cost")
    dead = np.flatnonzero(tables.mixes[tables.pools.recipe][:, 0] > 0)
    goodput = tables.pools.goodput.copy()
    goodput[dead] = 0.0
    tables = replace(tables, pools=replace(tables.pools, goodput=goodput))
    assert search(tables, required, EXACT).status is PlanStatus.INFEASIBLE
    assert explain(tables, required).unreachable == (tables.demand.names[0],)


def test_two_requirements_together(oracle: ModuleType) -> None:
    """Neither GPUs nor money alone suffice when both are short."""
    problems = (oracle.random_problem(seed, "min_cost") for seed in range(9))
    tables, required = next(p for p in problems if search(*p, EXACT).plan is not None)
    short = tables.with_supply(gpus=np.ones_like(tables.supply.gpus))
    short = replace(short, demand=replace(short.demand, rate=short.demand.rate * 3))
    poor = replace(required, max_cost=float(tables.supply.price.min()))
    reasons = explain(short, poor)
    kinds = {x.kind for x in reasons.together}
    assert not reasons.alone
    assert len(kinds | {x.name for x in reasons.together}) >= 2
    assert search(*applied(short, poor, reasons.together), EXACT).plan is not None
