"""Questions about whole fleets: the best allocation, and curves over budgets and demand."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bestserve.errors import InfeasibleError
from bestserve.solvers.allocation.certificate import (
    Change,
    binding,
    marginals,
    standard_changes,
)
from bestserve.solvers.allocation.configurations import LETTERS
from bestserve.solvers.allocation.evaluator import Evaluated, evaluate
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.plan import Plan, assign, used_rate
from bestserve.solvers.allocation.result import (
    UNITS,
    Allocation,
    MarginalValue,
    PlannedFlow,
    PlannedPool,
    ServedClass,
    UniformPlan,
    Verified,
)
from bestserve.solvers.allocation.search import Found, Progress, Status, search
from bestserve.solvers.allocation.tables import ROLES
from bestserve.solvers.allocation.uniform import LAYOUTS, best_uniform
from bestserve.specs.fleet import Fleet
from bestserve.specs.slo import METRICS

if TYPE_CHECKING:
    from bestserve.solvers.allocation.stage import Measure

Say = Callable[[str], None]

ATTAINMENT_TOLERANCE = 0.015
"""Share of requests that may miss an objective beyond its percentile in the check: queueing
formulas are about 1 to 2 % off in rate, and near saturation that moves attainment so much."""

SAFETY = 0.99
"""A corrected table is this share of what the simulation measured, so that it holds next time."""

MARGINAL_SECONDS = 20.0
"""Longest search for what one more unit would bring."""

ROUNDS = 3
"""Corrections at most: each finds the pools that the tables of the round before flattered."""


@dataclass(frozen=True, slots=True)
class _Search:
    """How to search: gap, seconds, and whom to tell."""

    options: Options
    say: Say | None

    def after(self, seconds: float) -> _Search:
        """Return how to search again: in what is left of the time, but a quarter at least."""
        left = max(self.options.seconds - seconds, self.options.seconds / 4)
        return replace(self, options=replace(self.options, seconds=left))

    def tell(self, progress: Progress) -> None:
        """Pass on how far the search is."""
        if self.say is not None:
            best = "no plan yet" if np.isnan(progress.objective) else f"{progress.objective:.5g}"
            text = f"{progress.stage}: {best}, bound {progress.bound:.5g}"
            self.say(f"{text}, {progress.seconds:.0f} s")


def allocate(
    fleet: Fleet,
    *,
    gap: float = 0.01,
    seconds: float = 60.0,
    verify: bool = True,
    certify: bool = True,
    slo_step: float | None = None,
    progress: Say | None = None,
    evaluated: Evaluated | None = None,
) -> Allocation:
    """Return the best allocation of a fleet with its certificate.

    Parameters
    ----------
    gap, seconds : relative gap at which the search ends, and its time limit [s]
    verify : simulate the plan with fresh requests; if a class misses its objectives, tighten the
        tables to what the simulation found and solve again, three times at most
    certify : also solve for one GPU and one node more of each type and one unit more of each
        budget, and for the best uniform strategies
    slo_step : also solve with every objective looser by so much [s]
    progress : called with a short text as the work goes on
    evaluated : tables of this fleet made before, by `tabulate`

    An interrupt from the keyboard during the search keeps the best plan so far. Work that can be
    shared goes through joblib, with the backend of the caller's `joblib.parallel_config`.

    Raises
    ------
    InfeasibleError : no plan satisfies the requirements; the message says what to relax
    InputError, UnknownNameError, DataError : as `rank`
    """
    began = time.perf_counter()
    tables = evaluated or tabulate(fleet, simulate=True, progress=progress)
    table_seconds = time.perf_counter() - began if evaluated is None else 0.0
    how = _Search(Options(gap=gap, seconds=seconds), progress)
    uniform = _uniform(tables) if certify else {}
    start = _best_start(uniform, tables)
    found = _searched(tables, how, start)
    checks: tuple[Verified, ...] = ()
    corrections = 0
    if verify:
        checks, measured = _verified(tables, found.plan, progress)
        while measured and corrections < ROUNDS:
            tables, corrections = _tightened(tables, measured), corrections + 1
            found = _searched(tables, how.after(found.seconds), _worth_now(tables, found.plan))
            checks, measured = _verified(tables, found.plan, progress)
    values: tuple[MarginalValue, ...] = ()
    if certify:
        changes = standard_changes(tables.tables, tables.requirements)
        if slo_step is not None:
            changes += _looser(fleet, tables, slo_step, progress)
        values = tuple(
            MarginalValue(m.name, m.objective, m.difference, m.noise, m.significant)
            for m in marginals(found, changes, Options(gap=1e-3, seconds=_each(seconds, changes)))
        )
    return _allocation(
        tables,
        found,
        values=values,
        uniform=_uniform_plans(uniform, tables),
        checks=checks,
        corrections=corrections,
        table_seconds=table_seconds,
    )


def _each(seconds: float, changes: Sequence[Change]) -> float:
    """Return the time for each problem that is solved again: together twice the search's [s]."""
    return min(MARGINAL_SECONDS, max(2 * seconds / max(len(changes), 1), 1.0))


def tabulate(fleet: Fleet, *, simulate: bool = True, progress: Say | None = None) -> Evaluated:
    """Return the goodput tables of a fleet, which several questions can share.

    Without `simulate` there are no pools with several classes and no pooling, only formulas.
    """
    measure: Measure | None = None
    if simulate:
        from bestserve.fleet_referee import measured_goodput

        measure = measured_goodput
    return evaluate(fleet, measure, progress)


def budget_curve(
    fleet: Fleet,
    budgets: Sequence[float],
    *,
    gap: float = 0.01,
    seconds: float = 20.0,
    evaluated: Evaluated | None = None,
) -> list[dict[str, float]]:
    """Return objective and bound at each cost budget [$/h], solved in parallel through joblib."""
    tables = evaluated or tabulate(fleet)
    required = [replace(tables.requirements, max_cost=float(b)) for b in budgets]
    problems = [Change(f"{b:g}", tables.tables, r) for b, r in zip(budgets, required, strict=True)]
    return _curve("budget", budgets, problems, Options(gap=gap, seconds=seconds))


def demand_curve(
    fleet: Fleet,
    factors: Sequence[float],
    *,
    gap: float = 0.01,
    seconds: float = 20.0,
    evaluated: Evaluated | None = None,
) -> list[dict[str, float]]:
    """Return the least cost of carrying each multiple of all rates, in parallel through joblib."""
    tables = evaluated or tabulate(fleet)
    required = replace(tables.requirements, objective="min_cost")
    problems = []
    for factor in factors:
        demand = replace(tables.tables.demand, rate=tables.tables.demand.rate * factor)
        problems.append(Change(f"{factor:g}", replace(tables.tables, demand=demand), required))
    return _curve("factor", factors, problems, Options(gap=gap, seconds=seconds))


def _curve(
    name: str, values: Sequence[float], problems: Sequence[Change], options: Options
) -> list[dict[str, float]]:
    """Solve all problems; points without a plan have objective nan."""
    from joblib import Parallel, delayed

    found = Parallel()(delayed(_solved)(problem, options) for problem in problems)
    return [
        {
            name: float(value),
            "objective": f.plan.objective if f.plan is not None else float("nan"),
            "bound": f.bound,
            "gap": f.gap,
            "gpus": float(f.plan.gpus(p.tables).sum()) if f.plan is not None else 0.0,
        }
        for value, p, f in zip(values, problems, found, strict=True)
    ]


def _solved(problem: Change, options: Options) -> Found:
    """Solve one problem of a curve; a module-level function can be sent to other processes."""
    return search(problem.tables, problem.requirements, options)


def _searched(tables: Evaluated, how: _Search, start: Plan | None) -> Found:
    """Search; raise InfeasibleError with what to relax, or if no plan was found in time."""
    found = search(tables.tables, tables.requirements, how.options, start=start, tell=how.tell)
    if found.plan is not None:
        return found
    if found.status is Status.INFEASIBLE:
        from bestserve.solvers.allocation.elastic import explain

        why = explain(tables.tables, tables.requirements)
        names = set(why.unreachable)
        reasons = "; ".join(
            f"{model} on {gpu}: {reason}"
            for (gpu, model), reason in tables.reasons.items()
            if any(name == model or name.startswith(f"{model} ") for name in names)
            or len(tables.fleet.models) == 1
        )
        raise InfeasibleError(
            f"no plan carries the fleet's demand within its limits: {why}"
            + (f" ({reasons})" if names and reasons else "")
        )
    raise InfeasibleError(
        f"no plan was found in {how.options.seconds:g} s, though one may exist; allow more time"
    )


def _uniform(tables: Evaluated) -> dict[str, Found | None]:
    """Solve for the best uniform strategy of each layout."""
    return {layout: best_uniform(tables.tables, tables.requirements, layout) for layout in LAYOUTS}


def _best_start(uniform: dict[str, Found | None], tables: Evaluated) -> Plan | None:
    """Return the best uniform plan: the search never ends below it."""
    plans = [f.plan for f in uniform.values() if f is not None and f.plan is not None]
    if not plans:
        return None
    sign = 1.0 if tables.requirements.objective == "min_cost" else -1.0
    return min(plans, key=lambda plan: sign * plan.objective)


def _worth_now(tables: Evaluated, plan: Plan | None) -> Plan | None:
    """Return a plan with its worth on other tables; None if it no longer carries the demand."""
    if plan is None:
        return None
    return assign(tables.tables, tables.requirements, plan.pool, plan.count, trim=False)


def _verified(
    tables: Evaluated, plan: Plan | None, progress: Say | None
) -> tuple[tuple[Verified, ...], dict[tuple[int, int], float]]:
    """Simulate every pool at its rates and mix; return the checks, and for failing pools the
    share of their rate that they carry in simulation.

    A prefill and a decode pool that only feed each other are simulated as one system.
    """
    from bestserve.fleet_referee import checked, checked_tandem, measured_goodput

    assert plan is not None
    checks: list[Verified] = []
    measured: dict[tuple[int, int], float] = {}
    tandems = _lone_tandems(tables, plan)
    for i in range(plan.pool.size):
        rate = float(plan.rates[i].sum())
        if rate <= 0 or i in tandems.values():
            continue
        pool, count = int(plan.pool[i]), int(plan.count[i])
        stage = tables.stage(pool, count, plan.rates[i])
        name = _pool_name(tables, pool, count)
        if progress is not None:
            progress(f"simulating {name}")
        if i in tandems:
            j = tandems[i]
            other = tables.stage(int(plan.pool[j]), int(plan.count[j]), plan.rates[j])
            found = checked_tandem(stage, other, rate)
            name += " → " + _pool_name(tables, int(plan.pool[j]), int(plan.count[j]))
        else:
            found = checked(stage, rate)
        rows = [
            Verified(name, c.name, c.metric, c.share, c.required, c.margin >= -ATTAINMENT_TOLERANCE)
            for c in found
        ]
        checks += rows
        for end in (i, tandems.get(i)):
            if end is not None and not all(row.ok for row in rows):
                mixed = tables.stage(int(plan.pool[end]), int(plan.count[end]), plan.rates[end])
                carries = measured_goodput(mixed, rate, seed=2002)
                measured[int(plan.pool[end]), int(plan.count[end])] = min(carries / rate, 1.0)
    return tuple(checks), measured


def _lone_tandems(tables: Evaluated, plan: Plan) -> dict[int, int]:
    """Return prefill rows of the plan that feed exactly one decode row and are its only source."""
    pools, roles = tables.tables.pools, tables.tables.pools.role[plan.pool]
    found = {}
    for m in range(len(tables.fleet.models)):
        model = tables.tables.recipe_model()[pools.recipe[plan.pool]]
        prefills = np.flatnonzero((roles == 1) & (model == m))
        decodes = np.flatnonzero((roles == 2) & (model == m))
        if prefills.size == 1 and decodes.size == 1:
            found[int(prefills[0])] = int(decodes[0])
    return found


def _tightened(tables: Evaluated, measured: dict[tuple[int, int], float]) -> Evaluated:
    """Return tables in which failing pools claim no more than the simulation found.

    Pools of the same type, role, recipe and instance size err alike: all of them are lowered.
    """
    pools = tables.tables.pools
    goodput = pools.goodput.copy()
    for (pool, _), share in measured.items():
        alike = (
            (pools.gpu == pools.gpu[pool])
            & (pools.role == pools.role[pool])
            & (pools.recipe == pools.recipe[pool])
            & (pools.size == pools.size[pool])
        )
        goodput[alike] *= min(SAFETY * share, SAFETY)
    lowered = replace(tables.tables, pools=replace(pools, goodput=goodput))
    return replace(tables, tables=lowered)


def _looser(fleet: Fleet, tables: Evaluated, step: float, progress: Say | None) -> list[Change]:
    """Return the problem with every objective looser by `step` [s], evaluated anew."""
    models = []
    for model in fleet.models:
        classes = []
        for c in model.classes:
            slo = c.slo.model_dump()
            for metric in METRICS:
                if slo[metric] is not None:
                    slo[metric] += step
            classes.append(c.model_copy(update={"slo": type(c.slo)(**slo)}))
        models.append(model.model_copy(update={"classes": tuple(classes)}))
    loose = tabulate(fleet.model_copy(update={"models": tuple(models)}), progress=progress)
    label = f"every objective {step * 1e3:g} ms looser"
    return [Change(label, loose.tables, loose.requirements)]


def _pool_name(tables: Evaluated, pool: int, count: int) -> str:
    """Return a pool as "4m-tp2 Llama on h100-sxm"."""
    c = tables.configurations[int(tables.tables.pools.key[pool])]
    planned = c.pool(count)
    model, gpu = tables.fleet.models[c.model].label, tables.fleet.gpus[c.gpu].label
    return f"{count}{LETTERS[c.role]}{planned.options} {model} on {gpu}"


def _uniform_plans(uniform: dict[str, Found | None], tables: Evaluated) -> tuple[UniformPlan, ...]:
    """Return the uniform strategies as users see them."""
    rows = []
    for layout, found in uniform.items():
        plan = found.plan if found is not None else None
        if plan is None:
            rows.append(UniformPlan(layout, None, 0, ""))
            continue
        names = [
            _pool_name(tables, int(p), int(k)) for p, k in zip(plan.pool, plan.count, strict=True)
        ]
        gpus = int(plan.gpus(tables.tables).sum())
        rows.append(UniformPlan(layout, plan.objective, gpus, "; ".join(names)))
    return tuple(rows)


def _allocation(
    tables: Evaluated,
    found: Found,
    *,
    values: tuple[MarginalValue, ...],
    uniform: tuple[UniformPlan, ...],
    checks: tuple[Verified, ...],
    corrections: int,
    table_seconds: float,
) -> Allocation:
    """Return the answer as users see it."""
    plan, fleet = found.plan, tables.fleet
    assert plan is not None
    supply, demand = tables.tables.supply, tables.tables.demand
    price_known = any(g.price_per_hour is not None for g in fleet.gpus) or bool(
        np.any(supply.price)
    )
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
        gpus_used=dict(zip(supply.names, plan.gpus(tables.tables).tolist(), strict=True)),
        cost=plan.cost(tables.tables, tables.requirements) if price_known else None,
        power=plan.watts(tables.tables) if np.all(supply.watts > 0) else None,
        binding=binding(tables.tables, tables.requirements, plan),
        shadow_prices={f"{name}: {row}": value for name, row, value in found.shadow_prices},
        marginals=values,
        uniform=uniform,
        verification=checks,
        corrections=corrections,
        seconds=found.seconds,
        table_seconds=table_seconds,
        notes=_notes(tables),
    )


def _planned(tables: Evaluated, plan: Plan) -> tuple[PlannedPool, ...]:
    """Return the pools of a plan, most GPUs first."""
    pools, demand = tables.tables.pools, tables.tables.demand
    goodput, carried = plan.goodput(tables.tables), used_rate(tables.tables, plan.pool, plan.rates)
    rows = []
    for i, (p, k) in enumerate(zip(plan.pool.tolist(), plan.count.tolist(), strict=True)):
        c = tables.configurations[int(pools.key[p])]
        strategy = c.pool(k)
        classes = {
            demand.names[w]: float(plan.rates[i, w]) for w in np.flatnonzero(plan.rates[i] > 0)
        }
        rows.append(
            PlannedPool(
                gpu=tables.fleet.gpus[c.gpu].label,
                model=tables.fleet.models[c.model].label,
                role=ROLES[c.role],
                strategy=f"{k}{strategy.role}{strategy.options}",
                instances=k,
                gpus=strategy.gpus,
                rate=float(plan.rates[i].sum()),
                goodput=float(goodput[i]),
                load=float(carried[i] / goodput[i]),
                classes=classes,
                exact_mix=len(classes) > 1,
            )
        )
    return tuple(sorted(rows, key=lambda row: (-row.gpus, row.model, row.strategy)))


def _notes(tables: Evaluated) -> tuple[str, ...]:
    """Return what the user should know about these tables."""
    notes = []
    if tables.fleet.routing == "random":
        notes.append(
            "instances are taken as fed at random; a router that looks at load does better "
            "(routing = 'least_outstanding')"
        )
    notes += [
        f"{model} cannot run on {gpu}: {reason}" for (gpu, model), reason in tables.reasons.items()
    ]
    return tuple(notes)
