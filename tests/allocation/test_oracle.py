"""The search against brute force: same optimum, valid bound, feasible plan."""

from __future__ import annotations

import math
from types import ModuleType

import pytest

from bestserve.solvers.allocation.check import violations
from bestserve.solvers.allocation.found import Found, PlanStatus
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import Requirements, Tables

OBJECTIVES = ("max_headroom", "min_cost", "max_goodput")
SIDES = ("configurations", "budget", "replicas", "migration", "network", "packing")


def assert_optimal(
    found: Found, tables: Tables, requirements: Requirements, best: float, gap: float = 0.0
) -> None:
    if math.isnan(best):
        assert found.status is PlanStatus.INFEASIBLE
        assert found.plan is None
        return
    assert found.plan is not None
    assert violations(tables, requirements, found.plan) == []
    sign = 1.0 if requirements.objective == "min_cost" else -1.0
    # Never better than the optimum, never further from it than the gap; a bound is a bound.
    assert sign * found.plan.objective >= sign * best - 1e-6 * abs(best)
    assert sign * found.plan.objective <= sign * best + (gap + 2e-6) * abs(best) / (1 - gap)
    assert sign * found.bound <= sign * best + 1e-6 * abs(best)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("noisy", [False, True], ids=["smooth", "noisy"])
def test_equals_brute_force(
    oracle: ModuleType, exact: Options, objective: str, noisy: bool
) -> None:
    for seed in range(50):
        tables, required = oracle.random_problem(seed, objective, noisy=noisy)
        found = search(tables, required, exact)
        assert_optimal(found, tables, required, oracle.optimum(tables, required))


@pytest.mark.parametrize("side", SIDES)
def test_equals_brute_force_with_side_constraints(
    oracle: ModuleType, exact: Options, side: str
) -> None:
    for seed in range(18):
        objective = OBJECTIVES[seed % 3]
        tables, required = oracle.random_problem(seed, objective, noisy=seed % 2 == 1, side=side)
        found = search(tables, required, exact)
        assert_optimal(found, tables, required, oracle.optimum(tables, required))


@pytest.mark.parametrize("straight", [1.0, 0.5], ids=["all", "half"])
@pytest.mark.parametrize("side", ["", *SIDES])
def test_equals_brute_force_where_goodput_is_linear(
    oracle: ModuleType, exact: Options, side: str, straight: float
) -> None:
    """Pools whose instances do not help each other are one integer column each."""
    for seed in range(300, 309):
        objective = OBJECTIVES[seed % 3]
        tables, required = oracle.random_problem(seed, objective, side=side, straight=straight)
        found = search(tables, required, exact)
        assert_optimal(found, tables, required, oracle.optimum(tables, required))


def test_stored_instances(oracle: ModuleType, exact: Options, root) -> None:
    stored = oracle.stored(root / "solvers" / "instances")
    assert len(stored) >= 20
    for name, tables, required, best in stored:
        found = search(tables, required, exact)
        try:
            assert_optimal(found, tables, required, best)
        except AssertionError as error:
            raise AssertionError(f"{name}: {found.status}, {found.plan}") from error


def test_some_stored_instances_against_the_oracle_again(oracle: ModuleType, root) -> None:
    stored = oracle.stored(root / "solvers" / "instances")
    for name, tables, required, best in stored[::3]:
        again = oracle.optimum(tables, required)
        assert again == pytest.approx(best, rel=1e-9, nan_ok=True), name


@pytest.mark.parametrize("gap", [0.01, 0.05])
def test_a_gap_is_kept(oracle: ModuleType, gap: float) -> None:
    for seed in range(100, 112):
        tables, required = oracle.random_problem(seed, OBJECTIVES[seed % 3])
        found = search(tables, required, Options(gap=gap))
        assert_optimal(found, tables, required, oracle.optimum(tables, required), gap=gap)
        if found.plan is not None:
            assert found.gap <= gap + 1e-5


def test_without_reduction_the_optimum_is_the_same(oracle: ModuleType, exact: Options) -> None:
    for seed in range(200, 215):
        tables, required = oracle.random_problem(seed, OBJECTIVES[seed % 3], noisy=seed % 2 == 0)
        with_reduction = search(tables, required, exact)
        without = search(tables, required, exact, reduce=False)
        assert (with_reduction.plan is None) == (without.plan is None)
        if with_reduction.plan is not None and without.plan is not None:
            assert with_reduction.plan.objective == pytest.approx(without.plan.objective, rel=2e-6)
            assert with_reduction.pools[1] <= without.pools[1]
