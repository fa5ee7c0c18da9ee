"""From a fleet to a verified plan."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import joblib
import numpy as np
import pytest

from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.allocate import allocate, budget_curve, demand_curve, tabulate
from bestserve.fleet.tabulate import Evaluated, evaluate
from bestserve.lowering import lower
from bestserve.models.step.device import Parallelism
from bestserve.models.system import Disaggregated
from bestserve.solvers.allocation.tables import COLLOCATED, DECODE, PREFILL
from bestserve.specs.fleet import Deployed, Fleet, FleetClass, FleetModel, GpuGroup, Link
from bestserve.specs.lengths import Geometric, LogNormal

CHAT = FleetClass(
    name="chat",
    input_len=LogNormal(800, cv=1.0),
    output_len=Geometric(200),
    slo="ttft:500 tpot:40",
    rate=10,
)
RAG = FleetClass(
    name="rag",
    input_len=LogNormal(5000, cv=0.5),
    output_len=LogNormal(150, cv=0.7),
    slo="ttft:4000 tpot:60",
    rate=2,
)
LLAMA = FleetModel(
    model="meta-llama/Llama-3.1-8B",
    name="llama",
    classes=(CHAT, RAG),
    tensor_parallel_sizes=(1, 2),
    max_num_batched_tokens=(2048,),
)
GPUS = (
    GpuGroup(hardware="h100-sxm", count=6, price_per_hour=2.5),
    GpuGroup(hardware="l40s", count=8, price_per_hour=0.9),
)
FLEET = Fleet(gpus=GPUS, models=(LLAMA,))
SMALL = Fleet(
    gpus=(GpuGroup(hardware="l40s", count=2),),
    models=(
        LLAMA.model_copy(
            update={"classes": (CHAT,), "tensor_parallel_sizes": (1,), "layouts": ("collocated",)}
        ),
    ),
)


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    return tabulate(FLEET)


def with_objective(evaluated: Evaluated, fleet: Fleet) -> Evaluated:
    """The same tables under another objective or other limits."""
    required = replace(evaluated.requirements, objective=fleet.objective, max_cost=fleet.max_cost)
    return replace(evaluated, fleet=fleet, requirements=required)


def test_tables_cover_roles_and_recipes(evaluated: Evaluated) -> None:
    pools = evaluated.tables.pools
    assert set(pools.role.tolist()) == {COLLOCATED, PREFILL, DECODE}
    assert evaluated.tables.mixes.shape[0] == 3
    assert evaluated.tables.mixes[2] == pytest.approx([10 / 12, 2 / 12])
    assert set(pools.recipe.tolist()) == {0, 1, 2}
    assert evaluated.tables.demand.kv_bytes[1] > 5 * evaluated.tables.demand.kv_bytes[0]


def test_mixes_never_reach_the_sum_of_their_loads(evaluated: Evaluated) -> None:
    """1/F_mix ≥ Σ q/F alone, up to the noise of simulation: adding loads up is optimistic."""
    pools, mix = evaluated.tables.pools, evaluated.tables.mixes[2]
    compared = 0
    for p in np.flatnonzero(pools.recipe == 2):
        alone = [
            float(pools.goodput[q, 1])
            for w in (0, 1)
            for q in np.flatnonzero((pools.key == pools.key[p]) & (pools.recipe == w))
        ]
        if len(alone) == 2:
            added = 1 / (mix[0] / alone[0] + mix[1] / alone[1])
            assert pools.goodput[p, 1] <= 1.03 * added
            compared += 1
    assert compared >= 6


def test_without_simulation_there_are_no_mixes() -> None:
    few = FLEET.model_copy(update={"gpus": GPUS[:1]})
    tables = evaluate(few).tables
    assert set(tables.pools.recipe.tolist()) <= {0, 1}


def test_pooling_raises_goodput_per_instance() -> None:
    only = LLAMA.model_copy(
        update={"classes": (CHAT,), "tensor_parallel_sizes": (1,), "layouts": ("collocated",)}
    )
    fleet = Fleet(gpus=GPUS[:1], models=(only,), routing="least_outstanding")
    goodput = tabulate(fleet).tables.pools.goodput[0]
    each = goodput[1:] / np.arange(1, goodput.size)
    assert np.all(np.diff(each) >= -1e-9)
    assert each[-1] > 1.01 * each[0]


def test_a_verified_plan_beats_uniform_strategies(evaluated: Evaluated) -> None:
    answer = allocate(FLEET, evaluated=evaluated, gap=0.01)
    assert answer.gap <= 0.0101
    assert answer.verified
    assert answer.bound >= answer.objective
    for uniform in answer.uniform:
        assert uniform.objective is not None
        assert answer.objective >= uniform.objective * (1 - 1e-9) or answer.corrections
    served = {s.request_class: s.rate / s.asked for s in answer.served}
    assert min(served.values()) == pytest.approx(answer.objective, rel=1e-6)
    assert sum(p.gpus for p in answer.pools) == sum(answer.gpus_used.values())
    assert {m.change for m in answer.marginals} >= {"+1 GPU h100-sxm", "+1 node l40s"}
    text = answer.explain()
    assert "no plan beats" in text
    assert "simulated: holds" in text


def test_the_answer_is_a_document(evaluated: Evaluated) -> None:
    answer = allocate(FLEET, evaluated=evaluated, verify=False, certify=False, gap=0.05)
    data = json.loads(answer.to_json())
    assert data["kind"] == "allocation"
    assert Fleet(**data["fleet"]) == FLEET
    assert len(answer.to_frame()) == len(answer.pools)
    assert "<table>" in answer._repr_html_()
    assert {"gpu", "model", "strategy", "rate", "load"} <= set(answer.records()[0])


def test_the_cheapest_fleet_carries_the_demand(evaluated: Evaluated) -> None:
    fleet = FLEET.model_copy(update={"objective": "min_cost"})
    answer = allocate(fleet, evaluated=with_objective(evaluated, fleet), gap=0.0)
    assert answer.cost == pytest.approx(answer.objective)
    assert answer.gap <= 1e-5
    for served in answer.served:
        assert served.rate == pytest.approx(served.asked, rel=1e-6)


def test_too_little_of_everything_says_what_to_relax(evaluated: Evaluated) -> None:
    fleet = FLEET.model_copy(update={"objective": "min_cost", "max_cost": 1.0})
    with pytest.raises(InfeasibleError, match="cost budget"):
        allocate(fleet, evaluated=with_objective(evaluated, fleet))


def test_plenty_of_gpus_are_not_all_held(evaluated: Evaluated) -> None:
    """All demand is met, by either objective; then the cheapest plan is as good as any."""
    most = FLEET.model_copy(update={"objective": "max_goodput"})
    dear = allocate(
        most, evaluated=with_objective(evaluated, most), verify=False, certify=False, gap=0.0
    )
    cheap = FLEET.model_copy(update={"objective": "min_cost"})
    least = allocate(
        cheap, evaluated=with_objective(evaluated, cheap), verify=False, certify=False, gap=0.0
    )
    assert sum(s.rate for s in dear.served) == pytest.approx(12.0)
    assert all(pool.load > 0 for pool in dear.pools)
    assert dear.cost == pytest.approx(least.cost)
    assert sum(dear.gpus_used.values()) < sum(g.count for g in GPUS)


def test_advice_sees_the_instances_that_more_gpus_allow() -> None:
    """One H100 decodes too slowly for the objective; a pair of them meets it."""
    chat = CHAT.model_copy(update={"slo": type(CHAT.slo)("ttft:3000 tpot:20"), "rate": 0.5})
    model = FleetModel(
        model="Qwen/Qwen3-32B", name="qwen", classes=(chat,), layouts=("collocated",)
    )

    def fleet(count: int) -> Fleet:
        group = GpuGroup(hardware="h100-sxm", count=count, price_per_hour=2.5)
        return Fleet(gpus=(group,), models=(model,), objective="min_cost")

    with pytest.raises(InfeasibleError, match="more h100-sxm") as refused:
        allocate(fleet(1), verify=False, certify=False)
    more = int(re.search(r"(\d+) more h100-sxm", str(refused.value)).group(1))
    plan = allocate(fleet(1 + more), verify=False, certify=False)
    assert plan.gpus_used["h100-sxm"] <= 1 + more
    if more > 1:
        with pytest.raises(InfeasibleError):
            allocate(fleet(more), verify=False, certify=False)


def test_an_slo_that_no_gpu_meets_is_named() -> None:
    hasty = CHAT.model_copy(update={"slo": type(CHAT.slo)("ttft:2 tpot:40")})
    model = LLAMA.model_copy(update={"classes": (hasty,), "tensor_parallel_sizes": (1,)})
    fleet = Fleet(gpus=GPUS[1:], models=(model,))
    with pytest.raises(InfeasibleError, match="meets the SLO of chat"):
        allocate(fleet, verify=False, certify=False)


def test_what_runs_today_stays_when_starting_is_dear(evaluated: Evaluated) -> None:
    running = Deployed(gpu="h100-sxm", model="llama", pools="2m-tp1-tokens2048")
    fleet = Fleet(
        gpus=GPUS,
        models=(LLAMA,),
        objective="min_cost",
        deployed=(running,),
        start_price=100.0,
    )
    key = next(
        i
        for i, c in enumerate(evaluated.configurations)
        if c.gpu == 0 and c.role == COLLOCATED and c.parallelism.gpus == 1
    )
    deployed = np.zeros(len(evaluated.configurations), dtype=np.int64)
    deployed[key] = 2
    required = replace(
        evaluated.requirements, objective="min_cost", deployed=deployed, start_price=100.0
    )
    tables = replace(evaluated, fleet=fleet, requirements=required)
    answer = allocate(fleet, evaluated=tables, verify=False, certify=False, gap=0.0)
    kept = [
        p for p in answer.pools if p.gpu == "h100-sxm" and p.strategy.endswith("m-tp1-tokens2048")
    ]
    assert sum(p.instances for p in kept) >= 1
    assert answer.cost is not None
    started = sum(p.gpus for p in answer.pools) - sum(min(p.gpus, 2) for p in kept)
    assert answer.cost == pytest.approx(
        sum(answer.gpus_used[n] * c for n, c in (("h100-sxm", 2.5), ("l40s", 0.9)))
        + 100.0 * max(started, 0),
        rel=1e-6,
    )


def test_deployed_strategies_are_matched_to_configurations() -> None:
    few = LLAMA.model_copy(update={"layouts": ("collocated",), "classes": (CHAT,)})
    running = Deployed(gpu="h100-sxm", model="llama", pools="2m-tp1-tokens2048")
    fleet = Fleet(gpus=GPUS[:1], models=(few,), deployed=(running,), max_started_gpus=1)
    found = evaluate(fleet)
    assert found.requirements.deployed.sum() == 2
    key = int(np.argmax(found.requirements.deployed))
    assert found.configurations[key].parallelism.gpus == 1
    answer = allocate(fleet, evaluated=found, verify=False, certify=False)
    assert sum(p.gpus for p in answer.pools) <= 3


def test_curves_are_monotone(evaluated: Evaluated) -> None:
    budgets = [2.0, 6.0, 12.0, 20.0]
    rows = budget_curve(FLEET, budgets, evaluated=evaluated, gap=1e-4)
    worth = [0.0 if np.isnan(r["objective"]) else r["objective"] for r in rows]
    assert [r["budget"] for r in rows] == budgets
    assert all(b >= a * (1 - 2e-4) for a, b in itertools.pairwise(worth))
    assert worth[-1] > worth[0]
    costs = demand_curve(FLEET, [0.5, 1.0, 2.0], evaluated=evaluated, gap=1e-4)
    paid = [r["objective"] for r in costs]
    assert paid == sorted(paid)
    assert all(r["bound"] <= r["objective"] * (1 + 1e-9) for r in costs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_sweep_runs_on_a_local_dask_cluster(evaluated: Evaluated) -> None:
    """The backend is the caller's choice; nothing in bestserve imports Dask."""
    distributed = pytest.importorskip("distributed", reason="needs Dask: pip install distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        rows = budget_curve(FLEET, [6.0, 12.0], evaluated=evaluated, gap=1e-3)
        assert cluster.scheduler.transition_counter > 0
        assert tabulate(SMALL).tables.pools.count > 0
    here = budget_curve(FLEET, [6.0, 12.0], evaluated=evaluated, gap=1e-3)
    assert [r["objective"] for r in rows] == pytest.approx([r["objective"] for r in here])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gpus": (GPUS[0], GPUS[0])}, "appears twice"),
        ({"models": (LLAMA, LLAMA)}, "appears twice"),
        ({"links": (Link(source="h100-sxm", target="b200", bandwidth=1),)}, "link names 'b200'"),
        (
            {"deployed": (Deployed(gpu="x", model="llama", pools="1m-tp1"),)},
            "not in the fleet",
        ),
        (
            {
                "objective": "min_cost",
                "models": (
                    LLAMA.model_copy(
                        update={"classes": (CHAT.model_copy(update={"rate": None, "share": 1.0}),)}
                    ),
                ),
            },
            "needs rates",
        ),
    ],
)
def test_inconsistent_fleets_are_refused(changes: dict, words: str) -> None:
    fields = {"gpus": GPUS, "models": (LLAMA,), **changes}
    with pytest.raises(InputError, match=words):
        Fleet(**fields)


def test_a_class_needs_one_amount_and_marginal_objectives() -> None:
    base = {"name": "a", "input_len": 100, "output_len": 10}
    with pytest.raises(InputError, match="rate or share"):
        FleetClass(**base, slo="ttft:500")
    with pytest.raises(InputError, match="marginal objectives"):
        FleetClass(**base, slo={"ttft": 0.5, "joint": True}, rate=1)


def test_prices_are_needed_where_they_count() -> None:
    unpriced = GpuGroup(hardware="l40s", count=2)
    small = LLAMA.model_copy(
        update={"classes": (CHAT,), "tensor_parallel_sizes": (1,), "layouts": ("collocated",)}
    )
    with pytest.raises(InputError, match="price_per_hour"):
        evaluate(Fleet(gpus=(unpriced,), models=(small,), objective="min_cost"))


def test_shares_ask_for_the_most_of_a_mix() -> None:
    shared = LLAMA.model_copy(
        update={
            "classes": tuple(
                c.model_copy(update={"rate": None, "share": s})
                for c, s in ((CHAT, 0.8), (RAG, 0.2))
            ),
            "layouts": ("collocated",),
        }
    )
    fleet = Fleet(gpus=GPUS[:1], models=(shared,), objective="max_goodput")
    answer = allocate(fleet, verify=False, certify=False)
    assert answer.unit == "req/s of the mix"
    rates = [s.rate for s in answer.served]
    assert sum(rates) == pytest.approx(answer.objective, rel=1e-6)
    assert rates[0] / rates[1] == pytest.approx(4.0, rel=1e-6)


@pytest.mark.parametrize(("engine", "known"), [("sglang", True), ("vllm", False)])
def test_split_pools_pay_what_splitting_costs_their_engine(engine: str, known: bool) -> None:
    split = LLAMA.model_copy(
        update={
            "engine": engine,
            "classes": (CHAT,),
            "layouts": ("disaggregated",),
            "tensor_parallel_sizes": (1,),
        }
    )
    fleet = Fleet(gpus=GPUS[:1], models=(split,))
    answer = allocate(fleet, verify=False, certify=False)
    assert any("is taken as nothing" in note for note in answer.notes) != known
    lowered = lower(fleet.problem(GPUS[0], split, (CHAT,)))
    whole = lowered.lane(Parallelism())
    for c in evaluate(fleet).configurations:
        pair = lowered.system(f"1p-tp1-tokens{c.lane.max_num_batched_tokens}+1d-tp1")
        assert isinstance(pair, Disaggregated)
        assert c.lane == (pair.prefill if c.role == PREFILL else pair.decode)
        assert whole.lane is not None
        assert (c.lane.step.a_seq != whole.lane.step.a_seq) == known
        if c.role == DECODE:
            assert (
                c.transfer.latency
                == pair.transfer.latency
                == pytest.approx(0.023 if known else 0.003)
            )


def test_an_engine_that_does_not_run_on_a_gpu_type_leaves_it_out() -> None:
    model = LLAMA.model_copy(
        update={"engine": "tensorrt-llm", "classes": (CHAT,), "tensor_parallel_sizes": (1,)}
    )
    gpus = (GpuGroup(hardware="mi300x", count=2), GpuGroup(hardware="h100-sxm", count=2))
    answer = allocate(Fleet(gpus=gpus, models=(model,)), verify=False, certify=False)
    assert {pool.gpu for pool in answer.pools} == {"h100-sxm"}
    assert any("cannot run on mi300x: tensorrt-llm runs on NVIDIA" in n for n in answer.notes)
    with pytest.raises(InfeasibleError, match="tensorrt-llm runs on NVIDIA GPUs"):
        allocate(Fleet(gpus=gpus[:1], models=(model,)), verify=False, certify=False)
