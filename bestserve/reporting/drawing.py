"""The pictures of every answer, shown in a notebook or written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

from bestserve.analysis.results import SensitivityReport
from bestserve.analysis.sweep import Sweep
from bestserve.analysis.uncertainty import Uncertainty
from bestserve.analysis.whatif import WhatIf
from bestserve.errors import InputError, shown
from bestserve.host.extras import require
from bestserve.host.writing import check_target, write_text
from bestserve.reporting.chart import Chart
from bestserve.reporting.curves import Curves
from bestserve.reporting.data import (
    map_chart,
    pareto_chart,
    scenario_chart,
    sobol_chart,
    speed_chart,
    tornado_chart,
)
from bestserve.reporting.matplotlib_charts import save_csv, save_figure
from bestserve.reporting.plotly_charts import figure
from bestserve.reporting.schedule import schedule_charts
from bestserve.reporting.templates import pictures_page
from bestserve.results.document import Document
from bestserve.results.ranking import Ranking
from bestserve.results.schedule import Schedule

PLOTS = {
    ".html": ("jinja2",),
    ".png": ("matplotlib",),
    ".svg": ("matplotlib",),
    ".pdf": ("matplotlib",),
    ".csv": (),
}
"""Endings of files, and what draws them."""


@singledispatch
def charts_of(answer: Document) -> tuple[Chart, ...]:
    """Return the pictures of an answer, the most telling first. InputError if it has none."""
    raise InputError(f"no picture of a {type(answer).__name__}")


@charts_of.register
def _(answer: Ranking) -> tuple[Chart, ...]:
    if not answer.table:
        raise InputError(f"nothing to draw: {answer.why_nothing()}")
    speeds = [speed_chart(answer)] if answer.front() else []
    return (*speeds, pareto_chart(answer, "ttft"), pareto_chart(answer, "tpot"))


@charts_of.register
def _(answer: WhatIf) -> tuple[Chart, ...]:
    return (scenario_chart(answer),)


@charts_of.register
def _(answer: Sweep) -> tuple[Chart, ...]:
    return (map_chart(answer),)


@charts_of.register
def _(answer: SensitivityReport) -> tuple[Chart, ...]:
    return (tornado_chart(answer),)


@charts_of.register
def _(answer: Uncertainty) -> tuple[Chart, ...]:
    return (sobol_chart(answer),)


@charts_of.register
def _(answer: Schedule) -> tuple[Chart, ...]:
    return schedule_charts(answer)


@charts_of.register
def _(answer: Curves) -> tuple[Chart, ...]:
    return answer.charts()


def plot(answer: Document, key: str | None = None) -> Any:
    """Return one picture as a Plotly figure; `key` names it, default: the first."""
    charts = {chart.key: chart for chart in charts_of(answer)}
    chosen = next(iter(charts)) if key is None else key
    chosen = chosen if chosen in charts else f"{chosen}-curve"
    if chosen not in charts:
        names = ", ".join(name.removesuffix("-curve") for name in charts)
        raise InputError(f"no picture {shown(key, 40)}: take one of {names}")
    require("a figure", "plotly")
    from plotly.graph_objects import Figure

    return Figure(figure(charts[chosen]))


def save(answers: Sequence[Document], path: str | Path) -> Path:
    """Write the pictures of answers into one file, or the rows of the one answer into a .csv."""
    target = checked_plot(path)
    if target.suffix == ".csv":
        if len(answers) != 1:
            raise InputError(f"plot {target.name!r}: {len(answers)} answers are no single table")
        return save_csv(answers[0].records(), target)
    charts = [chart for answer in answers for chart in charts_of(answer)]
    if target.suffix == ".html":
        write_text(target, pictures_page(charts))
        return target
    return save_figure(charts, target)


def checked_plot(path: str | Path) -> Path:
    """Return where plots go, before the work.

    Raises InputError for an ending that no plot has and for what cannot be written,
    MissingExtraError without the package that draws it.
    """
    target = Path(path)
    if target.suffix not in PLOTS:
        raise InputError(f"plot {target.name!r}: end it in {', '.join(PLOTS)}")
    require(f"a plot in {target.suffix}", *PLOTS[target.suffix])
    return check_target(target, "plot")
