"""Everything a report says, gathered once; rendering adds nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bestserve import api
from bestserve.analysis.results import SensitivityReport
from bestserve.analysis.sweep import Sweep, families, variants
from bestserve.analysis.uncertainty import Uncertainty
from bestserve.analysis.waterfall import Explanation
from bestserve.errors import InfeasibleError
from bestserve.lowering import lower
from bestserve.reporting.assumptions import assumption_rows, sentence
from bestserve.reporting.chart import Chart
from bestserve.reporting.data import (
    latency_charts,
    map_chart,
    pareto_chart,
    sobol_chart,
    speed_chart,
    tornado_chart,
    waterfall_chart,
)
from bestserve.reporting.schedule import schedule_charts
from bestserve.results.citations import bibtex
from bestserve.results.document import Document
from bestserve.results.ranking import Ranking
from bestserve.results.schedule import Schedule
from bestserve.specs.problem import Problem

Progress = Callable[[str], None]
CURVES = 4
FAMILIES = 5
MAP_CANDIDATES = 14
FACTORS = ("x0.25", "x0.5", "x1", "x2", "x4")


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked and everything that was found.

    sweep, uncertainty, allocation, schedule : None when not asked for (or, for the first two, when
        the problem leaves nothing to vary; `left_out` says why)
    """

    problem: Problem
    ranking: Ranking
    explanation: Explanation
    sensitivity: SensitivityReport
    sweep: Sweep | None
    uncertainty: Uncertainty | None
    allocation: Document | None
    schedule: Schedule | None
    charts: tuple[Chart, ...]
    assumptions: tuple[dict[str, Any], ...]
    assumed: str
    sources: str
    left_out: tuple[str, ...]

    def chart(self, key: str) -> Chart | None:
        """Return a chart by its key."""
        return next((c for c in self.charts if c.key == key), None)


def gather(
    problem: Problem,
    *,
    ranking: Ranking | None = None,
    axes: Mapping[str, Sequence[float | str]] | None = None,
    allocation: Document | None = None,
    schedule: Schedule | None = None,
    quick: bool = False,
    verify: bool = True,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Content:
    """Ask all questions of a report.

    ranking : an earlier answer, to save the work; axes : of the winner's map, default the mean
        lengths by factors of ¼ to 4; quick : leave out map and uncertainty

    Raises InputError (no objectives), InfeasibleError (nothing feasible).
    """
    say = progress or (lambda _: None)
    found = ranking or api.rank(problem, verify=verify, progress=progress)
    best = found.best.strategy
    lowered = lower(problem)
    say("explanation")
    leading = families(found.table, FAMILIES)
    told, best = _explained(problem, [best, *leading])
    say("sensitivity")
    sensitivity = api.sensitivity(problem, best, progress=progress)
    charts = [speed_chart(found)] if found.front() else []
    charts += [pareto_chart(found, "ttft"), pareto_chart(found, "tpot")]
    say("latency curves")
    shown = [row for row in found.table if row.strategy in leading[:CURVES]]
    charts += latency_charts(lowered, shown)
    charts += [waterfall_chart(w, best) for w in told.waterfalls]
    charts.append(tornado_chart(sensitivity))
    left_out = []
    sweep = uncertainty = None
    if not quick:
        wanted = axes or default_axes(problem)
        # Ranking the corners too would take longer than all the rest; the note says so.
        names = variants(found.table, FAMILIES, MAP_CANDIDATES)
        sweep = api.sweep(problem, wanted, strategies=names, jobs=jobs, progress=progress)
        charts.append(map_chart(sweep))
        if problem.step_time is None:
            uncertainty = api.uncertainty(
                problem, strategies=leading[:3], jobs=jobs, progress=progress
            )
            charts.append(sobol_chart(uncertainty))
        else:
            left_out.append("Uncertainty: the step time was given without its standard errors.")
    else:
        left_out.append("Winner's map and uncertainty: left out on request.")
    if schedule is not None:
        charts += schedule_charts(schedule)
    rows = assumption_rows(lowered)
    uses = {"ranking", *(s.method for s in found.table)}
    if uncertainty is not None:
        uses.add("sensitivity")
    return Content(
        problem=problem,
        ranking=found,
        explanation=told,
        sensitivity=sensitivity,
        sweep=sweep,
        uncertainty=uncertainty,
        allocation=allocation,
        schedule=schedule,
        charts=tuple(charts),
        assumptions=tuple(rows),
        assumed=sentence(rows),
        sources=bibtex(*sorted(uses)),
        left_out=tuple(left_out),
    )


def _explained(problem: Problem, names: Sequence[str]) -> tuple[Explanation, str]:
    """Explain the best strategy that the formulas find feasible too (simulation may disagree)."""
    for name in names:
        try:
            told = api.explain(problem, name)
        except InfeasibleError:
            continue
        assert isinstance(told, Explanation)
        return told, name
    raise InfeasibleError(f"{names[0]}: feasible in simulation only, so it cannot be explained")


def default_axes(problem: Problem) -> dict[str, Sequence[float | str]]:
    """Return mean lengths by factors of ¼ to 4, or objectives where a trace fixes the lengths."""
    if problem.workload.trace is None:
        return {"workload.input_len": FACTORS, "workload.output_len": FACTORS}
    slo = problem.slo
    asked = [m for m in ("ttft", "tpot", "e2el") if slo is not None and getattr(slo, m) is not None]
    return {f"slo.{m}": FACTORS for m in asked[:2]}
