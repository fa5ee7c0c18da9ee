"""The ranking with its witnesses: the rows that decide are simulated at their goodput."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from bestserve.answers.doubts import trusted
from bestserve.answers.economics import priced
from bestserve.answers.errors import Calibration, calibration, moved, own_errors, with_errors
from bestserve.answers.goodput import Verdict, court_of, verdict
from bestserve.answers.predict import Method, predict_strategy
from bestserve.answers.prediction_intervals import prediction_intervals
from bestserve.answers.referee import coverage
from bestserve.answers.witness import AGREEMENT, Court
from bestserve.errors import InfeasibleError
from bestserve.lowering import Lowered, lower
from bestserve.models.lane_arrivals import known_part, refuse_uncovered, uncovered
from bestserve.models.latencies import Latencies
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

RACED, SHOWN = 16, 4
"""Rows simulated at most where formulas told only the order, and how many of them are searched even
if they lose."""

HEARD = 8
"""Rows heard because they reach the first, at most. The first one is heard however many it takes:
where the first rows share a flaw, the table is gone through until one stands."""


def ranking(problem: Problem, *, verify: bool = True, progress: Progress | None = None) -> Ranking:
    """Return the ranking; arguments and errors as `bestserve.rank`."""
    lowered = lower(checked_problem(problem))
    found = rank_strategies(lowered, progress=progress)
    say = progress or (lambda _: None)
    if found.table and any(uncovered(lowered.system(r.strategy)) for r in found.table[:RACED]):
        if not verify:
            refuse_uncovered(lowered.system(found.best.strategy))
        found = _raced(lowered, found, say)
    elif found.table and verify:
        found = _witnessed(lowered, found, say)
    if not found.table:
        return found
    first = Strategy.parse(found.best.strategy)
    seen = moved(lowered, first, found.best.goodput)
    slo = problem.slo
    assert slo is not None
    constants = calibration(lowered, first, seen, slo.target())
    return replace(
        found,
        table=tuple(
            priced(lowered, row)
            for row in trusted(problem, _with_intervals(found.table, constants))
        ),
        intervals=_intervals_at_best(lowered, found.best, seen),
        defaults=_with_own_limits(lowered, found, verify),
    )


def _with_intervals(
    table: tuple[RankedStrategy, ...], constants: Calibration
) -> tuple[RankedStrategy, ...]:
    """Return the rows with their intervals, and ties with the first one marked.

    constants : how they move the first row; they move all strategies alike
    """
    first = own_errors(table[0])
    out = []
    for row in table:
        own = own_errors(row)
        open_to = math.hypot(*first.values(), *own.values())
        tied = row is not table[0] and math.log(table[0].goodput / row.goodput) <= open_to
        row = with_errors(row, {**own, "calibration": constants.error})
        out.append(replace(row, tied=tied, trust=row.trust & constants.trust))
    return tuple(out)


def _with_own_limits(lowered: Lowered, found: Ranking, verify: bool) -> RankedStrategy | None:
    """Return the first strategy with the engine's own limits; None if these are its limits."""
    strategy = Strategy.parse(found.best.strategy)
    own = {"max_num_seqs": None, "max_num_batched_tokens": None}
    plain = Strategy(pools=tuple(pool.model_copy(update=own) for pool in strategy.pools))
    if plain == strategy:
        return None
    listed = next((row for row in found.table if row.strategy == str(plain)), None)
    if listed is not None:
        return listed
    try:
        known = verdict(known_part(lowered.system(plain)), court_of(lowered), "analytic")
    except InfeasibleError:
        return None
    if known.found.rate <= 0:
        return None
    row = known.row(lowered, plain)
    heard = _heard(lowered, row, court_of(lowered), 0.0) if verify else row
    return None if isinstance(heard, Rejected) else heard


def _witnessed(lowered: Lowered, found: Ranking, progress: Progress) -> Ranking:
    """Hear the rows that may lead until the first one is settled and none reaches it.

    Runs of the usual length hear what formulas doubt, or what reaches the first row; longer ones
    settle what leads.
    """
    court = court_of(lowered)
    rows, out = list(found.table), list(found.rejected)
    heard: set[str] = set()
    settled: set[str] = set()
    low = 1.0
    while rows:
        first = rows[0]
        # Where the formulas told a row too little, they may tell the rows below too little.
        least = min(first.goodput, first.simulated_goodput or first.goodput) / low
        row = first
        if first.strategy in settled:
            known = heard | settled
            reaching = [r for r in rows if r.strategy not in known and _reach(r) >= least]
            if not reaching or len(known) >= HEARD:
                break
            row = reaching[0]
        surely = row is first and (row.strategy in heard or row.trust.high)
        progress(f"simulating {row.strategy}")
        (settled if surely else heard).add(row.strategy)
        rows.remove(row)
        floor = max((r.goodput for r in rows if r.strategy in heard | settled), default=0.0)
        if surely:
            again = contained(row.strategy, _surely, lowered, row, court)
        else:
            again = contained(row.strategy, _heard, lowered, row, court, floor)
        if isinstance(again, Rejected):
            out.append(again)
            continue
        low = max(low, (again.simulated_goodput or row.goodput) / row.goodput)
        rows = sorted([*rows, again], key=best_first)
    return replace(found, table=tuple(rows), rejected=tuple(out))


def _settled(lowered: Lowered, found: Ranking, court: Court, progress: Progress) -> Ranking:
    """Settle the first row by runs that are long enough, until one stays first."""
    rows, out = list(found.table), list(found.rejected)
    settled: set[str] = set()
    while rows and rows[0].strategy not in settled:
        first = rows.pop(0)
        settled.add(first.strategy)
        progress(f"simulating {first.strategy} for longer")
        again = contained(first.strategy, _surely, lowered, first, court)
        if isinstance(again, Rejected):
            out.append(again)
        else:
            rows = sorted([*rows, again], key=best_first)
    return replace(found, table=tuple(rows), rejected=tuple(out))


def _surely(lowered: Lowered, row: RankedStrategy, court: Court) -> RankedStrategy | Rejected:
    """Return the row as `bestserve.goodput` answers it."""
    strategy = Strategy.parse(row.strategy)
    again = verdict(lowered.system(strategy), court)
    if again.found.rate <= 0:
        return unmet(lowered, row.strategy, strategy.pools, again.found)
    return again.row(lowered, strategy)


def _reach(row: RankedStrategy) -> float:
    """Return what a row may carry that runs have not been asked about [req/s]."""
    return max(row.high, row.goodput * (1 + AGREEMENT / 2))


def _raced(lowered: Lowered, found: Ranking, progress: Progress) -> Ranking:
    """Simulate rows whose formulas told only the order; what was not simulated is left out.

    In that order, the first `SHOWN` rows are searched, and later ones that meet the objectives
    where the best one so far stops. A row so far down that it would have to gain more than all
    before it cannot win.
    """
    court = court_of(lowered)
    rows, out = [], list(found.rejected)
    best, gain = 0.0, 1.0
    for place, row in enumerate(found.table[:RACED]):
        near = row.goodput * gain
        if place >= SHOWN:
            if near < best:
                break
            if not court.reaches(lowered.system(row.strategy), best):
                continue
        progress(f"simulating {row.strategy}")
        again = contained(row.strategy, _heard, lowered, row, court, best, near)
        if isinstance(again, Rejected):
            out.append(again)
            continue
        rows.append(again)
        best, gain = max(best, again.goodput), max(gain, again.goodput / row.goodput)
    rows.sort(key=best_first)
    return _settled(
        lowered, replace(found, table=tuple(rows), rejected=tuple(out)), court, progress
    )


def _heard(
    lowered: Lowered, row: RankedStrategy, court: Court, floor: float, near: float | None = None
) -> RankedStrategy | Rejected:
    """Return the row after runs of the usual length.

    floor : as in `Court.hears`; near : where to look, instead of its goodput [req/s]
    """
    strategy = Strategy.parse(row.strategy)
    system = lowered.system(strategy)
    enough = coverage(system, court.given, court.target.strictest)
    if not (enough.high or uncovered(system)):
        return replace(row, trust=row.trust & enough)
    told = court.hears(system, near or row.goodput, floor)
    if told.found is None:
        shown = replace(row, simulated_goodput=told.rate, confirmed=told.confirms(row.goodput))
        return replace(shown, trust=told.trust(row.trust), errors=told.errors(row.goodput))
    if told.rate <= 0:
        return unmet(lowered, row.strategy, strategy.pools, told.found)
    limit = max(row.goodput / row.utilisation, told.rate)
    at = replace(told.found.at, stability_rate=limit)
    found = replace(told.found, trust=told.trust(row.trust) & enough, at=at)
    return Verdict(found=found, method="simulated", told=told).row(lowered, strategy)


def _intervals_at_best(
    lowered: Lowered, best: RankedStrategy, seen: Mapping[str, Latencies]
) -> Mapping[str, tuple[float, float]]:
    """Return where 90 % of measured runs of the winner at its goodput would lie [s]."""
    parsed = Strategy.parse(best.strategy)
    method: Method = "auto" if uncovered(lowered.system(parsed)) else "analytic"
    found = predict_strategy(lowered, parsed, best.goodput, method)
    return prediction_intervals(lowered, parsed, found, seen)
