"""What must hold of any problem: more never hurts, scale does not matter, uniform is no better."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bestserve.solvers.allocation.found import Found
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.tables import (
    COLLOCATED,
    Requirements,
    Tables,
    isotone_per_instance,
)

EXACT = Options(gap=0.0)
OBJECTIVES = st.sampled_from(["max_headroom", "min_cost", "max_goodput"])
QUICK = settings(max_examples=12, deadline=None, derandomize=True)


def worth(found: Found, required: Requirements) -> float:
    """The objective such that more is better; no plan is worth nothing."""
    if found.plan is None:
        return -np.inf if required.objective == "min_cost" else 0.0
    return -found.plan.objective if required.objective == "min_cost" else found.plan.objective


def no_worse(after: float, before: float) -> bool:
    return after >= before - 2e-6 * abs(before) if np.isfinite(before) else True


@given(seed=st.integers(0, 10_000), objective=OBJECTIVES, which=st.integers(0, 1))
@QUICK
def test_one_more_gpu_never_hurts(
    oracle: ModuleType, seed: int, objective: str, which: int
) -> None:
    tables, required = oracle.random_problem(seed, objective)
    gpus = tables.supply.gpus.copy()
    gpus[which % gpus.size] += 1
    more = tables.extended(int(gpus.max())).with_supply(gpus=gpus)
    before = worth(search(tables, required, EXACT), required)
    assert no_worse(worth(search(more, required, EXACT), required), before)


@given(seed=st.integers(0, 10_000), objective=OBJECTIVES, factor=st.floats(1.0, 1.5))
@QUICK
def test_a_looser_slo_never_hurts(
    oracle: ModuleType, seed: int, objective: str, factor: float
) -> None:
    """A looser SLO raises some goodput tables and lowers none."""
    tables, required = oracle.random_problem(seed, objective)
    lift = np.where(np.arange(tables.pools.count) % 2 == seed % 2, factor, 1.0)
    goodput = tables.pools.goodput * lift[:, None]
    looser = replace(tables, pools=replace(tables.pools, goodput=goodput))
    before = worth(search(tables, required, EXACT), required)
    assert no_worse(worth(search(looser, required, EXACT), required), before)


@given(seed=st.integers(0, 10_000), objective=OBJECTIVES)
@QUICK
def test_units_do_not_matter(oracle: ModuleType, seed: int, objective: str) -> None:
    tables, required = oracle.random_problem(seed, objective)
    scaled = replace(
        tables.with_supply(price=tables.supply.price * 0.01),
        demand=replace(tables.demand, rate=tables.demand.rate * 1000),
        pools=replace(tables.pools, goodput=tables.pools.goodput * 1000),
    )
    factor = {"max_headroom": 1.0, "min_cost": 0.01, "max_goodput": 1000.0}[objective]
    before, after = search(tables, required, EXACT), search(scaled, required, EXACT)
    assert (before.plan is None) == (after.plan is None)
    if before.plan is not None and after.plan is not None:
        assert after.plan.objective == pytest.approx(before.plan.objective * factor, rel=3e-6)


@given(seed=st.integers(0, 10_000), objective=OBJECTIVES)
@QUICK
def test_never_worse_than_a_restricted_choice(
    oracle: ModuleType, seed: int, objective: str
) -> None:
    """Any uniform strategy is a choice among fewer pools."""
    tables, required = oracle.random_problem(seed, objective)
    few = (tables.pools.role == COLLOCATED) & (tables.pools.size <= 2)
    uniform = replace(tables, pools=tables.pools.take(few))
    best = worth(search(uniform, required, EXACT), required)
    assert no_worse(worth(search(tables, required, EXACT), required), best)


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20).map(np.cumsum),
)
@QUICK
def test_isotone_tables_are_the_largest_below(goodput: np.ndarray) -> None:
    table = np.concatenate([[0.0], goodput])[None, :]
    lowered = isotone_per_instance(table)[0]
    k = np.arange(1, lowered.size)
    ratio = lowered[1:] / k
    assert np.all(np.diff(ratio) >= -1e-12)
    assert np.all(lowered <= table[0] + 1e-12)
    # The largest such table: wherever it is lower, some larger count is no better per instance.
    original = table[0, 1:] / k
    assert np.allclose(ratio, [original[i:].min() for i in range(k.size)])


def test_a_tables_object_refuses_what_is_no_table(oracle: ModuleType) -> None:
    tables, _ = oracle.random_problem(0, "min_cost")
    falling = tables.pools.goodput.copy()
    falling[0, -1] = falling[0, -2] / 2
    with pytest.raises(ValueError, match="never fall"):
        replace(tables, pools=replace(tables.pools, goodput=falling))
    with pytest.raises(ValueError, match="sum to 1"):
        replace(tables, mixes=tables.mixes * 0.5)
    with pytest.raises(ValueError, match="> 0"):
        replace(tables, demand=replace(tables.demand, rate=tables.demand.rate * 0))


def test_extension_keeps_goodput_per_instance(oracle: ModuleType) -> None:
    tables, _ = oracle.random_problem(3, "min_cost")
    known = tables.pools.goodput.shape[1] - 1
    longer: Tables = tables.extended(known + 4)
    before = tables.pools.goodput[:, known] / known
    assert np.allclose(longer.pools.goodput[:, known + 4] / (known + 4), before)
