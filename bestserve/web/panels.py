"""The questions that the page asks at once after every change, and the parts that answer them.

A question is a function of a problem as plain data, its arguments, and a way to say how far it is;
it yields parts of the page as they are found. Workers run it (`bestserve.web.worker`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any, Literal

from bestserve import api
from bestserve.analysis.sweep import families
from bestserve.answers.economics import priced
from bestserve.answers.hearing import claimed
from bestserve.errors import BestserveError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.lane_arrivals import uncovered
from bestserve.models.latencies import Latencies
from bestserve.reporting.bands import banded
from bestserve.reporting.chart import Chart
from bestserve.reporting.data import (
    Drawn,
    latencies_up_to,
    latency_charts,
    pareto_chart,
    speed_chart,
)
from bestserve.reporting.memory import memory_chart
from bestserve.reporting.templates import environment, headline
from bestserve.results.ranking import RankedStrategy, Ranking, best_of_layouts
from bestserve.solvers.ranking import best_first
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Say = Callable[[str], None]
Arguments = Mapping[str, Any]
Stage = Literal["glance", "formulas", "simulated"]
"""How far an answer is: former leaders only, all by formulas, leaders held to runs."""
Question = Callable[[Mapping[str, Any], Arguments, Say], Iterator[str]]

PANELS = {
    "answer": "Answer",
    "ranking": "Ranked strategies",
    "tradeoffs": "Trade-offs",
    "load": "Latency over the rate",
    "memory": "Memory",
    "why": "What binds, what would help",
}
"""Parts that follow every change, as they stand below each other on the page, with headings."""

SHOWN = 12
"""Layouts in the ranked table; the others are folded away below it."""
CURVES = 4
"""Strategies whose latencies are drawn."""

COLUMNS = (
    "rank",
    "strategy",
    "confirmed",
    "goodput",
    "goodput_per_gpu",
    "usd_per_million_tokens",
    "ttft_ms",
    "tpot_ms",
    "binding",
    "trust",
    "gpus",
    "tokens_per_second",
    "utilisation",
)


def part(name: str, **context: Any) -> str:
    """Return a panel as it replaces the one of the same name on the page."""
    template = environment().get_template(f"web/panels/{name}.html.j2")
    return wrapped(name, template.render(title=PANELS[name], **context))


def answered(stage: Stage, ranking: Ranking | None, nothing: str = "") -> Iterator[str]:
    """Yield the panel of the answer, and its one line that stays in sight on a phone."""
    told = "" if ranking is None else headline(ranking)
    yield part("answer", ranking=ranking, nothing=nothing, headline=told, stage=stage)
    brief = "nothing feasible"
    if ranking is not None:
        brief = f"{ranking.best.goodput:.3g} req/s: {ranking.best.strategy}"
    line = f'<a id="brief" class="brief" href="#answer">{escape(brief)}</a>'
    yield wrapped("brief", line)


def wrapped(name: str, markup: str) -> str:
    """Return markup that takes the place of the element with this id."""
    return f'<hx-partial hx-target="#{name}" hx-swap="outerMorph">{markup}</hx-partial>'


def glance(stated: Mapping[str, Any], arguments: Arguments, say: Say) -> Iterator[str]:
    """Look at the former leaders under the new figures, while everything is ranked anew.

    arguments : "keep", their names, best first; their replicas are scaled to the GPUs
    """
    problem = Problem(**stated)
    lowered = lower(problem)
    rows: list[RankedStrategy] = []
    for name in dict.fromkeys(scaled(name, problem.gpus) for name in arguments["keep"]):
        say(name)
        row = claimed(lowered, Strategy.parse(name)) if name else None
        if row is None:
            continue
        rows = sorted([*rows, priced(lowered, row)], key=best_first)
        found = Ranking(problem, tuple(rows), (), len(rows), 0.0)
        yield from answered("glance", found)
    if rows:
        yield part("ranking", rows=layouts(found), rest=(), columns=shown(layouts(found)), told="")


def scaled(name: str, gpus: int) -> str:
    """Return a strategy with replicas for so many GPUs; "" if it does not fit, or is none.

    >>> scaled("2m-tp2", 8), scaled("1p-tp2+3d-tp1", 10), scaled("1m-tp8", 4)
    ('4m-tp2', '2p-tp2+6d-tp1', '')
    """
    try:
        strategy = Strategy.parse(name)
    except InputError:
        return ""
    factor = gpus / strategy.gpus
    pools = tuple(
        pool.model_copy(update={"replicas": max(int(pool.replicas * factor), 1)})
        for pool in strategy.pools
    )
    found = Strategy(pools=pools)
    return str(found) if found.gpus <= gpus else ""


def first(stated: Mapping[str, Any], _: Arguments, say: Say) -> Iterator[str]:
    """Answer by formulas: ranking, trade-offs, latency over the rate, memory."""
    problem = Problem(**stated)
    lowered = lower(problem)
    try:
        ranking = api.rank(problem, verify=False, progress=say)
    except InputError as error:  # no formula knows these arrivals or objectives: runs will tell
        yield part("answer", ranking=None, nothing=str(error), headline="", stage="formulas")
        return
    yield from ranked(ranking, "formulas")
    if not ranking.table:
        return
    yield memory(problem, ranking.best.strategy)
    leading = leaders(lowered, ranking)
    if leading:
        yield part("load", charts=latency_charts(lowered, leading, curves_of(problem)))


def curves_of(problem: Problem) -> Drawn:
    """Return the latencies that are drawn; objectives, which a slider moves, do not change them."""
    stated = problem.model_dump_json(exclude={"slo"}, exclude_none=True)
    return lambda strategy, limit: known_curve(stated, strategy, float(f"{limit:.5g}"))


@lru_cache(maxsize=8 * CURVES)
def known_curve(stated: str, strategy: str, limit: float) -> list[tuple[float, Latencies]]:
    """Return what requests see of a strategy at rates up to `limit` [req/s], found once."""
    return latencies_up_to(lower(Problem(**json.loads(stated))), strategy, limit)


def confirmed(stated: Mapping[str, Any], _: Arguments, say: Say) -> Iterator[str]:
    """Hold the leaders to runs, then say what binds and what would help."""
    problem = Problem(**stated)
    ranking = api.rank(problem, verify=True, progress=say)
    yield from ranked(ranking, "simulated")
    if not ranking.table:
        return
    yield why(problem, ranking, say)
    lowered = lower(problem)
    leading = leaders(lowered, ranking)
    if leading:
        say("intervals")
        charts = latency_charts(lowered, leading)
        yield part("load", charts=banded(lowered, leading[0].strategy, charts))
    yield memory(problem, ranking.best.strategy)


def leaders(lowered: Lowered, ranking: Ranking) -> list[RankedStrategy]:
    """Return the rows whose latencies are drawn; none where formulas do not know the arrivals."""
    names = families(ranking.table, CURVES)
    if any(uncovered(lowered.system(name)) for name in names):
        return []
    return [row for row in ranking.table if row.strategy in names]


def ranked(ranking: Ranking, stage: Stage) -> Iterator[str]:
    """Yield the parts that show a ranking."""
    if not ranking.table:
        yield from answered(stage, None, ranking.why_nothing())
        for name in ("ranking", "tradeoffs", "load", "memory", "why"):
            yield part(name, rows=(), rest=(), charts=(), sentences=(), columns=(), told="")
        return
    yield from answered(stage, ranking)
    rows = layouts(ranking)
    yield part(
        "ranking",
        rows=rows[:SHOWN],
        rest=rows[SHOWN:],
        columns=shown(rows),
        told=ranking.explain(),
    )
    charts = [speed_chart(ranking)] if ranking.front() else []
    charts += [pareto_chart(ranking, "ttft"), pareto_chart(ranking, "tpot")]
    yield part("tradeoffs", charts=charts)


def layouts(ranking: Ranking) -> list[dict[str, Any]]:
    """Return the rows of the best limits of each layout, with marks for what runs confirm."""
    records = ranking.records()
    return [
        {
            **records[place],
            "confirmed": evidence(strategy),
            "binding": str(records[place]["binding"]).partition(":")[0],
        }
        for place, strategy in best_of_layouts(ranking.table)
    ]


def shown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns of the ranked table that any row fills."""
    return [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]


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


QUESTIONS: dict[str, Question] = {"glance": glance, "first": first, "confirmed": confirmed}
"""Name of a question, as the server asks it, and what answers it."""
