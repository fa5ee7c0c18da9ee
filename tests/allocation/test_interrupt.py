"""Ctrl-C at any moment of an allocation: what is known by then is the answer."""

from __future__ import annotations

import numpy as np
import pytest

import bestserve.fleet.check
from bestserve.fleet.allocate import allocate, tabulate
from bestserve.fleet.check import tightened
from bestserve.fleet.tabulate import Evaluated
from bestserve.solvers.allocation import certificate, uniform
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup

FLEET = Fleet(
    gpus=(GpuGroup(hardware="l40s", count=4),),
    models=(
        FleetModel(
            model="meta-llama/Llama-3.1-8B",
            classes=(
                FleetClass(
                    name="chat",
                    input_len="lognormal(800, cv=1)",
                    output_len="geometric(200)",
                    slo="ttft:500 tpot:40",
                    rate=1,
                ),
            ),
            tensor_parallel_sizes=(1, 2),
        ),
    ),
)


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    return tabulate(FLEET)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_during_the_simulation_the_plan_is_kept(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bestserve.fleet.check, "checked", interrupt)
    monkeypatch.setattr(bestserve.fleet.check, "checked_tandem", interrupt)
    answer = allocate(FLEET, evaluated=evaluated)
    assert answer.pools
    assert answer.gap <= 0.0101
    assert not answer.verified
    assert answer.marginals == ()
    assert "interrupted before the simulation" in answer.explain()


def test_during_the_marginal_values_those_known_are_kept(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    solve, calls = certificate._again, []

    def second_is_interrupted(*arguments: object) -> object:
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return solve(*arguments)

    monkeypatch.setattr(certificate, "_again", second_is_interrupted)
    answer = allocate(FLEET, evaluated=evaluated, verify=False)
    assert len(calls) == 2
    assert [m.change for m in answer.marginals] == ["+1 GPU l40s"]


def test_during_the_uniform_strategies_the_plan_is_still_sought(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison that was not finished is left out, not called infeasible."""
    from dataclasses import replace

    search = uniform.search

    def stopped(*arguments: object, **options: object) -> object:
        found = search(*arguments, **options)
        status = type(found.status).NO_PLAN
        return replace(found, plan=None, status=status, interrupted=True)

    monkeypatch.setattr(uniform, "search", stopped)
    answer = allocate(FLEET, evaluated=evaluated, verify=False)
    assert answer.pools
    assert answer.uniform == ()
    assert "infeasible" not in answer.explain()


def test_tightening_lowers_what_would_take_the_failing_pools_place(evaluated: Evaluated) -> None:
    pools = evaluated.tables.pools
    failing = int(np.flatnonzero(pools.role == 0)[0])
    inflated = pools.goodput.copy()
    alike = (pools.role == 0) & (pools.recipe == pools.recipe[failing])
    inflated[alike] *= 1.5
    from dataclasses import replace

    flattered = replace(
        evaluated, tables=replace(evaluated.tables, pools=replace(pools, goodput=inflated))
    )
    after = tightened(flattered, {(failing, 1): 1 / 1.5}).tables.pools.goodput
    assert np.all(after[alike, 1] < 1.1 * pools.goodput[alike, 1])
    others = (pools.role != 0) & (pools.goodput[:, 1] > 0)
    assert np.array_equal(after[others], inflated[others])
