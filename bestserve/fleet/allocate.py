"""Questions about whole fleets: the best allocation, and curves over budgets and demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bestserve.errors import InfeasibleError, InputError
from bestserve.fleet.answer import allocation, uniform_plans
from bestserve.fleet.result import Allocation, MarginalValue, Verified
from bestserve.fleet.tabulate import Evaluated, evaluate
from bestserve.lowering import Lowered
from bestserve.solvers.allocation.certificate import Change, marginals, standard_changes
from bestserve.solvers.allocation.found import Found, PlanStatus, Progress
from bestserve.solvers.allocation.highs import Options
from bestserve.solvers.allocation.plan import Plan, assign
from bestserve.solvers.allocation.search import search
from bestserve.solvers.allocation.uniform import LAYOUTS, best_uniform
from bestserve.specs.fleet import Fleet
from bestserve.specs.slo import METRICS

if TYPE_CHECKING:
    from bestserve.fleet.stage import Measure

Say = Callable[[str], None]

MARGINAL_SECONDS = 20.0
"""Longest search for what one more unit would bring."""

ROUNDS = 6
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
    verify : let collocated pools of one class carry what `goodput` answers for them; simulate the
        plan with fresh requests; if a class misses its objectives, tighten the tables to what the
        simulation found and solve again, six times at most
    certify : also solve for one GPU and one node more of each type and one unit more of each
        budget, and for the best uniform strategies
    slo_step : also solve with every objective looser by so much [s]
    progress : called with a short text as the work goes on
    evaluated : tables of this fleet made before, by `tabulate`

    An interrupt from the keyboard during the search keeps the best plan so far; later ones leave
    out the simulation or what more GPUs would bring. Work that can be
    shared goes through joblib, with the backend of the caller's `joblib.parallel_config`.

    Raises
    ------
    InfeasibleError : no plan satisfies the requirements; the message says what to relax
    InputError, UnknownNameError, DataError : as `rank`
    """
    check_search(gap, seconds)
    tables = evaluated or tabulate(fleet, simulate=True, progress=progress)
    how = _Search(Options(gap=gap, seconds=seconds), progress)
    uniform = _uniform(tables) if certify else {}
    found = _searched(tables, how, _best_start(uniform, tables))
    notes: list[str] = []
    checks: tuple[Verified, ...] = ()
    corrections = 0
    if verify:
        try:
            stated, (tables, found) = tables, _settled(tables, found, how)
            if certify and tables is not stated:
                uniform = _uniform(tables)
            tables, found, checks, corrections = _held(tables, found, how)
        except KeyboardInterrupt:
            notes.append("interrupted before the simulation of the plan ended")
    values: tuple[MarginalValue, ...] = ()
    if certify and not (found.interrupted or notes):
        changes = standard_changes(tables.tables, tables.requirements)
        if slo_step is not None:
            changes += _looser(fleet, tables, slo_step, progress)
        solved = marginals(found, changes, Options(gap=1e-3, seconds=_each(seconds, changes)))
        values = tuple(
            MarginalValue(m.name, m.objective, m.difference, m.noise, m.significant) for m in solved
        )
    return allocation(
        tables,
        found,
        values=values,
        uniform=uniform_plans(uniform, tables),
        checks=checks,
        corrections=corrections,
        notes=tuple(notes),
    )


def check_search(gap: float, seconds: float) -> None:
    """Raise InputError for a gap or a time limit that no search can keep."""
    if not 0 <= gap < 1:
        raise InputError(f"gap = {gap:g} must be at least 0 and below 1 (0.01 is one per cent)")
    if not seconds > 0:
        raise InputError(f"seconds = {seconds:g} must be positive")


def _held(
    tables: Evaluated, found: Found, how: _Search
) -> tuple[Evaluated, Found, tuple[Verified, ...], int]:
    """Simulate the plan; where it falls short, tighten the tables and plan again.

    Return the tables and the search that the answer rests on, the checks, and the corrections.
    """
    from bestserve.fleet.check import tightened, verified

    corrections = 0
    checks, measured = verified(tables, _plan_of(found), how.say)
    while measured and corrections < ROUNDS:
        tables, corrections = tightened(tables, measured), corrections + 1
        start = _worth_now(tables, _plan_of(found))
        found = _searched(tables, how.after(found.seconds), start)
        checks, measured = verified(tables, _plan_of(found), how.say)
    return tables, found, checks, corrections


def _settled(tables: Evaluated, found: Found, how: _Search) -> tuple[Evaluated, Found]:
    """Give the plan's pools of one class the goodput that `bestserve.goodput` answers."""
    from bestserve.fleet.check import scaled, settled

    known: set[int] = set()
    for _ in range(ROUNDS):
        shares = settled(tables, _plan_of(found), known)
        known |= shares.keys()
        if all(share == 1.0 for share in shares.values()):
            break
        tables = scaled(tables, shares)
        start = _worth_now(tables, _plan_of(found))
        found = _searched(tables, how.after(found.seconds), start)
    return tables, found


def _each(seconds: float, changes: Sequence[Change]) -> float:
    """Return the time for each problem that is solved again: together twice the search's [s]."""
    return min(MARGINAL_SECONDS, max(2 * seconds / max(len(changes), 1), 1.0))


def tabulate(fleet: Fleet, *, simulate: bool = True, progress: Say | None = None) -> Evaluated:
    """Return the goodput tables of a fleet, which several questions can share.

    Without `simulate` there are no pools with several classes and no pooling, only formulas.
    """
    measure: Measure | None = None
    if simulate:
        from bestserve.fleet.referee import measured_goodput

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
    """Return objective and bound at each cost budget [$/h], solved in parallel through joblib.

    Of a fleet that asks for the least cost, a budget says by what all rates can grow.
    Raises InputError where a GPU type has no price.
    """
    check_curves(fleet)
    tables = evaluated or tabulate(fleet)
    asked = tables.requirements
    if asked.objective == "min_cost":
        asked = replace(asked, objective="max_headroom")
    required = [replace(asked, max_cost=float(b)) for b in budgets]
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
    """Return the least cost of carrying each multiple of all rates, in parallel through joblib.

    Raises InputError where a GPU type has no price, or classes have shares of a mix.
    """
    check_curves(fleet, demands=True)
    tables = evaluated or tabulate(fleet)
    required = replace(tables.requirements, objective="min_cost")
    problems = []
    for factor in factors:
        demand = replace(tables.tables.demand, rate=tables.tables.demand.rate * factor)
        problems.append(Change(f"{factor:g}", replace(tables.tables, demand=demand), required))
    return _curve("factor", factors, problems, Options(gap=gap, seconds=seconds))


def check_curves(fleet: Fleet, *, demands: bool = False) -> None:
    """Raise InputError where a curve over cost, or over `demands`, cannot be had of a fleet.

    Every GPU type needs a price, the fleet's or its record's, and demands need rates.
    """
    if demands and fleet.mix_only:
        raise InputError("what demand costs needs rates; these classes have shares of a mix")
    for group in fleet.gpus:
        model = fleet.models[0]
        record = Lowered(fleet.problem(group, model, model.classes)).hardware
        if group.price_per_hour is None and record.price_per_hour is None:
            raise InputError(f"GPU type {group.label!r} needs price_per_hour for a curve over cost")


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
            "bound": f.bound if f.plan is not None else float("nan"),
            "gap": f.gap if f.plan is not None else float("nan"),
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
    if found.status is PlanStatus.INFEASIBLE:
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
    """Solve for the best uniform strategy of each layout; an interrupt leaves the rest out."""
    found: dict[str, Found | None] = {}
    for layout in LAYOUTS:
        found[layout] = best = best_uniform(tables.tables, tables.requirements, layout)
        if best is not None and best.interrupted:
            break
    return found


def _best_start(uniform: dict[str, Found | None], tables: Evaluated) -> Plan | None:
    """Return the best uniform plan: the search never ends below it."""
    plans = [f.plan for f in uniform.values() if f is not None and f.plan is not None]
    if not plans:
        return None
    sign = 1.0 if tables.requirements.objective == "min_cost" else -1.0
    return min(plans, key=lambda plan: sign * plan.objective)


def _plan_of(found: Found) -> Plan:
    """Return the plan of a search that found one."""
    assert found.plan is not None
    return found.plan


def _worth_now(tables: Evaluated, plan: Plan) -> Plan | None:
    """Return a plan with its worth on other tables; None if it no longer carries the demand."""
    return assign(tables.tables, tables.requirements, plan.pool, plan.count, trim=False)


def _looser(fleet: Fleet, tables: Evaluated, step: float, progress: Say | None) -> list[Change]:
    """Return the problem with every objective looser by `step` [s], evaluated anew."""
    models = []
    for model in fleet.models:
        classes = []
        for c in model.classes:
            slo = c.slo.model_dump()
            for metric in (*METRICS, "stall", "itl"):
                if slo[metric] is not None:
                    slo[metric] += step
            if slo["deadline"] is not None:
                slo["slack"] = (slo["slack"] or 0.0) + step
            classes.append(c.model_copy(update={"slo": type(c.slo)(**slo)}))
        models.append(model.model_copy(update={"classes": tuple(classes)}))
    loose = tabulate(fleet.model_copy(update={"models": tuple(models)}), progress=progress)
    label = f"every objective {step * 1e3:g} ms looser"
    return [Change(label, loose.tables, loose.requirements)]
