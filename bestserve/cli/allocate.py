"""`bestserve allocate`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from bestserve.cli.flags import Count, Format, Many
from bestserve.cli.output import emit, emit_records
from bestserve.cli.question import Question
from bestserve.cli.talk import progress, talk
from bestserve.host.extras import require
from bestserve.host.writing import check_target, write_text
from bestserve.readers.mappings import read_mapping
from bestserve.specs.fleet import Fleet
from bestserve.specs.slo import checked_table

MANY_TABLES = 6
"""GPU types times request classes from which several processes are started by themselves."""


def allocate(
    fleet: str,
    *,
    objective: str | None = None,
    gap: float = 0.01,
    seconds: float = 60.0,
    jobs: Annotated[int | None, Count] = None,
    verify: bool = True,
    certify: bool = True,
    slo_step_ms: float | None = None,
    budgets: Annotated[list[float] | None, Many] = None,
    demands: Annotated[list[float] | None, Many] = None,
    page: Path | None = None,
    format: Format = "table",
) -> int:
    """Allocate a fleet: which GPUs run which model, in which role, at which parallelism.

    Parameters
    ----------
    fleet
        TOML, YAML or JSON file with gpus, models, their request classes, and limits
    objective
        max_goodput, min_cost or max_headroom, instead of the file's
    gap
        relative gap at which the search ends
    seconds
        time limit of the search; the best plan so far is printed with its gap
    jobs
        processes that make the goodput tables, simulate and solve again for marginal values;
        default: one a core for larger fleets, else one
    verify
        simulate the plan, and tighten the tables where it falls short
    certify
        also solve for one more GPU and node of each type and for uniform strategies
    slo_step_ms
        also solve with all objectives looser by so many milliseconds
    budgets
        also the best plan at each of these cost budgets [$/h]
    demands
        also the cheapest plan at each of these multiples of all rates
    page
        HTML file to write: the fleet as a diagram, its pools, the comparison with uniform
        strategies, and the curves
    """
    return plan(
        read_fleet(fleet, **({} if objective is None else {"objective": objective})),
        gap=gap,
        seconds=seconds,
        jobs=jobs,
        verify=verify,
        certify=certify,
        slo_step_ms=slo_step_ms,
        budgets=budgets,
        demands=demands,
        page=page,
        format=format,
    )


def read_fleet(path: str | Path, **changes: str) -> Fleet:
    """Read a fleet file, with some of its fields changed. Raises DataError, InputError."""
    fields = read_mapping(path)
    for objectives in _tables(fields, "models", "classes", "slo"):
        checked_table(objectives)
    return Fleet(**{**fields, **changes})


def plan(
    fleet: Fleet,
    *,
    gap: float = 0.01,
    seconds: float = 60.0,
    jobs: int | None = None,
    verify: bool = True,
    certify: bool = True,
    slo_step_ms: float | None = None,
    budgets: list[float] | None = None,
    demands: list[float] | None = None,
    page: Path | None = None,
    format: Format = "table",
) -> int:
    """Allocate a fleet and print the answer; arguments as `allocate`."""
    from joblib import parallel_config

    from bestserve.fleet.allocate import allocate as answer
    from bestserve.fleet.allocate import (
        budget_curve,
        check_curves,
        check_search,
        demand_curve,
        tabulate,
    )

    asked = {
        "gap": gap,
        "seconds": seconds,
        "verify": verify,
        "certify": certify,
        "slo_step_ms": slo_step_ms,
        "budgets": budgets,
        "demands": demands,
    }
    check_search(gap, seconds)
    if budgets or demands:
        check_curves(fleet, demands=bool(demands))
    if page is not None:
        require("a page", "plotly")
        check_target(page, "page")
    step = None if slo_step_ms is None else slo_step_ms / 1e3
    curves: dict[str, list[dict[str, float]]] = {}
    with parallel_config(n_jobs=jobs or _workers(fleet)), progress("allocating") as say:
        tables = tabulate(fleet, progress=say)
        found = answer(
            fleet,
            gap=gap,
            seconds=seconds,
            verify=verify,
            certify=certify,
            slo_step=step,
            progress=say,
            evaluated=tables,
        )
        if budgets:
            curves["budgets"] = budget_curve(fleet, budgets, evaluated=tables)
        if demands:
            curves["demands"] = demand_curve(fleet, demands, evaluated=tables)
    emit(found, format, question=Question("allocate", fleet, asked), extra=curves)
    if format in ("table", "md"):
        print()
        print(found.explain())
        for points in curves.values():
            print()
            emit_records(points, format)
    elif curves and format != "json":
        talk(f"{', '.join(curves)}: not in {format}; take table, json or --page")
    if page is not None:
        from bestserve.reporting.fleet_page import fleet_page

        write_text(page, fleet_page(found, **curves))
        talk(f"wrote {page}")
    return 0


def _tables(value: Any, *names: str) -> Iterator[Mapping[str, Any]]:
    """Return the tables that lie below these names; lists have one each."""
    if isinstance(value, list):
        for item in value:
            yield from _tables(item, *names)
    elif isinstance(value, Mapping):
        if not names:
            yield value
        else:
            yield from _tables(value.get(names[0]), *names[1:])


def _workers(fleet: Fleet) -> int:
    """Return how many processes pay: starting one takes as long as the tables of a small fleet."""
    tables = len(fleet.gpus) * sum(len(model.classes) for model in fleet.models)
    return (os.cpu_count() or 1) if tables >= MANY_TABLES else 1
