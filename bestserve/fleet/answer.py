"""A plan on tables, told as users see it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bestserve.answers.doubts import splitting_doubts
from bestserve.answers.economics import gpu_price
from bestserve.arrays import Ints
from bestserve.fleet.result import (
    UNITS,
    Allocation,
    MarginalValue,
    PlannedFlow,
    PlannedPool,
    ServedClass,
    UniformPlan,
    Verified,
)
from bestserve.fleet.tabulate import Evaluated
from bestserve.results.economics import Economics
from bestserve.solvers.allocation.certificate import binding
from bestserve.solvers.allocation.found import Found, PlanStatus
from bestserve.solvers.allocation.plan import Plan, used_rate
from bestserve.solvers.allocation.tables import COLLOCATED, ROLES
from bestserve.specs.fleet import Fleet


def pool_name(tables: Evaluated, pool: int, count: int) -> str:
    """Return a pool as "4m-tp2 Llama on h100-sxm"."""
    c = tables.configurations[int(tables.tables.pools.key[pool])]
    model, gpu = tables.fleet.models[c.model].label, tables.fleet.gpus[c.gpu].label
    return f"{c.written(count)} {model} on {gpu}"


def uniform_plans(uniform: dict[str, Found | None], tables: Evaluated) -> tuple[UniformPlan, ...]:
    """Return the uniform strategies as users see them."""
    rows = []
    for layout, found in uniform.items():
        plan = found.plan if found is not None else None
        if found is not None and plan is None and found.status is not PlanStatus.INFEASIBLE:
            continue  # not found in the time given, which is no verdict
        if plan is None:
            rows.append(UniformPlan(layout, None, 0, ""))
            continue
        names = [
            pool_name(tables, int(p), int(k)) for p, k in zip(plan.pool, plan.count, strict=True)
        ]
        gpus = int(plan.gpus(tables.tables).sum())
        rows.append(UniformPlan(layout, plan.objective, gpus, "; ".join(names)))
    return tuple(rows)


def allocation(
    tables: Evaluated,
    found: Found,
    *,
    values: tuple[MarginalValue, ...],
    uniform: tuple[UniformPlan, ...],
    checks: tuple[Verified, ...],
    corrections: int,
    notes: tuple[str, ...] = (),
) -> Allocation:
    """Return the answer as users see it."""
    plan, fleet = found.plan, tables.fleet
    assert plan is not None
    supply, demand = tables.tables.supply, tables.tables.demand
    used = plan.gpus(tables.tables)
    price_known = all(known or not n for known, n in zip(tables.priced, used, strict=True))
    unit = "req/s of the mix" if fleet.mix_only else UNITS[tables.requirements.objective]
    return Allocation(
        fleet=fleet,
        status=found.status.value,
        objective=plan.objective,
        unit=unit,
        bound=found.bound,
        gap=found.gap,
        certified_by=found.step,
        pools=_planned(tables, plan),
        flows=tuple(
            PlannedFlow(
                source=supply.names[int(g)],
                target=supply.names[int(h)],
                request_class=demand.names[int(w)],
                rate=float(rate),
                bandwidth=float(rate * demand.kv_bytes[int(w)]),
            )
            for (g, h, w), rate in zip(plan.pairs, plan.flows, strict=True)
        ),
        served=tuple(
            ServedClass(name, float(rate), float(asked))
            for name, rate, asked in zip(demand.names, plan.served, demand.rate, strict=True)
        ),
        gpus_used=dict(zip(supply.names, used.tolist(), strict=True)),
        cost=plan.cost(tables.tables, tables.requirements) if price_known else None,
        power=plan.watts(tables.tables) if np.all(supply.watts[used > 0] > 0) else None,
        binding=binding(tables.tables, tables.requirements, plan),
        shadow_prices={f"{name}: {row}": value for name, row, value in found.shadow_prices},
        marginals=values,
        uniform=uniform,
        verification=checks,
        corrections=corrections,
        seconds=found.seconds,
        table_seconds=tables.seconds,
        notes=(*notes, *_notes(tables, plan)),
        economics=_economics(fleet, plan, used),
    )


def _economics(fleet: Fleet, plan: Plan, used: Ints) -> Economics | None:
    """Return tokens and money of what a plan serves; None where it serves nothing.

    A GPU costs what the fleet says, else what its record or the median public offer does.
    """
    classes = [c for model in fleet.models for c in model.classes]
    prompts = sum(r * c.input_len.mean_tokens for r, c in zip(plan.served, classes, strict=True))
    answers = sum(r * c.output_len.mean_tokens for r, c in zip(plan.served, classes, strict=True))
    tokens, count = float(prompts + answers), int(used.sum())
    if tokens <= 0 or not count:
        return None
    found = Economics(tokens_per_second=tokens, output_per_gpu=float(answers) / count)
    hourly, said = 0.0, []
    for group, number in zip(fleet.gpus, used.tolist(), strict=True):
        if not number:
            continue
        usd, where = gpu_price(fleet.problem(group, fleet.models[0], fleet.models[0].classes))
        if usd is None:
            return found
        hourly += usd * number
        said.append(f"{group.label} {where}")
    return replace(
        found,
        price="; ".join(said),
        usd_per_hour=hourly,
        usd_per_million_tokens=hourly / 3600 / tokens * 1e6,
    )


def _planned(tables: Evaluated, plan: Plan) -> tuple[PlannedPool, ...]:
    """Return the pools of a plan, most GPUs first."""
    pools, demand = tables.tables.pools, tables.tables.demand
    goodput, carried = plan.goodput(tables.tables), used_rate(tables.tables, plan.pool, plan.rates)
    rows = []
    for i, (p, k) in enumerate(zip(plan.pool.tolist(), plan.count.tolist(), strict=True)):
        c = tables.configurations[int(pools.key[p])]
        classes = {
            demand.names[w]: float(plan.rates[i, w]) for w in np.flatnonzero(plan.rates[i] > 0)
        }
        rows.append(
            PlannedPool(
                gpu=tables.fleet.gpus[c.gpu].label,
                model=tables.fleet.models[c.model].label,
                role=ROLES[c.role] if c.hybrid is None else "hybrid",
                strategy=c.written(k),
                instances=k,
                gpus=c.gpus * k,
                rate=float(plan.rates[i].sum()),
                goodput=float(goodput[i]),
                load=float(carried[i] / goodput[i]),
                classes=classes,
                exact_mix=len(classes) > 1,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.gpus, row.model, row.strategy)))


def _notes(tables: Evaluated, plan: Plan) -> tuple[str, ...]:
    """Return what the user should know about these tables and the plan on them."""
    fleet = tables.fleet
    used = [tables.configurations[int(tables.tables.pools.key[p])] for p in plan.pool]
    notes: list[str] = []
    if tables.fleet.headroom:
        notes.append(f"rates are planned {tables.fleet.headroom:.0%} larger than stated")
    if fleet.spares:
        some = "an instance" if fleet.spares == 1 else f"{fleet.spares} instances"
        notes.append(f"every pool carries its load with {some} down; so it was simulated")
    for g, m in {(c.gpu, c.model) for c in used if c.role != COLLOCATED}:
        model = fleet.models[m]
        notes += splitting_doubts(fleet.problem(fleet.gpus[g], model, model.classes))
    notes = sorted(set(notes))
    if tables.fleet.routing == "random":
        notes.append(
            "instances are taken as fed at random; a router that looks at load does better "
            "(routing = 'least_outstanding')"
        )
    notes += [
        f"{model} cannot run on {gpu}: {reason}" for (gpu, model), reason in tables.reasons.items()
    ]
    return tuple(notes)
