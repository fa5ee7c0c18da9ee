"""The questions that the page asks at once after every change, and the parts that answer them.

A question is a function of a problem as plain data, its arguments, and a way to say how far it is;
it yields parts of the page as they are found. Workers run it (`bestserve.web.worker`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bestserve import api
from bestserve.analysis.sweep import families
from bestserve.errors import BestserveError
from bestserve.lowering import lower
from bestserve.models.lane_arrivals import uncovered
from bestserve.reporting.chart import Chart
from bestserve.reporting.data import latency_charts, pareto_chart, speed_chart
from bestserve.reporting.memory import memory_chart
from bestserve.reporting.templates import environment, headline
from bestserve.results.ranking import RankedStrategy, Ranking, layout_of
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Say = Callable[[str], None]
Arguments = Mapping[str, Any]
Question = Callable[[Mapping[str, Any], Arguments, Say], Iterator[str]]

SHOWN = 12
"""Layouts in the ranked table; the others are folded away below it."""
CURVES = 4
"""Strategies whose latencies are drawn."""

COLUMNS = (
    "rank",
    "strategy",
    "confirmed",
    "gpus",
    "goodput",
    "goodput_per_gpu",
    "usd_per_million_tokens",
    "tokens_per_second",
    "ttft_ms",
    "tpot_ms",
    "utilisation",
    "binding",
    "trust",
)


def part(name: str, **context: Any) -> str:
    """Return a panel as it replaces the one of the same name on the page."""
    template = environment().get_template(f"web/panels/{name}.html.j2")
    return wrapped(name, template.render(**context))


def wrapped(name: str, markup: str) -> str:
    """Return markup that takes the place of the element with this id."""
    return f'<hx-partial hx-target="#{name}" hx-swap="outerMorph">{markup}</hx-partial>'


def first(stated: Mapping[str, Any], _: Arguments, say: Say) -> Iterator[str]:
    """Answer by formulas: ranking, trade-offs, latency over the rate, memory."""
    problem = Problem(**stated)
    lowered = lower(problem)
    ranking = api.rank(problem, verify=False, progress=say)
    yield from ranked(ranking, heard=False)
    if not ranking.table:
        return
    leading = families(ranking.table, CURVES)
    if not any(uncovered(lowered.system(name)) for name in leading):
        shown = [row for row in ranking.table if row.strategy in leading]
        yield part("load", charts=latency_charts(lowered, shown))
    yield memory(problem, ranking.best.strategy)


def confirmed(stated: Mapping[str, Any], _: Arguments, say: Say) -> Iterator[str]:
    """Hold the leaders to runs, then say what binds and what would help."""
    problem = Problem(**stated)
    ranking = api.rank(problem, verify=True, progress=say)
    yield from ranked(ranking, heard=True)
    if ranking.table:
        yield why(problem, ranking, say)


def ranked(ranking: Ranking, heard: bool) -> Iterator[str]:
    """Yield the parts that show a ranking; heard : whether runs have confirmed its leaders."""
    if not ranking.table:
        yield part("answer", ranking=None, nothing=ranking.why_nothing(), headline="", heard=heard)
        for name in ("ranking", "tradeoffs", "load", "memory", "why"):
            yield part(name, rows=(), rest=(), charts=(), sentences=(), columns=(), told="")
        return
    yield part("answer", ranking=ranking, nothing="", headline=headline(ranking), heard=heard)
    rows = layouts(ranking)
    yield part(
        "ranking",
        rows=rows[:SHOWN],
        rest=rows[SHOWN:],
        columns=[name for name in COLUMNS if any(name in row for row in rows)],
        told=ranking.explain(),
    )
    charts = [speed_chart(ranking)] if ranking.front() else []
    charts += [pareto_chart(ranking, "ttft"), pareto_chart(ranking, "tpot")]
    yield part("tradeoffs", charts=charts)


def layouts(ranking: Ranking) -> list[dict[str, Any]]:
    """Return the rows of the best limits of each layout, with marks for what runs confirm."""
    seen: set[object] = set()
    rows = []
    for row, strategy in zip(ranking.records(), ranking.table, strict=True):
        layout = layout_of(strategy)
        if layout not in seen:
            seen.add(layout)
            binding = str(row["binding"]).partition(":")[0]
            rows.append({**row, "confirmed": evidence(strategy), "binding": binding})
    return rows


def evidence(strategy: RankedStrategy) -> str:
    """Return what stands behind a row's goodput, in a word or two."""
    if strategy.confirmed:
        return "✓ simulated"
    if strategy.simulated_goodput is not None:
        return f"simulated: {strategy.simulated_goodput:.3g}"
    return "formula"


def memory(problem: Problem, strategy: str) -> str:
    """Return the panel of the first pool's memory."""
    if problem.step_time is not None:
        return part("memory", charts=(), sentences=("The problem brings its own step time.",))
    pool = Strategy.parse(strategy).pools[0]
    found = api.memory(problem, str(Strategy(pools=(pool,)))) if pool.role == "m" else None
    found = found or api.memory(problem, strategy)
    return part("memory", charts=(memory_chart(found),), sentences=tuple(found.notes))


def why(problem: Problem, ranking: Ranking, say: Say) -> str:
    """Return the panel of what binds and what would help most."""
    from bestserve.analysis.waterfall import explanation
    from bestserve.reporting.data import tornado_chart, waterfall_chart

    best = ranking.best.strategy
    try:
        told = explanation(problem, best)
        found = api.sensitivity(problem, best, method="analytic", progress=say)
    except BestserveError as error:
        return part("why", charts=(), sentences=(str(error),))
    charts: list[Chart] = [waterfall_chart(fall, best) for fall in told.waterfalls]
    charts.append(tornado_chart(found))
    sentences = [line.strip() for line in told.sentences()]
    return part("why", charts=charts, sentences=sentences)


QUESTIONS: dict[str, Question] = {"first": first, "confirmed": confirmed}
"""Name of a question, as the server asks it, and what answers it."""
