"""What binds, and what one more unit brings."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from bestserve.solvers.allocation.certificate import binding, marginals, standard_changes
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search

EXACT = Options(gap=0.0)


def test_marginals_equal_solving_again(oracle: ModuleType) -> None:
    tables, required = oracle.random_problem(4, "max_headroom")
    found = search(tables, required, EXACT)
    assert found.plan is not None
    changes = standard_changes(tables, required)
    rows = marginals(found, changes, EXACT)
    assert [r.name for r in rows] == [c.name for c in changes]
    for row, change in zip(rows, changes, strict=True):
        best = oracle.optimum(change.tables, change.requirements)
        assert row.objective == pytest.approx(best, rel=2e-6)
        assert row.difference == pytest.approx(best - found.plan.objective, abs=1e-5)
        assert row.difference >= -1e-6


def test_a_difference_within_the_gaps_is_called_noise(oracle: ModuleType) -> None:
    tables, required = oracle.random_problem(4, "max_headroom")
    loose = search(tables, required, Options(gap=0.3))
    assert loose.plan is not None
    rough = replace(loose, gap=0.5)
    rows = marginals(rough, standard_changes(tables, required)[:1], EXACT)
    assert not rows[0].significant


def test_binding_names_what_is_used_up(oracle: ModuleType) -> None:
    tables, required = oracle.random_problem(4, "max_goodput")
    tables = replace(tables, demand=replace(tables.demand, rate=tables.demand.rate * 10))
    limited = replace(required, max_gpus=3)
    found = search(tables, limited, EXACT)
    assert found.plan is not None
    assert any(
        line.startswith("GPU budget: 3 of 3") for line in binding(tables, limited, found.plan)
    )


def test_shadow_prices_are_those_of_the_relaxation(oracle: ModuleType) -> None:
    """Per GPU, never negative for a maximum; the first-order value of the linear bound."""
    tables, required = oracle.random_problem(4, "max_headroom")
    found = search(tables, required, EXACT)
    prices = {label: value for name, label, value in found.shadow_prices if name == "GPUs"}
    assert set(prices) == set(tables.supply.names)
    assert all(value >= -1e-9 for value in prices.values())
    assert max(prices.values()) > 0
