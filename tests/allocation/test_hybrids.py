"""Hybrids as pools of a fleet: planned as one, judged by the simulator as what they are."""

from __future__ import annotations

import pytest

from bestserve.fleet.allocate import allocate
from bestserve.fleet.referee import stage_system
from bestserve.fleet.tabulate import evaluate
from bestserve.models.system import Hybrid
from bestserve.specs.fleet import Fleet, FleetClass, FleetModel, GpuGroup
from bestserve.specs.strategy import Strategy


def fleet(layouts: tuple[str, ...]) -> Fleet:
    docs = FleetClass(
        name="docs",
        input_len="lognormal(2000, cv=0.8)",
        output_len="lognormal(300, cv=1)",
        slo="ttft:1280 tpot:30.1",
        rate=60,
    )
    model = FleetModel(
        model="Qwen/Qwen3-32B",
        classes=(docs,),
        tensor_parallel_sizes=(2,),
        layouts=layouts,  # type: ignore[arg-type]
    )
    gpus = GpuGroup(hardware="h100-sxm", count=8, price_per_hour=2.5)
    return Fleet(gpus=(gpus,), models=(model,), objective="max_goodput")


def test_a_hybrid_is_one_more_recipe() -> None:
    plan = allocate(fleet(("collocated", "hybrid")))
    (pool,) = (p for p in plan.pools if p.role == "hybrid")
    strategy = Strategy.parse(pool.strategy)
    assert strategy.layout == "hybrid"
    assert strategy.gpus == pool.gpus
    assert plan.verified
    alone = allocate(fleet(("collocated",)))
    assert plan.objective > 1.02 * alone.objective


def test_more_units_are_more_of_the_same() -> None:
    tables = evaluate(fleet(("hybrid",)))
    goodput = tables.tables.pools.goodput
    row = int(goodput[:, 1].argmax())
    count = int((goodput[row] > 0).sum())
    assert goodput[row, count] == pytest.approx(count * goodput[row, 1])
    unit, several = (stage_system(tables.stage(row, n)) for n in (1, 2))
    assert isinstance(unit, Hybrid)
    assert isinstance(several, Hybrid)
    assert several.decode_replicas == 2 * unit.decode_replicas
    assert several.local_prefill_share == unit.local_prefill_share > 0
