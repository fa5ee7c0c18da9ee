"""Rank by smooth goodput: tokens that readers get, less the cost of their waiting.

Smooth goodput, Σ (n_r − α l_r)/T (Wang et al., arXiv 2410.14257), has a highest value over the
rate, below which tokens are missing and above which waiting costs more. The strategies that lead by
goodput are looked at by short runs at a few rates; the best of these are searched by golden section
on common random numbers, then judged by runs of other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bestserve.errors import InfeasibleError, InputError
from bestserve.lowering import Lowered, lower
from bestserve.models.latency import stability_rate
from bestserve.models.system import System, Target
from bestserve.models.token_times import Reader
from bestserve.results.ranking import RankedStrategy
from bestserve.results.smooth import SmoothRanking, SmoothRow
from bestserve.simulator import simulate
from bestserve.solvers.ranking import checked_problem, rank_strategies
from bestserve.specs.problem import Problem

LOOKED_AT = 16
"""Rows of the ranking that are looked at."""

SEARCHED = 5
"""Of these, those whose best rate is searched for."""

LOOKS = (0.5, 0.65, 0.8, 0.92)
"""Rates looked at, over the one that saturates [1]."""

SHORT, LONG = 1500, 4000
"""Requests of a run that looks, and of one that searches or judges."""

JUDGES = (101, 102, 103, 104)
"""Seeds of the runs that judge: they saw no choosing."""

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
CLOSE = 0.01
"""Relative width of the rates at which the search ends [1]."""


@dataclass(frozen=True, slots=True)
class _Tried:
    row: RankedStrategy
    system: System
    value: float
    rate: float


def smooth_ranking(
    problem: Problem,
    wait_cost: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> SmoothRanking:
    """Return the strategies that lead by goodput, by smooth goodput; as `bestserve.rank_smooth`."""
    lowered = lower(checked_problem(problem))
    assert problem.slo is not None
    reader = reader_of(problem.slo.target())
    assert reader.first is not None
    first, pace = float(reader.first), float(reader.pace)
    cost = 1.0 / pace if wait_cost is None else wait_cost
    if not cost >= 0:
        raise InputError(f"wait cost = {cost} must be ≥ 0 tokens/s")
    say = progress or (lambda _: None)
    found = rank_strategies(lowered, progress=progress)
    if not found.table:
        raise InfeasibleError(found.why_nothing())
    tried = []
    for row in found.table[:LOOKED_AT]:
        say(f"readers of {row.strategy}")
        tried.append(_looked_at(lowered, row, reader, cost))
    tried.sort(key=lambda one: -one.value)
    rows = []
    for one in tried[:SEARCHED]:
        say(f"searching {one.row.strategy}")
        rows.append(_judged(one, reader, cost))
    rows.sort(key=lambda row: -row.smooth_goodput)
    return SmoothRanking(
        problem=lowered.problem,
        table=tuple(rows),
        first=first,
        pace=pace,
        cost=cost,
        requests=LONG,
    )


def reader_of(target: Target) -> Reader:
    """Return who reads: by token deadlines, else by TTFT and TPOT. Raises InputError."""
    pace, first = target.tpot, target.ttft
    if target.tokens is not None:
        pace = target.tokens.pace or pace
        first = first if target.tokens.first is None else target.tokens.first
    if not pace or first is None:
        raise InputError(
            "smooth goodput needs when a reader starts and how fast one reads: give ttft and tpot, "
            "or deadline:1000+50"
        )
    return Reader(pace=pace, first=first)


def smooth_at(
    system: System, rate: float, reader: Reader, cost: float, *, requests: int, seed: int
) -> tuple[float, float]:
    """Return smooth goodput [tokens/s] and mean wait [s] of a run at a rate [req/s]."""
    run = simulate(system, rate, requests=requests, seed=seed, reader=reader)
    value, tokens = run.smooth_goodput(cost), run.smooth_goodput(0.0)
    each = float(run.output_len[run.kept].mean())
    waits = tokens - run.smooth_goodput(1.0)  # seconds that readers wait, a second
    return value, waits * each / tokens if tokens > 0 else 0.0


def best_rate(value: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function of one maximum has it, between two rates, by golden section."""
    a, b = math.log(low), math.log(high)
    x, y = b - GOLDEN * (b - a), a + GOLDEN * (b - a)
    at_x, at_y = value(math.exp(x)), value(math.exp(y))
    while b - a > CLOSE:
        if at_x >= at_y:
            b, y, at_y = y, x, at_x
            x = b - GOLDEN * (b - a)
            at_x = value(math.exp(x))
        else:
            a, x, at_x = x, y, at_y
            y = a + GOLDEN * (b - a)
            at_y = value(math.exp(y))
    return math.exp(x if at_x >= at_y else y)


def _looked_at(lowered: Lowered, row: RankedStrategy, reader: Reader, cost: float) -> _Tried:
    system = lowered.system(row.strategy)
    rates = [share * stability_rate(system) for share in LOOKS]
    values = [smooth_at(system, r, reader, cost, requests=SHORT, seed=0)[0] for r in rates]
    best = int(np.argmax(values))
    return _Tried(row, system, values[best], rates[best])


def _judged(one: _Tried, reader: Reader, cost: float) -> SmoothRow:
    def value(rate: float) -> float:
        return smooth_at(one.system, rate, reader, cost, requests=LONG, seed=0)[0]

    rate = best_rate(value, 0.75 * one.rate, 1.3 * one.rate)
    seen = [smooth_at(one.system, rate, reader, cost, requests=LONG, seed=s) for s in JUDGES]
    values, waits = np.array(seen).T
    return SmoothRow(
        strategy=one.row.strategy,
        gpus=one.row.gpus,
        smooth_goodput=float(values.mean()),
        error=float(values.std(ddof=1) / math.sqrt(values.size)),
        rate=rate,
        wait=float(waits.mean()),
        goodput=one.row.goodput,
    )
