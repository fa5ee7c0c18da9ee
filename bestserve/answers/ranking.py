"""The ranking with its witnesses: the rows that decide are simulated at their goodput."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from bestserve.answers.doubts import trusted
from bestserve.answers.goodput import Verdict, court_of
from bestserve.answers.predict import predict_strategy
from bestserve.answers.prediction_intervals import prediction_intervals
from bestserve.answers.referee import coverage
from bestserve.answers.saturation import sustained
from bestserve.answers.witness import Court
from bestserve.lowering import Lowered, lower
from bestserve.results.ranking import RankedStrategy, Ranking, Rejected
from bestserve.solvers.ranking import (
    best_first,
    checked_problem,
    contained,
    rank_strategies,
    unmet,
)
from bestserve.specs.problem import Problem
from bestserve.specs.strategy import Strategy

Progress = Callable[[str], None]

HEARD = 8
"""Rows heard because they reach the first, at most. The first one is heard however many it takes:
where the first rows share a flaw, the table is gone through until one stands."""


def ranking(problem: Problem, *, verify: bool = True, progress: Progress | None = None) -> Ranking:
    """Return the ranking; arguments and errors as `bestserve.rank`."""
    lowered = lower(checked_problem(problem))
    found = rank_strategies(lowered, progress=progress)
    if verify and found.table:
        found = _witnessed(lowered, found, progress or (lambda _: None))
    if not found.table:
        return found
    return replace(
        found,
        table=trusted(problem, found.table),
        intervals=_intervals_at_best(lowered, found.best),
    )


def _witnessed(lowered: Lowered, found: Ranking, progress: Progress) -> Ranking:
    """Hear the first row until one stands, and those whose interval reaches it; rank again."""
    court = court_of(lowered)
    rows, out = list(found.table), list(found.rejected)
    heard: set[str] = set()
    low = 1.0
    while rows:
        first = rows[0]
        # Where the formulas told a row too little, they may tell the rows below too little.
        least = min(first.goodput, first.simulated_goodput or first.goodput) / low
        reaching = [r for r in rows if r.strategy not in heard and r.high >= least]
        if not reaching or (first.strategy in heard and len(heard) >= HEARD):
            break
        row = reaching[0]
        progress(f"simulating {row.strategy}")
        heard.add(row.strategy)
        rows.remove(row)
        floor = max((r.goodput for r in rows if r.confirmed), default=0.0)
        again = contained(row.strategy, _heard, lowered, row, court, floor)
        if isinstance(again, Rejected):
            out.append(again)
            continue
        low = max(low, (again.simulated_goodput or row.goodput) / row.goodput)
        rows = sorted([*rows, again], key=best_first)
    if rows:
        limit = sustained(lowered.system(rows[0].strategy), court.given)
        rows[0] = replace(rows[0], utilisation=min(rows[0].goodput / limit, 1.0))
    return replace(found, table=tuple(rows), rejected=tuple(out))


def _heard(
    lowered: Lowered, row: RankedStrategy, court: Court, floor: float
) -> RankedStrategy | Rejected:
    """Return the row after runs at its goodput; `floor` as in `Court.hears`."""
    strategy = Strategy.parse(row.strategy)
    system = lowered.system(strategy)
    enough = coverage(system, court.given, court.target.strictest)
    if not enough.high:
        return replace(row, trust=row.trust & enough)
    testimony = court.hears(system, row.goodput, floor)
    trust = testimony.trust(row.trust)
    if testimony.found is None:
        return replace(row, trust=trust, confirmed=True, simulated_goodput=testimony.rate)
    if testimony.rate <= 0:
        return unmet(lowered, row.strategy, strategy.pools, testimony.found)
    limit = max(row.goodput / row.utilisation, testimony.rate)
    at = replace(testimony.found.at, stability_rate=limit)
    shown = replace(testimony.found, trust=trust, at=at)
    return Verdict(found=shown, method="simulated", simulated=testimony.rate).row(lowered, strategy)


def _intervals_at_best(lowered: Lowered, best: RankedStrategy) -> Mapping[str, tuple[float, float]]:
    """Return where 90 % of measured runs of the winner at its goodput would lie [s]."""
    parsed = Strategy.parse(best.strategy)
    found = predict_strategy(lowered, parsed, best.goodput, "analytic")
    return prediction_intervals(lowered, parsed, found)
