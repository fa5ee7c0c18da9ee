"""The questions that wait for their button: map, uncertainty, day, fleet, log."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

from bestserve import api
from bestserve.analysis.parameters import changed
from bestserve.analysis.sweep import families, variants
from bestserve.answers.economics import gpu_price
from bestserve.cli.validate import COLUMNS, ROW_COLUMNS
from bestserve.cli.whatif import axis
from bestserve.errors import InfeasibleError, InputError
from bestserve.readers.mappings import read_mapping
from bestserve.reporting.chart import Chart
from bestserve.reporting.content import FAMILIES, MAP_CANDIDATES, default_axes
from bestserve.reporting.fleet import Diagram
from bestserve.reporting.templates import environment
from bestserve.specs.fleet import Fleet
from bestserve.specs.problem import LAYOUTS, Problem
from bestserve.web.panels import Arguments, Question, Say, wrapped

HOURS = 24
PEAK = 0.8
"""Of the goodput, at which a day's load peaks unless it is stated [1]."""
MOST_RUNS = 40
"""Runs of a log that are shown one by one."""
OF_THE_MODEL = (
    "model",
    "engine",
    "precision",
    "kv_cache_dtype",
    "gpu_memory_utilization",
    "tensor_parallel_sizes",
    "pipeline_parallel_sizes",
    "layouts",
)
"""What a fleet's model takes over from a problem."""
Objective = Literal["gpu-hours", "money", "load"]


def result(
    name: str,
    *,
    charts: Sequence[Chart] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    caption: str = "",
    told: str = "",
    diagram: Diagram | None = None,
) -> str:
    """Return the part that answers a long question: pictures, a table, and what explains it."""
    template = environment().get_template("web/result.html.j2")
    given = {"charts": charts, "rows": rows, "caption": caption, "told": told}
    markup = template.render(name=name, diagram=diagram, **given)
    return wrapped(f"result-{name}", markup)


def text(arguments: Arguments, name: str) -> str:
    """Return what a field of the question's own form says; "" if nothing."""
    return str(arguments.get(f"q-{name}", "")).strip()


def number(arguments: Arguments, name: str, default: float) -> float:
    """Return a number of the question's own form. Raises InputError."""
    written = text(arguments, name)
    if not written:
        return default
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{name.replace('-', ' ')}: {written[:40]!r} is no number from 0 on")
    return value


def winners_map(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """Which strategy wins where, over one or two figures."""
    from bestserve.reporting.data import map_chart

    problem = Problem(**stated)
    written = [text(arguments, name) for name in ("first", "second")]
    axes: Mapping[str, Sequence[float | str]] = dict(axis(each) for each in written if each)
    say("ranking")
    table = api.rank(problem, verify=False, progress=say).table
    if not table:
        raise InfeasibleError("no strategy is feasible here; loosen the objectives first")
    found = api.sweep(
        problem,
        axes or default_axes(problem),
        strategies=variants(table, FAMILIES, MAP_CANDIDATES),
        jobs=1,
        progress=say,
    )
    yield result(
        "map",
        charts=(map_chart(found),),
        told=found.explain(),
    )


def crossover(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """Which layout wins where: collocated, disaggregated or hybrid, over one figure."""
    from bestserve.reporting.data import map_chart

    problem = Problem(**stated).replaced(layouts=LAYOUTS)
    figure, values = axis(text(arguments, "figure") or "workload.output_len=x0.25,x0.5,x1,x2,x4")
    names: dict[str, None] = {}
    for value in (values[0], values[len(values) // 2], values[-1]):
        say(f"ranking at {figure}={value}")
        at = changed(problem, {figure: value})
        for layout in LAYOUTS:
            table = api.rank(at.replaced(layouts=(layout,)), verify=False, progress=say).table
            names |= dict.fromkeys(row.strategy for row in table[:1])
    if not names:
        raise InfeasibleError("no layout is feasible here; loosen the objectives first")
    found = api.sweep(problem, {figure: values}, strategies=[*names], jobs=1, progress=say)
    yield result("crossover", charts=(map_chart(found),), told=found.explain())


def uncertainty(stated: Mapping[str, Any], _: Arguments, say: Say) -> Iterator[str]:
    """How sure the winner is, and what to measure first."""
    from bestserve.reporting.data import sobol_chart

    problem = Problem(**stated)
    say("ranking")
    table = api.rank(problem, verify=False, progress=say).table
    names = families(table, 3) or None
    found = api.uncertainty(problem, strategies=names, jobs=1, progress=say)
    yield result("uncertainty", charts=(sobol_chart(found),), told=found.explain())


def day(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """How many instances serve a day's load, window by window."""
    from bestserve.fleet.schedule.answer import schedule
    from bestserve.fleet.schedule.options import Over, ScheduleOptions
    from bestserve.reporting.schedule import schedule_charts

    problem = Problem(**stated)
    objective = text(arguments, "objective") or "gpu-hours"
    options = ScheduleOptions(
        objective=cast("Objective", objective),
        headroom=number(arguments, "headroom", 0.0) / 100,
        slo_over=cast("Over", text(arguments, "over") or "window"),
        simulated=text(arguments, "simulate") == "yes",
    )
    with tempfile.TemporaryDirectory() as folder:
        load = Path(str(arguments.get("file") or Path(folder) / "load.csv"))
        if not arguments.get("file"):
            peak, low = number(arguments, "peak", 0.0), number(arguments, "low", 30.0)
            peak = peak or PEAK * api.rank(problem, verify=False, progress=say).best.goodput
            load.write_text(day_of(peak, low / 100), encoding="utf-8")
        found = schedule(
            problem, load, strategy=text(arguments, "strategy") or None, options=options,
            progress=say,
        )  # fmt: skip
    yield result(
        "day",
        charts=schedule_charts(found),
        rows=found.records(),
        caption="Windows of the day",
        told=found.explain(),
    )


def day_of(peak: float, low: float) -> str:
    """Return a day as CSV: a cosine from `low` times the peak in the night to the peak at 15 h.

    >>> day_of(10.0, 0.2).splitlines()[:2]
    ['start,request_rate', '00:00,3.172']
    """
    mean, swing = (1 + low) / 2, (1 - low) / 2
    rates = [peak * (mean + swing * math.cos((h - 15) / 12 * math.pi)) for h in range(HOURS)]
    lines = [f"{hour:02d}:00,{rate:.4g}" for hour, rate in enumerate(rates)]
    return "\n".join(["start,request_rate", *lines])


def fleet(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """Which GPUs of several types run the model, in which role."""
    from bestserve.fleet.allocate import allocate
    from bestserve.reporting.fleet import comparison_chart, fleet_diagram

    if arguments.get("file"):
        asked = Fleet(**read_mapping(str(arguments["file"]), "fleet", "toml"))
    else:
        asked = fleet_of(Problem(**stated), text(arguments, "gpus"), text(arguments, "rate"))
    found = allocate(asked, seconds=60.0, progress=say)
    compared = any(u.objective is not None for u in found.uniform)
    yield result(
        "fleet",
        charts=(comparison_chart(found),) if compared else (),
        diagram=fleet_diagram(found) if found.pools else None,
        rows=found.records(),
        caption="Pools of the plan",
        told=found.explain(),
    )


def fleet_of(problem: Problem, gpus: str, rate: str) -> Fleet:
    """Return a fleet that serves the problem's requests.

    gpus : "h100-sxm:8 a100-80gb-sxm:16"; "" the problem's own
    rate : to be carried at least cost [req/s]; "" as much as goes
    """
    w = problem.workload
    if problem.step_time is not None or w.input_len is None:
        raise InputError("a fleet takes a model and lengths; drop a fleet file for more")
    groups: list[dict[str, Any]] = [{"hardware": problem.hardware, "count": problem.gpus}]
    if gpus:
        named = [part.partition(":") for part in gpus.split()]
        groups = [{"hardware": name, "count": count or 1} for name, _, count in named]
    for group in groups:
        price, _ = gpu_price(problem.replaced(hardware=group["hardware"]))
        if price is not None:
            group["price_per_hour"] = price
    asked: dict[str, Any] = {
        "name": "requests",
        "input_len": w.input_len,
        "output_len": w.output_len,
        "slo": problem.slo,
        "prefix_cache_hit": w.prefix_cache_hit,
        **({"rate": rate} if rate else {"share": 1.0}),
    }
    stated = {name: getattr(problem, name) for name in OF_THE_MODEL}
    model = {name: value for name, value in stated.items() if value is not None}
    return Fleet(
        objective="min_cost" if rate else "max_goodput",
        gpus=tuple(groups),
        models=({**model, "classes": (asked,)},),
    )


def log(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """How predictions compare with a measured log."""
    from bestserve.reporting.parity import parity_chart
    from bestserve.validation.compare import validate

    if not arguments.get("file"):
        raise InputError("choose the log of a benchmark client first")
    names = {"gpu": "gpu", "model": "model", "engine": "engine", "tp": "tp"}
    given = {field: text(arguments, name) for name, field in names.items()}
    known: dict[str, Any] = {name: value for name, value in given.items() if value}
    if "tp" in known:
        known["tp"] = int(number(arguments, "tp", 1))
    found = validate(str(arguments["file"]), with_intervals=False, jobs=1, progress=say, **known)
    charts = [parity_chart(found.rows, metric) for metric in ("ttft", "tpot")]
    told = "\n".join([*found.warnings, found.explain()])
    yield result(
        "log",
        charts=[chart for chart in charts if chart.series],
        rows=chosen(found.row_records(), ROW_COLUMNS)
        if len(found.rows) <= MOST_RUNS
        else chosen(found.records(), COLUMNS),
        caption="Runs" if len(found.rows) <= MOST_RUNS else "Groups of runs",
        told=told,
    )


def chosen(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows with the columns that any of them fills."""
    kept = [name for name in columns if any(row.get(name) is not None for row in rows)]
    return [{name: row.get(name) for name in kept} for row in rows]


LONGER: dict[str, Question] = {
    "map": winners_map,
    "crossover": crossover,
    "uncertainty": uncertainty,
    "day": day,
    "fleet": fleet,
    "log": log,
}
"""Name of a question → what answers it."""

OBJECTIVES = get_args(Objective)
